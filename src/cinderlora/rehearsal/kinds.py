"""What differs between the scripts: names of layers, lines of the log, metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .network import BLOCKS

Names = Mapping[str, str]


@dataclass(frozen=True)
class Kind:
    """One script of sd-scripts, as far as it shows."""

    name: str
    title: str  # in "create LoRA for TITLE: 6 modules."
    layers: tuple[Names, ...]  # per block of the network: the module that each layer is saved as
    loading: tuple[str, ...] = ()
    after_latents: tuple[str, ...] = ()
    after_captions: tuple[str, ...] = ()
    base_version: str = "rehearsal"
    architecture: str = "rehearsal/lora"
    implementation: str = "rehearsal"
    arguments: tuple[str, ...] = ()  # kept in the metadata as ss_NAME besides those of every script
    caches_prompts: bool = True  # prints "cache Text Encoder outputs for prompt: ..."
    metadata: Mapping[str, str] = field(default_factory=dict)


def _sdxl(block: str) -> Names:
    inner = f"{block}_transformer_blocks_0"
    return {"mod": f"{inner}_attn2_to_v", "in": f"{inner}_ff_net_0_proj", "out": f"{inner}_ff_net_2"}


def _sd3(block: int) -> Names:
    inner = f"joint_blocks_{block}_x_block"
    return {"mod": f"{inner}_adaLN_modulation_1", "in": f"{inner}_mlp_fc1", "out": f"{inner}_mlp_fc2"}


_FLOW = ("apply_t5_attn_mask", "logit_mean", "logit_std", "mode_scale", "weighting_scheme")
_CPU = ("move vae and unet to cpu to save memory", "move text encoders to gpu")

KINDS: Mapping[str, Kind] = {
    "flux": Kind(
        name="flux",
        title="FLUX all blocks",
        layers=(
            {
                "mod": "double_blocks_0_img_mod_lin",
                "in": "double_blocks_0_img_mlp_0",
                "out": "double_blocks_0_img_mlp_2",
            },
            {
                "mod": "single_blocks_0_modulation_lin",
                "in": "single_blocks_0_linear1",
                "out": "single_blocks_0_linear2",
            },
        ),
        loading=("Building Flux model dev from BFL checkpoint", "Building CLIP-L", "Building AutoEncoder"),
        after_latents=_CPU,
        after_captions=(
            "move CLIP-L back to cpu",
            "move t5XXL back to cpu",
            "move vae and unet back to original device",
        ),
        base_version="flux1",
        architecture="flux-1-dev/lora",
        implementation="https://github.com/black-forest-labs/flux",
        arguments=(
            *_FLOW,
            "discrete_flow_shift",
            "guidance_scale",
            "model_prediction_type",
            "model_type",
            "sigmoid_scale",
            "timestep_sampling",
        ),
    ),
    "sdxl": Kind(
        name="sdxl",
        title="U-Net",
        layers=(_sdxl("input_blocks_4_1"), _sdxl("middle_block_1")),
        loading=("loading model for process 0/1", "building U-Net", "building text encoders", "building VAE"),
        after_latents=_CPU[:1],
        after_captions=("move vae and unet back to original device",),
        base_version="sdxl_base_v1-0",
        architecture="stable-diffusion-xl-v1-base/lora",
        implementation="https://github.com/Stability-AI/generative-models",
        caches_prompts=False,
        metadata={"modelspec.prediction_type": "epsilon"},
    ),
    "sd3": Kind(
        name="sd3",
        title="SD3 MMDiT",
        layers=(_sd3(0), _sd3(1)),
        loading=("Building MMDit", "Building CLIP-L", "Building CLIP-G", "Building VAE"),
        after_latents=_CPU,
        after_captions=(
            "move CLIP-L back to cpu",
            "move CLIP-G back to cpu",
            "move t5XXL back to cpu",
            "move vae and unet back to original device",
        ),
        base_version="medium",
        architecture="stable-diffusion-3-medium/lora",
        implementation="diffusers",
        arguments=(*_FLOW, "apply_lg_attn_mask"),
        metadata={"modelspec.prediction_type": "epsilon"},
    ),
}


def of_script(script: str) -> Kind:
    """The kind of ``flux_train_network.py`` and the like; scripts not known get generic names."""
    name = script.removesuffix(".py").removesuffix("train_network").rstrip("_") or "sd"
    blocks = tuple({layer: f"blocks_{block}_{layer}" for layer in ("mod", "in", "out")} for block in range(BLOCKS))
    return KINDS.get(name) or Kind(name=name, title=name, layers=blocks)
