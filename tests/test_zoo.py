"""What is nothing for a model type is named: files with the tensors that their kind is known by."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cinderlora_flux.scan as flux
import cinderlora_sd3.scan as sd3
import cinderlora_sdxl.scan as sdxl
from cinderlora.models import Header, Tensor, Tensors, scan
from cinderlora.models.hollow import write_hollow
from cinderlora.models.zoo import KINDS, MODELS, PARTS, what_is
from cinderlora.types import ModelFile

Scan = Callable[[Sequence[Header]], Iterator[ModelFile]]
TYPES: dict[str, Scan] = {"flux": flux.scan, "sdxl": sdxl.scan, "sd3": sd3.scan}
PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "transformer/", "unet/")

UNET_1 = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
UNET_4 = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
UNET_IN = "input_blocks.0.0.weight"

# From what their publishers' files have in them; written down here by hand, not taken from the table.
FILES: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "v1-5-pruned-emaonly": (
        "Stable Diffusion 1.5",
        {UNET_IN: (320, 4, 3, 3), UNET_1: (320, 768), UNET_4: (640, 768), "time_embed.0.weight": (1280, 320)},
    ),
    "sd-v1-5-inpainting": ("Stable Diffusion 1.5 Inpainting", {UNET_IN: (320, 9, 3, 3), UNET_1: (320, 768)}),
    "instruct-pix2pix": ("Stable Diffusion 1.5 InstructPix2Pix", {UNET_IN: (320, 8, 3, 3), UNET_1: (320, 768)}),
    "v2-1_768-ema-pruned": ("Stable Diffusion 2", {UNET_IN: (320, 4, 3, 3), UNET_1: (320, 1024)}),
    "512-inpainting-ema": ("Stable Diffusion 2 Inpainting", {UNET_IN: (320, 9, 3, 3), UNET_1: (320, 1024)}),
    "sd_xl_refiner_1.0": ("SDXL Refiner", {UNET_IN: (384, 4, 3, 3), UNET_4: (768, 1280)}),
    "sd_xl_base_1.0": ("SDXL", {UNET_IN: (320, 4, 3, 3), UNET_4: (640, 2048), "label_emb.0.0.weight": (1280, 2816)}),
    "kolors": ("Kolors", {UNET_IN: (320, 4, 3, 3), UNET_4: (640, 2048), "label_emb.0.0.weight": (1280, 5632)}),
    "flux1-fill-dev": (
        "FLUX.1 Fill",
        {"img_in.weight": (3072, 384), "double_blocks.0.img_attn.qkv.weight": (9216, 3072)},
    ),
    "flux2-dev": (
        "FLUX.2",
        {"img_in.weight": (6144, 128), "double_stream_modulation_img.lin.weight": (36864, 6144)},
    ),
    "sd3.5_large": (
        "SD3.5",
        {
            "joint_blocks.0.x_block.attn.qkv.weight": (7296, 2432),
            "joint_blocks.0.x_block.attn.ln_k.weight": (64,),
            "joint_blocks.0.context_block.attn.ln_k.weight": (64,),
        },
    ),
    "auraflow": ("AuraFlow", {"double_layers.0.attn.w1q.weight": (3072, 3072), "positional_encoding": (1, 4096, 3072)}),
    "pixart": ("PixArt", {"t_block.1.weight": (6912, 1152), "y_embedder.y_embedding": (300, 4096)}),
    "hunyuan_dit": ("Hunyuan DiT", {"mlp_t5.0.weight": (8192, 2048), "extra_embedder.0.weight": (5632, 3968)}),
    "hunyuan_video": (
        "Hunyuan Video",
        {
            "double_blocks.0.img_attn_qkv.weight": (9216, 3072),
            "txt_in.individual_token_refiner.blocks.0.norm1.weight": (3072,),
        },
    ),
    "lumina2": ("Lumina Image 2", {"cap_embedder.1.weight": (2304, 2304), "noise_refiner.0.x": (1,)}),
    "z_image_turbo": ("Z-Image", {"cap_embedder.1.weight": (3840, 2560), "cap_pad_token": (1, 3840)}),
    "qwen_image": ("Qwen-Image", {"txt_norm.weight": (3584,), "transformer_blocks.0.attn.add_k_proj.weight": (1, 1)}),
    "wan2.1_t2v": ("Wan", {"head.modulation": (1, 2, 5120), "patch_embedding.weight": (5120, 16, 1, 2, 2)}),
    "stable_cascade_c": ("Stable Cascade", {"clf.1.weight": (16, 2048, 1, 1), "clip_txt_mapper.weight": (2048, 1280)}),
    "ltxv": (
        "LTX Video",
        {"adaln_single.emb.timestep_embedder.linear_1.bias": (2048,), "caption_projection.linear_1.bias": (1,)},
    ),
}
BESIDE: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "control_v11p_sd15_canny": ("ControlNet", {"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}),
    "controlnet-sdxl": (
        "ControlNet",
        {
            "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
        },
    ),
    "sd3-controlnet": (
        "ControlNet",
        {
            "controlnet_blocks.0.weight": (1536, 1536),
            "pos_embed.proj.weight": (1536, 16, 2, 2),
            "transformer_blocks.0.attn.add_k_proj.weight": (1536, 1536),
            "context_embedder.weight": (1536, 4096),
        },
    ),
    "4x-UltraSharp": ("Upscaler (ESRGAN)", {"model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)}),
    "RealESRGAN_x4plus": ("Upscaler (ESRGAN)", {"body.0.rdb1.conv1.weight": (32, 64, 3, 3)}),
    "ip-adapter-plus": (
        "IP-Adapter",
        {"image_proj.latents": (1, 16, 1280), "ip_adapter.1.to_k_ip.weight": (640, 2048)},
    ),
    "clip_vision_h": ("CLIP vision", {"vision_model.embeddings.patch_embedding.weight": (1280, 3, 14, 14)}),
    "flux1-redux": ("FLUX.1 Redux", {"redux_up.weight": (12288, 1152), "redux_down.weight": (4096, 12288)}),
    "umt5_xxl": (
        "UMT5-XXL",
        {"shared.weight": (256384, 4096), "encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096)},
    ),
    "t5_base": (
        "T5-Base",
        {"shared.weight": (32128, 768), "encoder.block.0.layer.0.SelfAttention.q.weight": (768, 768)},
    ),
    "llava_llama3": (
        "LLaVA-Llama-3",
        {"model.embed_tokens.weight": (128320, 4096), "model.layers.0.self_attn.q_proj.weight": (4096, 4096)},
    ),
    "gemma_2_2b": ("Gemma 2", {"model.embed_tokens.weight": (256000, 2304)}),
    "wan_2.1_vae": ("Wan / Qwen-Image VAE", {"decoder.middle.0.residual.0.gamma": (384, 1, 1, 1)}),
    "easynegative": ("Embedding", {"emb_params": (8, 768)}),
    "negative-xl": ("Embedding", {"clip_l": (8, 768), "clip_g": (8, 1280)}),
    "a-token": ("Embedding", {"<elena>": (4, 768)}),
}


def header_of(names: Mapping[str, tuple[int, ...]], prefix: str = "") -> Header:
    tensors = {prefix + name: Tensor("F16", shape) for name, shape in names.items()}
    return Header(path=Path("model.safetensors"), size=1, tensors=tensors)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", FILES)
def test_other_models_are_known_under_every_prefix(name: str, prefix: str) -> None:
    title, names = FILES[name]
    assert what_is(header_of(names, prefix)) == title


@pytest.mark.parametrize("name", BESIDE)
def test_what_goes_beside_a_model_is_known(name: str) -> None:
    title, names = BESIDE[name]
    header = header_of(names)
    assert what_is(header) == title
    for kind, claim in TYPES.items():
        assert list(claim([header])) == [], kind


@pytest.mark.parametrize(
    ("title", "names"), [*MODELS, *PARTS], ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_kind_hides_another(title: str, names: Mapping[str, tuple[object, ...] | None]) -> None:
    """Each line of the table is found by what stands in it, whatever stands before it."""
    made = {
        name.replace("*", "x.weight"): tuple(side if isinstance(side, int) else 5 for side in shape or (7, 7, 7))
        for name, shape in names.items()
    }
    assert what_is(header_of(made)) == title
    assert title in KINDS and title.isprintable()


@pytest.mark.parametrize("name", FILES)
def test_a_scan_says_what_it_is_and_takes_it_for_no_model(tmp_path: Path, name: str) -> None:
    title, names = FILES[name]
    tensors = {f"model.diffusion_model.{key}": Tensor("U8", shape) for key, shape in names.items()}
    path = write_hollow(tmp_path / f"{name}.safetensors", tensors)
    for kind, claim in TYPES.items():
        (file,) = scan(path, claim).files
        assert not file.usable
        if not file.role:
            assert file.variant == title, kind
            (problem,) = file.problems
            assert (problem.code, problem.severity, problem.params["what"]) == ("model_not_for_type", "warning", title)
            assert title in problem.message and title in problem.text("de").message


@pytest.mark.parametrize(
    ("name", "title"),
    [("flux_dev", "FLUX.1"), ("chroma", "Chroma"), ("sdxl_base", "SDXL"), ("sd3_medium", "SD3"),
     ("sd35_medium", "SD3.5"), ("clip_l", "CLIP-L"), ("clip_g", "CLIP-G"), ("t5xxl", "T5XXL"),
     ("flux_ae", "FLUX / SD3 VAE"), ("sdxl_vae", "SD / SDXL VAE")],
)  # fmt: skip
def test_one_types_files_are_named_to_the_others(name: str, title: str) -> None:
    known = json.loads(gzip.decompress((Path(__file__).parent / f"data/headers/{name}.json.gz").read_bytes()))
    assert what_is(header_of({tensor: tuple(shape) for tensor, shape in known["tensors"].items()})) == title


def test_a_gguf_is_named_by_its_architecture(tmp_path: Path) -> None:
    key, value = b"general.architecture", b"wan"
    path = tmp_path / "wan2.1-q4.gguf"
    path.write_bytes(
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    )
    (file,) = scan(path, flux.scan).files
    assert (file.variant, [problem.code for problem in file.problems]) == ("Wan", ["model_gguf", "model_not_for_type"])


def test_what_nobody_knows_has_no_name(tmp_path: Path) -> None:
    (file,) = scan(write_hollow(tmp_path / "a.safetensors", {"x": Tensor("F16", (2, 2))}), flux.scan).files
    assert (file.role, file.variant, file.problems[0].code) == ("", "", "model_not_for_type")
    assert file.problems[0].message == "a.safetensors is nothing that this model type uses."


WORDS = st.sampled_from(
    sorted({name.replace("*", "x") for _, names in (*MODELS, *PARTS) for name in names} | {"a", "b.weight"})
)
TENSORS = st.builds(Tensor, st.sampled_from(["F16", "F8_E4M3"]), st.lists(st.integers(0, 5000), max_size=5).map(tuple))


@given(st.dictionaries(st.tuples(st.sampled_from(PREFIXES), WORDS).map("".join), TENSORS, max_size=6))
def test_any_tensors_are_something_or_nothing(tensors: dict[str, Tensor]) -> None:
    header = Header(path=Path("a.safetensors"), size=1, tensors=Tensors(tensors))
    assert what_is(header) in {*KINDS, ""}
    for claim in TYPES.values():
        for file in claim([header]):
            assert file.usable or file.problems
