# /// script
# requires-python = ">=3.11"
# dependencies = ["cinderlora[rehearsal]", "starlette>=0.45", "uvicorn>=0.34"]
# ///
"""Trainings over HTTP, and what they tell as server-sent events. The README beside it says how to ask.

    python server.py --datasets ~/datasets --output ~/loras

The trainings do not depend on it: stopped or killed in mid-run, it finds them again when it is started.
"""

import argparse
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import cinderlora
from cinderlora import CinderloraError, Event, JobRefused, Plan, Problem, Run, RunNotFound

RETRY = 1000  # milliseconds until a browser that was cut off comes back
EXAMPLE = '{"type": "flux", "preset": "16gb", "dataset": "elena", "settings": {"steps": 800}}'


class Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.registry = cinderlora.Registry.from_installed()
        rehearses = options.sd_scripts is None
        self.trainer = cinderlora.SdScripts.rehearsal() if rehearses else cinderlora.SdScripts(options.sd_scripts)

    async def datasets(self, request: Request) -> Response:
        return reply(await run_sync(cinderlora.list_datasets, self.options.datasets))

    async def runs(self, request: Request) -> Response:
        return reply([summary(run) for run in await self.known_runs()])

    async def start(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            # Any page in a browser can post a form or a text to us. JSON it cannot, unless we allow it.
            raise refused("not_json", "The body is not said to be JSON.", "Send Content-Type: application/json.")
        try:
            wish = await request.json()
        except (ValueError, RecursionError) as error:
            raise refused("not_json", "The body is not JSON.", f"Send a job: {EXAMPLE}") from error
        if not isinstance(wish, dict) or not isinstance(wish.setdefault("settings", {}), dict):
            raise refused("not_a_job", "A job and its settings are objects.", f"Send a job: {EXAMPLE}")
        plan, warnings = await run_sync(self.plan, wish)
        async with cinderlora.launch(plan, runs=self.options.runs, detach=True, registry=self.registry) as run:
            told = {"warnings": [explained(problem, request) for problem in warnings]}
            return reply(summary(run) | told, 201, {"Location": f"/runs/{run.folder.name}"})

    def plan(self, wish: dict[str, Any]) -> tuple[Plan, tuple[Problem, ...]]:
        """What is wanted, as far as it is allowed: the folders are the server's, and settings that name files or code
        are for nobody but who started it."""
        adapter, settings = self.registry[str(wish.get("type"))], wish["settings"]
        datasets = {entry.name: entry for entry in cinderlora.list_datasets(self.options.datasets)}
        if (dataset := datasets.get(str(wish.get("dataset")))) is None:
            raise refused("dataset_unknown", "There is no such data set.", f"Take one of: {', '.join(datasets)}.")
        may_set = {"sample_prompt", *(i.name for i in adapter.settings() if i.kind in {"int", "float", "bool"})}
        if others := sorted(settings.keys() - may_set):
            fix = f"Leave it out. You may set {', '.join(sorted(may_set))}."
            raise refused("setting_not_yours", f"{others[0]!r} is not for you to set.", fix)
        job = adapter.job(
            name=wish.get("name", dataset.trigger),
            trigger=wish.get("trigger", dataset.trigger),
            dataset=dataset.path,
            output=self.options.output,
            preset=str(wish["preset"]) if wish.get("preset") else None,
            models=adapter.scan_models(self.options.models).defaults() if self.options.models else None,
            **settings,
        )
        report = adapter.check(job, self.trainer, runs=self.options.runs)
        report.raise_for_errors()
        return adapter.plan(job, self.trainer), report.warnings

    async def known_runs(self) -> list[Run]:
        return await run_sync(lambda: cinderlora.runs(self.options.runs, registry=self.registry))

    async def run(self, request: Request) -> Run:
        """The run that is asked for. The name is compared with those that are there, and never becomes a path."""
        name = request.path_params["run"]
        for run in await self.known_runs():
            if run.folder.name == name:
                return run
        raise RunNotFound("run_not_found", folder=name)

    async def status(self, request: Request) -> Response:
        run = await self.run(request)
        return reply(await run_sync(lambda: run.status))

    async def stop(self, request: Request) -> Response:
        run = await self.run(request)
        return reply(await run.stop(by="web"))

    async def events(self, request: Request) -> Response:
        seen = request.headers.get("last-event-id") or request.query_params.get("since")
        try:
            since = int(seen) if seen else None
        except ValueError as error:
            raise HTTPException(400, "Last-Event-ID is the id of an event.") from error
        run = await self.run(request)
        is_over = run.state != "running"
        events = run.events(since)
        first = await anext(events, None) if is_over else None
        if is_over and first is None:
            return Response(status_code=204)  # all is told, and with this answer browsers stop coming back
        frames = self.frames(events, first)
        return StreamingResponse(frames, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def frames(self, events: AsyncIterator[Event], event: Event | None) -> AsyncIterator[str]:
        yield f"retry: {RETRY}\n\n"
        while True:
            if event is not None:
                place = "" if event.seq is None else f"id: {event.seq}\n"
                yield f"{place}event: {type(event).__name__}\ndata: {json.dumps(cinderlora.to_json(event))}\n\n"
            with anyio.move_on_after(self.options.keep_alive) as waiting:
                event = await anext(events, None)
            if waiting.cancelled_caught:
                event = None
                yield ": nothing new\n\n"
            elif event is None:
                return


def summary(run: Run) -> dict[str, Any]:
    return {"run": run.folder.name, "name": run.name, "type": run.model_type, "state": run.state, "since": run.created}


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    text = json.dumps(cinderlora.to_json(value))  # in ASCII, because names of files need not be valid text
    return Response(text, status, headers, media_type="application/json")


def explained(what: Problem | CinderloraError, request: Request) -> dict[str, Any]:
    text = what.text("de" if request.headers.get("accept-language", "").startswith("de") else "en")
    return {"code": what.code, "message": text.message, "fix": text.fix}


def refused(code: str, message: str, fix: str) -> JobRefused:
    return JobRefused((Problem(code, message=message, fix=fix),))


async def refuse(request: Request, error: Any) -> Response:
    if isinstance(error, HTTPException):  # Starlette's own: no such page, no such method
        return reply({"code": f"http_{error.status_code}", "message": error.detail, "fix": ""}, error.status_code)
    status = 404 if isinstance(error, LookupError) else 422 if isinstance(error, ValueError) else 500
    problems = [explained(problem, request) for problem in getattr(error, "problems", ())]
    return reply(explained(error, request) | {"problems": problems}, status)


def application(options: argparse.Namespace) -> Starlette:
    server = Server(options)
    return Starlette(
        routes=[
            Route("/datasets", server.datasets),
            Route("/runs", server.runs),
            Route("/runs", server.start, methods=["POST"]),
            Route("/runs/{run}", server.status),
            Route("/runs/{run}", server.stop, methods=["DELETE"]),
            Route("/runs/{run}/events", server.events),
        ],
        # A name that an attacker's DNS points at us is not ours.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])],
        exception_handlers={CinderloraError: refuse, HTTPException: refuse},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, required=True, help="folder of data sets, one per subfolder")
    parser.add_argument("--output", type=Path, required=True, help="folder that the LoRAs go to")
    parser.add_argument("--runs", type=Path, help="folder of the runs; the user's own unless given")
    parser.add_argument("--models", type=Path, help="folder of model files, such as ComfyUI/models")
    parser.add_argument("--sd-scripts", type=Path, help="checkout of sd-scripts; without one, trainings are rehearsed")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--keep-alive", type=float, default=15, help="seconds of silence at most")
    options = parser.parse_args()
    # Streams would hold up the shutdown until their trainings end.
    uvicorn.run(application(options), host="127.0.0.1", port=options.port, timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
