"""The server as a process of its own, asked over HTTP as a browser would; trainings are rehearsed on real folders."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

import cinderlora
from cinderlora import sync
from cinderlora.demo import write_dataset

pytestmark = pytest.mark.examples

SERVER = Path(__file__).parents[1] / "server.py"
JSON = {"Content-Type": "application/json"}
SMALL = {"resolution": 64, "steps": 20, "sample_every": 10, "save_every": 10}
WISH = {"type": "sdxl", "dataset": "elena", "settings": SMALL}


class Client:
    """One server over its lives, and how to ask it."""

    def __init__(self, root: Path, env: dict[str, str]) -> None:
        self.root = root
        self.runs = root / "runs"
        self.env = {**os.environ, **env}
        self.streams: list[Stream] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        options = {"datasets": "datasets", "output": "loras", "runs": "runs", "port": self.port, "keep-alive": 0.5}
        argv = [f"--{name}={value}" for name, value in options.items()]
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SERVER), *argv], cwd=self.root, env=self.env, stdout=log, stderr=log
            )
        until = time.monotonic() + 60
        while True:
            try:
                assert self.ask("GET", "/runs")[0] == 200
                return
            except ConnectionRefusedError:
                assert self.process.poll() is None and time.monotonic() < until, (self.root / "server.log").read_text()
                time.sleep(0.05)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, body, headers. What is no text or bytes is sent as JSON."""
        if body is not None and not isinstance(body, (str, bytes)):
            body, headers = json.dumps(body), JSON | headers
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read()
        assert text == b"" or answer.headers["content-type"] in {"application/json", "text/plain; charset=utf-8"}
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status, json.loads(text) if is_json else text, dict(answer.headers)

    def begin(self, **settings: Any) -> str:
        status, body, headers = self.ask("POST", "/runs", WISH | {"settings": SMALL | settings})
        assert status == 201, body
        assert headers["location"] == f"/runs/{body['run']}"
        return body["run"]

    def listen(self, run: str, since: str | None = None) -> Stream:
        self.streams.append(Stream(self.port, run, since))
        return self.streams[-1]

    def stop_server(self, how: int) -> None:
        self.process.send_signal(how)
        self.process.wait(30)


class Stream:
    """An event stream, read as the HTML standard says a browser has to. `last` is what a browser would send next."""

    def __init__(self, port: int, run: str, since: str | None = None) -> None:
        self.last = since
        self.comments = 0
        self.retry: int | None = None
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": since} if since is not None else {})
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.request("GET", f"/runs/{run}/events", headers=headers)
        self._answer = self._connection.getresponse()
        self.status = self._answer.status
        if self.status == 200:
            assert self._answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert self._answer.headers["cache-control"] == "no-store"

    def __iter__(self) -> Iterator[dict[str, Any]]:
        fields: dict[str, str] = {}
        for raw in self._answer:
            line = raw.decode("utf-8").removesuffix("\n")
            assert "\r" not in line
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                assert name in {"id", "event", "data", "retry"} and name not in fields
                fields[name] = value
            else:
                if "retry" in fields:
                    self.retry = int(fields.pop("retry"))
                if fields:
                    event = json.loads(fields["data"])
                    assert event["event"] == fields["event"]
                    assert str(event["seq"]) == fields["id"]
                    self.last = fields["id"]
                    yield event
                fields = {}

    def close(self) -> None:
        self._answer.close()
        self._connection.close()

    def until(self, is_enough: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The events up to the first that is enough; then the line is cut."""
        heard = []
        for event in self:
            heard.append(event)
            if is_enough(event):
                self.close()
                return heard
        raise AssertionError(f"it ended before: {heard[-1]}")


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    write_dataset(folder / "elena")
    return folder


@pytest.fixture
def serve(datasets: Path, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Starts the server; in the end it and all trainings are ended."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    clients: list[Client] = []

    def start(**env: str) -> Client:
        (tmp_path / "datasets").symlink_to(datasets)
        clients.append(Client(tmp_path, env))
        return clients[0]

    yield start
    for client in clients:
        for stream in client.streams:
            stream.close()
        client.process.kill()
        client.process.wait()
        for run in sync.runs(client.runs):
            run.stop(grace=0)


def told(folder: Path, since: int | None = None) -> list[dict[str, Any]]:
    """What the library itself tells of a run that is over."""
    return [cinderlora.to_json(event) for event in sync.attach(folder, since=since)]


def untimed(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event | {"time": None} for event in events]


def step_is(step: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == "Progress" and event["step"] >= step


def test_from_a_job_to_its_lora(serve):
    client = serve()
    assert client.ask("GET", "/datasets")[1][0]["name"] == "elena"
    run = client.begin()
    stream = client.listen(run)
    events = list(stream)
    assert stream.retry == 1000
    assert events[0]["event"] == "Started" and events[-1]["event"] == "Finished"
    assert untimed(events) == untimed(told(client.runs / run))
    assert Path(events[-1]["result"]["lora"]) == client.root / "loras/cg_elena.safetensors"
    assert (client.root / "loras/cg_elena.safetensors").is_file()
    status, body, _ = client.ask("GET", f"/runs/{run}")
    assert (status, body["state"], body["step"]) == (200, "finished", 20)
    assert [(r["run"], r["state"]) for r in client.ask("GET", "/runs")[1]] == [(run, "finished")]

    # Wherever a client was cut off, it goes on behind the last event that it saw; after the last one it need not.
    for seen in range(0, len(events) - 1, 7):
        rest = list(client.listen(run, str(events[seen]["seq"])))
        assert untimed(rest) == untimed(events[seen + 1 :])
    assert client.listen(run, stream.last).status == 204
    assert client.ask("GET", f"/runs/{run}/events?since={stream.last}")[0] == 204
    assert client.ask("DELETE", f"/runs/{run}")[1]["already_ended"] is True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "shut down"])
def test_a_server_that_is_restarted_in_mid_run(serve, how):
    client = serve(CINDERLORA_REHEARSE="slow@0.05")
    run = client.begin(steps=60)
    stream = client.listen(run)
    heard = stream.until(step_is(5))
    client.stop_server(how)
    assert sync.attach(client.runs / run).state == "running"
    client.start()
    rest = client.listen(run, stream.last)
    heard += rest.until(step_is(20))
    heard += list(client.listen(run, rest.last))
    assert untimed(heard) == untimed(told(client.runs / run))
    assert heard[-1]["event"] == "Finished" and len({e["seq"] for e in heard}) == len(heard)


def test_a_training_is_stopped(serve):
    client = serve(CINDERLORA_REHEARSE="slow@0.05")
    run = client.begin(steps=1000)
    stream = client.listen(run)
    for event in stream:
        if step_is(3)(event):
            break
    status, body, _ = client.ask("DELETE", f"/runs/{run}")
    assert (status, body["state"], body["left"]) == (200, "stopped", [])
    last = list(stream)[-1]
    assert (last["event"], last["by"]) == ("Stopped", "web")
    assert client.ask("GET", "/runs")[1][0]["state"] == "stopped"


def test_a_silent_training_is_kept_alive_and_a_stop_of_the_server_does_not_wait_for_it(serve):
    client = serve(CINDERLORA_REHEARSE="hang@5")
    run = client.begin()
    stream = client.listen(run)
    seen = []
    thread = threading.Thread(target=lambda: seen.extend(stream))
    thread.start()
    until = time.monotonic() + 60
    while stream.comments < 3 and time.monotonic() < until:
        time.sleep(0.05)
    assert stream.comments >= 3
    client.stop_server(signal.SIGTERM)
    thread.join(30)
    assert not thread.is_alive() and seen[-1]["event"] == "Progress"
    assert sync.attach(client.runs / run).state == "running"


def test_many_clients_come_and_go(serve):
    client = serve(CINDERLORA_REHEARSE="slow@0.05")
    run = client.begin(steps=60)
    streams = [client.listen(run) for _ in range(20)]
    heard: dict[int, list[dict[str, Any]]] = {}

    def listen(number: int) -> None:
        # Every other one hangs up in the middle, and one of them reads nothing at all.
        if number % 2:
            heard[number] = list(streams[number])
        elif number:
            streams[number].until(step_is(10))

    threads = [threading.Thread(target=listen, args=[number]) for number in range(len(streams))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expected = untimed(told(client.runs / run))
    assert expected[-1]["event"] == "Finished"
    assert [untimed(heard[number]) == expected for number in range(1, 20, 2)] == [True] * 10
    streams[0].close()
    server, until = psutil.Process(client.process.pid), time.monotonic() + 30
    while len(server.net_connections()) > 1 and time.monotonic() < until:
        time.sleep(0.05)
    assert [c.status for c in server.net_connections()] == ["LISTEN"]


REFUSED = {
    "no JSON": ("{", 422, "not_json"),
    "too deep": ("[" * 100_000, 422, "not_json"),
    "no object": ([1], 422, "not_a_job"),
    "settings are no object": (WISH | {"settings": [1]}, 422, "not_a_job"),
    "unknown type": (WISH | {"type": "sdx"}, 404, "model_type_unknown"),
    "type is a list": (WISH | {"type": ["sdxl"]}, 404, "model_type_unknown"),
    "unknown preset": (WISH | {"preset": "17gb"}, 404, "preset_unknown"),
    "unknown data set": (WISH | {"dataset": "helena"}, 422, "dataset_unknown"),
    "no data set": ({"type": "sdxl"}, 422, "dataset_unknown"),
    "path for a data set": (WISH | {"dataset": "../datasets/elena"}, 422, "dataset_unknown"),
    "dots for a data set": (WISH | {"dataset": ".."}, 422, "dataset_unknown"),
    "absolute data set": (WISH | {"dataset": "/etc"}, 422, "dataset_unknown"),
    "path for a name": (WISH | {"name": "../elena"}, 422, "name_unsafe"),
    "name is no text": (WISH | {"name": 7}, 422, "setting_type"),
    "a folder of its own": (WISH | {"settings": {"extra": {"output_dir": "/tmp"}}}, 422, "setting_not_yours"),
    "code of its own": (WISH | {"settings": {"network_module": "os"}}, 422, "setting_not_yours"),
    "an optimizer is code": (WISH | {"settings": {"optimizer": "os.system"}}, 422, "setting_not_yours"),
    "a file's name": (WISH | {"settings": {"output_prefix": "../"}}, 422, "setting_not_yours"),
    "unknown setting": (WISH | {"settings": {"step": 3}}, 422, "setting_not_yours"),
    "wrong type": (WISH | {"settings": {"steps": "many"}}, 422, "setting_type"),
    "wrong value": (WISH | {"settings": {"steps": 0}}, 422, "setting_range"),
}


def test_what_is_refused(serve):
    client = serve()
    for what, (body, status, code) in REFUSED.items():
        text = body if isinstance(body, str) else json.dumps(body)
        found, told, _ = client.ask("POST", "/runs", text, **JSON)
        assert (found, told["code"]) == (status, code), (what, told)
        assert told["message"] and told["fix"] and set(told) == {"code", "message", "fix", "problems"}, what
    # What a page of another site can send without being asked, and what it can send to a name of its own.
    assert client.ask("POST", "/runs", json.dumps(WISH), **{"Content-Type": "text/plain"})[1]["code"] == "not_json"
    assert client.ask("POST", "/runs", json.dumps(WISH))[1]["code"] == "not_json"
    assert client.ask("GET", "/runs", Host="attacker.example")[0] == 400
    told = client.ask("POST", "/runs", WISH | {"type": "sdx"}, **{"Accept-Language": "de-DE,de;q=0.9"})[1]
    assert "Model-Typ sdx" in told["message"]
    assert not list(client.runs.glob("*")) and not (client.root / "loras").exists()


def test_names_of_runs_never_become_paths(serve):
    client = serve()
    run = client.begin(steps=2, save_every=0, sample_every=0)
    list(client.listen(run))
    (client.root / "secret").mkdir()
    (client.runs / "link").symlink_to(client.root / "secret")
    (client.runs / run).rename(client.root / "secret" / "elsewhere")
    for name in ("..", ".", "%2e%2e", "%2e%2e%2fsecret", "link", "link%2felsewhere", "..%2fsecret%2felsewhere", "%00",
                 "..%5csecret", "%2f" + str(client.root)[1:] + "%2fsecret%2felsewhere", run):  # fmt: skip
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
            status, body, _ = client.ask(method, f"/runs/{name}{path}")
            assert status == 404 and body["code"] in {"run_not_found", "http_404"}, (name, body)
    assert client.ask("GET", "/nowhere")[1]["code"] == "http_404"
    assert client.ask("PUT", "/runs")[1]["code"] == "http_405"


@pytest.mark.parametrize("seen", ["x", "1.5", "9" * 5000])
def test_an_id_that_is_none(serve, seen):
    client = serve()
    run = client.begin(steps=2, save_every=0, sample_every=0)
    assert client.ask("GET", f"/runs/{run}/events", **{"Last-Event-ID": seen})[1]["code"] == "http_400"
