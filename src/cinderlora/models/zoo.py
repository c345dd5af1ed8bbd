"""What else lies in people's folders: other models, their text encoders and autoencoders, ControlNets, upscalers.

For saying what a file is that a model type has no use for. Each kind is known by tensors that only it has, as their
own loaders tell them apart (ComfyUI's `comfy/model_detection.py`, `comfy/sd.py` and `comfy/controlnet.py`,
city96/ComfyUI-GGUF's `tools/convert.py`, spandrel for upscalers).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import EllipsisType

from cinderlora.models.headers import Header, Tensor, Tensors
from cinderlora.models.pipelines import CLASS_NAME

__all__ = ["KINDS", "what_is"]

Shape = tuple[int | EllipsisType, ...]
"""Sides in order; `...` stands for any one side."""

# Whole models lie below one of these, or below none.
_PREFIXES = ("", "model.diffusion_model.", "model.", "net.", "diffusion_model.", "transformer/", "unet/")

_ATTN_1 = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_ATTN_4 = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
_IN = "input_blocks.0.0.weight"
_DOWN_0 = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_DOWN_1 = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_T5 = "encoder.block.0.layer.0.SelfAttention.q.weight"
_CLIP = "text_model.embeddings.token_embedding.weight"
_EMBED = "model.embed_tokens.weight"
_LLM = "model.layers.0.self_attn.q_proj.weight"

# The first one that fits counts, so the more special come first. A name that ends in * stands for any that begins so.
MODELS: tuple[tuple[str, Mapping[str, Shape | None]], ...] = (
    # U-Nets, in Stability AI's and in diffusers' layout
    ("Stable Video Diffusion", {"input_blocks.1.1.time_stack.0.attn1.to_q.weight": None}),
    ("AnimateDiff", {"down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight": None}),
    ("Stable Diffusion 1.5 Inpainting", {_ATTN_1: (320, 768), _IN: (..., 9, ..., ...)}),
    ("Stable Diffusion 1.5 InstructPix2Pix", {_ATTN_1: (320, 768), _IN: (..., 8, ..., ...)}),
    ("Stable Diffusion 1.5", {_ATTN_1: (320, 768), _ATTN_4: (640, 768)}),
    ("Stable Diffusion 1.5", {_DOWN_0: (320, 768)}),
    ("Stable Diffusion 2 Inpainting", {_ATTN_1: (320, 1024), _IN: (..., 9, ..., ...)}),
    ("Stable Diffusion 2 Depth", {_ATTN_1: (320, 1024), _IN: (..., 5, ..., ...)}),
    ("Stable Diffusion 2 Upscaler", {_IN: (..., 7, ..., ...)}),
    ("Stable Diffusion 2", {_ATTN_1: (320, 1024)}),
    ("Stable Diffusion 2", {_DOWN_0: (320, 1024)}),
    ("SDXL Refiner", {_ATTN_4: (768, 1280)}),
    ("SDXL Refiner", {_DOWN_1: (768, 1280)}),
    ("Kolors", {_ATTN_4: (640, 2048), "label_emb.0.0.weight": (1280, 5632)}),
    ("Kolors", {_DOWN_1: (640, 2048), "encoder_hid_proj.weight": None}),
    ("SDXL Inpainting", {_ATTN_4: (640, 2048), _IN: (..., 9, ..., ...)}),
    ("SDXL Edit", {_ATTN_4: (640, 2048), _IN: (..., 8, ..., ...)}),
    ("SDXL", {_ATTN_4: (640, 2048)}),
    ("SDXL", {_DOWN_1: (640, 2048)}),
    # transformers
    ("FLUX.2", {"double_stream_modulation_img.lin.weight": None}),
    ("FLUX.2", {"double_stream_modulation_img.linear.weight": None}),
    ("Chroma Radiance", {"nerf_blocks.0.param_generator.weight": None}),
    ("Chroma", {"distilled_guidance_layer.*": None}),
    ("Hunyuan Video 1.5", {"byt5_in.fc1.weight": None, "vision_in.*": None}),
    ("HunyuanImage 2.1", {"byt5_in.fc1.weight": None}),
    ("Hunyuan Video", {"txt_in.individual_token_refiner.*": None}),
    ("Hunyuan Video", {"context_embedder.token_refiner.*": None}),
    ("FLUX.1 (Nunchaku)", {"single_transformer_blocks.0.mlp_fc1.qweight": None}),
    ("FLUX.1 Fill", {"double_blocks.0.img_attn.qkv.weight": None, "img_in.weight": (..., 384)}),
    ("FLUX.1 Canny / Depth", {"double_blocks.0.img_attn.qkv.weight": None, "img_in.weight": (..., 128)}),
    ("FLUX.1", {"double_blocks.0.img_attn.qkv.weight": None, "img_in.weight": None}),
    ("FLUX.1", {"single_transformer_blocks.0.attn.to_q.weight": None, "x_embedder.weight": None}),
    ("SD3.5", {"joint_blocks.0.x_block.attn.qkv.weight": None, "joint_blocks.0.x_block.attn.ln_k.weight": None}),
    ("SD3", {"joint_blocks.0.x_block.attn.qkv.weight": None}),
    ("SD3", {"transformer_blocks.0.attn.add_k_proj.weight": None, "pos_embed.proj.weight": None}),
    ("AuraFlow", {"double_layers.0.attn.w1q.weight": None}),
    ("AuraFlow", {"joint_transformer_blocks.0.attn.add_k_proj.weight": None}),
    ("HiDream", {"caption_projection.0.linear.weight": None}),
    ("PixArt", {"t_block.1.weight": None}),
    ("PixArt", {"adaln_single.linear.weight": None, "pos_embed.proj.weight": None}),
    ("Hunyuan DiT", {"mlp_t5.0.weight": None}),
    ("Hunyuan DiT", {"text_embedder.linear_1.weight": None, "blocks.0.attn2.to_k.weight": None}),
    ("Z-Image", {"cap_embedder.1.weight": (3840, ...)}),
    ("Lumina Image 2", {"cap_embedder.1.weight": None}),
    ("Lumina Image 2", {"time_caption_embed.caption_embedder.1.weight": None, "context_refiner.*": None}),
    ("OmniGen 2", {"time_caption_embed.timestep_embedder.linear_1.bias": None}),
    ("Qwen-Image", {"txt_norm.weight": None, "transformer_blocks.0.*": None}),
    ("Wan", {"head.modulation": None}),
    ("Wan", {"condition_embedder.time_proj.weight": None, "blocks.0.attn1.to_q.weight": None}),
    ("LTX Video", {"adaln_single.emb.timestep_embedder.linear_1.bias": None, "caption_projection.*": None}),
    ("Mochi", {"t5_yproj.weight": None}),
    ("Anima", {"llm_adapter.blocks.0.cross_attn.q_proj.weight": None}),
    ("Cosmos", {"blocks.0.mlp.layer1.weight": None}),
    ("Cosmos", {"blocks.block0.blocks.0.block.attn.to_q.0.weight": None}),
    ("Krea 2", {"txtfusion.projector.weight": None}),
    ("Stable Cascade", {"clf.1.weight": None}),
    ("Stable Audio", {"transformer.rotary_pos_emb.inv_freq": None}),
    ("ACE-Step", {"genre_embedder.weight": None}),
)

PARTS: tuple[tuple[str, Mapping[str, Shape | None]], ...] = (
    # what goes beside a model
    ("ControlNet-LLLite", {"lllite_*": None}),
    ("Control-LoRA", {"lora_controlnet": None}),
    ("ControlNet", {"control_model.*": None}),
    ("ControlNet", {"input_hint_block.*": None}),
    ("ControlNet", {"controlnet_cond_embedding.*": None}),
    ("ControlNet", {"controlnet_blocks.*": None}),
    ("ControlNet", {"controlnet_down_blocks.*": None}),
    ("T2I-Adapter", {"body.0.in_conv.weight": None}),
    ("T2I-Adapter", {"adapter.body.*": None}),
    ("T2I-Adapter", {"body.0.block1.weight": None}),
    ("IP-Adapter", {"ip_adapter.*": None}),
    ("IP-Adapter", {"image_proj.*": None}),
    ("IP-Adapter", {"ip_adapter_proj_model.*": None}),
    ("PuLID", {"pulid_encoder.*": None}),
    ("FLUX.1 Redux", {"redux_up.weight": None, "redux_down.weight": None}),
    ("PhotoMaker", {"visual_projection_2.weight": None}),
    ("AnimateDiff", {"down_blocks.0.motion_modules.*": None}),
    ("GLIGEN", {"position_net.null_positive_feature": None}),
    # text encoders
    ("LLaVA", {"language_model.model.embed_tokens.weight": None}),
    ("LLaVA", {"multi_modal_projector.linear_1.weight": None}),
    ("LLaVA-Llama-3", {_EMBED: (128320, 4096)}),
    ("Qwen2.5-VL", {"visual.patch_embed.proj.weight": None, _LLM: None}),
    ("Qwen2.5-VL", {_EMBED: (152064, 3584)}),
    ("Qwen 3", {_EMBED: (151936, ...), "model.layers.0.self_attn.q_norm.weight": None}),
    ("Gemma 2", {_EMBED: (256000, ...)}),
    ("Gemma 3", {_EMBED: (262208, ...)}),
    ("Mistral", {_EMBED: (131072, ...)}),
    ("Llama 3", {_EMBED: (128256, ...)}),
    ("language model", {_EMBED: None, _LLM: None}),
    ("ChatGLM", {"transformer.embedding.word_embeddings.weight": None}),
    ("ChatGLM", {"embedding.word_embeddings.weight": None}),
    ("UMT5-XXL", {"shared.weight": (256384, 4096)}),
    ("ByT5", {"shared.weight": (..., 1472), _T5: None}),
    ("T5XXL", {"shared.weight": (32128, 4096), _T5: (4096, 4096)}),
    ("T5-XL", {"shared.weight": (32128, 2048), _T5: None}),
    ("T5-Large", {"shared.weight": (32128, 1024), _T5: None}),
    ("T5-Base", {"shared.weight": (32128, 768), _T5: None}),
    ("mT5", {"shared.weight": (250112, ...), _T5: None}),
    ("T5", {"shared.weight": None, _T5: None}),
    ("CLIP", {"vision_model.embeddings.patch_embedding.weight": None, _CLIP: None}),
    ("CLIP vision", {"vision_model.embeddings.patch_embedding.weight": None}),
    ("CLIP vision", {"visual.transformer.resblocks.*": None}),
    ("CLIP-L", {_CLIP: (..., 768)}),
    ("CLIP-H", {_CLIP: (..., 1024)}),
    ("CLIP-G", {_CLIP: (..., 1280)}),
    ("OpenCLIP", {"transformer.resblocks.0.attn.in_proj_weight": None, "token_embedding.weight": None}),
    ("DINOv2", {"embeddings.patch_embeddings.projection.weight": None, "encoder.layer.0.*": None}),
    # autoencoders
    ("Wan / Qwen-Image VAE", {"decoder.middle.0.residual.0.gamma": None}),
    ("Hunyuan Video VAE", {"decoder.conv_in.conv.weight": None}),
    ("FLUX.2 VAE", {"decoder.conv_in.weight": (..., 32, ..., ...)}),
    ("FLUX / SD3 VAE", {"decoder.conv_in.weight": (..., 16, ..., ...), "encoder.conv_in.weight": None}),
    ("SD / SDXL VAE", {"decoder.conv_in.weight": (..., 4, ..., ...), "encoder.conv_in.weight": None}),
    ("VAE", {"decoder.conv_in.weight": None, "encoder.conv_in.weight": None}),
    ("TAESD", {"decoder.layers.0.weight": (64, ..., 3, 3), "encoder.layers.0.weight": (64, 3, 3, 3)}),
    ("Stable Cascade", {"backbone.1.0.block.0.1.running_mean": None}),
    # what works on finished pictures
    ("Upscaler (ESRGAN)", {"model.1.sub.0.RDB1.conv1.0.weight": None}),
    ("Upscaler (ESRGAN)", {"body.0.rdb1.conv1.weight": None}),
    ("Upscaler (ESRGAN)", {"RRDB_trunk.0.RDB1.conv1.weight": None}),
    ("Upscaler (SwinIR)", {"layers.0.residual_group.blocks.0.norm1.weight": None}),
    ("Upscaler (DAT)", {"layers.0.blocks.0.norm1.weight": None, "conv_first.weight": None}),
    ("Upscaler", {"conv_first.weight": None, "conv_last.weight": None}),
    ("Upscaler", {"conv_first.weight": None, "upsample.0.weight": None}),
    ("SAM", {"image_encoder.patch_embed.proj.weight": None, "mask_decoder.*": None}),
    ("SAM", {"image_encoder.trunk.*": None}),
    # textual inversion
    ("Embedding", {"emb_params": None}),
    ("Embedding", {"clip_l": (..., 768), "clip_g": (..., 1280)}),
)

KINDS = tuple(dict.fromkeys(title for title, _ in (*MODELS, *PARTS)))
"""The titles of all of them."""

# general.architecture of GGUF files
_GGUF = {
    "flux": "FLUX.1",
    "sd1": "Stable Diffusion 1.5",
    "sdxl": "SDXL",
    "sd3": "SD3",
    "aura": "AuraFlow",
    "hidream": "HiDream",
    "cosmos": "Cosmos",
    "ltxv": "LTX Video",
    "hyvid": "Hunyuan Video",
    "wan": "Wan",
    "lumina2": "Lumina Image 2",
    "qwen_image": "Qwen-Image",
    "t5": "T5",
    "t5encoder": "T5XXL",
    "llama": "language model",
    "qwen2vl": "Qwen2.5-VL",
    "qwen3": "Qwen 3",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3",
}


def what_is(header: Header) -> str:
    """What a file is, as people call it ("Stable Diffusion 1.5", "ControlNet"); "" where nothing here knows it."""
    if header.format == "gguf":
        return _GGUF.get(header.metadata.get("general.architecture", ""), "")
    found = header.tensors.once("what it is", lambda: _find(header.tensors)) if header.tensors else ""
    return found or header.metadata.get(CLASS_NAME, "")


def _find(tensors: Tensors) -> str:
    # What goes beside a model may hold a copy of parts of it, so it is asked for first, and it has no prefix.
    found = _first(tensors, "", "parts")
    for prefix in _PREFIXES:
        if not found and (not prefix or tensors.has_prefix(prefix)):
            found = _first(tensors, prefix, "models")
    if not found and len(tensors) == 1:  # one table of a few vectors, under any name
        (only,) = tensors.values()
        if len(only.shape) == 2 and only.shape[1] in {768, 1024, 1280}:
            return "Embedding"
    return found


@cache
def _names(
    prefix: str, table: str
) -> tuple[frozenset[str], tuple[tuple[str, dict[str, Shape | None], list[str]], ...]]:
    """All the names that a table asks for, and for each kind the whole names with their shapes and the beginnings."""
    rows = tuple(
        (
            title,
            {prefix + name: shape for name, shape in names.items() if not name.endswith("*")},
            [prefix + name[:-1] for name in names if name.endswith("*")],
        )
        for title, names in (PARTS if table == "parts" else MODELS)
    )
    return frozenset(name for _, whole, _ in rows for name in whole), rows


def _first(tensors: Tensors, prefix: str, table: str) -> str:
    names, rows = _names(prefix, table)
    there = names & tensors.keys()
    for title, whole, beginnings in rows:
        if (
            there.issuperset(whole)
            and all(_fits(tensors[name], shape) for name, shape in whole.items())
            and all(map(tensors.has_prefix, beginnings))
        ):
            return title
    return ""


def _fits(tensor: Tensor, shape: Shape | None) -> bool:
    if shape is None:
        return True
    sides = zip(shape, tensor.shape, strict=False)
    return len(shape) == len(tensor.shape) and all(side in {..., real} for side, real in sides)
