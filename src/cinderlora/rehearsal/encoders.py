"""Pictures and words as vectors: the miniature's VAE and text encoder, both fixed.

The "VAE" is linear, like JPEG without its tables: a picture is cropped to a square, reduced to 32×32 YCbCr, and kept
as its lowest DCT frequencies, 24×24 for the luma and 12×12 for each chroma: 864 numbers of about unit scale. The
"text encoder" gives each word a fixed random vector and a caption the direction of their sum.
"""

import re
import zlib
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Array = NDArray[np.float32]

SIDE: Final = 32
LUMA: Final = 24
CHROMA: Final = 12
LATENT: Final = LUMA * LUMA + 2 * CHROMA * CHROMA
DECODED: Final = 128
WORD: Final = 64
CAPTION_LENGTH: Final = 6.0
SCALE: Final = LUMA / SIDE


def _cosines(points: int, frequencies: int) -> Array:
    """The DCT-II basis [frequencies, points], orthonormal for the grid of SIDE points."""
    where = (np.arange(points) + 0.5) / points
    basis = np.sqrt(2 / SIDE) * np.cos(np.pi * np.arange(frequencies)[:, None] * where)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)


def _planes(latent: Array) -> tuple[Array, Array, Array]:
    luma, blue, red = np.split(latent, [LUMA * LUMA, LUMA * LUMA + CHROMA * CHROMA])
    return luma.reshape(LUMA, LUMA), blue.reshape(CHROMA, CHROMA), red.reshape(CHROMA, CHROMA)


def spectrum() -> Array:
    """The variance [LATENT] of each coefficient over pictures in general, which falls with the frequency."""

    def falling(size: int, variance: float, mean_variance: float) -> NDArray[np.float64]:
        vertical, horizontal = np.mgrid[:size, :size]
        plane = variance / (1 + np.hypot(vertical, horizontal)) ** 2.2
        plane[0, 0] = mean_variance
        return np.asarray(plane.ravel())

    chroma = falling(CHROMA, 3, 6)
    return (np.concatenate([falling(LUMA, 60, 60), chroma, chroma]) * SCALE**2).astype(np.float32)


def encode(picture: Image.Image) -> Array:
    """A picture as its latent [LATENT]."""
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA"):
        picture = picture.convert("RGBA")
    picture = picture.convert("RGB")  # as the trainer: an alpha channel is dropped
    square = ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.LANCZOS).convert("YCbCr")
    pixels = np.asarray(square, dtype=np.float32) / 127.5 - 1
    planes = []
    for channel, size in enumerate((LUMA, CHROMA, CHROMA)):
        basis = _cosines(SIDE, size)
        planes.append((basis @ pixels[..., channel] @ basis.T).ravel())
    return np.concatenate(planes) * np.float32(SCALE)


def decode(latent: Array, size: tuple[int, int]) -> Image.Image:
    """A latent [LATENT] as a picture of (width, height). The highest frequencies are damped against ringing."""
    planes = []
    for plane in _planes(np.nan_to_num(latent) / np.float32(SCALE)):
        frequencies = plane.shape[0]
        damping = np.sinc(np.arange(frequencies) / (frequencies + 2)).astype(np.float32)
        basis = _cosines(DECODED, frequencies) * damping[:, None]
        planes.append(basis.T @ plane @ basis)
    pixels = np.clip((np.stack(planes, axis=-1) + 1) * 127.5, 0, 255).astype(np.uint8)
    square = Image.frombytes("YCbCr", (DECODED, DECODED), pixels.tobytes()).convert("RGB")
    return ImageOps.fit(square, size, Image.Resampling.BICUBIC)


@cache
def _word(word: str) -> Array:
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(WORD).astype(np.float32)


def words(caption: str) -> Array:
    """The vectors [words, WORD] of a caption's words."""
    found = [_word(word) for word in re.findall(r"\w+", caption.lower())]
    return np.stack(found) if found else np.zeros((1, WORD), np.float32)


def direction(sums: Array) -> Array:
    """Sums of word vectors [n, WORD] at the length that the network expects."""
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / (norms + 1e-6) * CAPTION_LENGTH, dtype=np.float32)


def caption(text: str) -> Array:
    """A caption as [1, WORD]."""
    return direction(words(text).sum(axis=0, keepdims=True))
