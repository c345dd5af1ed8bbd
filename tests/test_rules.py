"""What sd-scripts would stumble over after minutes is refused, or warned of, before the start."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from cinderlora import ModelFile, Registry, SdScripts


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_installed()


def problems(registry: Registry, pictures, model_type: str, **settings):
    adapter = registry[model_type]
    options = {"name": "elena", "trigger": "elena", "dataset": pictures, "output": pictures.parent / "out"}
    job = adapter.job(**options, **settings)
    return {p.code: p for p in adapter.check(job, SdScripts.rehearsal()).problems}, job


@pytest.mark.parametrize(
    ("model_type", "settings", "code", "severity"),
    [
        ("flux", {"shuffle_caption": True}, "captions_cached", "error"),
        ("sd3", {"extra": {"caption_dropout_rate": 0.1}}, "captions_cached", "error"),
        ("sdxl", {"extra": {"caption_tag_dropout_rate": 0.1}}, "captions_cached", "error"),
        ("sdxl", {"extra": {"caption_prefix": "photo of"}}, "no_effect_with_cache", "warning"),
        ("sdxl", {"train_text_encoder": True}, "text_encoder_cached", "error"),
        ("flux", {"network_args": ["train_t5xxl=True"]}, "t5xxl_cached", "error"),
        ("sd3", {"train_text_encoder": True, "network_args": ["train_t5xxl=True"]}, "t5xxl_cached", "error"),
        ("sdxl", {"extra": {"color_aug": True}}, "latents_cached", "error"),
        ("flux", {"extra": {"full_fp16": True}}, "full_precision_differs", "error"),
        ("sdxl", {"lr_scheduler": "constant", "lr_warmup_steps": 5}, "warmup_without_effect", "error"),
        ("flux", {"extra": {"lr_warmup_steps": 5}}, "warmup_without_effect", "error"),
        ("flux", {"optimizer": "Prodigy", "learning_rate": 0.0001}, "learning_rate_low", "warning"),
        ("sd3", {"learning_rate": 0.0}, "learning_rate_zero", "error"),
        ("flux", {"extra": {"save_every_n_steps": 0}}, "zero_divides", "error"),
        ("flux", {"extra": {"sample_every_n_epochs": 0}}, "zero_divides", "error"),
        ("flux", {"sample_every": 0, "extra": {"sample_every_n_epochs": 1}}, "sample_prompts_missing", "error"),
        ("sd3", {"bucket_step": 48}, "bucket_step", "error"),
        ("flux", {"bucket_step": 32}, "bucket_step", "error"),
        ("flux", {"network_module": "networks.lora"}, "network_module_of_another", "error"),
        ("sdxl", {"network_module": "networks.lora_flux"}, "network_module_of_another", "error"),
        ("flux", {"blocks_to_swap": 9, "extra": {"cpu_offload_checkpointing": True}}, "swap_with_offload", "error"),
        ("sd3", {"mixed_precision": "fp16"}, "fp16_nan", "warning"),
        ("flux", {"extra": {"min_snr_gamma": 5.0}}, "no_effect", "warning"),
        ("sd3", {"mixed_precision": "no", "fp8_base": True}, "fp8_needs_mixed_precision", "error"),
        ("flux", {"extra": {"model_type": "chroma"}}, "chroma_mask", "error"),
        ("sd3", {"extra": {"output_dir": "/elsewhere"}}, "argument_ours", "error"),
        ("sdxl", {"extra": {"debug_dataset": True}}, "argument_ours", "error"),
        ("flux", {"extra": {"skip_until_initial_step": True}}, "argument_ours", "error"),
        ("flux", {"extra": {"train_batch_size": 4}}, "argument_of_data_set", "error"),
        ("sd3", {"resolution": 512, "extra": {"min_bucket_reso": 768}}, "bucket_range", "error"),
        ("sdxl", {"resolution": 1024, "extra": {"max_bucket_reso": 512}}, "bucket_range", "error"),
        ("sdxl", {"lr_scheduler": "cosin"}, "scheduler_unknown", "warning"),
        ("flux", {"optimizer": "sgd"}, "optimizer_unknown", "warning"),
    ],
    ids=str,
)
def test_a_rule(registry, pictures, model_type, settings, code, severity):
    found, job = problems(registry, pictures, model_type, **settings)
    assert code in found, list(found)
    assert found[code].severity == severity
    if found[code].changes:
        adapter = registry[model_type]
        cured = adapter.check(job.evolve(**found[code].changes), SdScripts.rehearsal())
        assert code not in [p.code for p in cured.problems]


@pytest.mark.parametrize("model_type", ["flux", "sdxl", "sd3"])
def test_the_presets_break_no_rule(registry, pictures, model_type):
    for name in registry[model_type].presets:
        found, _ = problems(registry, pictures, model_type, preset=name)
        assert set(found) <= {"few_pictures", "image_small", "caption_missing"}, name


@pytest.mark.parametrize(
    "settings",
    [
        {"network_module": "lycoris.kohya", "network_args": ["algo=lokr"]},
        {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 50},
        {"cache_text_encoders": False, "shuffle_caption": True, "train_text_encoder": True},
        {"optimizer": "Adafactor"},
        {"optimizer": "SGD", "lr_scheduler": "adafactor:1e-3"},
        {"optimizer": "lion8BIT"},
        {"optimizer": "came_pytorch.CAME", "extra": {"lr_scheduler_type": "CosineAnnealingLR"}},
        {"resolution": 1024, "extra": {"min_bucket_reso": 512, "max_bucket_reso": 1536}},
    ],
    ids=str,
)
def test_what_is_fine_is_not_refused(registry, pictures, settings):
    found, _ = problems(registry, pictures, "sdxl", **settings)
    assert set(found) <= {"few_pictures", "image_small", "caption_missing"}


def test_blocks_to_swap_stays_within_what_the_model_file_allows(registry, pictures, tmp_path):
    file = ModelFile(path=tmp_path / "flux.safetensors", role="model", limits={"blocks_to_swap": 12})
    _, job = problems(registry, pictures, "flux", preset="16gb", models={"model": file})
    plan = registry["flux"].plan(job, SdScripts.rehearsal())
    assert "blocks_to_swap = 12\n" in plan.files["elena_kohya_training.toml"]
    found = {p.code: p for p in registry["flux"].check(job, SdScripts.rehearsal()).warnings}
    assert found["setting_clamped"].params == {"setting": "blocks_to_swap", "value": 20, "limit": 12}


def test_what_extra_says_of_them_stays_within_it_too(registry, pictures, tmp_path):
    file = ModelFile(path=tmp_path / "flux.safetensors", role="model", limits={"blocks_to_swap": 12})
    _, job = problems(registry, pictures, "flux", models={"model": file}, extra={"blocks_to_swap": 35, "clip_skip": 1})
    plan = registry["flux"].plan(job, SdScripts.rehearsal())
    assert {"blocks_to_swap = 12", "clip_skip = 1"} <= set(plan.files["elena_kohya_training.toml"].splitlines())
    found = {p.code: p for p in registry["flux"].check(job, SdScripts.rehearsal()).warnings}
    assert found["setting_clamped"].params == {"setting": "blocks_to_swap", "value": 35, "limit": 12}


def test_a_close_name_is_offered(registry, pictures):
    found, _ = problems(registry, pictures, "sd3", optimizer="sgd", lr_scheduler="cosine_restarts")
    assert found["optimizer_unknown"].params["nearest"] == "SGD"
    assert found["scheduler_unknown"].params["nearest"] == "cosine_with_restarts"


def test_the_bucket_range_of_extra_is_the_data_sets(registry, pictures):
    _, job = problems(registry, pictures, "sdxl", resolution=1280, extra={"max_bucket_reso": 1280})
    plan = registry["sdxl"].plan(job, SdScripts.rehearsal())
    assert "max_bucket_reso = 1280\n" in plan.files["elena_dataset.toml"]


@pytest.mark.parametrize(
    ("module", "nearest"),
    [
        ("networks.lora_flux", ()),
        ("lycoris.kohya", ()),
        ("networks.loha", (None,)),
        ("networks.lora_fulx", ("networks.lora_flux",)),
    ],
)
def test_a_network_module_that_the_checkout_has_not(registry, pictures, tmp_path, module, nearest):
    (tmp_path / "networks").mkdir()
    for name in ("train_network.py", "flux_train_network.py", "networks/lora_flux.py"):
        (tmp_path / name).touch()
    options = {"name": "elena", "trigger": "elena", "dataset": pictures, "output": tmp_path / "out"}
    for settings in ({"network_module": module}, {"extra": {"network_module": module}}):
        job = registry["flux"].job(**options, **settings)
        found = registry["flux"].check(job, SdScripts(tmp_path, python=sys.executable)).errors
        assert tuple(p.params["nearest"] for p in found if p.code == "network_module_missing") == nearest
        assert "network_module_missing" not in [
            p.code for p in registry["flux"].check(job, SdScripts.rehearsal()).errors
        ]


@pytest.mark.parametrize(("optimizer", "package"), [("AdamW8bit", "bitsandbytes"), ("PagedLion8bit", "bitsandbytes")])
def test_an_optimizer_that_is_not_installed_is_told(registry, pictures, tmp_path, optimizer, package):
    for name in ("train_network.py", "sd3_train_network.py"):
        (tmp_path / name).touch()
    sd3 = registry["sd3"]
    options = {"name": "elena", "trigger": "elena", "dataset": pictures, "output": tmp_path / "out"}
    job = sd3.job(**options, optimizer=optimizer)
    trainer = SdScripts(tmp_path, python=sys.executable)  # which has no bitsandbytes
    found = {p.code: p for p in sd3.check(job, trainer).errors}
    assert found["optimizer_package"].params == {"optimizer": optimizer, "package": package}
    assert "optimizer_package" not in [p.code for p in sd3.check(job.evolve(optimizer="AdamW"), trainer).problems]
    behind = sd3.job(**options, optimizer="AdamW", extra={"optimizer_type": optimizer})
    (found,) = [p for p in sd3.check(behind, trainer).errors if p.code == "optimizer_package"]
    assert not found.changes  # `extra` goes over what the setting would be changed to


def nvidias_library(cards: list[tuple[str, tuple[int, int]]]) -> SimpleNamespace:
    """What nvidia-ml-py's functions give on a machine with these cards: names and compute capabilities."""
    return SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetName=lambda number: cards[number][0],
        nvmlDeviceGetCudaComputeCapability=lambda number: cards[number][1],
        nvmlDeviceGetMemoryInfo=lambda number: SimpleNamespace(total=24 << 30, free=24 << 30, used=0),
        nvmlDeviceGetComputeRunningProcesses=lambda number: [],
    )


@pytest.mark.parametrize(
    ("cards", "settings", "named"),
    [
        ([("GeForce RTX 2080 Ti", (7, 5)), ("Tesla P40", (6, 1))], {}, ("GeForce RTX 2080 Ti", "Tesla P40")),
        ([("Tesla T4", (7, 5))], {"extra": {"mixed_precision": "bf16"}}, ("Tesla T4",)),
        ([("NVIDIA GeForce RTX 3060", (8, 6))], {}, None),
        ([("Quadro P400", (6, 1)), ("NVIDIA GeForce RTX 4090", (8, 9))], {}, None),
        ([("Tesla T4", (7, 5))], {"mixed_precision": "fp16"}, None),
        ([], {}, None),
    ],
    ids=str,
)  # fmt: skip
def test_cards_without_bf16_are_named(registry, pictures, tmp_path, monkeypatch, cards, settings, named):
    monkeypatch.setitem(sys.modules, "pynvml", nvidias_library(cards))
    (tmp_path / "train_network.py").touch()
    sdxl = registry["sdxl"]
    job = sdxl.job(
        name="elena", trigger="elena", dataset=pictures, output=tmp_path / "out", optimizer="AdamW", **settings
    )
    found = {p.code: p for p in sdxl.check(job, SdScripts(tmp_path, python=sys.executable)).warnings}
    assert found["bf16_missing"].params["cards"] == named if named else "bf16_missing" not in found
    assert "bf16_missing" not in [p.code for p in sdxl.check(job, SdScripts.rehearsal()).problems]
