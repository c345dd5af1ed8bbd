"""What must not happen: other files read, other people let in, texts taken for HTML."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from cinderlora import Registry, sync
from cinderlora.testing import ScriptedTrainer

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>"
UNTOLD = "nobody may read this"


def launch(server, recording: bytes, *, exit_code: int = 0, **wish) -> sync.Run:
    """A training that prints a recording, seen by the server because it lies among its runs."""
    wish = {"name": "elena", "trigger": "elena", "preset": "8gb", "dataset": server.folder / "datasets/elena"} | wish
    adapter = Registry.from_installed()["sd3"]
    plan = adapter.plan(
        adapter.job(output=server.folder / "loras", **wish), ScriptedTrainer(recording, exit_code=exit_code)
    )
    with sync.launch(plan, runs=server.folder / "runs", detach=True) as run:
        return run


def test_names_and_prompts_are_text(serve, look):
    server = serve()
    strange = server.folder / "datasets" / "<img src=x onerror=alert(3)>"
    shutil.copytree(server.folder / "datasets/elena", strange)
    screen = look(server)
    screen.choose("dataset", f"{strange.name} (14 pictures)")
    screen.expect_field("character_name").to_have_value(strange.name)
    screen.expect('#problems [data-code="name_unsafe"]').to_contain_text(strange.name)
    screen.start()
    assert strange.name in screen.refusal()

    screen.fill(character_name="elena", trigger_word=EVIL, dataset_path=f"/{EVIL}")
    screen.expect('#problems [data-code="folder_not_allowed"]').to_contain_text(EVIL)
    screen.start()
    assert EVIL in screen.refusal()
    screen.fill(dataset_path="")
    screen.expect_field("character_name").to_have_value(strange.name)
    screen.advanced()
    screen.fill(character_name="elena", trigger_word=EVIL, steps=20, sample_prompt=EVIL, sample_every=10)
    screen.expect("#problems .lt-error").to_have_count(0)
    screen.start()
    screen.until_state("finished")
    screen.expect("#log pre").to_contain_text(f"prompt: {EVIL}")

    bar = f"\r{EVIL}:  50%|#####     | 1/2 [00:01<00:01,  1.00s/it]"
    printed = f"{EVIL}\n</pre></div>{EVIL}\n{bar}\nTraceback (most recent call last):\nRuntimeError: {EVIL}\n"
    launch(server, printed.encode(), exit_code=1)
    screen.page.reload()
    screen.until_state("failed")
    screen.expect("#log pre").to_contain_text(f"</pre></div>{EVIL}")
    screen.expect("#diagnosis pre").to_contain_text(EVIL)
    assert screen('[onerror], script:has-text("alert")').count() == 0
    assert "Traceback" not in server.log, server.log


def test_pictures_are_shown_of_samples_alone(serve, look):
    """Links in the folders of samples, and what is no picture, are not."""
    server = serve()
    secret = server.root / "secret.png"
    shutil.copy(server.folder / "datasets/elena/elena_01.png", secret)
    samples = server.folder / "loras/sample"
    samples.mkdir(parents=True)
    recording = "".join(
        f"\ngenerating sample images at step / x: {step}\nprompt: elena\n\rsteps:  50%|#| {step}/8 [00:00<00:01, 1it/s]"
        for step in (2, 4)
    )
    run = launch(server, recording.encode() + b"\nmodel saved.\n")
    screen = look(server)
    screen.expect("#newest-sample img >> nth=0").to_be_visible()
    run.stop(grace=0)
    newest = max(samples.glob("*.png"))
    newest.unlink()
    newest.symlink_to(secret)
    screen.page.reload()
    screen.expect("#newest-sample").to_contain_text("Step 2")
    source = screen("#newest-sample img").first.get_attribute("src")
    status, picture, _ = server.ask(urlsplit(source).path)
    assert status == 200
    assert picture != secret.read_bytes()
    newest.unlink()
    newest.write_text(UNTOLD, encoding="utf-8")
    screen.page.reload()
    screen.expect("#newest-sample").to_contain_text("Step 2")
    assert "Traceback" not in server.log, server.log


@pytest.fixture
def files(form) -> list[Path]:
    """Files that no browser may read: outside of the folders, and inside of them, too."""
    outside = form.root / "secret.txt"
    outside.write_text(UNTOLD, encoding="utf-8")
    link = form.folder / "datasets/elena/secret.txt"
    if not link.is_symlink():
        link.symlink_to(outside)
    return [outside, link, form.folder / "datasets/elena/elena_01.png", Path("/etc/passwd"), Path(__file__),
            form.root / "home/CONFIG/x", form.folder / "datasets/../../secret.txt"]  # fmt: skip


def test_gradios_file_route_gives_nothing(form, files):
    for root in ("/gradio_api", "/en/gradio_api", "/de/gradio_api"):
        for file in files:
            for path in (
                str(file),
                quote(str(file), safe=""),
                f"file://{file}",
                f"..{file}",
                file.name,
                f"%2e%2e/{file.name}",
            ):
                for route in ("file=", "file/", "proxy=", "static/", "stream/"):
                    status, answer, _ = form.ask(f"{root}/{route}{path}")
                    assert status >= 400, (root, route, path)
                    assert UNTOLD.encode() not in answer
                    assert b"root:" not in answer
    for path in (
        "/../secret.txt",
        "/en/..%2f..%2fsecret.txt",
        "/en/assets/..%2f..%2f..%2fetc/passwd",
        "/en/static/../../x",
    ):
        assert form.ask(path)[0] in {404, 403, 307}


def post(server, target: str, body: object, **headers: str) -> tuple[int, bytes]:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        sent = body if isinstance(body, bytes) else json.dumps(body)
        connection.request("POST", target, sent, {"Content-Type": "application/json"} | headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_forged_files_reach_no_function(form, files):
    """What no browser of ours sends: a file of the server's as the value of a field."""
    config = json.loads(form.ask("/en/config")[1])
    for path in (str(files[0]), "/etc/passwd", "http://127.0.0.1:1/x"):
        forged = {"path": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.txt"}
        for function in filter(lambda function: function["inputs"], config["dependencies"]):
            body = {
                "data": [[forged] for _ in function["inputs"]],
                "fn_index": function["id"],
                "session_hash": "forged",
            }
            for target in ("queue/join?", "run/predict", "api/predict"):
                assert post(form, f"/en/gradio_api/{target}", body)[0] in {403, 404}
    escaped = json.dumps(body).replace("gradio", "\\u0067radio").encode()
    assert post(form, "/en/gradio_api/queue/join?", escaped)[0] == 403
    assert post(form, "/en/gradio_api/queue/join?", b"[" * 100_000)[0] == 403
    copies = [file for file in (form.root / "tmp").rglob("*") if file.is_file()]
    assert not [file for file in copies if UNTOLD.encode() in file.read_bytes()]
    assert not form.entries


def test_settings_without_a_field_are_not_taken_from_browsers(form, look):
    """A fix may bring any setting, among them such as name files. What it brought is known to the server alone."""
    screen = look(form)
    with screen.page.expect_request(lambda request: str(request.post_data).count("elena") > 2) as asked:
        screen.choose("dataset", "elena (14 pictures)")
    screen.expect("#problems").to_contain_text("14 pictures, 1500 steps")
    config = json.loads(form.ask("/en/config")[1])
    kinds = {component["id"]: component["type"] for component in config["components"]}
    check = next(f for f in config["dependencies"] if [kinds[i] for i in f["inputs"]] == ["state", "json"])
    body = asked.value.post_data_json
    answered = post(
        form, "/en/gradio_api/run/predict", {"data": [{"steps": 77}, body["data"]], "fn_index": check["id"]}
    )
    assert b"1500 steps" in answered[1]
    assert b"77 steps" not in answered[1]


def test_nothing_can_be_uploaded_or_fetched(form):
    for root in ("/en/gradio_api", "/de/gradio_api"):
        for route in ("upload", "upload_progress?upload_id=x", "proxy=http://127.0.0.1:1/", "component_server"):
            assert form.ask(f"{root}/{route}")[0] in {403, 404, 405}
            assert post(form, f"{root}/{route}", {})[0] in {403, 404, 405}


def test_other_names_and_other_sites_are_refused(form):
    ours = f"127.0.0.1:{form.port}"
    assert form.ask("/en/")[0] == 200
    assert form.ask("/en/", Host=f"localhost:{form.port}", Origin=f"http://localhost:{form.port}")[0] == 200
    for host in (
        "attacker.example",
        f"attacker.example:{form.port}",
        "127.0.0.1.attacker.example",
        "",
        "10.0.0.1",
        "[::2]",
    ):
        assert form.ask("/en/", Host=host)[0] in {400, 403}, host
    for origin in (
        "http://attacker.example",
        "null",
        f"http://{ours}.attacker.example",
        f"http://localhost:{form.port}",
    ):
        assert form.ask("/en/config", Origin=origin)[0] == 403, origin
        assert post(form, "/en/gradio_api/queue/join?", {}, Origin=origin)[0] == 403, origin


def test_with_a_token_only_who_has_it_gets_in(serve, look):
    server = serve("--rehearsal", "--token", "s3cret & ü")
    assert f"http://127.0.0.1:{server.port}/?token={quote('s3cret & ü')} " in server.line
    for target in ("/", "/en/", "/en/config", "/en/gradio_api/info", "/?token=s3cret", "/en/?token="):
        assert server.ask(target)[0] == 401, target
    assert server.ask("/", Cookie=f"cinderlora-{server.port}=wrong")[0] == 401
    assert server.ask("/en/", Host="elsewhere.example")[0] == 401
    screen = look(server, f"/?token={quote('s3cret & ü')}")
    assert "token" not in screen.page.url
    (cookie,) = screen.page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    screen.page.reload()
    screen.wish(20)
    screen.start()
    screen.until_state("finished")


SPY = """
import os, sys

def hear(event, given):
    if event in {"socket.bind", "socket.connect", "socket.sendto"}:
        told = given[1]
    elif event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request"}:
        told = given[0]
    else:
        return
    with open(os.environ["SPY"], "a") as file:
        file.write(f"{event} {told!r}\\n")

sys.addaudithook(hear)
"""
"""Notes what a Python process asks of sockets."""


def test_nothing_is_asked_of_the_network(serve, look, tmp_path):
    """By the server; what a page asks for is watched in each test."""
    (tmp_path / "spy").mkdir()
    (tmp_path / "spy/sitecustomize.py").write_text(SPY, encoding="utf-8")
    heard = tmp_path / "heard.txt"
    server = serve("--rehearsal", PYTHONPATH=str(tmp_path / "spy"), SPY=str(heard))
    screen = look(server)
    screen.wish(20)
    screen.start()
    screen.until_state("finished")
    assert heard.read_text(encoding="utf-8") == f"socket.bind ('127.0.0.1', {server.port})\n"
