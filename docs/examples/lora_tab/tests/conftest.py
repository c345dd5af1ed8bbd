"""The tab as `cinderlora ui` serves it, a process of its own, and a Chromium that looks at it.

Every page is watched: an error in its console, or a request to anywhere but the server, fails the test. Pictures of the
states that tests pass through go to the folder that CINDERLORA_SCREENSHOTS names, else to the test's temporary folder.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from cinderlora import Entry, sync
from cinderlora.demo import write_dataset

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, LocatorAssertions, Page

LOST = re.compile("^503: |status of 503|ERR_(CONNECTION|INCOMPLETE|NETWORK|EMPTY)_|AbortError|Connection errored out")
WAIT = 120  # seconds; all of this is quick on a machine that has nothing else to do
HEAR = """
    window.refusals = [];
    const heard = new WeakSet();
    new MutationObserver(() => document.querySelectorAll('[data-testid="toast-text"]').forEach((said) => {
        if (!heard.has(said)) window.refusals.push(said.innerText);
        heard.add(said);
    })).observe(document, {childList: true, subtree: true});
"""
"""Notes what a page says when it refuses. That goes by itself after ten seconds, or sooner."""


class Server:
    """`cinderlora ui` over its lives, always at one port and in one folder."""

    def __init__(self, root: Path, argv: list[str], env: dict[str, str]) -> None:
        self.root = root
        self.folder = root / "work"
        home = root / "home"
        home.mkdir()
        homes = {f"XDG_{name}_HOME": str(home / name) for name in ("CONFIG", "DATA", "STATE", "CACHE")}
        temporary = root / "tmp"
        temporary.mkdir()
        self.env = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary), **homes, **env}
        for name in ("CINDERLORA_LANGUAGE", "LANGUAGE", "http_proxy", "HTTP_PROXY"):
            self.env.pop(name, None)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.argv = [str(Path(sys.executable).with_name("cinderlora")), "ui", "--no-browser", "--port", str(self.port),
                     "--folder", str(self.folder), *argv]  # fmt: skip

    def start(self, *, until_drawn: bool = True, **env: str) -> None:
        """Start it. Until Gradio is imported it answers 503 and a page that asks again."""
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, cwd=self.root, env=self.env | env, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        assert "http://" in self.line, self.log
        until = time.monotonic() + WAIT
        while until_drawn and self.ask("/en/")[0] == 503:
            assert self.process.poll() is None and time.monotonic() < until, self.log
            time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ask(self, target: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
        """What no browser asks: the target is sent as it is."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)) as connection:
            connection.request("GET", target, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read(), {name.lower(): text for name, text in answer.getheaders()}

    @property
    def log(self) -> str:
        return (self.root / "server.log").read_text(encoding="utf-8")

    @property
    def runs(self) -> list[sync.Run]:
        return sync.runs(self.folder / "runs")

    @property
    def entries(self) -> list[Entry]:
        return sync.Queue(self.folder / "queue").entries()

    def end(self) -> None:
        self.kill()
        sync.Queue(self.folder / "queue").pause()
        for run in self.runs:
            run.stop(grace=0)


class Screen:
    """The tab in a browser, used as people use it: `screen("#start")` is what Playwright finds there."""

    def __init__(self, page: Page, shots: Path) -> None:
        self.page = page
        self._shots = shots

    def __call__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def expect(self, selector: str) -> LocatorAssertions:
        """What is to become of it, within `WAIT` seconds."""
        from playwright.sync_api import expect

        return expect(self(selector))

    def field(self, name: str) -> Locator:
        return self(f"#{name.replace('_', '-')}").locator("input, textarea").first

    def expect_field(self, name: str) -> LocatorAssertions:
        from playwright.sync_api import expect

        return expect(self.field(name))

    def choose(self, field: str, option: str | re.Pattern[str]) -> None:
        """From a drop-down, as somebody with a mouse does."""
        self.field(field).click()
        self.page.get_by_role("option", name=option).click()
        self.expect('[role="option"]').to_have_count(0)

    def options(self, field: str) -> list[str]:
        """What a drop-down offers."""
        self.field(field).click()
        self.page.get_by_role("option").first.wait_for()
        texts = [text.strip().lstrip("✓").strip() for text in self.page.get_by_role("option").all_inner_texts()]
        self.field(field).press("Escape")
        self.field(field).blur()  # or the next click would not open it
        return texts

    def fill(self, **fields: object) -> None:
        for name, value in fields.items():
            self.field(name).fill(str(value))

    def advanced(self) -> None:
        self("#advanced > button").click()

    def wish(self, steps: int, **advanced: object) -> None:
        """The demo's character, with so many steps."""
        self.choose("dataset", re.compile("^.?\\s*elena \\(14"))
        self.expect_field("trigger_word").to_have_value("elena")
        self.fill(steps=steps)
        if advanced:
            self.advanced()
            self.fill(**advanced)
        self.expect("#problems").to_contain_text(re.compile(f"14 \\w+, {steps} "))

    def start(self) -> None:
        self("#start").click()

    def until_step(self, step: int) -> None:
        self.page.wait_for_function(
            "step => Number((document.querySelector('#status')?.innerText.match(/Step (\\d+)/) ?? [0, 0])[1]) >= step",
            arg=step,
        )

    def until_state(self, state: str) -> None:
        self.expect("#status strong").to_contain_text(f": {state}")

    @property
    def first_step(self) -> int:
        """Where the curve begins."""
        return int(self("#loss-curve .lt-curve text").nth(2).text_content() or "")

    def refusal(self) -> str:
        """What it says when it refuses, once for each time; it is closed when it was read."""
        said = self.page.wait_for_function("window.refusals.shift()").json_value()
        self('[data-testid="toast-close"]').evaluate_all("all => all.forEach(button => button.click())")
        return str(said)

    def shot(self, name: str) -> None:
        """Keeps a picture of a state."""
        self._shots.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self._shots / f"{name}.png", full_page=True)

    def assert_accessible(self) -> None:
        """By axe: nothing serious, nothing critical."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        grave = [violation for violation in found if violation["impact"] in {"serious", "critical"}]
        told = [f"{v['id']}: {node['html']}\n{node['failureSummary']}" for v in grave for node in v["nodes"]]
        assert not told, "\n".join(told)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's data set."""
    return write_dataset(tmp_path_factory.mktemp("drawn") / "elena")[0].parent


@pytest.fixture
def serve(demo: Path, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server in a folder that has the demo's data set; in the end it and all of its trainings are ended."""
    servers: list[Server] = []

    def start(*argv: str, **env: str) -> Server:
        shutil.copytree(demo, tmp_path / "work/datasets/elena")
        servers.append(Server(tmp_path, list(argv) or ["--rehearsal"], env))
        servers[0].start()
        return servers[0]

    yield start
    for server in servers:
        server.end()


@pytest.fixture(scope="session")
def form(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for tests that start no training. Its ComfyUI has no models."""
    root = tmp_path_factory.mktemp("form")
    shutil.copytree(demo, root / "work/datasets/elena")
    (root / "comfy/models").mkdir(parents=True)
    server = Server(root, ["--rehearsal"], {"CINDERLORA_COMFYUI": str(root / "comfy")})
    server.start()
    yield server
    assert not server.runs, "a training was started"
    server.end()
    assert not server.log


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT * 1000)

    with sync_playwright() as playwright:
        found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
        browser = playwright.chromium.launch(executable_path=next(found, None), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def look(browser: Browser, serve: object, tmp_path: Path) -> Iterator[Callable[..., Screen]]:
    """Opens the tab in a browser of its own (`beside`: in another tab of that one), and watches it to the end, which
    comes before the servers'.

    `lost=True` is for tests that take the server or the page away, of which Chromium and Gradio complain.
    """
    shots = Path(os.environ.get("CINDERLORA_SCREENSHOTS", tmp_path / "screenshots"))
    wrong: list[str] = []
    contexts: list[Any] = []

    def watch(page: Page, server: Server, *, lost: bool) -> None:
        def hear(kind: str, text: str) -> None:
            if not lost or not LOST.search(f"{kind}: {text}"):
                wrong.append(f"{kind}: {text}")

        page.on("console", lambda told: hear("console", told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: hear("page", str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("response", lambda got: hear(str(got.status), got.url) if got.status >= 400 else None)

        def asked(asked: Any) -> None:
            parts = urlsplit(asked.url)
            if parts.scheme not in {"data", "blob"} and parts.netloc != f"127.0.0.1:{server.port}":
                wrong.append(f"asked elsewhere: {asked.url}")

        page.on("request", asked)

    def opened(
        server: Server, path: str = "/", *, beside: Screen | None = None, lost: bool = False, **options: Any
    ) -> Screen:
        if beside is None:
            contexts.append(
                browser.new_context(**{"locale": "en-US", "viewport": {"width": 1280, "height": 900}} | options)
            )
        context = contexts[-1] if beside is None else beside.page.context
        context.set_default_timeout(WAIT * 1000)
        page = context.new_page()
        page.add_init_script(HEAR)
        watch(page, server, lost=lost)
        page.goto(server.url + path)
        page.locator("#start").wait_for()
        return Screen(page, shots)

    yield opened
    for context in contexts:
        context.close()
    assert not wrong, "\n".join(wrong)
