"""What each preset really takes of an NVIDIA card, by phase, beside the estimate. For a machine that has one.

python benchmarks/vram.py --sd-scripts DIR --python PYTHON [--tokenizers DIR] [--work DIR] [PRESET ...]
python benchmarks/vram.py --dry-run

Trains a few steps with each preset ("flux/16gb", all where none is named) on models of full size with nothing in them,
through cinderlora and the real scripts, and asks NVIDIA's library every 20 ms what the trainer's processes hold. What
the weights are makes no difference to that. The models are made from the headers in `tests/data/headers` as sparse
files below `--work`, which has to be able to hold such files; they take no room there, but pages of memory when read.
Needs sd-scripts' tokenizers: fetched by it, or its `tokenizer_cache_dir` given by `--tokenizers`.

Prints a table, and puts it between the marks in `docs/cost.md` with `--write`. Without a card, and with `--dry-run`,
nothing is started: it prints what it would do, and the table says "not measured".
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from cinderlora import (
    Adapter,
    CinderloraError,
    Failed,
    Job,
    ModelFile,
    Phase,
    Preset,
    Progress,
    Registry,
    SdScripts,
)
from cinderlora.gpu import memory_gb
from cinderlora.models import Tensor
from cinderlora.models.hollow import write_hollow

ROOT = Path(__file__).parent.parent
MARKS = "<!-- benchmarks/vram.py -->", "<!-- end -->"
PHASES = ("caching_latents", "caching_text_encoders", "training", "sampling")
EVERY = 0.02

# Header, precision and role of the files that a preset is for.
FILES = {
    "flux": {"model": ("flux_dev", "F8_E4M3"), "clip_l": ("clip_l", "BF16"), "ae": ("flux_ae", "BF16")},
    "sd3": {"model": ("sd3_medium", "F16"), "clip_l": ("clip_l", "F16"), "clip_g": ("clip_g", "F16")},
    "sdxl": {"model": ("sdxl_base", "F16")},
}
T5, SMALL_T5 = ("t5xxl", "F16"), ("t5xxl", "F8_E4M3")


def files_of(kind: str, preset: Preset) -> dict[str, tuple[str, str]]:
    """Header and precision of each of a preset's files: T5 in FP8 on cards of 10 GB and less, as they say of it."""
    if kind == "sdxl":
        return FILES[kind]
    return FILES[kind] | {"t5xxl": SMALL_T5 if (preset.vram_gb or 0) <= 10 else T5}


def hollow(folder: Path, name: str, dtype: str) -> Path:
    path = folder / f"{name}_{dtype.lower()}.safetensors"
    if not path.exists():
        header = json.loads(gzip.decompress((ROOT / f"tests/data/headers/{name}.json.gz").read_bytes()))
        write_hollow(path, {tensor: Tensor(dtype, tuple(shape)) for tensor, shape in header["tensors"].items()})
    return path


def pictures(folder: Path, px: int) -> Path:
    """Four pictures of that size, so that a batch of two is a full one."""
    from PIL import Image

    folder = folder / f"pictures-{px}"
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(4):
        Image.effect_noise((px, px), 64).convert("RGB").save(folder / f"elena_{n}.png")
        (folder / f"elena_{n}.txt").write_text(f"elena, picture {n}")
    return folder


def job_of(adapter: Adapter, preset: Preset, work: Path, tokenizers: Path | None) -> Job:
    """A training of four steps with a sample after the second: the optimizer's memory is there from the first on."""
    models: dict[str, ModelFile] = {}
    for role, (name, dtype) in files_of(adapter.name, preset).items():
        (models[role],) = (f for f in adapter.scan_models(hollow(work / "models", name, dtype)).files if f.role == role)
    return adapter.job(
        name="elena",
        trigger="elena",
        dataset=pictures(work, preset.resolution or 512),
        output=work / "out" / adapter.name / preset.name,
        preset=preset,
        models=models,
        steps=4,
        save_every=0,
        sample_every=2,
        sample_steps=2,
        extra={"tokenizer_cache_dir": str(tokenizers)} if tokenizers else {},
    )


class Watch(threading.Thread):
    """The most that a process and its children hold of all cards, in GB by phase."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.phase = "loading"
        self.peaks: dict[str, float] = defaultdict(float)
        self._pid = pid
        self._over = threading.Event()

    def run(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        cards = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        while not self._over.wait(EVERY):
            tree = self._tree()
            running = [p for card in cards for p in pynvml.nvmlDeviceGetComputeRunningProcesses(card)]
            held = sum(p.usedGpuMemory or 0 for p in running if p.pid in tree)
            self.peaks[self.phase] = max(self.peaks[self.phase], held / 2**30)
        pynvml.nvmlShutdown()

    def _tree(self) -> set[int]:
        try:
            process = psutil.Process(self._pid)
            return {self._pid, *(child.pid for child in process.children(recursive=True))}
        except psutil.Error:
            return set()

    def stop(self) -> Mapping[str, float]:
        self._over.set()
        self.join()
        return self.peaks


def measure(adapter: Adapter, job: Job, trainer: SdScripts, work: Path) -> Mapping[str, float]:
    """A training's peaks by phase; none where it did not get through its steps, and why not is printed. Whether it
    counts as finished does not matter: a LoRA of models without weights learns nothing."""
    from cinderlora.sync import launch

    step = 0
    try:
        with launch(adapter.plan(job, trainer), runs=work / "runs") as run:
            state = json.loads((run.folder / "state.json").read_text())
            watch = Watch(state["trainer"]["pid"])
            watch.start()
            for event in run:
                if isinstance(event, Phase):
                    watch.phase = event.name
                elif isinstance(event, Progress):
                    step = event.step
                elif isinstance(event, Failed) and step < (job.settings.steps or 0):
                    print(f"  not measured, ended at step {step}: {event.diagnosis}", flush=True)
            peaks = watch.stop()
    except CinderloraError as error:
        print(f"  not measured: {error}", flush=True)
        return {}
    return peaks if step == job.settings.steps else {}


def table(rows: Sequence[tuple[str, Mapping[str, float], Mapping[str, float], tuple[float, float, float]]]) -> str:
    """Markdown: the estimate of each phase with the measured figure in bold behind it, where there is one."""
    heads = ["preset", *(phase.replace("_", " ") for phase in PHASES), "peak, estimated", "peak, measured"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, estimated, measured, (gb, low, high) in rows:
        cells = [name]
        for phase in PHASES:
            said = f"{estimated[phase]:.1f}" if phase in estimated else ""
            cells.append(said + (f" **{measured[phase]:.1f}**" if phase in measured else ""))
        cells.append(f"{gb:.1f} ({low:.1f} to {high:.1f})")
        cells.append(f"**{max(measured.values()):.1f}**" if measured else "not measured")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(text: str, path: Path) -> None:
    """Put the table between the marks of a page."""
    before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise SystemExit(f"{path} lacks the marks {MARKS}")
    path.write_text(f"{before}{MARKS[0]}\n{text}\n{mark}{after}", encoding="utf-8")


def wanted(registry: Registry, names: Sequence[str]) -> Iterator[tuple[Adapter, Preset]]:
    for kind in FILES:
        for preset in registry[kind].presets.values():
            if not names or f"{kind}/{preset.name}" in names:
                yield registry[kind], preset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET")
    parser.add_argument("--sd-scripts", type=Path)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--tokenizers", type=Path)
    parser.add_argument("--work", type=Path, help="default: a temporary folder")
    parser.add_argument("--write", type=Path, metavar="PAGE", nargs="?", const=ROOT / "docs/cost.md")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    card = None if given.dry_run else memory_gb()
    if card is not None and given.sd_scripts is None:
        parser.error("there is a card: say where sd-scripts is")
    print(f"card: {card:.1f} GB" if card is not None else "nothing is measured: " + ("dry run" if given.dry_run else
          "no NVIDIA card here"))  # fmt: skip
    trainer = SdScripts(given.sd_scripts, python=given.python) if given.sd_scripts else None
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        for adapter, preset in wanted(Registry.from_installed(), given.presets):
            job = job_of(adapter, preset, work, given.tokenizers)
            estimate = adapter.vram(job.settings, job.models)
            assert estimate is not None
            name = f"{adapter.name} {preset.name}"
            sizes = ", ".join(f"{f.path.name} {(f.size or 0) / 1e9:.1f} GB" for f in job.models.values())
            print(f"{name}: {job.settings.resolution} px, batch {job.settings.batch_size}, {sizes}", flush=True)
            measured: Mapping[str, float] = {}
            if card is not None and trainer is not None:
                measured = measure(adapter, job, trainer, work)
            elif trainer is not None:
                print(f"  {' '.join(adapter.plan(job, trainer).argv)}")
            rows.append((name, estimate.phases, measured, (estimate.gb, estimate.low, estimate.high)))
    text = table(rows)
    print(text)
    if given.write:
        write(text, given.write)


if __name__ == "__main__":
    main()
