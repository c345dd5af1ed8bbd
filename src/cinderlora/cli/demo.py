"""`demo`: a character, a practice LoRA, and where everything is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.terminal import Terminal, clean

if TYPE_CHECKING:
    from cinderlora.running import Run
    from cinderlora.types import Job

__all__ = ["demo"]

PROMPT = "{trigger}, portrait, smiling, wearing a yellow hoodie, in a meadow"
"""She never wears a hoodie in the meadow, and her hoodies are blue and pink."""


@click.command(params=[json_option()])
@click.option(
    "--type", "-t", "model_type", default="flux", show_default=True, metavar="TYPE", help="Act as this model type."
)
@click.option("--steps", type=click.IntRange(1, 100_000), default=2000, show_default=True, help="Training steps.")
@click.option(
    "--folder",
    "-o",
    type=click.Path(path_type=Path),
    default="cinderlora-demo",
    show_default=True,
    help="Everything goes in here.",
)
@click.pass_obj
def demo(terminal: Terminal, model_type: str, steps: int, folder: Path) -> int:
    """Try it out: draw a small data set of Elena, a cartoon character, and train a practice LoRA on it.

    Needs no GPU and no downloads, and takes a few seconds. It is a rehearsal: a real but miniature training, whose
    LoRA is of no use elsewhere.
    """
    from cinderlora.cli.following import Launch, train_and_follow
    from cinderlora.demo import write_dataset
    from cinderlora.errors import CinderloraError
    from cinderlora.registry import Registry
    from cinderlora.sd_scripts import SdScripts

    _need_pictures()
    folder = folder.expanduser().absolute()
    adapter = Registry.from_installed()[model_type]
    trainer = SdScripts.rehearsal()
    job = adapter.job(
        name="elena",
        trigger="elena",
        dataset=folder / "datasets/elena",
        output=folder / "loras",
        preset=next(iter(adapter.presets), None),
        resolution=512,
        steps=steps,
        save_every=max(1, steps // 2),
        sample_every=max(1, steps // 4),
        sample_prompt=PROMPT,
    )
    try:
        pictures = write_dataset(job.dataset)
    except OSError as error:
        raise CinderloraError("folder_not_written", path=str(folder), why=error.strerror or str(error)) from error
    adapter.check(job, trainer).raise_for_errors()
    if not terminal.json:
        terminal.print(terminal.say("demo_drawn", count=len(pictures), folder=job.dataset))
        terminal.print(f"{terminal.say('demo_practice')}\n")
    launch = Launch(plan=adapter.plan(job, trainer), title=adapter.title, runs=folder / "runs")
    code = train_and_follow(terminal, launch)
    if code == 0 and not terminal.json:
        _show_where(terminal, job, folder)
    return code


def _need_pictures() -> None:
    from importlib.util import find_spec

    from cinderlora.errors import CinderloraError

    lacking = [name for module, name in {"PIL": "pillow", "numpy": "numpy"}.items() if find_spec(module) is None]
    if lacking:
        raise CinderloraError("extra_missing", what="cinderlora demo", packages=lacking, extra="rehearsal")


def _show_where(terminal: Terminal, job: Job, folder: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    import cinderlora
    from cinderlora.cli.tables import print_aligned

    run: Run = cinderlora.runs(folder / "runs")[0]
    table = Table.grid(padding=(0, 2))
    for key, path in {
        "demo_dataset": job.dataset,
        "demo_lora": job.output / f"{job.lora_name}.safetensors",
        "demo_samples": job.output / "sample",
        "demo_run": run.folder,
    }.items():
        table.add_row(Text(f"  {terminal.say(key)}", "dim"), Text(clean(path), overflow="fold"))
    terminal.print(f"\n{terminal.say('demo_where')}", "bold")
    print_aligned(terminal, table)
    terminal.print(f"\n{terminal.say('demo_python')}", "bold")
    terminal.print(_python(job))
    terminal.print(f"\n{terminal.say('demo_next')}", "dim")


def _python(job: Job) -> str:
    """The same training as a program."""
    kind, dataset, output = job.model_type, str(job.dataset), str(job.output)
    settings = f"preset={job.preset!r}, steps={job.settings.steps}" if job.preset else f"steps={job.settings.steps}"
    return f"""\
  import cinderlora
  from cinderlora.sync import launch

  adapter = cinderlora.Registry.from_installed()[{kind!r}]
  job = adapter.job(name="elena", trigger="elena", dataset={dataset!r}, output={output!r}, {settings})
  with launch(adapter.plan(job, cinderlora.SdScripts.rehearsal())) as run:
      for event in run:
          print(event)
  print(run.result.lora)"""
