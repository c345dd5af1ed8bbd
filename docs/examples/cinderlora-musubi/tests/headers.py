"""Headers of Z-Image's files, as far as they are looked at: names and shapes by musubi-tuner's own modules."""

from __future__ import annotations

from cinderlora import Header
from cinderlora.testing import make_header


def transformer(
    name: str = "z_image_bf16.safetensors", prefix: str = "", *, joined: bool = False, width: int = 3840
) -> Header:
    block = f"{prefix}layers.0."
    tensors = {
        f"{prefix}cap_embedder.1.weight": (width, 2560),
        f"{prefix}noise_refiner.0.attention.to_q.weight": (width, width),
        f"{block}adaLN_modulation.0.weight": (4 * width, 256),
        f"{block}feed_forward.w1.weight": (10240, width),
    }
    if joined:
        tensors[f"{block}attention.qkv.weight"] = (3 * width, width)
    else:
        tensors |= {f"{block}attention.{part}.weight": (width, width) for part in ("to_q", "to_k", "to_v")}
    return make_header(tensors, f"models/{name}")


def qwen3(width: int = 2560) -> Header:
    tensors = {"model.layers.0.self_attn.q_norm.weight": (128,), "model.embed_tokens.weight": (151936, width)}
    return make_header(tensors, "models/qwen_3_4b.safetensors")


def autoencoder() -> Header:
    tensors = {"decoder.conv_in.weight": (512, 16, 3, 3), "encoder.conv_out.weight": (32, 512, 3, 3)}
    return make_header(tensors, "models/flux/ae.safetensors", dtype="F32")
