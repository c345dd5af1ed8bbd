"""An async program that embeds training, as in the README. Checked, never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import anyio

import cinderlora
from cinderlora import (
    Adapter,
    CheckpointSaved,
    Failed,
    Finished,
    Job,
    Log,
    ModelLibrary,
    Plan,
    Problem,
    Progress,
    Report,
    Result,
    Run,
    SampleSaved,
    SdScripts,
    Status,
    Stopped,
    StopReport,
    TrainingFailed,
)


async def train(comfyui: Path) -> Result:
    registry = cinderlora.Registry.from_installed()
    trainer = SdScripts("tools/sd-scripts")
    flux = registry["flux"]
    assert_type(flux, Adapter)
    library = await anyio.to_thread.run_sync(flux.scan_models, comfyui / "models")
    assert_type(library, ModelLibrary)
    job = flux.job(
        name="elena",
        trigger="elena",
        dataset="datasets/elena",
        preset="16gb",
        models=library.defaults(),
        output=comfyui / "models/loras",
        steps=1500,
    )
    assert_type(job, Job)
    report = await anyio.to_thread.run_sync(flux.check, job, trainer)
    assert_type(report, Report)
    assert_type(report.errors, tuple[Problem, ...])
    plan = flux.plan(job, trainer)
    assert_type(plan, Plan)
    assert_type(plan.argv, tuple[str, ...])

    async with cinderlora.launch(plan, runs=comfyui / "runs") as run:
        assert_type(run, Run)
        async for event in run:
            match event:
                case Progress(step=step, total=total, loss=loss, eta=eta):
                    assert_type(step, int)
                    assert_type(total, int)
                    assert_type(loss, float | None)
                    assert_type(eta, float | None)
                case SampleSaved(path=path, step=step, index=index):
                    assert_type(path, Path)
                    assert_type((step, index), tuple[int, int])
                case CheckpointSaved(path=path, step=at):
                    assert_type(path, Path)
                    assert_type(at, int | None)
                case Log(text=text):
                    assert_type(text, str)
                case Failed(diagnosis=diagnosis):
                    assert_type(diagnosis.text("de").message, str)
                case Finished(result):
                    assert_type(result, Result)
                case Stopped(by):
                    assert_type(by, str)
                case _:
                    assert_type(event.seq, int | None)
    try:
        return run.result
    except TrainingFailed as error:
        assert_type(error.code, str)
        raise


async def come_back(folder: Path) -> Status:
    async for event in cinderlora.attach(folder, since=17).events():
        assert_type(event, cinderlora.Event)
    (run, *_) = cinderlora.runs(folder.parent)
    assert_type(await run.stop(by="me", after="checkpoint"), StopReport)
    async with run.resume(steps=2000) as resumed:
        assert_type(resumed, Run)
    await run.stop(after="epoch")  # type: ignore[arg-type]
    with run.resume():  # type: ignore[attr-defined]
        pass
    return cinderlora.status(folder)
