"""What every adapter has to do right, tried on the headers of its files and on what its scripts print."""

from pathlib import Path

import cinderlora_musubi
import pytest
from headers import autoencoder, qwen3, transformer

from cinderlora.testing import adapter_checks

CHECKS = adapter_checks(
    cinderlora_musubi,
    headers={"model": [transformer(), transformer(joined=True)], "qwen3": qwen3(), "vae": autoencoder()},
    logs=[Path(__file__).parent / "recordings/zimage.log"],
)


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_adapter(check):
    check()
