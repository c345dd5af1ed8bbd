"""What plugins cost a program that starts: a registry of 50 installed adapters, one of them broken; the command line.

python benchmarks/adapters.py

Makes 50 distributions in a temporary folder, each with an adapter of two presets, as pip would have installed them; one
raises when it is imported. Every figure is the best of ten new processes, in seconds of the processor, which is what a
quiet machine takes; those of the command line are without what bare Python takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ADAPTER = """
from cinderlora import Component, ModelType, Preset, hookimpl


@hookimpl
def model_type():
    return ModelType(
        name="{name}", title="{name}", script="x_train_network.py", network_module="networks.lora_x",
        components=[Component("model"), Component("vae")],
    )


@hookimpl
def presets(model_type):
    if model_type.name == "{name}":
        yield Preset(name="16gb", vram_gb=16, network_dim=16, steps=1000)
        yield Preset(name="8gb", vram_gb=8, base="16gb", network_dim=8)


@hookimpl
def build_args(job):
    return {{}}
"""

REGISTRY = """
import json, time
start = time.process_time()
from cinderlora import Registry
imported = time.process_time()
registry = Registry.from_installed()
loaded = time.process_time()
for adapter in registry.values():
    adapter.presets
presets = time.process_time()
print(json.dumps([imported - start, loaded - imported, presets - loaded, len(registry), len(registry.broken)]))
"""
RUNS = 10


def install(site: Path, name: str, source: str) -> None:
    info = site / f"cinderlora_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: cinderlora-{name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[cinderlora]\n{name} = cinderlora_{name}\n", encoding="utf-8")
    package = site / f"cinderlora_{name}"
    package.mkdir()
    (package / "__init__.py").write_text(source, encoding="utf-8")


def environ(path: str) -> dict[str, str]:
    """This one's, with a folder of packages more, and with bytecode kept, as pip leaves it behind."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONPATH": path}


def timed(code: str, path: str) -> list[float]:
    env = environ(path)
    runs = []
    for _ in range(RUNS + 1):  # the first one compiles
        done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
    return [min(values) for values in zip(*runs[1:], strict=True)]


def of_process(argv: list[str], path: str) -> float:
    """Seconds of a whole process."""
    code = f"""
import json, resource, subprocess
found = []
for _ in range({RUNS + 1}):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run({argv!r}, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
print(json.dumps([min(found[1:])]))
"""
    done = subprocess.run([sys.executable, "-c", code], env=environ(path), check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)[0])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        whole, broken = Path(name) / "whole", Path(name) / "broken"
        for i in range(50):
            source = ADAPTER.format(name=f"novel{i}")
            install(whole, f"novel{i}", source)
            install(broken, f"novel{i}", "raise RuntimeError('broken')\n" if i == 25 else source)
        for what, path in (("none besides", ""), ("50 adapters", str(whole)), ("one of 50 broken", str(broken))):
            imported, loaded, presets, count, failed = timed(REGISTRY, path)
            print(
                f"{what}: {count:.0f} model types, {failed:.0f} broken; import {1e3 * imported:.0f} ms, "
                f"registry {1e3 * loaded:.0f} ms, all presets {1e3 * presets:.0f} ms"
            )
        bare = of_process([sys.executable, "-c", "pass"], "")
        for arguments in (["--help"], ["presets"], ["adapters"]):
            command = [sys.executable, "-m", "cinderlora.cli", *arguments]
            alone, many = (1e3 * (of_process(command, path) - bare) for path in ("", str(whole)))
            print(f"cinderlora {' '.join(arguments)}: {alone:.0f} ms, with 50 more {many:.0f} ms")


if __name__ == "__main__":
    main()
