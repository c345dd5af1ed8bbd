"""The process of `ScriptedTrainer`: prints a recording at its pace. Standard library only; started by its path."""

import argparse
import json
import re
import struct
import sys
import time
import zlib
from pathlib import Path

_SAVING = re.compile(rb"saving checkpoint: (.*[/\\])?([^/\\\r\n]+)\.safetensors")
_STEP = re.compile(rb"-(?:step)?[0-9]{6,}$")
_SAMPLING = re.compile(rb"generating sample images at step / [^:]*: ([0-9]+)")
_ELAPSED = re.compile(rb"steps: .*\[(?:([0-9]+):)?([0-9]+):([0-9]+)<")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("recording", type=Path)
    parser.add_argument("name")
    parser.add_argument("--speed", type=float, required=True)
    parser.add_argument("--exit-code", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    recorded = given.recording.read_bytes().decode("utf-8").encode("latin-1")
    (given.output / "sample").mkdir(parents=True, exist_ok=True)
    play(renamed(recorded, given.output, given.name), given.output, given.name, given.speed)
    return int(given.exit_code)


def renamed(recorded: bytes, output: Path, name: str) -> bytes:
    """The recording with this job's folder and name in place of those it was made with."""
    for folder, stem in _SAVING.findall(recorded):
        theirs = folder + _STEP.sub(b"", stem)
        recorded = recorded.replace(theirs, str(output / name).encode())
        break
    return recorded


def play(recorded: bytes, output: Path, name: str, speed: float) -> None:
    """Print it piece by piece; where it says that a file is saved, save one."""
    elapsed, step, prompt = 0, 0, 0
    for piece in re.findall(rb"\r\n|[\r\n]?[^\r\n]+|[\r\n]", recorded):
        bar = _ELAPSED.search(piece)
        if bar is not None:
            hours, minutes, seconds = (int(part or 0) for part in bar.groups())
            now = 3600 * hours + 60 * minutes + seconds
            if speed and now > elapsed:
                time.sleep((now - elapsed) / speed)
            elapsed = max(elapsed, now)
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        saving, sampling = _SAVING.search(piece), _SAMPLING.search(piece)
        if saving is not None:
            write_lora(output / (saving[2].decode() + ".safetensors"))
        elif sampling is not None:
            step, prompt = int(sampling[1]), 0
        elif piece.strip().startswith(b"prompt: "):
            stamp = time.strftime("%Y%m%d%H%M%S")
            write_picture(output / "sample" / f"{name}_{step:06d}_{prompt:02d}_{stamp}_42.png")
            prompt += 1


def write_lora(path: Path) -> None:
    """A LoRA of one layer that is trained: four numbers, none of them zero."""
    tensors = {f"lora_unet_layer.lora_{part}.weight": [8 * i, 8 * i + 8] for i, part in enumerate(("down", "up"))}
    header = {name: {"dtype": "F32", "shape": [1, 2], "data_offsets": place} for name, place in tensors.items()}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<4f", 0.5, -0.5, 0.25, -0.25))


def write_picture(path: Path) -> None:
    """A grey picture of 8 x 8 pixels."""
    rows = (b"\0" + b"\x80" * 8) * 8
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))


if __name__ == "__main__":
    sys.exit(main())
