"""How many bytes a training step, a sampling step and the VAEs need besides the weights: counted, without a card.

PYTHON benchmarks/activations.py --sd-scripts DIR [flux | sd3 | sdxl ...]

PYTHON is sd-scripts' own. Its modules are run at full size on PyTorch's fake tensors, which have shapes and no memory,
and every tensor's storage is counted from its making to its end. What differs on a card is imitated: attention keeps
what FlashAttention keeps, and norms are calculated in 32 bits as CUDA's autocast has it. The figures in the adapters'
`cost.py` are fitted to these; what the allocator and cuDNN add on a card is not in them.

One minute for SDXL, three for FLUX, five for SD3. Prints MiB; asserts nothing.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn
CASES = ((512, 1), (1024, 1), (1024, 2))
DIM = 16


class Tracker(TorchDispatchMode):
    """Bytes of all storages alive, in the 512 of CUDA's allocator."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            size = -(-storage.nbytes() // 512) * 512
            self._seen[storage] = size
            weakref.finalize(storage, self._forget, size)
            self.live += size
            self.peak = max(self.peak, self.live)

    def _forget(self, size: int) -> None:
        self.live -= size

    def above(self, action: Callable[[], object]) -> float:
        """MiB that an action needs at most beyond what was there."""
        gc.collect()
        before = self.peak = self.live
        action()
        gc.collect()
        return (self.peak - before) / 2**20


class Flash(torch.autograd.Function):
    """Attention that keeps queries, keys, values, the result and one number for each row."""

    @staticmethod
    def forward(ctx, q, k, v):
        q, k, v = (x.to(BF16) for x in (q, k, v))
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:3]))
        return out

    @staticmethod
    def backward(ctx, grad):
        return tuple(torch.empty_like(x) for x in ctx.saved_tensors[:3])


def imitate_cuda() -> None:
    def in_floats(norm):
        def call(x, *args, **named):
            if torch.is_autocast_enabled("cpu"):
                x = x.float()
                args = [a.float() if isinstance(a, torch.Tensor) else a for a in args]
            return norm(x, *args, **named)

        return call

    F.scaled_dot_product_attention = lambda q, k, v, *_, **__: Flash.apply(q, k, v)
    F.layer_norm = in_floats(F.layer_norm)
    F.group_norm = in_floats(F.group_norm)


@contextmanager
def faked(make: Callable[[], torch.nn.Module], dtype: torch.dtype) -> Iterator[tuple[torch.nn.Module, Tracker]]:
    """A model whose weights are fake and none of the bytes that are counted."""
    with FakeTensorMode(), Tracker() as tracker:
        with torch.device("meta"):
            model = make()
        for module in model.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    fake = torch.empty(p.shape, dtype=dtype)
                    module._parameters[name] = torch.nn.Parameter(fake, requires_grad=False)
            for name, b in module._buffers.items():
                if b is not None:
                    module._buffers[name] = torch.empty(b.shape, dtype=b.dtype)
        yield model, tracker


def with_lora(model: torch.nn.Module, module: str, encoders: int) -> torch.nn.Module:
    others = [torch.nn.Identity() for _ in range(encoders)]
    network = importlib.import_module(module).create_network(1.0, DIM, DIM / 2, None, others, model)
    network.apply_to(others, model, False, True)
    network.requires_grad_(True)
    return network


def steps(name: str, make, module: str, encoders: int, inputs: Callable[[int, int, bool], dict]) -> None:
    """Training steps with and without checkpointing, with weights in 16 and in 8 bits, and sampling steps."""
    for dtype in (BF16, FP8):
        for checkpointing in (True, False):
            with faked(make, dtype) as (model, tracker):
                network = with_lora(model, module, encoders)
                model.train(checkpointing)
                if checkpointing:
                    model.enable_gradient_checkpointing()

                def forward(px, batch, grad, model=model):
                    with torch.autocast("cpu", dtype=BF16):
                        return model(**inputs(px, batch, grad))

                def step(px, batch, grad=checkpointing, forward=forward, network=network):
                    forward(px, batch, grad).float().sum().backward()
                    network.zero_grad(set_to_none=True)

                def sample(px, forward=forward):
                    with torch.no_grad():
                        forward(px, 1, False)

                kind = f"{name}, {str(dtype).removeprefix('torch.')}, {'checkpointed' if checkpointing else 'plain'}"
                for px, batch in CASES:
                    print(f"{kind}, {px} px, batch {batch}: {tracker.above(lambda p=px, b=batch: step(p, b)):.0f}")
                if checkpointing:
                    for px in (512, 1024):
                        print(f"{kind}, sampling step, {px} px: {tracker.above(lambda p=px: sample(p)):.0f}")


def vae(name: str, make, dtype: torch.dtype, channels: int, *, autocast: bool) -> None:
    with faked(make, dtype) as (model, tracker), torch.no_grad():
        for px in (512, 1024):
            picture, latents = (1, 3, px, px), (1, channels, px // 8, px // 8)
            with torch.autocast("cpu", dtype=BF16, enabled=autocast):
                decoding = tracker.above(lambda shape=latents: model.decode(torch.empty(shape, dtype=dtype)))
            encoding = tracker.above(lambda shape=picture: model.encode(torch.empty(shape, dtype=dtype)))
            print(f"{name} VAE, {px} px: encoding {encoding:.0f}, decoding {decoding:.0f}")


def flux() -> None:
    from library import flux_models

    def inputs(px: int, batch: int, grad: bool) -> dict:
        n = px * px // 256
        return {
            "img": torch.empty(batch, n, 64, dtype=BF16, requires_grad=grad),
            "img_ids": torch.empty(batch, n, 3),
            "txt": torch.empty(batch, 512, 4096, dtype=BF16, requires_grad=grad),
            "txt_ids": torch.empty(batch, 512, 3),
            "y": torch.empty(batch, 768, dtype=BF16),
            "timesteps": torch.empty(batch),
            "guidance": torch.empty(batch),
        }

    config = flux_models.configs["dev"]
    vae("FLUX", lambda: flux_models.AutoEncoder(config.ae_params), BF16, 16, autocast=True)
    steps("FLUX", lambda: flux_models.Flux(config.params), "networks.lora_flux", 3, inputs)


def sd3() -> None:
    from library import sd3_models

    def params(depth: int, width: int, name: str, patches: int, norm: str | None, dual: int):
        return sd3_models.SD3Params(
            patch_size=2,
            depth=depth,
            num_patches=patches,
            pos_embed_max_size=int(patches**0.5),
            adm_in_channels=2048,
            qk_norm=norm,
            x_block_self_attn_layers=list(range(dual)),
            context_embedder_in_features=4096,
            context_embedder_out_features=width,
            model_type=name,
        )

    def inputs(px: int, batch: int, grad: bool) -> dict:
        return {
            "x": torch.empty(batch, 16, px // 8, px // 8, dtype=BF16, requires_grad=grad),
            "t": torch.empty(batch),
            "context": torch.empty(batch, 77 + 256, 4096, dtype=BF16, requires_grad=grad),
            "y": torch.empty(batch, 2048, dtype=BF16, requires_grad=grad),
        }

    vae("SD3", sd3_models.SDVAE, BF16, 16, autocast=False)
    for found in (
        params(24, 1536, "sd3m", 36_864, None, 0),
        params(24, 1536, "sd3-5-medium", 147_456, "rms", 13),
        params(38, 2432, "sd3-5-large", 36_864, "rms", 0),
    ):
        make = lambda found=found: sd3_models.create_sd3_mmdit(found, "torch")  # noqa: E731
        steps(found.model_type, make, "networks.lora_sd3", 3, inputs)


def sdxl() -> None:
    from diffusers import AutoencoderKL
    from library import model_util, sdxl_original_unet

    def make() -> torch.nn.Module:
        unet = sdxl_original_unet.SdxlUNet2DConditionModel()
        unet.set_use_sdpa(True)
        return unet

    def inputs(px: int, batch: int, grad: bool) -> dict:
        return {
            "x": torch.empty(batch, 4, px // 8, px // 8, dtype=BF16, requires_grad=grad),
            "timesteps": torch.empty(batch),
            "context": torch.empty(batch, 227, 2048, dtype=BF16, requires_grad=grad),
            "y": torch.empty(batch, 2816, dtype=BF16, requires_grad=grad),
        }

    config = model_util.create_vae_diffusers_config()
    vae("SDXL", lambda: AutoencoderKL(**config), torch.float32, 4, autocast=False)
    steps("SDXL", make, "networks.lora", 0, inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", default=["sdxl", "flux", "sd3"])
    parser.add_argument("--sd-scripts", required=True)
    given = parser.parse_args()
    sys.path.insert(0, given.sd_scripts)
    imitate_cuda()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # without gradients there is nothing to checkpoint, as is wanted here
    for name in given.models:
        {"flux": flux, "sd3": sd3, "sdxl": sdxl}[name]()


if __name__ == "__main__":
    main()
