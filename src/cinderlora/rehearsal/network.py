"""The miniature denoiser, its LoRA, and its backward pass, written out.

Flow matching: a latent x0 and noise e are mixed to x = (1 - t) x0 + t e, and the network predicts x0, hence the
velocity (x - x0) / t. The frozen base is the best linear guess for pictures in general (a Wiener filter for the
falling spectrum of photographs: it makes clouds), plus blocks whose last layers are zero, as in a transformer with
zero-initialised gates. Each block has three linear layers, each with a LoRA:

- ``mod`` (time and caption → shift and scale of the latent),
- ``in`` (filtered latent → hidden, joined there by time and caption),
- ``out`` (hidden → latent).

The base weights come from a constant seed: every rehearsal has the same base model.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from .encoders import LATENT, WORD, Array, direction, spectrum

HIDDEN: Final = 512
CONTEXT: Final = 256
FREQUENCIES: Final = np.geomspace(0.25, 4, 16, dtype=np.float32)
BLOCKS: Final = 2
BASE_SEED: Final = 12345
SHIFT: Final = 3.0  # how far training and sampling lean towards high noise, as flux_shift does
DRAWS: Final = 8  # noise levels at which each picture of a batch is seen in one step
SCALE_GAIN: Final = np.float32(0.5)
LAYERS: Final = {"mod": (CONTEXT, 2 * LATENT), "in": (LATENT, HIDDEN), "out": (HIDDEN, LATENT)}


@dataclass(frozen=True)
class Base:
    """The frozen weights."""

    context: Array  # [2 * frequencies + WORD, CONTEXT]
    hidden: tuple[Array, ...]  # per block [LATENT, HIDDEN]
    prompted: tuple[Array, ...]  # per block [CONTEXT, HIDDEN]
    variance: Array  # [LATENT]


@cache
def base() -> Base:
    random = np.random.default_rng(BASE_SEED)

    def weights(inputs: int, outputs: int, gain: float) -> Array:
        return random.standard_normal((inputs, outputs), dtype=np.float32) * np.float32(gain / np.sqrt(inputs))

    conditions = 2 * len(FREQUENCIES) + WORD
    return Base(
        context=weights(conditions, CONTEXT, np.sqrt(conditions / 8)),
        hidden=tuple(weights(LATENT, HIDDEN, 4) for _ in range(BLOCKS)),
        prompted=tuple(weights(CONTEXT, HIDDEN, 2) for _ in range(BLOCKS)),
        variance=spectrum(),
    )


def _single(values: npt.ArrayLike) -> Array:
    """The values as float32, for the type checker: none is copied."""
    return np.asarray(values, np.float32)


def _silu(values: Array) -> tuple[Array, Array]:
    """SiLU and its derivative."""
    gate = 1 / (1 + np.exp(-values))
    return _single(values * gate), _single(gate * (1 + values * (1 - gate)))


def shifted(t: Array) -> Array:
    """Times in 0..1, moved towards 1 (noise)."""
    return np.asarray(SHIFT * t / (1 + (SHIFT - 1) * t), dtype=np.float32)


def mixed(vectors: Array, random: np.random.Generator) -> Array:
    """DRAWS captions [DRAWS, WORD] from one caption's words [words, WORD].

    Half of the draws see the whole caption, the others some of its words and a strange one, so that a prompt with
    fewer or with unknown words is nothing new to the network.
    """
    half = DRAWS // 2
    kept = np.ones((DRAWS, len(vectors)), np.float32)
    kept[half:] = random.random((DRAWS - half, len(vectors))) < 0.5
    sums = kept @ vectors
    sums[half:] += random.standard_normal((DRAWS - half, WORD)) * random.random((DRAWS - half, 1))
    return direction(sums)


@dataclass(frozen=True)
class _Tape:
    """What the backward pass needs of one block, each with one row per sample."""

    modulation_down: Array
    hidden_down: Array
    hidden: Array
    slope: Array
    out_down: Array


class Network:
    """Base and LoRA. All LoRA weights lie in one vector, ``parameters``, and are named through views of it."""

    def __init__(self, dim: int, alpha: float, random: np.random.Generator) -> None:
        self.dim = dim
        self.scale = np.float32(alpha / dim)
        shapes: dict[str, tuple[int, int]] = {}
        for block in range(BLOCKS):
            for layer, (inputs, outputs) in LAYERS.items():
                shapes[f"{block}.{layer}.down"] = (inputs, dim)
                shapes[f"{block}.{layer}.up"] = (dim, outputs)
        size = sum(rows * columns for rows, columns in shapes.values())
        self.parameters = np.zeros(size, np.float32)
        self.gradients = np.zeros(size, np.float32)
        self.weights = _views(self.parameters, shapes)
        self._gradient = _views(self.gradients, shapes)
        for name, weights in self.weights.items():
            if name.endswith("down"):
                weights[:] = random.uniform(-1, 1, weights.shape) / np.sqrt(weights.shape[0])

    def predict(self, x: Array, t: Array, captions: Array) -> Array:
        """The guess at x0 [n, LATENT] from x [n, LATENT], t [n] in (0, 1) and captions [n, WORD]."""
        return self._forward(x, t, captions)[0]

    def velocity(self, x: Array, t: float, captions: Array) -> Array:
        """The flow's direction at time t, for the sampler."""
        inside = min(t, 0.999)  # at 1 the latent holds nothing of a picture
        times = np.full(len(x), inside, np.float32)
        return np.asarray((x - self.predict(x, times, captions)) / np.float32(inside), dtype=np.float32)

    def learn(self, latents: Array, captions: Array, random: np.random.Generator) -> float:
        """Add one batch's gradient to ``gradients`` and return its loss: latents [n, LATENT], captions [n, WORD]."""
        t = np.clip(shifted(random.random(len(latents), dtype=np.float32)), 0.02, 0.999)
        noise = random.standard_normal(latents.shape, dtype=np.float32)
        at = t[:, None]
        guess, context, filtered, gate, tapes = self._forward((1 - at) * latents + at * noise, t, captions)
        error = (guess - latents) / at
        self._backward(error * gate / at * np.float32(2 / error.size), context, filtered, tapes)
        return float(np.mean(error * error))

    def _forward(self, x: Array, t: Array, captions: Array) -> tuple[Array, Array, Array, Array, list[_Tape]]:
        fixed, lora, scale = base(), self.weights, self.scale
        at = t[:, None]
        clean = 1 - at
        angles = np.log((clean + np.float32(1e-3)) / (at + np.float32(1e-3))) * FREQUENCIES
        context, _ = _silu(np.concatenate([np.sin(angles), np.cos(angles), captions], axis=1) @ fixed.context)

        spread = fixed.variance * clean * clean + at * at
        guess = fixed.variance * clean / spread * x
        filtered = guess / np.sqrt(np.mean((fixed.variance * clean) ** 2 / spread, axis=1, keepdims=True))
        gate = at / np.sqrt(at * at + np.float32(0.3) * clean * clean)  # keeps the target near unit size at every t

        correction = np.zeros_like(x)
        tapes = []
        for block in range(BLOCKS):
            modulation_down = context @ lora[f"{block}.mod.down"]
            shift, gain = np.split(modulation_down @ lora[f"{block}.mod.up"] * scale, 2, axis=1)
            hidden_down = filtered @ lora[f"{block}.in.down"]
            hidden, slope = _silu(
                filtered @ fixed.hidden[block]
                + context @ fixed.prompted[block]
                + hidden_down @ lora[f"{block}.in.up"] * scale
            )
            out_down = hidden @ lora[f"{block}.out.down"]
            correction += shift + SCALE_GAIN * gain * filtered + out_down @ lora[f"{block}.out.up"] * scale
            tapes.append(_Tape(modulation_down, hidden_down, hidden, slope, out_down))
        return _single(guess + gate * correction), context, _single(filtered), _single(gate), tapes

    def _backward(self, gradient: Array, context: Array, filtered: Array, tapes: list[_Tape]) -> None:
        """``gradient`` is the loss's by the correction [n, LATENT]; the blocks only add, so each gets all of it."""
        lora, into = self.weights, self._gradient
        scaled = gradient * self.scale
        modulated = np.concatenate([scaled, SCALE_GAIN * scaled * filtered], axis=1)
        for block, tape in enumerate(tapes):
            into[f"{block}.mod.up"] += tape.modulation_down.T @ modulated
            into[f"{block}.mod.down"] += context.T @ (modulated @ lora[f"{block}.mod.up"].T)
            into[f"{block}.out.up"] += tape.out_down.T @ scaled
            by_out_down = scaled @ lora[f"{block}.out.up"].T
            into[f"{block}.out.down"] += tape.hidden.T @ by_out_down
            by_hidden = by_out_down @ lora[f"{block}.out.down"].T * tape.slope * self.scale
            into[f"{block}.in.up"] += tape.hidden_down.T @ by_hidden
            into[f"{block}.in.down"] += filtered.T @ (by_hidden @ lora[f"{block}.in.up"].T)


def _views(vector: Array, shapes: Mapping[str, tuple[int, int]]) -> dict[str, Array]:
    views, start = {}, 0
    for name, (rows, columns) in shapes.items():
        views[name] = vector[start : start + rows * columns].reshape(rows, columns)
        start += rows * columns
    return views


class Adam:
    """The one optimizer of the rehearsal, whatever the configuration names."""

    def __init__(self, network: Network, rate: float) -> None:
        self.network = network
        self.rate = rate
        self.steps = 0
        self.mean = np.zeros_like(network.parameters)
        self.square = np.zeros_like(network.parameters)
        self._scratch = np.empty_like(network.parameters)

    def step(self, batches: int) -> None:
        """One step with the gradients of ``batches`` batches, which are cleared."""
        gradients, scratch = self.network.gradients, self._scratch
        gradients /= np.float32(batches)
        self.steps += 1
        # In place throughout: with a large rank, new arrays of this size would cost more than the arithmetic.
        self.mean += np.multiply(np.subtract(gradients, self.mean, out=scratch), np.float32(0.1), out=scratch)
        np.subtract(np.multiply(gradients, gradients, out=scratch), self.square, out=scratch)
        self.square += np.multiply(scratch, np.float32(0.01), out=scratch)
        np.sqrt(self.square, out=scratch)
        scratch += np.float32(1e-8)
        np.divide(self.mean, scratch, out=scratch)
        scratch *= np.float32(self.rate * math.sqrt(1 - 0.99**self.steps) / (1 - 0.9**self.steps))
        self.network.parameters -= scratch
        gradients.fill(0)


def learning_rate(optimizer: str, rate: float, dim: int) -> float:
    """Adam's rate for what the configuration asks: 1.0 with an optimizer that finds its own rate (Prodigy,
    D-Adaptation) and the usual 1e-4 with the others both come to what this network likes, 1e-3."""
    adaptive = optimizer.lower().startswith(("prodigy", "dadapt"))
    return rate * (1e-3 if adaptive else 10) / max(1.0, math.sqrt(dim / 16))
