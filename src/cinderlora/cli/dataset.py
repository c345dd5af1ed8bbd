"""`dataset`: what is in a data set, what is wrong with it, and what a training makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cinderlora.cli.decoding import counting
from cinderlora.cli.job_options import json_option
from cinderlora.cli.terminal import Terminal, clean, gigabytes

if TYPE_CHECKING:
    from rich.text import Text

    from cinderlora.adapter import Adapter
    from cinderlora.dataset import BucketPlan, Dataset
    from cinderlora.problems import Problem
    from cinderlora.types import Job

__all__ = ["dataset"]

FAILED = 1
BAR = 30
"""Characters of the longest bar."""


@click.command(params=[json_option()])
@click.argument("path", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
@click.option("--trigger", metavar="WORD", help="The trigger word: captions without it are named.")
@click.option("--type", "-t", "model_type", metavar="TYPE", help="Sort into the buckets of this model type's preset.")
@click.option("--preset", "-p", help="A preset of the type; auto (the default): what the GPU holds.")
@click.option("--resolution", type=click.IntRange(64, 4096), metavar="PX", help="The preset's, or 512.")
@click.option("--batch-size", type=click.IntRange(1), metavar="N", help="The preset's, or 1.")
@click.option("--repeats", type=click.IntRange(1), metavar="N", help="The preset's, or 1; a folder's own count.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Training steps, the preset's: how many epochs?")
@click.option("--caption-extension", default=".txt", show_default=True, help="The ending of caption files.")
@click.option(
    "--sheet", type=click.Path(path_type=Path), metavar="FILE", help="Draw a contact sheet, problems marked: out.png."
)
@click.option("--decode/--no-decode", default=None, help="Decode every picture; by default where Pillow is there.")
@click.pass_obj
def dataset(
    terminal: Terminal,
    /,
    path: Path | None,
    trigger: str | None,
    caption_extension: str,
    sheet: Path | None,
    decode: bool | None,
    **wanted: Any,
) -> int:
    """Say what is in a data set, and what is wrong with it. Nothing in it is changed.

    FOLDER has pictures and captions, or `<repeats>_<words>` folders with them, or is a TOML file in sd-scripts' form
    that tells the folders; a name is looked for in the configured folder of data sets. Without it, those are listed.

    Exit codes: 0 nothing forbids a training, 1 there are errors, 2 the request was wrong.
    """
    from cinderlora.dataset import can_decode, inspect_dataset

    if path is None:
        return _list(terminal, caption_extension)
    path = _found(path.expanduser(), terminal.config.datasets)
    job, adapter = _job(path, **wanted)
    _can_be_drawn(sheet)
    with counting(terminal, "decoding") as progress:
        seen = inspect_dataset(
            path,
            trigger=trigger,
            caption_extension=caption_extension,
            decode=can_decode() if decode is None else decode,
            progress=progress,
        )
    if adapter is None:
        job = _as_asked(seen, job, wanted)
    plan, problems = _sorted(seen, job, adapter)
    if sheet is not None:
        _draw(terminal, seen, plan, sheet)
    if terminal.json:
        _record(terminal, seen, plan, job, problems, sheet)
    else:
        _show(terminal, seen, plan, job)
        terminal.problems(problems)
        _conclude(terminal, seen, problems, trigger, sheet)
    return FAILED if any(problem.severity == "error" for problem in problems) else 0


def _found(path: Path, datasets: Path | None) -> Path:
    if datasets is not None and len(path.parts) == 1 and not path.exists() and (datasets / path).exists():
        return datasets / path
    return path


def _job(path: Path, model_type: str | None, preset: str | None, **settings: Any) -> tuple[Job, Adapter | None]:
    """The job whose buckets are shown, and its model type where one was named."""
    from cinderlora.types import Job, Settings

    given = {name: value for name, value in settings.items() if value is not None}
    if model_type is None and preset is None:
        own = Settings(**{"resolution": 512, "enable_bucket": True, **given})
        return Job(model_type="", name="", trigger="", dataset=path, output=Path(), settings=own), None
    from cinderlora.errors import UnknownName
    from cinderlora.preset_files import preset_folders
    from cinderlora.registry import Registry

    registry = Registry.from_installed(presets=preset_folders())
    if model_type is None:
        raise UnknownName("model_type_missing", known=sorted(registry))
    adapter = registry[model_type]
    given |= {"name": "", "trigger": "", "dataset": path, "output": Path()}
    return adapter.job(preset=preset or "auto", **given), adapter


def _as_asked(seen: Dataset, job: Job, given: Mapping[str, Any]) -> Job:
    """The job with what the data set's own file asks for, where the command line says nothing else."""
    from cinderlora.dataset import difference_problems

    asked = {name: value for p in difference_problems(seen, job.settings) for name, value in p.changes.items()}
    return job.evolve(**{name: value for name, value in asked.items() if given.get(name) is None})


def _can_be_drawn(sheet: Path | None) -> None:
    """Say before the work, and not after it, that a sheet cannot be had."""
    from cinderlora.dataset import can_decode
    from cinderlora.errors import CinderloraError, SettingError

    if sheet is None:
        return
    if not can_decode():
        raise CinderloraError("extra_missing", what="cinderlora dataset --sheet", packages="Pillow", extra="pictures")
    if sheet.suffix.lower() not in {".png", ".jpg", ".jpeg", ".webp"}:
        raise SettingError("option_form", option="--sheet", value=repr(str(sheet)), expected="--sheet FILE.png")


def _sorted(seen: Dataset, job: Job, adapter: Adapter | None) -> tuple[BucketPlan | None, list[Problem]]:
    """The bucket plan, and all problems with those that it shows; errors first. It is that of the model type's trainer,
    or sd-scripts'."""
    from cinderlora.dataset import difference_problems, size_problems
    from cinderlora.errors import SettingError
    from cinderlora.problems import Problem
    from cinderlora.sd_scripts.config import job_buckets

    trainer = adapter and adapter.trainer_type("")
    plan: BucketPlan | None = None
    more: list[Problem] = []
    if seen.sizes:
        try:
            plan = trainer.buckets(adapter.type, job, seen) if adapter and trainer else job_buckets(job, seen)
            more += size_problems(seen, plan) if plan else ()
        except SettingError as error:
            more.append(Problem(error.code, error.params))
    if trainer:  # only then does somebody want these settings
        more += difference_problems(seen, trainer.completed(job.settings))
    return plan, sorted([*seen.problems, *more], key=lambda problem: problem.severity != "error")


def _draw(terminal: Terminal, seen: Dataset, plan: BucketPlan | None, sheet: Path) -> None:
    from cinderlora.dataset import contact_sheet
    from cinderlora.errors import CinderloraError

    with counting(terminal, "drawing_sheet") as progress:
        picture = contact_sheet(seen, plan, language=terminal.language, progress=progress)
    try:
        picture.save(sheet.expanduser())
    except OSError as error:
        raise CinderloraError("folder_not_written", path=str(sheet), why=error.strerror or str(error)) from error


# ---- for programs ----------------------------------------------------------------------------------------------------


def _record(
    terminal: Terminal,
    seen: Dataset,
    plan: BucketPlan | None,
    job: Job,
    problems: Iterable[Problem],
    sheet: Path | None,
) -> None:
    from cinderlora.serial import to_json

    told = [{**to_json(problem), **problem.text(terminal.language)._asdict()} for problem in problems]
    record: dict[str, Any] = {"dataset": {**to_json(seen), "problems": told}}
    if plan is not None:
        record["plan"] = {**to_json(plan), **_lengths(plan, job)}
    if sheet is not None:
        record["sheet"] = str(sheet)
    terminal.record(record)


def _lengths(plan: BucketPlan, job: Job) -> dict[str, int | None]:
    s = job.settings
    accumulation = s.gradient_accumulation or 1
    return {
        "steps_per_epoch": plan.steps_per_epoch(accumulation),
        "steps": s.steps,
        "epochs": plan.epochs(s.steps, accumulation) if s.steps else None,
    }


# ---- for people ------------------------------------------------------------------------------------------------------


def _list(terminal: Terminal, caption_extension: str) -> int:
    """The data sets in the configured folder."""
    from cinderlora.cli.tables import print_table
    from cinderlora.dataset import list_datasets
    from cinderlora.errors import ConfigError

    folder = terminal.config.datasets
    if folder is None:
        raise ConfigError("datasets_folder_missing")
    entries = list_datasets(folder, caption_extension=caption_extension)
    if terminal.json:
        from cinderlora.serial import to_json

        for entry in entries:
            terminal.record(to_json(entry))
        return 0
    if not entries:
        terminal.note(terminal.say("no_datasets", folder=folder))
        return 0
    rows = [(e.name, e.pictures, e.captions, terminal.say(f"dataset_{e.state}"), e.trigger) for e in entries]
    print_table(terminal, ("demo_dataset", "pictures", "captions", "state", "trigger"), rows)
    return 0


def _show(terminal: Terminal, seen: Dataset, plan: BucketPlan | None, job: Job) -> None:
    terminal.print(seen.path.name or str(seen.path), "bold")
    if not seen.pictures:
        return
    from rich.table import Table
    from rich.text import Text

    from cinderlora.cli.tables import print_aligned

    table = Table.grid(padding=(0, 2))
    rows = {
        "pictures": _pictures(terminal, seen),
        "sizes": _sizes(terminal, seen),
        "captions": _captions(terminal, seen),
        "folders": _folders(terminal, seen),
    }
    for key, value in rows.items():
        if value:
            table.add_row(Text(f"  {terminal.say(key)}", "dim"), Text(clean(value), overflow="fold"))
    print_aligned(terminal, table)
    if plan is not None and plan.buckets:
        own = all(subset.repeats is not None for subset in seen.subsets)
        _show_buckets(terminal, plan, job, repeats=None if own else job.settings.repeats or 1)


def _pictures(terminal: Terminal, seen: Dataset) -> str:
    """24 (20 PNG, 4 JPEG), 18.3 MB, all decoded"""
    formats = Counter(p.format or "?" for p in seen.pictures)
    kinds = ", ".join(f"{count} {kind}" for kind, count in formats.most_common())
    parts = [f"{len(seen.pictures)} ({kinds})", gigabytes(sum(p.file_size for p in seen.pictures))]
    whole = sum(bool(p.decoded) for p in seen.pictures)
    tried = any(p.decoded is not None for p in seen.pictures)
    parts.append(terminal.say("decoded", count=whole) if tried else terminal.say("not_decoded"))
    return ", ".join(parts)


def _sizes(terminal: Terminal, seen: Dataset) -> str:
    """From the smallest area to the largest, and which form is the most frequent."""
    sizes = sorted(((p.width, p.height) for p in seen.pictures if p.width), key=lambda size: (size[0] * size[1], size))
    if not sizes:
        return ""
    forms = Counter("square" if w == h else "upright" if w < h else "wide" for w, h in sizes)
    told = ", ".join(terminal.say(form, count=count) for form, count in forms.most_common())
    ends = dict.fromkeys(f"{w}x{h}" for w, h in (sizes[0], sizes[-1]))
    return f"{terminal.say('from_to').join(ends)}, {told}"


def _captions(terminal: Terminal, seen: Dataset) -> str:
    """23 of 24, most begin with "elena" (22)"""
    said = terminal.say("of", count=seen.captions, total=len(seen.pictures))
    first = Counter(p.line.replace(",", " ").split()[0] for p in seen.pictures if p.line.replace(",", " ").split())
    word, count = first.most_common(1)[0] if first else ("", 0)
    if 2 * count > seen.captions:
        said += ", " + terminal.say("most_begin", word=word[:40], count=count)
    return said


def _folders(terminal: Terminal, seen: Dataset) -> str:
    if seen.layout == "flat":
        return ""
    parts = []
    for subset in seen.subsets:
        times = f" x {subset.repeats}" if subset.repeats is not None else ""
        parts.append(f"{seen.shown(subset.folder)}: {len(subset.pictures)}{times}")
    return ", ".join(parts)


def _show_buckets(terminal: Terminal, plan: BucketPlan, job: Job, repeats: int | None) -> None:
    """Each bucket with a bar for its pictures, then what that comes to; no `repeats` where each folder has its own."""
    from rich.table import Table
    from rich.text import Text

    from cinderlora.cli.tables import print_aligned

    resolution = "x".join(map(str, dict.fromkeys(plan.resolution)))
    terminal.print(f"\n{terminal.say('buckets_at', resolution=resolution)}", "bold")
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    most = max(bucket.count for bucket in plan.buckets)
    for bucket in plan.buckets:
        size = "{}x{}".format(*bucket.resolution)
        table.add_row(Text(f"  {size}", "dim"), Text(str(bucket.count)), _bar(bucket.count / most))
    print_aligned(terminal, table)
    s, lengths = job.settings, _lengths(plan, job)
    batch = terminal.say("in_batches", batch=s.batch_size or 1)
    each = batch if repeats is None else f"{terminal.say('repeats', repeats=repeats)}, {batch}"
    rows = {
        "steps_per_epoch": f"{lengths['steps_per_epoch']} ({each})",
        "epochs": terminal.say("epochs_for", steps=s.steps, epochs=lengths["epochs"]) if lengths["epochs"] else "",
        "cut_off": f"{100 * plan.crop_loss:.1f} %",
    }
    table = Table.grid(padding=(0, 2))
    for key, value in rows.items():
        if value:
            table.add_row(Text(f"  {terminal.say(key)}", "dim"), Text(value, overflow="fold"))
    print_aligned(terminal, table)
    terminal.print()


def _bar(share: float) -> Text:
    from rich.text import Text

    return Text("█" * max(1, round(BAR * share)), "cyan")


def _conclude(
    terminal: Terminal, seen: Dataset, problems: list[Problem], trigger: str | None, sheet: Path | None
) -> None:
    errors = sum(problem.severity == "error" for problem in problems)
    if errors:
        count = terminal.say("dataset_errors" if errors > 1 else "dataset_error", count=errors)
        terminal.note(count, "bold red")
    elif not problems:
        terminal.print(terminal.say("dataset_right"), "green")
    if seen.captions and not trigger:
        terminal.note(terminal.say("trigger_unchecked"), "dim")
    if sheet is not None:
        terminal.print(terminal.say("sheet_is", path=sheet))
