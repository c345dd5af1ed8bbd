"""Jobs, settings and the queue. Checked, never run."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import cinderlora
from cinderlora import Entry, Job, ModelFile, Outcome, Plan, Preset, Queue, QueueStatus, SdScripts, Settings, sync

settings = Settings(resolution=512, steps=800, learning_rate=1e-4, extra={"noise_offset": 0.05})
assert_type(settings.learning_rate, float | None)
job = Job(model_type="flux", name="elena", trigger="elena", dataset="datasets/elena", output=Path("out"))
assert_type(job.dataset, Path)
assert_type(job.evolve(steps=2000), Job)
assert_type(job.sweep(network_dim=[8, 16], seed=[1, 2]), tuple[Job, ...])
assert_type(Job.load("elena.toml"), Job)
assert_type(Preset.load("studio.toml"), Preset)
with_models = Job(
    model_type="flux", name="e", trigger="e", dataset="d", output="o", models={"model": "flux1-dev.safetensors"}
)
assert_type(with_models.models["model"], ModelFile)

Settings(512)  # type: ignore[call-arg]
Settings(step=800)  # type: ignore[call-arg]
Settings(steps="800")  # type: ignore[arg-type]
Job("flux", "elena", "elena", "datasets/elena", "out")  # type: ignore[call-arg]
settings.steps = 900  # type: ignore[misc]


async def one_after_the_other(plan: Plan) -> None:
    queue = Queue("queue", gpus=[0, 1], stop_on_failure=True)
    entry = queue.add(plan, runs="runs")
    assert_type(entry, Entry)
    assert_type(entry.run, Path | None)
    queue.add(job, SdScripts.rehearsal(), hold=True)
    async for changed in queue.watch():
        assert_type(changed, Entry)
    await queue.stop(entry.id)
    assert_type(queue.status(), QueueStatus)
    assert_type(queue.outcomes(), tuple[Outcome, ...])


def blocking() -> None:
    queue = sync.Queue()
    for entry in queue.watch(forever=True):
        assert_type(entry, Entry)
    queue.wait()


def found() -> None:
    dataset = cinderlora.inspect_dataset("datasets/elena", trigger="elena")
    assert_type([picture.path for picture in dataset.pictures], list[Path])
    assert_type([entry.name for entry in cinderlora.list_datasets("datasets")], list[str])
