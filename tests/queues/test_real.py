"""A queue of real SD3 trainings whose creator is killed. See tests/test_sd_scripts.py for what it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest

from cinderlora import sync

CHECKOUT = os.environ.get("CINDERLORA_SD_SCRIPTS")

pytestmark = [
    pytest.mark.sd_scripts,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CHECKOUT, reason="CINDERLORA_SD_SCRIPTS names no checkout of sd-scripts"),
]

CREATOR = """
    import os, signal, sys
    from pathlib import Path
    import cinderlora
    from cinderlora.sync import Queue

    folder, pictures, output = map(Path, sys.argv[1:])
    bench = Path(os.environ["CINDERLORA_SD_SCRIPTS_BENCH"])
    names = {"model": "sd3_tiny", "clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl"}
    trainer = cinderlora.SdScripts(
        os.environ["CINDERLORA_SD_SCRIPTS"], python=os.environ.get("CINDERLORA_SD_SCRIPTS_PYTHON")
    )
    job = cinderlora.Registry.from_installed()["sd3"].job(
        name="elena", trigger="elena", dataset=pictures, output=output, preset="16gb",
        models={role: bench / f"models/{name}.safetensors" for role, name in names.items()},
        steps=4, save_every=0, sample_every=4, sample_steps=2, resolution=128, optimizer="AdamW", blocks_to_swap=0,
        fp8_base=False, batch_size=1, extra={"tokenizer_cache_dir": str(bench / "tokenizers")},
    )
    queue = Queue(folder)
    for variant in job.sweep(network_dim=[2, 4, 8]):
        queue.add(variant, trainer)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_three_trainings_run_though_their_creator_is_killed(folder, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    argv = [sys.executable, "-c", textwrap.dedent(CREATOR), *map(str, (folder, pictures, tmp_path / "out"))]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    queue = sync.Queue(folder)
    queue.wait()
    outcomes = queue.outcomes()
    assert [outcome.entry.state for outcome in outcomes] == ["finished"] * 3
    assert [dict(outcome.settings) for outcome in outcomes] == [{"network_dim": dim} for dim in (2, 4, 8)]
    assert sorted(path.name for path in Path(tmp_path / "out").glob("*.safetensors")) == [
        f"cg_elena-dim{dim}.safetensors" for dim in (2, 4, 8)
    ]
    handed_over = [then.entry.started - before.entry.ended for before, then in pairwise(outcomes)]
    assert max(handed_over) < 5  # half a second where nobody else uses the machine
    assert queue.sheet(tmp_path / "sheet.png").exists()
