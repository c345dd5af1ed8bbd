"""Sample pictures: the prompt file, and the sampler that turns noise into a picture."""

import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import encoders
from .config import Settings
from .console import Bar, log
from .encoders import LATENT, Array
from .kinds import Kind
from .network import Network, shifted

LARGEST = 512


@dataclass(frozen=True)
class Prompt:
    """One line of the prompt file."""

    text: str
    negative: str | None = None
    width: int = 512
    height: int = 512
    steps: int | None = None
    scale: float | None = None
    guidance: float = 3.5
    seed: int | None = None


_OPTIONS: dict[str, tuple[str, str, Callable[[str], int | float | str]]] = {
    "w": ("width", r"(\d+)", int),
    "h": ("height", r"(\d+)", int),
    "s": ("steps", r"(\d+)", lambda text: max(1, min(1000, int(text)))),
    "d": ("seed", r"(\d+)", int),
    "l": ("scale", r"([\d.]+)", float),
    "g": ("guidance", r"([\d.]+)", float),
    "n": ("negative", r"(.+)", str),
}


def prompt_of(line: str) -> Prompt:
    """``elena, a red circle --w 512 --h 512 --s 20 --d 42``; options that are not understood are left out."""
    text, *options = line.split(" --")
    values: dict[str, int | float | str] = {}
    for option in options:
        name, pattern, convert = _OPTIONS.get(option[:1].lower(), ("", "", str))
        match = re.match(rf"\w {pattern}", option) if name else None
        if match:
            values[name] = convert(match.group(1))
    return Prompt(text, **values)  # type: ignore[arg-type]


def read_prompts(file: str) -> list[Prompt]:
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return [prompt_of(line.strip()) for line in lines if line.strip() and not line.startswith("#")]


def sample(
    network: Network,
    prompt: Array,
    negative: Array,
    *,
    steps: int,
    scale: float,
    seed: int | None,
    each_step: Callable[[], None] = lambda: None,
) -> Array:
    """A latent [LATENT] from noise, by Euler steps along the flow. ``prompt`` and ``negative`` are [1, WORD]."""
    x = np.random.default_rng(seed).standard_normal((1, LATENT), dtype=np.float32)
    # What is a usual guidance for a large model burns this small one's pictures.
    push = np.float32(min(max(scale - 1, 0), 7) * 0.05)
    times = shifted(np.linspace(1, 0, steps + 1, dtype=np.float32))
    for now, then in itertools.pairwise(times):
        velocity = network.velocity(x, float(now), prompt)
        if push:
            velocity += push * (velocity - network.velocity(x, float(now), negative))
        x = x + (then - now) * velocity
        each_step()
    return np.asarray(x[0], dtype=np.float32)


class Sampler:
    """The trainer's sampling, with its lines and file names."""

    def __init__(self, settings: Settings, kind: Kind, network: Network) -> None:
        self.settings = settings
        self.kind = kind
        self.network = network

    def due(self, step: int, epoch: int | None) -> bool:
        """After a step (epoch None) or an epoch; step 0 is before training. The epochs' setting wins."""
        if step == 0:
            return self.settings.flag("sample_at_first")
        epochs = self.settings.optional_whole("sample_every_n_epochs")
        steps = self.settings.optional_whole("sample_every_n_steps")
        if epochs is not None:
            return epoch is not None and epoch % epochs == 0
        return steps is not None and epoch is None and step % steps == 0

    def draw(self, step: int, epoch: int | None) -> None:
        log()
        log(f"generating sample images at step / サンプル画像生成 ステップ: {step}")
        file = self.settings.text("sample_prompts")
        if file is None:
            raise TypeError("stat: path should be string, bytes, os.PathLike or integer, not NoneType")
        if not Path(file).is_file():
            log(f"No prompt file / プロンプトファイルがありません: {file}")
            return
        folder = Path(str(self.settings.text("output_dir"))) / "sample"
        folder.mkdir(parents=True, exist_ok=True)
        for index, prompt in enumerate(read_prompts(file)):
            self._draw(prompt, index, folder, f"{step:06d}" if epoch is None else f"e{epoch:06d}")

    def _draw(self, prompt: Prompt, index: int, folder: Path, moment: str) -> None:
        flux, sdxl = self.kind.name == "flux", self.kind.name == "sdxl"
        grain = 16 if flux else 8
        width, height = (max(64, side - side % grain) for side in (prompt.width, prompt.height))
        steps = prompt.steps or (20 if flux else 30)
        scale = prompt.scale if prompt.scale is not None else (1.0 if flux else 7.5)
        negative = prompt.negative if sdxl else prompt.negative or ""
        guided = not flux or scale != 1.0
        log(f"prompt: {prompt.text}")
        if guided:
            log(f"negative_prompt: {negative}")
        elif negative:
            log("negative prompt is ignored because scale is 1.0")
        for label, value in (("height", height), ("width", width), ("sample_steps", steps)):
            log(f"{label}: {value}")
        if flux:
            log(f"embedded guidance scale: {prompt.guidance}")
        if guided:
            log(f"{'CFG scale' if flux else 'scale'}: {scale}")
        if sdxl:
            log(f"sample_sampler: {self.settings.text('sample_sampler')}")
        if prompt.seed is not None:
            log(f"seed: {prompt.seed}")
        if self.kind.caches_prompts:
            how = (
                "Using cached text encoder outputs for"
                if self.settings.flag("cache_text_encoder_outputs")
                else "Encoding"
            )
            for text in (prompt.text, negative) if guided else (prompt.text,):
                log(f"{how} prompt: {text}")
        bar = Bar(steps, leave=not sdxl)  # SDXL's pipeline wipes its bar, the other two leave it
        latent = sample(
            self.network,
            encoders.caption(prompt.text),
            encoders.caption(negative or ""),
            steps=steps,
            scale=scale,
            seed=prompt.seed,
            each_step=bar.update,
        )
        bar.close()
        shrink = min(1.0, LARGEST / max(width, height))
        picture = encoders.decode(latent, (round(width * shrink), round(height * shrink)))
        name = self.settings.text("output_name")
        prefix = f"{name}_" if name else ""
        suffix = "" if prompt.seed is None else f"_{prompt.seed}"
        stamp = time.strftime("%Y%m%d%H%M%S")
        picture.save(folder / f"{prefix}{moment}_{index:02d}_{stamp}{suffix}.png", compress_level=1)
