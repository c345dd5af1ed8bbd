"""Which files are whose, and which go together: folders of real headers through the three adapters."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cinderlora_flux.scan as flux
import cinderlora_sd3.scan as sd3
import cinderlora_sdxl.scan as sdxl
from cinderlora import Problem, Registry, SdScripts, hookimpl
from cinderlora.models import Header, HeaderCache, ModelLibrary, Tensor, read_header, scan
from cinderlora.models.folders import extra_model_paths, find_model_files
from cinderlora.models.hollow import write_hollow
from cinderlora.models.library import Claimant, scan_for
from cinderlora.types import Component, ModelFile, ModelType

Scan = Callable[[Sequence[Header]], Iterator[ModelFile]]
TYPES: dict[str, Scan] = {"flux": flux.scan, "sdxl": sdxl.scan, "sd3": sd3.scan}
COMPONENTS = {
    "flux": [Component("model"), Component("clip_l"), Component("t5xxl"), Component("ae")],
    "sdxl": [Component("model"), Component("vae", required=False)],
    "sd3": [
        Component("model"),
        *(Component(role, bundled=True) for role in ("clip_l", "clip_g", "t5xxl", "vae")),
    ],
}
PREFIX = "model.diffusion_model."
PRECISIONS = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2"}

# What each real header is to each model type: role and variant. Types that are not named do not claim it.
TRUTH: dict[str, dict[str, tuple[str, str]]] = {
    "flux_dev": {"flux": ("model", "dev")},
    "flux_schnell": {"flux": ("model", "schnell")},
    "chroma": {"flux": ("model", "chroma")},
    "flux_ae": {"flux": ("ae", "")},
    "sd3_vae": {"sd3": ("vae", "")},
    "sdxl_vae": {"sdxl": ("vae", "")},
    "clip_l": {"flux": ("clip_l", ""), "sd3": ("clip_l", "")},
    "clip_g": {"sd3": ("clip_g", "")},
    "t5xxl": {"flux": ("t5xxl", ""), "sd3": ("t5xxl", "")},
    "sdxl_base": {"sdxl": ("model", "base")},
    "sd3_medium": {"sd3": ("model", "sd3-medium")},
    "sd3_medium_incl_clips": {"sd3": ("model", "sd3-medium")},
    "sd35_medium": {"sd3": ("model", "sd3.5-medium")},
}
BUNDLED = {
    "sdxl_base": ("clip_l", "clip_g", "vae"),
    "sd3_medium": ("vae",),
    "sd3_medium_incl_clips": ("clip_l", "clip_g", "vae"),
    "sd35_medium": ("vae",),
}
UNTRAINABLE = {"chroma": "model_variant"}
LAYOUTS = {
    **dict.fromkeys(("flux_dev", "flux_schnell", "chroma"), "bfl"),
    **dict.fromkeys(("flux_ae", "sd3_vae", "sdxl_vae"), "ldm"),
    **dict.fromkeys(("clip_l", "clip_g", "t5xxl"), "transformers"),
    **dict.fromkeys(BUNDLED, "sgm"),
}


def tensors_of(name: str, dtype: str = "BF16", prefix: str = "") -> dict[str, Tensor]:
    known = json.loads(gzip.decompress((Path(__file__).parent / f"data/headers/{name}.json.gz").read_bytes()))
    return {prefix + tensor: Tensor(dtype, tuple(shape)) for tensor, shape in known["tensors"].items()}


def write(path: Path, name: str, dtype: str = "BF16", prefix: str = "", **options: int) -> Path:
    return write_hollow(path, tensors_of(name, dtype, prefix), **options)


def library(kind: str, *where: Path, cache: HeaderCache | None = None) -> ModelLibrary:
    return scan(where, TYPES[kind], COMPONENTS[kind], cache=cache)


def seen(kind: str, path: Path) -> ModelFile:
    (file,) = library(kind, path).files
    return file


def seen_as(kind: str, tensors: dict[str, Tensor], name: str = "model.safetensors") -> ModelFile | None:
    """What a type makes of a file that was never on a disk."""
    return next(iter(TYPES[kind]([Header(path=Path("models") / name, size=1, tensors=tensors)])), None)


def codes(file: ModelFile | None, severity: str = "error") -> list[str]:
    assert file is not None
    return [problem.code for problem in file.problems if problem.severity == severity]


def without(tensors: dict[str, Tensor], *starts: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(starts)}


# ---- each file by itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", TRUTH)
def test_each_header_is_known_to_those_it_belongs_to(tmp_path: Path, name: str, dtype: str) -> None:
    path = write(tmp_path / f"{name}.safetensors", name, dtype)
    for kind in TYPES:
        file = seen(kind, path)
        if kind not in TRUTH[name]:
            assert (file.role, codes(file, "warning"), file.usable) == ("", ["model_not_for_type"], False)
            continue
        assert (file.role, file.variant) == TRUTH[name][kind]
        assert (file.precision, file.size) == (PRECISIONS[dtype], path.stat().st_size)
        assert (file.bundled, file.layout) == (BUNDLED.get(name, ()), LAYOUTS[name])
        assert file.precisions == dict.fromkeys((file.role, *file.bundled), PRECISIONS[dtype])
        whole = without(tensors_of(name), "denoiser.")
        assert sum(file.parameters.values()) == sum(tensor.parameters for tensor in whole.values())
        expected = [UNTRAINABLE[name]] if name in UNTRAINABLE else []
        assert codes(file) == expected + (["model_fp8_e5m2"] if dtype == "F8_E5M2" else [])


@pytest.mark.parametrize("name", ["flux_dev", "flux_schnell"])
def test_flux_with_comfyuis_prefix_is_fine(tmp_path: Path, name: str) -> None:
    file = seen("flux", write(tmp_path / "a.safetensors", name, prefix=PREFIX))
    assert (file.role, file.variant, file.usable) == ("model", name.removeprefix("flux_"), True)
    assert (file.layout, file.limits["blocks_to_swap"]) == ("comfyui", 35)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", TRUTH)
def test_under_a_prefix_that_is_none_of_theirs_no_header_can_be_used(name: str, dtype: str) -> None:
    for prefix in (PREFIX, "model.", "net."):
        for kind in TYPES:
            file = seen_as(kind, tensors_of(name, dtype, prefix), f"{name}.safetensors")
            if file is not None and file.role == "model" and prefix == PREFIX and name.startswith("flux"):
                continue  # ComfyUI's prefix is FLUX's too
            assert file is None or not file.usable


def test_a_mixed_file_says_what_most_of_it_is_kept_in_and_what_the_rest() -> None:
    tensors = {
        name: tensor if len(tensor.shape) > 1 else Tensor("BF16" if ".norm." in name else "F32", tensor.shape)
        for name, tensor in tensors_of("flux_dev", "F8_E4M3").items()
    }
    inside = {"text_encoders.clip_l.x.weight": Tensor("F16", (9, 9)), "vae.x": Tensor("F32", (5,))}
    file = seen_as("flux", {PREFIX + name: tensor for name, tensor in tensors.items()} | inside)
    assert file is not None
    assert (file.precision, codes(file)) == ("fp8_e4m3fn", [])
    assert file.precisions == {
        "model": "fp8_e4m3fn",
        "model.rest": "fp32+bf16",
        "clip_l": "fp16",
        "ae": "fp32",
    }
    assert file.parameters == {"model": sum(t.parameters for t in tensors.values()), "clip_l": 81, "ae": 5}


def test_a_flux_whose_norms_are_named_as_only_comfyui_does_is_refused() -> None:
    renamed = {name.replace("_norm.scale", "_norm.weight"): tensor for name, tensor in tensors_of("flux_dev").items()}
    assert codes(seen_as("flux", renamed)) == ["model_layout"]


def diffusers_flux(guided: bool = True) -> dict[str, Tensor]:
    names = [
        "x_embedder.weight",
        "context_embedder.weight",
        *(f"transformer_blocks.{i}.attn.add_k_proj.{end}" for i in range(19) for end in ("weight", "bias")),
        *(f"single_transformer_blocks.{i}.attn.to_q.weight" for i in range(38)),
    ]
    tensors = {name: Tensor("BF16", (3072, 64 if name == "x_embedder.weight" else 3072)) for name in names}
    if guided:
        tensors["time_text_embed.guidance_embedder.linear_1.weight"] = Tensor("BF16", (3072, 256))
    return tensors


def test_flux_in_the_layout_of_diffusers_is_fine() -> None:
    for guided, variant in ((True, "dev"), (False, "schnell")):
        file = seen_as("flux", diffusers_flux(guided))
        assert file is not None
        assert (file.role, file.variant, codes(file)) == ("model", variant, [])
    prefixed = {PREFIX + name: tensor for name, tensor in diffusers_flux().items()}
    assert codes(seen_as("flux", prefixed)) == ["model_layout"]


@pytest.mark.parametrize(("width", "variant"), [(64, "dev"), (384, "fill"), (128, "control"), (96, "control")])
def test_flux_for_filling_and_control_is_told_from_dev(width: int, variant: str) -> None:
    tensors = tensors_of("flux_dev") | {"img_in.weight": Tensor("BF16", (3072, width))}
    file = seen_as("flux", tensors)
    assert file is not None
    assert (file.role, file.variant) == ("model", variant)
    assert codes(file) == ([] if variant == "dev" else ["model_variant"])


def test_relatives_of_flux_are_known_by_their_own_parts() -> None:
    dev = tensors_of("flux_dev")
    controlnet = seen_as("flux", dev | {"controlnet_blocks.0.weight": Tensor("BF16", (3072, 3072))})
    flux2 = seen_as(
        "flux", without(dev, "vector_in") | {"double_stream_modulation_img.lin.weight": Tensor("BF16", (1, 1))}
    )
    assert controlnet is not None
    assert flux2 is not None
    assert (controlnet.variant, codes(controlnet)) == ("controlnet", ["model_variant"])
    assert (flux2.variant, codes(flux2)) == ("flux2", ["model_variant"])


def test_schnell_comes_with_a_warning() -> None:
    assert codes(seen_as("flux", tensors_of("flux_schnell")), "warning") == ["model_distilled"]


def test_an_all_in_one_flux_says_what_is_inside_and_whether_it_will_be_found() -> None:
    inside = {"text_encoders.clip_l.logit_scale": Tensor("F32", ()), "vae.decoder.conv_in.bias": Tensor("F32", (512,))}
    transformer = tensors_of("flux_dev", "F8_E4M3", PREFIX)
    behind = seen_as("flux", transformer | inside)
    assert behind is not None
    assert (behind.bundled, behind.precision, behind.problems) == (("clip_l", "ae"), "fp8_e4m3fn", ())
    assert codes(seen_as("flux", inside | transformer), "warning") == ["model_bundle_order"]
    assert codes(seen_as("flux", transformer | {"first_stage_model.x": Tensor("F32", ())})) == ["model_bundle_order"]


@pytest.mark.parametrize(
    ("kind", "name", "prefix"),
    [("flux", "flux_dev", ""), ("flux", "t5xxl", ""), ("sd3", "t5xxl", ""), ("sd3", "sd35_medium", PREFIX)],
)
@pytest.mark.parametrize("scale", ["scaled_fp8", "x.scale_weight", "x.weight_scale"])
def test_scaled_fp8_is_refused(kind: str, name: str, prefix: str, scale: str) -> None:
    file = seen_as(kind, tensors_of(name, "F8_E4M3") | {prefix + scale: Tensor("F32", ())})
    assert file is not None
    assert (file.precision, codes(file)) == ("fp8_scaled", ["model_fp8_scaled"])


def test_four_bits_are_refused() -> None:
    tensors = tensors_of("flux_dev", "U8") | {
        "img_in.weight": Tensor("U8", (98304, 1)),
        "img_in.weight.quant_state.bitsandbytes__nf4": Tensor("U8", (80,)),
    }
    file = seen_as("flux", tensors)
    assert file is not None
    assert (file.variant, file.precision, codes(file)) == ("dev", "nf4", ["model_quantized"])


def test_an_sd3_without_its_prefix_says_what_to_take(tmp_path: Path) -> None:
    bare = {n.removeprefix(PREFIX): t for n, t in tensors_of("sd35_medium").items() if n.startswith(PREFIX)}
    file = seen("sd3", write_hollow(tmp_path / "sd3.5_medium.safetensors", bare))
    assert (file.role, file.variant, file.bundled, codes(file)) == ("model", "sd3.5-medium", (), ["model_prefix"])
    assert "model.diffusion_model." in file.problems[0].message
    assert "checkpoints" in file.problems[0].fix


def test_sd35_large_is_told_from_medium() -> None:
    medium = tensors_of("sd35_medium")
    large = {name: tensor for name, tensor in medium.items() if ".attn2." not in name}
    file = seen_as("sd3", large)
    assert file is not None
    assert (file.variant, codes(file)) == ("sd3.5-large", [])


def test_sd3_in_the_layout_of_diffusers_is_refused() -> None:
    names = ("pos_embed.proj.weight", "transformer_blocks.0.attn.add_k_proj.weight", "context_embedder.weight")
    assert codes(seen_as("sd3", {name: Tensor("BF16", (1536, 16)) for name in names})) == ["model_layout"]


def test_text_encoders_inside_an_sd3_come_with_a_warning() -> None:
    file = seen_as("sd3", tensors_of("sd3_medium_incl_clips"))
    assert (codes(file), codes(file, "warning")) == ([], ["model_encoders_inside"])
    assert file is not None
    assert file.problems[0].params["wins"] == ["clip_g"]
    scaled = {
        "text_encoders.t5xxl.transformer.a.weight": Tensor("F8_E4M3", (9,)),
        "text_encoders.t5xxl.scaled_fp8": Tensor("F32", ()),
    }
    assert codes(seen_as("sd3", tensors_of("sd3_medium") | scaled)) == ["model_fp8_scaled"]


UNET = "model.diffusion_model.input_blocks."


@pytest.mark.parametrize(
    ("changes", "role", "variant", "problems"),
    [
        ({f"{UNET}0.0.weight": (320, 9, 3, 3)}, "model", "inpaint", ["model_variant"]),
        ({f"{UNET}0.0.weight": (320, 8, 3, 3)}, "model", "edit", ["model_variant"]),
        ({f"{UNET}4.1.transformer_blocks.0.attn2.to_k.weight": (768, 1280)}, "model", "refiner", ["model_variant"]),
        ({"edm_mean": (4,), "edm_std": (4,)}, "model", "playground", ["model_variant"]),
        ({"v_pred": ()}, "model", "v-prediction", []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_relatives_of_sdxl(changes: dict[str, tuple[int, ...]], role: str, variant: str, problems: list[str]) -> None:
    tensors = tensors_of("sdxl_base") | {name: Tensor("F16", shape) for name, shape in changes.items()}
    file = seen_as("sdxl", tensors)
    assert file is not None
    assert (file.role, file.variant, codes(file)) == (role, variant, problems)


def sdxl_unet_of_diffusers(prefix: str = "") -> dict[str, Tensor]:
    """Enough of it to be known, with a linear layer, one that is none, and all depths."""
    names: dict[str, tuple[int, ...]] = {
        "conv_in.weight": (320, 4, 3, 3),
        "down_blocks.1.attentions.0.proj_in.weight": (640, 640),
        "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
        "down_blocks.1.resnets.0.time_emb_proj.weight": (640, 1280),
        "mid_block.attentions.0.transformer_blocks.9.attn2.to_k.weight": (1280, 2048),
    }
    return {prefix + name: Tensor("F16", shape) for name, shape in names.items()}


def test_kolors_is_no_sdxl_although_it_has_its_unet() -> None:
    kolors = tensors_of("sdxl_base") | {f"{PREFIX}label_emb.0.0.weight": Tensor("F16", (1280, 5632))}
    assert seen_as("sdxl", kolors) is None


def test_an_sdxl_checkpoint_has_to_be_whole() -> None:
    whole = tensors_of("sdxl_base")
    no_vae = seen_as("sdxl", without(whole, "first_stage_model."))
    assert no_vae is not None
    assert (codes(no_vae), no_vae.problems[0].params["missing"]) == (["model_incomplete"], ["vae"])
    unet = {name.removeprefix(PREFIX): tensor for name, tensor in whole.items() if name.startswith(PREFIX)}
    assert codes(seen_as("sdxl", unet)) == ["model_prefix"]
    assert codes(seen_as("sdxl", sdxl_unet_of_diffusers())) == ["model_layout"]
    smaller = seen_as("sdxl", without(whole, f"{PREFIX}middle_block.1."))
    assert smaller is not None
    assert (smaller.variant, codes(smaller)) == ("distilled", ["model_variant"])


def test_other_peoples_text_encoders_are_not_taken() -> None:
    umt5 = tensors_of("t5xxl") | {"shared.weight": Tensor("BF16", (256384, 4096))}
    clip_h = {"text_model.embeddings.token_embedding.weight": Tensor("BF16", (49408, 1024))}
    for kind in TYPES:
        assert seen_as(kind, umt5) is None
        assert seen_as(kind, clip_h) is None
    long_clip = tensors_of("clip_l") | {"text_model.embeddings.position_embedding.weight": Tensor("F32", (248, 768))}
    assert codes(seen_as("flux", long_clip)) == ["model_variant"]
    assert codes(seen_as("sd3", without(tensors_of("clip_g"), "text_projection"))) == ["model_incomplete"]


@pytest.mark.parametrize(
    ("name", "flux_takes", "sd3_takes"),
    [
        ("ae.safetensors", "yes", "no"),
        ("flux_vae.safetensors", "yes", "no"),
        ("FLUX1/diffusion_pytorch_model.safetensors", "yes", "no"),
        ("sd3_vae.safetensors", "no", "yes"),
        ("sd3.5-vae-fp16.safetensors", "no", "yes"),
        ("sd35/vae.safetensors", "no", "yes"),
        ("sd3/flux-ae.safetensors", "yes", "no"),
        ("vae.safetensors", "with a warning", "with a warning"),
        ("michael.safetensors", "with a warning", "with a warning"),
    ],
)
def test_whose_autoencoder_it_is_only_the_name_tells(name: str, flux_takes: str, sd3_takes: str) -> None:
    """FLUX's and SD3's have the same tensors of the same shapes in the same order."""
    assert list(tensors_of("flux_ae").items()) == list(tensors_of("sd3_vae").items())
    for kind, takes in (("flux", flux_takes), ("sd3", sd3_takes)):
        file = seen_as(kind, tensors_of("flux_ae"), name)
        if takes == "no":
            assert file is None
        else:
            assert codes(file) == []
            assert codes(file, "warning") == (["model_vae_unnamed"] if takes == "with a warning" else [])


def test_an_autoencoder_in_the_layout_of_diffusers_is_refused() -> None:
    tensors = {
        name.replace("encoder.down.0.block.0", "encoder.down_blocks.0.resnets.0"): tensor
        for name, tensor in tensors_of("flux_ae").items()
    }
    assert codes(seen_as("flux", tensors, "ae.safetensors")) == ["model_layout"]


def test_sd1s_autoencoder_is_not_sdxls() -> None:
    assert seen_as("sdxl", tensors_of("sdxl_vae"), "vae-ft-mse-840000-ema-pruned.safetensors") is None


def test_a_lora_is_no_model(tmp_path: Path) -> None:
    tensors = {
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": Tensor("BF16", (16, 3072)),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": Tensor("BF16", (9216, 16)),
    }
    path = write_hollow(tmp_path / "cg_elena.safetensors", tensors, {"modelspec.architecture": "flux-1-dev/lora"})
    for kind in TYPES:
        file = seen(kind, path)
        assert (file.role, file.variant, codes(file, "warning")) == ("lora", "flux-1-dev/lora", ["model_is_lora"])


def test_how_many_blocks_can_be_swapped(tmp_path: Path) -> None:
    """The figures of sd-scripts: 35 for FLUX, 22 for SD3 medium."""
    dev = read_header(write(tmp_path / "flux.safetensors", "flux_dev"))
    assert flux.blocks(dev) == (19, 38)
    assert flux.max_blocks_to_swap(*flux.blocks(dev)) == 35
    assert flux.blocks(Header(path=Path("a"), size=1, tensors=diffusers_flux())) == (19, 38)
    medium = read_header(write(tmp_path / "sd3.safetensors", "sd3_medium"))
    assert sd3.max_blocks_to_swap(sd3.blocks(medium)) == 22


def test_a_truncated_model_keeps_its_role_and_is_not_used(tmp_path: Path) -> None:
    file = seen("flux", write(tmp_path / "flux.safetensors", "flux_dev", missing=5_000_000_000))
    assert (file.role, file.variant, codes(file), file.usable) == ("model", "dev", ["model_truncated"], False)


def test_a_download_that_runs_keeps_its_role_until_it_is_there(tmp_path: Path) -> None:
    write(tmp_path / "flux.safetensors", "flux_dev")
    (tmp_path / "flux.safetensors.aria2").write_bytes(b"")
    write(tmp_path / "sdxl.safetensors.part", "sdxl_base", missing=1000)
    (tmp_path / "old.ckpt.part").write_bytes(b"a pickle is not even half looked at")
    cache = HeaderCache()
    (flux, _), (_, sdxl) = library("flux", tmp_path, cache=cache).files, library("sdxl", tmp_path, cache=cache).files
    assert (flux.role, codes(flux), flux.usable) == ("model", ["model_unfinished"], False)
    assert (sdxl.role, codes(sdxl)) == ("model", ["model_unfinished"])
    (tmp_path / "flux.safetensors.aria2").unlink()
    assert library("flux", tmp_path, cache=cache).files[0].usable


def test_a_gguf_keeps_its_role_and_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "flux1-dev-Q4_K_S.gguf"
    key = b"general.architecture"
    path.write_bytes(
        b"GGUF\x03\0\0\0"
        + bytes(8)
        + b"\x01"
        + bytes(7)
        + len(key).to_bytes(8, "little")
        + key
        + b"\x08\0\0\0\x04"
        + bytes(7)
        + b"flux"
    )
    file = seen("flux", path)
    assert (file.role, codes(file), file.usable) == ("model", ["model_gguf"], False)
    assert seen("sdxl", path).role == ""


# ---- folders --------------------------------------------------------------------------------------------------------


def comfyui(root: Path) -> Path:
    """A ComfyUI with a good set for each type, and what people have beside it."""
    models = root / "ComfyUI/models"
    (root / "ComfyUI/custom_nodes").mkdir(parents=True)
    write(models / "diffusion_models/flux1-dev-fp8.safetensors", "flux_dev", "F8_E4M3")
    write(models / "diffusion_models/flux1-dev.safetensors", "flux_dev")
    write(models / "diffusion_models/a-flux1-schnell-fp8.safetensors", "flux_schnell", "F8_E4M3")
    write(models / "unet/flux1-dev-e5m2.safetensors", "flux_dev", "F8_E5M2")
    write(models / "unet/a-broken.safetensors", "flux_dev", "F8_E4M3", missing=10)
    write(models / "text_encoders/clip_l.safetensors", "clip_l", "F16")
    write(models / "text_encoders/clip_g.safetensors", "clip_g", "F16")
    write(models / "text_encoders/t5xxl_fp16.safetensors", "t5xxl", "F16")
    write(models / "clip/t5/t5xxl_fp8_e4m3fn.safetensors", "t5xxl", "F8_E4M3")
    scaled = tensors_of("t5xxl", "F8_E4M3") | {
        "scaled_fp8": Tensor("F8_E4M3", (2,)),
        "x.scale_weight": Tensor("F32", ()),
    }
    write_hollow(models / "text_encoders/a_t5xxl_fp8_e4m3fn_scaled.safetensors", scaled)
    write(models / "vae/ae.safetensors", "flux_ae", "F32")
    write(models / "vae/a_sd3_vae.safetensors", "sd3_vae", "F16")
    write(models / "vae/a_vae.safetensors", "sd3_vae", "F16")
    write(models / "vae/sdxl_vae.safetensors", "sdxl_vae", "F16")
    write(models / "checkpoints/sd_xl_base_1.0.safetensors", "sdxl_base", "F16")
    write(models / "checkpoints/sd3_medium_incl_clips.safetensors", "sd3_medium_incl_clips", "F16")
    write(models / "checkpoints/sd3.5_medium.safetensors", "sd35_medium", "BF16")
    (models / "checkpoints/old.ckpt").write_bytes(b"\x80\x02")
    (models / "checkpoints/put_checkpoints_here").write_text("")
    return root / "ComfyUI"


def names(files: dict[str, ModelFile]) -> dict[str, str]:
    return {role: file.path.name for role, file in files.items()}


FLUX_SET = {
    "model": "flux1-dev-fp8.safetensors",
    "clip_l": "clip_l.safetensors",
    "t5xxl": "t5xxl_fp8_e4m3fn.safetensors",
    "ae": "ae.safetensors",
}
SD3_SET = {
    "model": "sd3.5_medium.safetensors",
    "clip_l": "clip_l.safetensors",
    "clip_g": "clip_g.safetensors",
    "t5xxl": "t5xxl_fp8_e4m3fn.safetensors",
}


@pytest.mark.parametrize("folder", ["", "models"])
def test_defaults_are_a_complete_set_that_fits(tmp_path: Path, folder: str) -> None:
    root = comfyui(tmp_path) / folder
    cache = HeaderCache()
    assert names(library("flux", root, cache=cache).defaults()) == FLUX_SET
    assert names(library("sdxl", root, cache=cache).defaults()) == {"model": "sd_xl_base_1.0.safetensors"}
    assert names(library("sd3", root, cache=cache).defaults()) == SD3_SET


def test_the_best_comes_first_and_what_cannot_be_used_last(tmp_path: Path) -> None:
    models = library("flux", comfyui(tmp_path))
    assert [(file.path.name, file.usable) for file in models.of("model")] == [
        ("flux1-dev-fp8.safetensors", True),
        ("flux1-dev.safetensors", True),
        ("a-flux1-schnell-fp8.safetensors", True),
        ("a-broken.safetensors", False),
        ("flux1-dev-e5m2.safetensors", False),
    ]
    assert [file.path.name for file in models.of("ae")] == ["ae.safetensors", "a_vae.safetensors"]
    assert [file.path.name for file in models.files if "model_pickle" in codes(file)] == ["old.ckpt"]
    assert models.of("gemma2") == ()


def test_a_bundle_needs_no_files_for_what_is_inside(tmp_path: Path) -> None:
    write(tmp_path / "sd3.safetensors", "sd3_medium_incl_clips")
    write(tmp_path / "t5.safetensors", "t5xxl")
    write(tmp_path / "sd3_vae.safetensors", "sd3_vae")
    assert names(library("sd3", tmp_path).defaults()) == {"model": "sd3.safetensors", "t5xxl": "t5.safetensors"}


def test_a_model_for_which_all_is_there_goes_over_a_better_one(tmp_path: Path) -> None:
    write(tmp_path / "a_bare.safetensors", "sd3_medium", "F8_E4M3")
    write(tmp_path / "b_with_clips.safetensors", "sd3_medium_incl_clips", "F16")
    write(tmp_path / "t5.safetensors", "t5xxl")
    assert names(library("sd3", tmp_path).defaults())["model"] == "b_with_clips.safetensors"


def test_of_two_alike_the_one_without_parts_that_are_not_used_goes_first(tmp_path: Path) -> None:
    inside = {f"text_encoders.t5xxl.transformer.{n}": t for n, t in tensors_of("t5xxl", "F8_E4M3").items()}
    all_in_one = tensors_of("flux_dev", "F8_E4M3", "model.diffusion_model.") | inside
    write_hollow(tmp_path / "checkpoints/a.safetensors", all_in_one)
    write(tmp_path / "unet/b.safetensors", "flux_dev", "F8_E4M3")
    assert [file.path.name for file in library("flux", tmp_path).of("model")] == ["b.safetensors", "a.safetensors"]


def test_an_sdxl_in_fp8_gains_nothing_and_comes_last(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", "sdxl_base", "F8_E4M3")
    write(tmp_path / "b.safetensors", "sdxl_base", "F16")
    first, second = library("sdxl", tmp_path).of("model")
    assert (first.path.name, codes(first, "warning")) == ("b.safetensors", [])
    assert (second.usable, codes(second, "warning")) == (True, ["model_fp8_for_nothing"])


def test_fp8_goes_first_where_it_saves_room_and_last_where_it_costs_precision(tmp_path: Path) -> None:
    for name, role in (("flux_dev", "model"), ("t5xxl", "t5xxl"), ("clip_l", "clip_l"), ("flux_ae", "ae")):
        for dtype in ("F8_E4M3", "BF16"):
            write(tmp_path / f"{role}_{dtype}_flux.safetensors", name, dtype)
    assert names(library("flux", tmp_path).defaults()) == {
        "model": "model_F8_E4M3_flux.safetensors",
        "t5xxl": "t5xxl_F8_E4M3_flux.safetensors",
        "clip_l": "clip_l_BF16_flux.safetensors",
        "ae": "ae_BF16_flux.safetensors",
    }


def test_what_is_missing_is_left_out_of_the_defaults(tmp_path: Path) -> None:
    write(tmp_path / "clip_l.safetensors", "clip_l")
    assert names(library("flux", tmp_path).defaults()) == {"clip_l": "clip_l.safetensors"}
    assert library("flux", tmp_path / "nowhere").defaults() == {}
    assert [problem.code for problem in library("flux", tmp_path / "nowhere").problems] == ["model_unreadable"]


def test_links_loops_and_hidden_folders(tmp_path: Path) -> None:
    real = write(tmp_path / "elsewhere/clip_l.safetensors", "clip_l")
    models = tmp_path / "models"
    write(models / ".cache/hidden.safetensors", "clip_l")
    (models / "deep/er").mkdir(parents=True)
    (models / "linked.safetensors").symlink_to(real)
    (models / "nowhere.safetensors").symlink_to(tmp_path / "gone")
    (models / "self.safetensors").symlink_to(models / "self.safetensors")
    (models / "deep/er/up").symlink_to(models)
    (models / "deep/twin").symlink_to(models / "deep/er")
    (models / "folder").symlink_to(tmp_path / "elsewhere")
    (models / "named_like_a_file.safetensors").mkdir()
    write(models / "named_like_a_file.safetensors/t5.safetensors", "t5xxl")
    found, problems = find_model_files(models)
    assert [Path(file.path).relative_to(models).as_posix() for file in found] == [
        "linked.safetensors",
        "folder/clip_l.safetensors",
        "named_like_a_file.safetensors/t5.safetensors",
    ]
    assert sorted(problem.params["name"] for problem in problems) == ["nowhere.safetensors", "self.safetensors"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path / "a/clip_l.safetensors", "clip_l")
    locked = tmp_path / "b"
    locked.mkdir(mode=0)
    models = library("flux", tmp_path)
    assert [problem.params["path"] for problem in models.problems] == [str(locked)]
    assert [file.role for file in models.files] == ["clip_l"]


def test_single_files_and_several_places(tmp_path: Path) -> None:
    one = write(tmp_path / "one/clip_l.safetensors", "clip_l")
    two = write(tmp_path / "two/t5.safetensors", "t5xxl")
    models = library("flux", one, two.parent, two)
    assert [file.path for file in models.files] == [one, two]
    assert scan(str(one), flux.scan).files[0].role == "clip_l"


EXTRA = """\
# Rename this to extra_model_paths.yaml
comfyui:
    base_path: {base}
    checkpoints: models/checkpoints/
    text_encoders: |
        models/text_encoders/
        models/clip/  # legacy location still supported
    custom_nodes: custom_nodes
    loras: "my loras"

other:
  vae: relative/vae
  is_default: true
"""


def test_extra_model_paths_are_read_as_comfyui_does(tmp_path: Path) -> None:
    base = tmp_path / "big disk"
    assert extra_model_paths(EXTRA.format(base=base), tmp_path) == [
        tmp_path / "relative/vae",
        base / "models/checkpoints",
        base / "models/text_encoders",
        base / "models/clip",
        base / "my loras",
    ]
    root = comfyui(tmp_path)
    (root / "extra_model_paths.yaml").write_text(EXTRA.format(base=base))
    write(base / "models/clip/clip_l.safetensors", "clip_l")
    assert str(base / "models/clip/clip_l.safetensors") in [file.path for file in find_model_files(root)[0]]
    assert str(base / "models/clip/clip_l.safetensors") not in [
        file.path for file in find_model_files(root / "models")[0]
    ]


@given(st.text(alphabet=" \t\n:#|>'\"ab~$/{}-é", max_size=80) | st.text())
def test_any_text_can_stand_in_extra_model_paths(text: str) -> None:
    assert all(isinstance(path, Path) for path in extra_model_paths(text, Path("/comfyui")))


def test_scanning_again_reads_only_what_has_changed(tmp_path: Path) -> None:
    root = comfyui(tmp_path)
    cache = HeaderCache()
    before = library("flux", root, cache=cache)
    for path in (root / "models/diffusion_models").iterdir():
        status = path.stat()
        with path.open("r+b") as file:  # whoever reads this again would notice
            file.write(bytes(100))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    write(root / "models/vae/ae.safetensors", "flux_ae", "BF16")
    (root / "models/text_encoders/clip_l.safetensors").unlink()
    after = library("flux", root, cache=cache)
    assert after.of("model") == before.of("model")
    assert after.of("ae")[0].precision == "bf16"
    assert after.of("clip_l") == ()


def shards(folder: Path, name: str, tensors: dict[str, Tensor], total: int) -> list[Path]:
    names = list(tensors)
    step = -(-len(names) // total)
    return [
        write_hollow(
            folder / f"{name}-{i + 1:05d}-of-{total:05d}.safetensors",
            {tensor: tensors[tensor] for tensor in names[i * step : (i + 1) * step]},
        )
        for i in range(total)
    ]


def test_a_set_of_shards_is_one_model(tmp_path: Path) -> None:
    paths = shards(tmp_path / "transformer", "diffusion_pytorch_model", diffusers_flux(), 3)
    shards(tmp_path / "text_encoder_2", "model", tensors_of("t5xxl"), 2)
    models = library("flux", tmp_path)
    assert len(models.files) == 2
    (model,) = models.of("model")
    assert (model.path, model.variant, model.usable) == (paths[0], "dev", True)
    assert model.size == sum(path.stat().st_size for path in paths)
    assert codes(models.of("t5xxl")[0]) == ["model_sharded"]
    paths[1].unlink()
    assert ["model_shard_missing"] in [codes(file) for file in library("flux", tmp_path).files]


@given(st.sampled_from(sorted(TRUTH)), st.data())
@settings(max_examples=60)
def test_a_real_header_that_was_tampered_with_is_used_or_named(name: str, data: st.DataObject) -> None:
    """Names dropped, renamed and given other shapes, precisions and prefixes: never an error, never a riddle."""
    prefix = data.draw(st.sampled_from(["", "", PREFIX, "a."]))
    tensors = tensors_of(name, data.draw(st.sampled_from([*PRECISIONS, "U8", "I8", "F6_E2M3"])), prefix)
    known = sorted(tensors)
    for _ in range(data.draw(st.integers(0, 4))):
        key = data.draw(st.sampled_from(known))
        tensor = tensors.pop(key, None)
        change = data.draw(st.sampled_from(["drop", "rename", "shape", "dtype", "keep a few"]))
        if change == "keep a few":
            tensors = dict(list(tensors.items())[: data.draw(st.integers(0, 40))])
        elif change == "rename":
            tensors[f"{key}.x"] = Tensor("F16", (1,))
        elif change == "shape":
            tensors[key] = Tensor("F16", tuple(data.draw(st.lists(st.integers(0, 4096), max_size=5))))
        elif change == "dtype" and tensor is not None:
            tensors[key] = Tensor(data.draw(st.sampled_from(["F64", "F8_E5M2", "X9\x1b"])), tensor.shape)
    header = Header(path=Path(f"models/{name}.safetensors"), size=1, tensors=tensors)
    for kind, claim in TYPES.items():
        for file in claim([header]):
            assert file.usable or file.problems, kind
            assert not file.usable or file.role in {"model", "clip_l", "clip_g", "t5xxl", "ae", "vae"}
            assert all(problem.message.isprintable() for problem in file.problems)
            assert file.role in file.parameters or not tensors or not file.role


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("clip_l", "text_model.embeddings.position_embedding.weight"),
        ("flux_ae", "encoder.conv_out.weight"),
        ("sdxl_vae", "encoder.conv_out.weight"),
    ],
)
def test_a_tensor_without_sides_is_no_reason_to_fail(tmp_path: Path, name: str, tensor: str) -> None:
    write_hollow(tmp_path / "a.safetensors", tensors_of(name) | {tensor: Tensor("BF16", ())})
    assert all(not file.usable for kind in TYPES for file in library(kind, tmp_path).files if file.role)


def test_of_several_types_each_has_its_say_of_a_header_that_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = comfyui(tmp_path)
    read: list[Path] = []

    def noted(path: Path, *others: Any) -> Header:
        read.append(Path(path))
        return read_header(path, *others)

    monkeypatch.setattr("cinderlora.models.cache.read_header", noted)
    claimants = {kind: Claimant(TYPES[kind], tuple(COMPONENTS[kind])) for kind in TYPES}
    claimants["broken"] = Claimant(lambda headers: [1 // 0 for _ in headers])
    cache = HeaderCache(max_tensors=1)  # room for one file
    libraries, failed = scan_for(root, claimants, cache=cache)
    assert len(read) == len(set(read)) and len(read) > 10
    assert list(failed) == ["broken"] and isinstance(failed["broken"], ZeroDivisionError)
    for kind in TYPES:
        assert libraries[kind].files == library(kind, root, cache=cache).files
        assert libraries[kind].defaults() == library(kind, root).defaults()


def test_a_registry_scans_for_all_its_types_and_leaves_out_a_broken_one(tmp_path: Path) -> None:
    class Broken:
        @hookimpl
        def model_type(self) -> ModelType:
            parts = [Component("model")]
            return ModelType(
                name="broken", title="Broken", script="x.py", network_module="networks.lora", components=parts
            )

        @hookimpl
        def scan_models(self, files: Sequence[Header]) -> list[ModelFile]:
            raise RuntimeError("not mine")

    registry = Registry.from_installed()
    registry.register(Broken(), name="broken-plugin")
    libraries = registry.scan_models(comfyui(tmp_path))
    assert set(libraries) >= {"flux", "sdxl", "sd3"} and "broken" not in libraries
    assert "not mine" in str(registry.broken["broken-plugin"])
    assert names(libraries["flux"].defaults()) == FLUX_SET


def test_a_claim_gets_batches_and_the_files_keep_their_order(tmp_path: Path) -> None:
    paths = [write_hollow(tmp_path / f"{i:03d}.safetensors", {"x": Tensor("F16", (i + 1,))}) for i in range(150)]
    handed: list[Path] = []

    def claim(headers: Sequence[Header]) -> list[ModelFile]:
        handed.extend(header.path for header in headers)
        return [ModelFile(path=h.path, role="model", size=h.size) for h in reversed(headers) if h.size % 4]

    models = scan(tmp_path, claim, [Component("model")])
    assert handed == paths
    assert [file.path for file in models.files] == paths


@given(
    st.dictionaries(
        st.lists(st.sampled_from(["a", "b", "vae", "ä b", "c.safetensors"]), min_size=1, max_size=3).map("/".join),
        st.sampled_from(["clip_l", "t5xxl", "junk", "loop"]),
        max_size=8,
    )
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_tree_is_scanned_to_the_end(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, str]) -> None:
    root = tmp_path_factory.mktemp("models")
    for name, kind in tree.items():
        folder = root / name
        if any((root / part).is_symlink() or (root / part).is_file() for part in [name, *map(str, Path(name).parents)]):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "loop":
            (folder / "loop").symlink_to(root, target_is_directory=True)
        elif kind == "junk":
            (folder / "x.safetensors").write_bytes(b"junk")
        else:
            write(folder / "x.safetensors", kind)
    models = library("flux", root)
    paths = [path for path in root.rglob("*.safetensors") if path.is_file()]
    assert {file.path for file in models.files} == {path for path in paths if "loop" not in path.parts}
    assert scan(root, flux.scan, COMPONENTS["flux"]) == models


# ---- what is given for a job ----------------------------------------------------------------------------------------


def checked(pictures: Path, tmp_path: Path, kind: str, **models: Path) -> list[Problem]:
    adapter = Registry.from_installed()[kind]
    job = adapter.job(name="elena", trigger="elena", dataset=pictures, output=tmp_path, preset="16gb", models=models)
    return list(adapter.check(job, SdScripts(tmp_path)).problems)


def test_a_model_of_another_kind_is_an_error_that_names_it(tmp_path: Path, pictures: Path) -> None:
    sd1 = {f"{UNET}1.1.transformer_blocks.0.attn2.to_k.weight": Tensor("F16", (320, 768))}
    sd1 |= {f"{UNET}4.1.transformer_blocks.0.attn2.to_k.weight": Tensor("F16", (640, 768))}
    path = write_hollow(tmp_path / "v1-5-pruned.safetensors", sd1)
    found = [
        problem for problem in checked(pictures, tmp_path, "sdxl", model=path) if problem.code == "wrong_component"
    ]
    assert [(problem.severity, problem.params["is_a"]) for problem in found] == [("error", "Stable Diffusion 1.5")]


def test_a_file_of_another_role_is_an_error(tmp_path: Path, pictures: Path) -> None:
    path = write(tmp_path / "clip_l.safetensors", "clip_l")
    found = [
        problem.params["is_a"]
        for problem in checked(pictures, tmp_path, "flux", t5xxl=path)
        if problem.code == "wrong_component"
    ]
    assert found == ["clip_l"]


def test_a_t5_beside_one_that_is_inside_comes_with_a_warning(tmp_path: Path, pictures: Path) -> None:
    inside = {"text_encoders.t5xxl.transformer.shared.weight": Tensor("F16", (32128, 4096))}
    path = write_hollow(tmp_path / "sd3.safetensors", tensors_of("sd3_medium_incl_clips") | inside)
    t5, clip_l = write(tmp_path / "t5.safetensors", "t5xxl"), write(tmp_path / "clip_l.safetensors", "clip_l")
    found = checked(pictures, tmp_path, "sd3", model=path, t5xxl=t5, clip_l=clip_l)
    told = [problem for problem in found if problem.code == "model_inside_wins"]
    assert [(problem.severity, problem.params["given"]) for problem in told] == [("warning", str(t5))]
    assert "component_missing" not in [problem.code for problem in found]


def test_a_folder_that_is_a_model_can_be_given(tmp_path: Path, pictures: Path) -> None:
    folder = tmp_path / "FLUX.1-dev"
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline", "transformer": ["diffusers", "T"]}')
    shards(folder / "transformer", "diffusion_pytorch_model", diffusers_flux(), 3)
    write(folder / "ae.safetensors", "flux_ae")  # beside it, as in the original repository
    problems = checked(pictures, tmp_path, "flux", model=folder)
    assert [problem.code for problem in problems if problem.code.startswith(("model_", "wrong_"))] == []
    adapter = Registry.from_installed()["flux"]
    job = adapter.job(name="elena", trigger="elena", dataset=pictures, output=tmp_path, models={"model": folder})
    assert adapter.looked_into(job).models["model"].path == folder
    assert adapter.looked_into(job).models["model"].variant == "dev"


def test_a_plugin_that_comes_later_has_its_say(tmp_path: Path) -> None:
    class Ours:
        @hookimpl
        def scan_models(self, files: Sequence[Header]) -> list[ModelFile]:
            return [ModelFile(path=file.path, role="model", variant="ours") for file in files]

    path = write_hollow(tmp_path / "ours.safetensors", {"x": Tensor("F16", (2,))})
    registry = Registry.from_installed()
    adapter = registry["flux"]
    assert adapter.scan_models(path).files[0].role == ""
    registry.register(Ours(), name="ours")
    assert adapter.scan_models(path).files[0].variant == "ours"
    registry.unregister("ours")
    assert registry["flux"].scan_models(path).files[0].role == ""
