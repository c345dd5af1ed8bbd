"""musubi-tuner's own scripts on models small enough for a CPU: random weights, few layers, a made-up tokenizer.

    python small_models.py make FOLDER                  writes the models
    python small_models.py SCRIPT.py ARGUMENTS ...      runs a script of musubi-tuner
    python small_models.py arguments SCRIPT.py          prints what its parser has, as JSON

The scripts are run unchanged. What is changed in memory, before they begin, is how large their models are; those sizes
are constants there and no arguments, and the tokenizer, which otherwise comes from the Hugging Face hub.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import runpy
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

WIDTH, TEXT_WIDTH = 64, 32
TEMPLATE = "user: {% for m in messages %}{{ m['content'] }}{% endfor %}"  # as the real one, never empty


def shrink() -> None:
    """Make the models small that will be built in this process."""
    import torchvision
    from musubi_tuner.zimage import zimage_autoencoder, zimage_config, zimage_utils

    zimage_config.DEFAULT_TRANSFORMER_DIM = WIDTH
    zimage_config.DEFAULT_TRANSFORMER_N_LAYERS = 2
    zimage_config.DEFAULT_TRANSFORMER_N_REFINER_LAYERS = 1
    zimage_config.DEFAULT_TRANSFORMER_N_HEADS = zimage_config.DEFAULT_TRANSFORMER_N_KV_HEADS = 2
    zimage_config.DEFAULT_TRANSFORMER_CAP_FEAT_DIM = TEXT_WIDTH
    zimage_config.ROPE_AXES_DIMS = [8, 12, 12]

    config, vae = zimage_utils.Qwen3Config, zimage_autoencoder.AutoencoderKL

    def small_text(**kwargs: Any) -> Any:
        sizes = {"hidden_size": TEXT_WIDTH, "intermediate_size": 64, "head_dim": 16, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_window_layers": 2, "vocab_size": 300}
        return config(**{**kwargs, **sizes, **heads})

    def small_vae(**kwargs: Any) -> Any:
        return vae(**{**kwargs, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1})

    if importlib.util.find_spec("torchvision.utils") is None:  # an environment that has only a stand-in for it
        torchvision.utils = types.SimpleNamespace(make_grid=lambda pictures, **_: pictures[0])
    zimage_utils.Qwen3Config = small_text
    zimage_autoencoder.AutoencoderKL = small_vae
    zimage_utils.Qwen2Tokenizer = type("Small", (), {"from_pretrained": staticmethod(tokenizer)})


def tokenizer(*_: object, **__: object) -> Any:
    """A tokenizer that knows single bytes."""
    from transformers import Qwen2Tokenizer
    from transformers.models.qwen2.tokenization_qwen2 import bytes_to_unicode

    with tempfile.TemporaryDirectory() as folder:
        vocab, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocab.write_text(json.dumps({letter: n for n, letter in enumerate(bytes_to_unicode().values())}))
        merges.write_text("#version: 0.2\n")
        made = Qwen2Tokenizer(str(vocab), str(merges))
    made.chat_template = TEMPLATE
    return made


def make(folder: Path) -> None:
    """Write the three model files."""
    import torch
    from musubi_tuner.zimage import zimage_autoencoder, zimage_model, zimage_utils
    from safetensors.torch import save_file
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(1)
    folder.mkdir(parents=True, exist_ok=True)

    def save(model: Any, name: str, *, without: str = "") -> None:
        model = model.to_empty(device="cpu")
        state = {
            key: torch.randn(value.shape) * 0.02
            if value.is_floating_point() and value.dim() > 1
            else torch.ones(value.shape)
            for key, value in model.state_dict().items()
            if key != without
        }
        save_file({key: value.to(torch.bfloat16) for key, value in state.items()}, folder / name)

    save(zimage_model.create_model("torch", False, torch.bfloat16), "z_image.safetensors")
    text = Qwen3ForCausalLM._from_config(zimage_utils.Qwen3Config())
    save(text, "qwen3.safetensors", without="lm_head.weight")
    built: list[Any] = []
    original = zimage_autoencoder.AutoencoderKL
    zimage_autoencoder.AutoencoderKL = lambda **kwargs: built.append(original(**kwargs)) or built[-1]
    try:
        zimage_autoencoder.load_autoencoder_kl(str(folder / "nothing.safetensors"))
    except Exception:
        save(built[0], "ae.safetensors")  # it was built before its file was looked for


def arguments(script: str) -> None:
    """Run a script until it parses, and print its parser's arguments: action, type, nargs and choices by name."""

    def told(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        found = {
            action.dest: [
                type(action).__name__.removeprefix("_"),
                getattr(action.type, "__name__", None),
                action.nargs,
                None if action.choices is None else list(action.choices),
            ]
            for action in parser._actions
        }
        print(json.dumps(found))
        raise SystemExit

    argparse.ArgumentParser.parse_args = told
    runpy.run_path(script, run_name="__main__")


def main(argv: list[str]) -> None:
    if argv[0] == "arguments":
        arguments(argv[1])
    shrink()
    if argv[0] == "make":
        make(Path(argv[1]))
        return
    sys.argv = argv
    sys.path[0] = str(Path(argv[0]).parent)
    runpy.run_path(argv[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
