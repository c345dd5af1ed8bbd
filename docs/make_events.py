"""The page of the events, with the JSON of one of each."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import attrs

from cinderlora import Diagnosis, Event, Registry, events, to_json
from cinderlora.events import Failed, Finished, SampleSaved, Started, Stopped, Warned
from cinderlora.testing import scripted
from cinderlora.texts import text_of
from cinderlora.types import Result

HEAD = """# Events

What `async for event in run` gives, what `cinderlora train --json` prints line by line, and what `to_json` makes plain
data of. In JSON, `event` is the class; all other keys are its fields. NaN and infinity become `null`.

Every event has a `seq`, its place in the run's log: the same for every follower, and where one that was cut off goes on
(`attach(folder, since=seq)`). It is `null` for what depends on the clock and has no place in the log. `time` is in
seconds since the epoch and known to those only who follow while it happens. `Started` comes first; `Finished`, `Failed`
or `Stopped` comes last. Minor versions may add events and fields. Made by `python docs/make_pages.py`, as far
as it goes from the log of a real training.
"""


def page() -> str:
    names = sorted({*events.__all__} - {"Event"}, key=lambda name: inspect.getsourcelines(getattr(events, name))[1])
    examples = {type(event).__name__: event for event in (*recorded(), *made())}
    return "\n".join([HEAD, *(section(name, examples[name]) for name in names)])


def recorded() -> Iterator[Event]:
    """Those in the log of eight steps of SD3: of each kind, the one that says most."""
    log = (Path(scripted.__file__).parent / "recordings/complete.log").read_bytes()
    yield from sorted(Registry.from_installed()["sd3"].events([log]), key=said)


def said(event: Event) -> int:
    return sum(value not in (None, "") for value in attrs.asdict(event).values())


def made() -> Iterator[Event]:
    """Those that a follower adds, which knows the run's folder and how it ended."""
    loras = Path("/home/kim/ComfyUI/models/loras")
    lora, sample = loras / "cg_elena.safetensors", loras / "sample/cg_elena_000250_00_20260704120500_42.png"
    yield Started(name="elena", model_type="sd3", output=loras, seq=0, time=1783166400.0)
    yield SampleSaved(path=sample, step=250, index=0, seq=26482688)
    yield events.CheckpointSaved(path=loras / "cg_elena-step00000500.safetensors", step=500, seq=51200000)
    silent = {"minutes": 10, "gpu": "0 %"}
    said = text_of("stalled", silent, "en")
    yield Warned(code="stalled", message=f"{said.message} {said.fix}" if said else "", params=silent)
    log = (Path(scripted.__file__).parent / "recordings/out_of_memory.log").read_bytes()
    sd3 = Registry.from_installed()["sd3"]
    yield Failed(diagnosis=sd3.diagnose([log], 1) or Diagnosis("unknown"), exit_code=1, seq=14345216)
    yield Stopped(by="cinderlora stop", seq=14345216)
    result = Result(lora=lora, steps=1500, loss=0.0912, seconds=2412.5, checkpoints=[lora], samples=[sample])
    yield Finished(result=result, seq=104857600)


def section(name: str, event: Event) -> str:
    text = inspect.getdoc(type(event)) or ""
    plain = json.dumps(to_json(event), indent=2, ensure_ascii=False)
    return f"## {name}\n\n{text}\n\n```json\n{plain}\n```\n"
