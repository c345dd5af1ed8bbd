"""How long a scan of many model files takes, against reading and decoding each of their headers; and what it holds.

    python benchmarks/scan.py [--files 1000] [--all-different]

The files are sparse: real headers (tests/data/headers) in all precisions and prefixes, real sizes up to 35 GB, LoRAs
with metadata. With --all-different no two of them have a structure in common, which no real folder has: nothing that
was decoded once serves again. Memory is measured in processes of their own, bytes read by the kernel's count.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PREFIXED = ("flux_dev", "flux_schnell", "chroma")


def make(folder: Path, count: int, different: bool) -> None:
    """Files with real headers; their contents are holes."""
    from cinderlora.models.headers import Tensor
    from cinderlora.models.hollow import write_hollow

    known = {
        path.name.removesuffix(".json.gz"): json.loads(gzip.decompress(path.read_bytes()))["tensors"]
        for path in sorted((ROOT / "tests/data/headers").glob("*.json.gz"))
    }
    kinds = [
        (name, dtype, prefix)
        for name in known
        for dtype in ("F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
        for prefix in ("", "model.diffusion_model.")
        if not prefix or name in PREFIXED
    ]
    for i in range(count):
        name, dtype, prefix = kinds[i % len(kinds)]
        tensors = {prefix + tensor: Tensor(dtype, tuple(shape)) for tensor, shape in known[name].items()}
        if different:
            tensors[f"zzz.{i}"] = Tensor(dtype, (1,))
        metadata = {"format": "pt", "title": f"model {i}"} if i % 3 else {}
        write_hollow(folder / name / f"{dtype}{'_p' if prefix else ''}_{i:05d}.safetensors", tensors, metadata)


def baseline(paths: Iterable[Path]) -> int:
    """Open, read and decode each header, and forget it."""
    total = 0
    for path in paths:
        with path.open("rb", buffering=0) as file:
            length = int.from_bytes(file.read(8), "little")
            json.loads(file.read(length))
            total += 8 + length
    return total


def scan(folder: Path) -> tuple[int, Callable[[], object]]:
    """Scan a folder; gives how many files were claimed, and how to scan it again."""
    import cinderlora_flux.scan
    from cinderlora.models import HeaderCache
    from cinderlora.models import scan as scan_models

    cache = HeaderCache()

    def again() -> object:
        return scan_models(folder, cinderlora_flux.scan.scan, (), cache=cache)

    library = scan_models(folder, cinderlora_flux.scan.scan, (), cache=cache)
    return sum(bool(file.role) for file in library.files), again


def entry(name: str, begin: int, end: int) -> bytes:
    return b'"%s":{"dtype":"U8","shape":[4],"data_offsets":[%d,%d]}' % (name.encode(), begin, end)


def hostile() -> dict[str, bytes]:
    """Headers that are wrong, and those that cost the most: as much of everything as is let through."""
    many = b",".join(entry(f"{i:05x}", 4 * i, 4 * i + 4) for i in range(9_900))
    texts = {
        "length 2^63": b"{}",
        "100 MB of JSON": b"{" + b",".join(entry(f"{i:07x}", 4 * i, 4 * i + 4) for i in range(1_500_000)) + b"}",
        "3 MB of JSON": b"{" + b",".join(entry(f"{i:05x}", 4 * i, 4 * i + 4) for i in range(48_000))[:2_990_000] + b"}",
        "overlapping": b"{" + b",".join(entry(f"{i:05x}", 0, 4) for i in range(8_000)) + b"}",
        "negative": b"{" + entry("a", -4, 0) + b"}",
        "9,900 tensors and one twice": b"{" + many + b"," + entry(f"{9_899:05x}", 39_600, 39_604) + b"}",
        "9,900 tensors and a gap": b"{" + many + b"," + entry("last", 39_604, 39_608) + b"}",
        "a shape of 190,000 sides": b'{"a":{"dtype":"U8","shape":[' + b"1," * 190_000 + b'1],"data_offsets":[0,1]}}',
        "49,000 metadata": b'{"__metadata__":{"":""' + b"".join(b',"%05x":""' % i for i in range(49_000)) + b"}}",
        "3 MB of wide text": b'{"__metadata__":{"a":"' + b"x" * 2_900_000 + "\U0001f408".encode() + b'"},"a":0}',
        "a number of 3 MB": b"[" + b"1" * 2_900_000 + b"]",
        "490,000 lists in each other": b"[" * 490_000,
        "99,000 objects in each other": b'{"a":' * 99_000,
        "a million lists": b"[" + b"[]," * 990_000 + b"0]",
        "not UTF-8": b'{"' + b"a" * 2_900_000 + b'\xff":1}',
    }
    return {what: (2**63 if what == "length 2^63" else len(t)).to_bytes(8, "little") + t for what, t in texts.items()}


def timed(call: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds, of the wall's clock or of the processor's."""
    began = clock()
    call()
    return clock() - began


def child(kind: str, folder: Path) -> None:
    """What a process of its own sees: seconds, bytes read, memory before and at most."""
    import resource

    import cinderlora_flux.scan  # noqa: F401
    import cinderlora_sd3.scan  # noqa: F401
    import cinderlora_sdxl.scan  # noqa: F401
    from cinderlora.models import HeaderCache, read_header  # noqa: F401

    def read_so_far() -> int:
        try:
            text = Path("/proc/self/io").read_text()
        except OSError:
            return 0
        return int(text.split("rchar:")[1].split()[0])

    def peak() -> float:
        """MB. The kernel's other count, `ru_maxrss`, begins with what the process had that started this one."""
        try:
            return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
        except (OSError, IndexError):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    if kind == "hostile":
        before, cpu = peak(), time.process_time()
        seconds = timed(lambda: read_header(folder))
        found = {"seconds": seconds, "cpu": time.process_time() - cpu, "memory": peak() - before}
        print(json.dumps(found | {"codes": [problem.code for problem in read_header(folder).problems]}))
        return
    before, started = peak(), read_so_far()
    paths = sorted(folder.rglob("*.safetensors"))
    result: dict[str, float] = {"cpu": -time.process_time()}
    if kind == "baseline":
        result["seconds"] = timed(lambda: baseline(paths))
    else:
        began = time.perf_counter()
        _, again = scan(folder)
        result["seconds"] = time.perf_counter() - began
    result["cpu"] += time.process_time()
    result |= {"bytes": read_so_far() - started, "before": before, "peak": peak()}
    if kind == "scan":
        result["cached"] = min(timed(again) for _ in range(5))
    print(json.dumps(result))


def main() -> None:
    """Make the files, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--all-different", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], Path(options.child[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, options.files, options.all_different)
        paths = sorted(folder.rglob("*.safetensors"))
        headers = baseline(paths)
        largest = max(path.stat().st_size for path in paths)
        print(f"{len(paths)} files, {headers / 1e6:.0f} MB of headers, the largest file {largest / 1e9:.0f} GB")
        runs: dict[str, list[dict[str, Any]]] = {"baseline": [], "scan": []}
        for _ in range(5):
            for kind, results in runs.items():
                results.append(run(kind, folder))
        base, own = (min(results, key=lambda r: r["seconds"]) for results in runs.values())
        cpu = min(r["cpu"] for r in runs["scan"]) / min(r["cpu"] for r in runs["baseline"])
        read = own["bytes"] / headers
        print(f"open, read and decode each header: {base['seconds']:.3f} s, at most {base['peak']:.0f} MB")
        ratio = own["seconds"] / base["seconds"]
        print(f"scan: {own['seconds']:.3f} s ({ratio:.2f} times, {cpu:.2f} of the processor's)")
        print(f"read: {read:.4f} of the headers' bytes")
        print(f"memory: {own['before']:.0f} MB after the imports, at most {own['peak']:.0f} MB")
        print(f"scan again: {own['cached'] * 1000:.1f} ms")
        seconds = timed(lambda: scan(paths[0].parent))
        print(f"one folder of {len(list(paths[0].parent.iterdir()))} files: {seconds * 1000:.0f} ms")
        show_hostile(folder / "hostile.safetensors")


def run(kind: str, path: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", kind, str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def show_hostile(path: Path) -> None:
    """The price of each hostile header, the best of three processes for time and the worst of them for memory."""
    for what, content in hostile().items():
        path.write_bytes(content)
        runs = [run("hostile", path) for _ in range(3)]
        best, memory = min(runs, key=lambda r: r["seconds"]), max(r["memory"] for r in runs)
        price = f"{best['seconds'] * 1000:.0f} ms ({best['cpu'] * 1000:.0f} of the processor's), {memory:.0f} MB more"
        print(f"hostile, {what}: {price}, {', '.join(best['codes']) or 'no problem'}")


if __name__ == "__main__":
    main()
