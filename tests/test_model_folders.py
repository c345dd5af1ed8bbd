"""Models that are folders, links to models, and the YAML that says where models lie."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import cinderlora_flux.scan as flux
import cinderlora_sd3.scan as sd3
import cinderlora_sdxl.scan as sdxl
from cinderlora.models import Header, HeaderCache, ModelLibrary, Tensor, scan
from cinderlora.models.folders import extra_model_paths, find_model_files
from cinderlora.models.hollow import write_hollow
from cinderlora.serial import identity
from cinderlora.types import ModelFile

Scan = Callable[[Sequence[Header]], Iterator[ModelFile]]
TYPES: dict[str, Scan] = {"flux": flux.scan, "sdxl": sdxl.scan, "sd3": sd3.scan}


def tensors_of(name: str) -> dict[str, Tensor]:
    known = json.loads(gzip.decompress((Path(__file__).parent / f"data/headers/{name}.json.gz").read_bytes()))
    return {tensor: Tensor("BF16", tuple(shape)) for tensor, shape in known["tensors"].items()}


def some(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name.replace("__", "."): Tensor("BF16", shape) for name, shape in shapes.items()}


UNET = some(
    conv_in__weight=(320, 4, 3, 3),
    down_blocks__1__attentions__0__proj_in__weight=(640, 640),
    down_blocks__1__attentions__0__transformer_blocks__0__attn2__to_k__weight=(640, 2048),
    down_blocks__1__resnets__0__time_emb_proj__weight=(640, 1280),
    mid_block__attentions__0__transformer_blocks__9__attn2__to_k__weight=(1280, 2048),
)
VAE = some(decoder__conv_in__weight=(512, 4, 3, 3), encoder__conv_in__weight=(128, 3, 3, 3))
FLUX = some(
    x_embedder__weight=(3072, 64),
    time_text_embed__guidance_embedder__linear_1__weight=(3072, 256),
    transformer_blocks__0__attn__add_k_proj__weight=(3072, 3072),
    single_transformer_blocks__0__attn__to_q__weight=(3072, 3072),
)
SD3 = some(
    pos_embed__proj__weight=(1536, 16, 2, 2),
    context_embedder__weight=(1536, 4096),
    transformer_blocks__0__attn__add_k_proj__weight=(1536, 1536),
)
ENCODERS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}


def index(folder: Path, class_name: str, *parts: str) -> Path:
    """A model_index.json, and beside it what such folders hold besides weights."""
    folder.mkdir(parents=True, exist_ok=True)
    said: dict[str, object] = {"_class_name": class_name, "_diffusers_version": "0.32.1", "force_zeros": True}
    said |= {part: ["diffusers", "Any"] for part in parts} | {"image_encoder": [None, None]}
    (folder / "model_index.json").write_text(json.dumps(said))
    for part in parts:
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "config.json").write_text("{}")
    return folder


def sdxl_folder(folder: Path, name: str = "diffusion_pytorch_model", encoder: str = "model") -> Path:
    index(folder, "StableDiffusionXLPipeline", "unet", "vae", "scheduler", "tokenizer", *ENCODERS)
    write_hollow(folder / f"unet/{name}.safetensors", UNET)
    write_hollow(folder / f"vae/{name}.safetensors", VAE)
    for part, tensors in ENCODERS.items():
        write_hollow(folder / part / f"{encoder}.safetensors", tensors_of(tensors))
    return folder


def flux_folder(folder: Path, shards: int = 3) -> Path:
    index(folder, "FluxPipeline", "transformer", "vae", "text_encoder", "text_encoder_2")
    names = list(FLUX)
    for i in range(shards):
        ending = f"-{i + 1:05d}-of-{shards:05d}" if shards > 1 else ""
        write_hollow(
            folder / f"transformer/diffusion_pytorch_model{ending}.safetensors",
            {name: FLUX[name] for name in names[i::shards]},
        )
    write_hollow(folder / "vae/diffusion_pytorch_model.safetensors", VAE)
    write_hollow(folder / "text_encoder/model.safetensors", tensors_of("clip_l"))
    return folder


def library(kind: str, *where: Path, cache: HeaderCache | None = None) -> ModelLibrary:
    return scan(where, TYPES[kind], cache=cache)


def only(kind: str, *where: Path) -> ModelFile:
    (file,) = library(kind, *where).files
    return file


def codes(file: ModelFile, severity: str = "error") -> list[str]:
    return [problem.code for problem in file.problems if problem.severity == severity]


# ---- folders in diffusers' form -------------------------------------------------------------------------------------


def test_an_sdxl_folder_is_one_model_that_can_be_trained(tmp_path: Path) -> None:
    folder = sdxl_folder(tmp_path / "stable-diffusion-xl")
    file = only("sdxl", tmp_path)
    assert (file.path, file.role, file.variant, file.layout) == (folder, "model", "base", "diffusers")
    assert (file.usable, file.problems, file.bundled) == (True, (), ("clip_l", "clip_g", "vae"))
    assert file.size == sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    assert file.parameters["clip_l"] == sum(tensor.parameters for tensor in tensors_of("clip_l").values())
    assert {(layer.inputs, layer.outputs) for layer in file.layers["model"]} == {(640, 640), (2048, 640), (2048, 1280)}
    assert only("sdxl", folder) == file


def test_a_folder_is_the_same_as_long_as_its_files_are(tmp_path: Path) -> None:
    folder = sdxl_folder(tmp_path / "sdxl")
    before = identity(folder)
    assert before["size"] == only("sdxl", folder).size + (folder / "model_index.json").stat().st_size
    (folder / "README.md").write_text("no part of the model")
    assert identity(folder) == before
    os.utime(folder / "unet/diffusion_pytorch_model.safetensors", (1, 1))  # another of that size, with its own time
    assert identity(folder) != before


def test_shards_are_the_same_as_long_as_all_of_them_are(tmp_path: Path) -> None:
    first, second = (tmp_path / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    first.write_bytes(b"first")
    second.write_bytes(b"second")
    before = identity(first)
    assert (before["path"], before["size"]) == (str(first), 11)
    second.write_bytes(b"another")
    assert identity(first) != before


def test_of_a_model_that_is_not_there_the_path_is_kept(tmp_path: Path) -> None:
    assert identity(tmp_path / "gone.safetensors") == {"path": str(tmp_path / "gone.safetensors")}


def test_an_sdxl_folder_without_a_part_says_which(tmp_path: Path) -> None:
    folder = sdxl_folder(tmp_path / "sdxl")
    (folder / "text_encoder_2/model.safetensors").unlink()
    (problem,) = only("sdxl", folder).problems
    assert (problem.code, problem.params["missing"]) == ("model_incomplete", ["clip_g"])


def test_of_several_variants_the_plain_one_is_taken(tmp_path: Path) -> None:
    folder = sdxl_folder(tmp_path / "sdxl")
    size = only("sdxl", folder).size
    sdxl_folder(folder, "diffusion_pytorch_model.fp16", "model.fp16")
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"\x80\x02")
    assert (only("sdxl", folder).size, only("sdxl", folder).problems) == (size, ())


def test_a_folder_with_the_fp16_variant_alone_comes_with_a_warning(tmp_path: Path) -> None:
    file = only("sdxl", sdxl_folder(tmp_path / "sdxl", "diffusion_pytorch_model.fp16", "model.fp16"))
    assert (file.usable, codes(file, "warning")) == (True, ["model_weights_variant"])
    assert "diffusion_pytorch_model.fp16.safetensors" in file.problems[0].message


def test_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    index(tmp_path / "sdxl", "StableDiffusionXLPipeline", "unet", "vae")
    file = only("sdxl", tmp_path)
    assert (file.path, file.usable, codes(file)) == (tmp_path / "sdxl", False, ["model_no_weights"])


def test_of_a_flux_folder_the_transformer_counts(tmp_path: Path) -> None:
    folder = flux_folder(tmp_path / "FLUX.1-dev")
    file = only("flux", folder)
    assert (file.path, file.variant, file.usable, file.bundled) == (folder, "dev", True, ())
    assert (file.layout, file.parameters["model"]) == ("diffusers", sum(t.parameters for t in FLUX.values()))


def test_a_flux_folder_with_one_file_for_its_transformer_is_that_file(tmp_path: Path) -> None:
    file = only("flux", flux_folder(tmp_path / "flux", shards=1))
    assert file.path == tmp_path / "flux/transformer/diffusion_pytorch_model.safetensors"
    assert (file.variant, file.usable) == ("dev", True)


def test_other_shards_than_the_original_three_are_refused(tmp_path: Path) -> None:
    assert codes(only("flux", flux_folder(tmp_path / "flux", shards=2))) == ["model_sharded"]


def test_an_sd3_folder_says_what_to_take(tmp_path: Path) -> None:
    folder = index(tmp_path / "sd3", "StableDiffusion3Pipeline", "transformer")
    write_hollow(folder / "transformer/diffusion_pytorch_model.safetensors", SD3)
    file = only("sd3", folder)
    assert (file.role, file.variant, file.layout, codes(file)) == ("model", "sd3-medium", "diffusers", ["model_layout"])
    assert "ComfyUI" in file.problems[0].fix


def test_another_pipelines_folder_is_named(tmp_path: Path) -> None:
    wan = index(tmp_path / "wan", "WanPipeline", "transformer")
    write_hollow(wan / "transformer/diffusion_pytorch_model.safetensors", some(a=(1,)))
    sd1 = index(tmp_path / "sd1", "StableDiffusionPipeline", "unet")
    attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    write_hollow(sd1 / "unet/diffusion_pytorch_model.safetensors", {attention: Tensor("F16", (320, 768))})
    for kind in TYPES:
        named = {file.path: file.variant for file in library(kind, tmp_path).files}
        assert named == {wan: "WanPipeline", sd1: "Stable Diffusion 1.5"}


def test_single_files_beside_the_parts_are_models_of_their_own(tmp_path: Path) -> None:
    """As in the repository of FLUX.1 dev: the same model again as one file, and the autoencoder."""
    folder = flux_folder(tmp_path / "FLUX.1-dev")
    write_hollow(folder / "flux1-dev.safetensors", tensors_of("flux_dev"))
    write_hollow(folder / "ae.safetensors", tensors_of("flux_ae"))
    found = library("flux", folder)
    assert sorted((file.role, file.path.name) for file in found.files) == [
        ("ae", "ae.safetensors"),
        ("model", "FLUX.1-dev"),
        ("model", "flux1-dev.safetensors"),
    ]


def test_a_changed_part_is_seen_and_an_unchanged_folder_is_not_read_again(tmp_path: Path) -> None:
    folder, cache = sdxl_folder(tmp_path / "sdxl"), HeaderCache()
    before = library("sdxl", folder, cache=cache)
    for path in folder.rglob("*.safetensors"):
        status = path.stat()
        with path.open("r+b") as file:  # whoever reads this again would notice
            file.write(bytes(100))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert library("sdxl", folder, cache=cache) == before
    write_hollow(folder / "unet/diffusion_pytorch_model.safetensors", UNET | some(x=(1,)))
    assert library("sdxl", folder, cache=cache).files != before.files


@given(
    st.binary(max_size=60)
    | st.recursive(st.none() | st.text(max_size=5) | st.integers(), st.lists, max_leaves=4).map(
        lambda value: json.dumps({"_class_name": value, "unet": value, "vae": ["a", "b"], "..": ["a", "b"]}).encode()
    )
)
@example(b"[" * 50_000)
@example(b'{"_class_name": "\\ud800\\u001b", "vae": ["a", "b"]}')
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_index_can_lie_in_a_folder(tmp_path: Path, said: bytes) -> None:
    (tmp_path / "model_index.json").write_bytes(said)
    write_hollow(tmp_path / "vae/model.safetensors", VAE)
    (file,) = library("sdxl", tmp_path).files
    assert file.path in {tmp_path, tmp_path / "vae/model.safetensors"}
    assert file.variant.isprintable() and all(problem.message.isprintable() for problem in file.problems)


# ---- shards and links -----------------------------------------------------------------------------------------------


def test_one_of_a_set_of_shards_stands_for_all(tmp_path: Path) -> None:
    shards = sorted((flux_folder(tmp_path) / "transformer").glob("*.safetensors"))
    for shard in shards:
        assert only("flux", shard) == only("flux", shards[0])
    assert only("flux", shards[1]).path == shards[0]
    shards[2].unlink()
    assert codes(only("flux", shards[0]))[0] == "model_shard_missing"


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="links need rights here")
@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("{folder}/real.safetensors", []),
        ("real.safetensors", ["model_link"]),
        ("../models/real.safetensors", ["model_link"]),
        ("{folder}/blobs/4f3a", ["model_ending"]),
    ],
)
def test_links_that_the_sdxl_script_cannot_follow_are_refused(tmp_path: Path, target: str, problem: list[str]) -> None:
    """It reads a link once, from the folder that it runs in, and goes by the ending: a file in the cache of the hub is
    a relative link to a name without one."""
    folder = tmp_path / "models"
    write_hollow(folder / "real.safetensors", tensors_of("sdxl_base"))
    write_hollow(folder / "blobs/4f3a", tensors_of("sdxl_base"))
    link = folder / "links/link.safetensors"
    link.parent.mkdir()
    link.symlink_to(target.format(folder=folder))
    if not link.exists():  # relative to the link itself
        link.unlink()
        link = folder / "link.safetensors"
        link.symlink_to(target.format(folder=folder))
    assert codes(only("sdxl", link)) == problem


def test_an_sdxl_checkpoint_needs_the_usual_ending(tmp_path: Path) -> None:
    assert codes(only("sdxl", write_hollow(tmp_path / "a.sft", tensors_of("sdxl_base")))) == ["model_ending"]
    assert codes(only("flux", write_hollow(tmp_path / "b.sft", tensors_of("flux_dev")))) == []


def test_a_home_that_is_nobodys_is_a_folder_that_is_not_there() -> None:
    found, problems = find_model_files("~nobody-of-this-name/models")
    assert (found, [problem.code for problem in problems]) == ([], ["model_unreadable"])


# ---- extra_model_paths.yaml -----------------------------------------------------------------------------------------

FOLDER = Path("/comfyui")


def paths(text: str) -> list[str]:
    return [str(path) for path in extra_model_paths(text, FOLDER)]


YAMLS = {
    "no base": ("a:\n  vae: models/vae\n", ["/comfyui/models/vae"]),
    "a relative base": ("a:\n  base_path: ../big\n  vae: v\n", ["/big/v"]),
    "an absolute folder": ("a:\n  base_path: /x\n  vae: /y/v\n", ["/y/v"]),
    "an empty base": ("a:\n  base_path:\n  vae: v\n", ["/comfyui/v"]),
    "null as base": ("a:\n  base_path: ~\n  vae: v\n", ["/comfyui/v"]),
    "the base below": ("a:\n  vae: v\n  base_path: /x\n", ["/x/v"]),
    "several lines": ("a:\n  vae: |\n    v\n    w\n  clip: c\n", ["/comfyui/v", "/comfyui/w", "/comfyui/c"]),
    "kept line ends": ("a:\n  vae: |+\n    v\n", ["/comfyui/v"]),
    "a value below its key": ("a:\n  vae:\n    v w\n", ["/comfyui/v w"]),
    "a list in brackets": ("a:\n  vae: [v, 'w, x', \"y\"]\n", ["/comfyui/v", "/comfyui/w, x", "/comfyui/y"]),
    "a list": ("a:\n  vae:\n    - v\n    - w\n", ["/comfyui/v", "/comfyui/w"]),
    "a list without indent": ("a:\n  vae:\n  - v\n  clip: c\n", ["/comfyui/v", "/comfyui/c"]),
    "comments": ("# a\na: # b\n  # c\n  vae: v # d\n  clip: 'c # e' # f\n", ["/comfyui/v", "/comfyui/c # e"]),
    "quotes": ("\"a\":\n  'vae': \"v\\\\w\"\n  clip: 'it''s'\n", ["/comfyui/v\\w", "/comfyui/it's"]),
    "tabs": ("a:\n\tbase_path: /x\n\tvae: |\n\t\tv\n\t\tw\n", ["/x/v", "/x/w"]),
    "a default section": ("a:\n  vae: v\nb:\n  is_default: true\n  vae: w\n", ["/comfyui/w", "/comfyui/v"]),
    "no default": ("a:\n  vae: v\nb:\n  is_default: false\n  vae: w\n", ["/comfyui/v", "/comfyui/w"]),
    "what is no model": ("a:\n  custom_nodes: n\n  upscale_models: u\n  vae: v\n", ["/comfyui/v"]),
    "Windows' line ends": ("a:\r\n  vae: v\r\n", ["/comfyui/v"]),
    "a document's start": ("---\na:\n  vae: v\n", ["/comfyui/v"]),
    "nothing": ("", []),
}


@pytest.mark.skipif(os.name == "nt", reason="the paths are written for others")
@pytest.mark.parametrize("case", YAMLS)
def test_the_forms_people_write_are_read(case: str) -> None:
    text, expected = YAMLS[case]
    assert paths(text) == expected


def test_a_base_in_ones_home_or_in_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/elena")
    monkeypatch.setenv("BIG", "/big")
    assert extra_model_paths("a:\n  base_path: ~/m\n  vae: v\n", FOLDER)[0] == Path(os.path.expanduser("~/m/v"))  # noqa: PTH111
    assert extra_model_paths("a:\n  base_path: ${BIG}/m\n  vae: v\n", FOLDER) == [Path("/big/m/v")]
    assert extra_model_paths("a:\n  base_path: ~nobody-of-this-name\n  vae: v\n", FOLDER)[0].name == "v"


@pytest.mark.parametrize("value", [r"D:\ComfyUI\models\vae", r"'D:\ComfyUI\models\vae'", r'"D:\\ComfyUI\\models\\vae"'])
def test_a_folder_of_windows_keeps_its_colon_and_backslashes(value: str) -> None:
    for text in (f"a:\n  vae: {value}\n", f"a:\n  vae: |\n    {value}\n", f"a:\n  vae:\n    {value}\n"):
        (path,) = extra_model_paths(text, FOLDER)
        assert str(path).endswith(r"D:\ComfyUI\models\vae")


def test_a_folder_that_can_be_none_is_passed_over(tmp_path: Path) -> None:
    for name in ("models", "custom_nodes"):
        (tmp_path / name).mkdir()
    (tmp_path / "extra_model_paths.yaml").write_text(f'a:\n  vae: {"v" * 300}\n  clip: "a\0b"\n', encoding="utf-8-sig")
    assert find_model_files(tmp_path) == ([], [])


NAMES = st.text(
    st.characters(categories=["L", "N"], include_characters=" ._-'#,:\\[]"), min_size=1, max_size=12
).filter(
    lambda name: name == name.strip() and name not in {"~", "null", ".", ".."} and not name.startswith(("- ", "#"))
)
KEYS = st.sampled_from(["checkpoints", "vae", "clip", "unet", "loras", "text_encoders", "custom_nodes"])


def in_single_quotes(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def in_double_quotes(text: str) -> str:
    return '"' + text.replace("\\", "\\\\") + '"'


@given(
    st.dictionaries(
        st.text("abc", min_size=1, max_size=3),
        st.dictionaries(KEYS, st.lists(NAMES, min_size=1, max_size=3), max_size=3),
        max_size=3,
    ),
    st.sampled_from([in_single_quotes, in_double_quotes]),
    st.sampled_from(["|", "list", "brackets"]),
    st.sampled_from(["  ", "    ", "\t"]),
    st.sampled_from(["", " # a comment", "\t# it's"]),
)
def test_what_is_written_is_read(
    sections: Mapping[str, Mapping[str, Sequence[str]]],
    quoted: Callable[[str], str],
    form: str,
    indent: str,
    comment: str,
) -> None:
    lines: list[str] = []
    for name, kinds in sections.items():
        lines += [f"{name}:{comment}", f"{indent}base_path: /base/{name}{comment}"]
        for kind, folders in kinds.items():
            values = [quoted(folder) for folder in folders]
            if len(values) == 1:
                lines.append(f"{indent}{kind}: {values[0]}{comment}")
            elif form == "brackets":
                lines.append(f"{indent}{kind}: [{', '.join(values)}]{comment}")
            else:
                lines.append(f"{indent}{kind}: {'|' if form == '|' else ''}")
                lines += [f"{indent}{indent}{'- ' if form == 'list' else ''}{value}{comment}" for value in values]
    expected = [
        Path(f"/base/{name}") / folder
        for name, kinds in sections.items()
        for kind, folders in kinds.items()
        if kind != "custom_nodes"
        for folder in folders
    ]
    assert extra_model_paths("\n".join(lines), FOLDER) == expected


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", " ", "  ", "\t", "    "]),
            st.sampled_from(["a", "base_path", "vae", "- ", "clip", "#", ""]),
            st.sampled_from([":", ": ", "", ": |", ": ["]),
            st.text(alphabet=" \t#|>'\"~$/{}[]-é,:\\\0", max_size=6) | st.sampled_from(["~x/y", "~", "${A}"]),
        ).map("".join),
        max_size=8,
    ).map("\n".join)
    | st.text()
)
def test_any_text_can_say_where_models_lie(text: str) -> None:
    assert all(isinstance(path, Path) for path in extra_model_paths(text, FOLDER))
