"""What a training takes: sizes of files that sd-scripts wrote, what sources say fits, and what is said of a machine."""

from __future__ import annotations

import gzip
import json
import runpy
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderlora import Disk, Estimate, Layer, ModelFile, Registry, SdScripts, Settings, to_json
from cinderlora.cli import main
from cinderlora.cost.disk import estimate_disk
from cinderlora.cost.lora import file_bytes, layer_parameters
from cinderlora.cost.machine import Memory, memory, room
from cinderlora.cost.problems import cost_of, disk_problems, ram_problems, vram_problems
from cinderlora.cost.ram import estimate_ram
from cinderlora.cost.vram import estimate_vram
from cinderlora.models import Tensor
from cinderlora.models.hollow import write_hollow

HEADERS = Path(__file__).parent / "data/headers"
FILES = {
    "flux": {"model": "flux_dev", "clip_l": "clip_l", "t5xxl": "t5xxl", "ae": "flux_ae"},
    "sd3": {"model": "sd3_medium", "clip_l": "clip_l", "clip_g": "clip_g", "t5xxl": "t5xxl"},
    "sdxl": {"model": "sdxl_base"},
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_installed()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models of full size with nothing in them; T5XXL is there in 16 bits and in FP8."""
    models = tmp_path_factory.mktemp("comfyui") / "models"
    names = {name for files in FILES.values() for name in files.values()} | {"sd35_medium", "flux_schnell"}
    for name in sorted(names):
        write(models / f"{name}.safetensors", name)
    write(models / "fp8/t5xxl_fp8_e4m3fn.safetensors", "t5xxl", "F8_E4M3")
    return models


def write(path: Path, name: str, dtype: str = "BF16") -> Path:
    known = json.loads(gzip.decompress((HEADERS / f"{name}.json.gz").read_bytes()))
    return write_hollow(path, {tensor: Tensor(dtype, tuple(shape)) for tensor, shape in known["tensors"].items()})


def scanned(registry: Registry, folder: Path, kind: str, **others: str) -> dict[str, ModelFile]:
    names = FILES[kind] | others
    found = {}
    for role, name in names.items():
        (file,) = registry[kind].scan_models(folder / f"{name}.safetensors").files
        found[role] = file
    return found


def job_of(registry: Registry, kind: str, models: dict[str, ModelFile], **settings):
    wish = {"name": "elena", "trigger": "elena", "dataset": "data", "output": "out", "preset": "16gb"}
    return registry[kind].job(**wish | settings, models=models)


# ---- disk ----


def test_a_lora_is_as_large_as_the_real_one(registry, folder):
    # sd-scripts 0.10.1 wrote 21,587,164 bytes for SDXL at dim 4 in bf16.
    layers = scanned(registry, folder, "sdxl")["model"].layers["model"]
    assert file_bytes(layers, 4, "bf16") == pytest.approx(21_587_164, rel=0.01)
    assert file_bytes(layers, 4, None) == pytest.approx(2 * 21_587_164, rel=0.05)  # 32-bit floats


# SD3 with two blocks: 17 modules that at dim 16 have 155,648 numbers.
SMALL = (Layer(4864, 4864), Layer(0, 0, 16))


def test_a_small_lora_is_as_large_as_the_real_one():
    assert file_bytes(SMALL, 16, "bf16") == pytest.approx(321_842, rel=0.01)


def test_kernels_count():
    assert layer_parameters([Layer(4, 8, 2, kernel=3)]) == 2 * (4 * 9 + 8)


# What lay beside pictures of 128 x 128 after trainings with sd-scripts 0.10.1: latents, text encoder outputs.
CACHES = {"sd3": (17_244, 4_838_642), "flux": (17_244, 8_403_205)}


@pytest.mark.parametrize("kind", CACHES)
def test_caches_are_as_large_as_the_real_ones(registry, kind):
    size = sum(CACHES[kind])
    settings = Settings(cache_latents=True, cache_text_encoders=True)
    found = sizes(registry, kind, settings)
    assert found.caches == pytest.approx(3 * size, rel=0.001)
    assert sizes(registry, kind, attrs.evolve(settings, cache_text_encoders=False)).caches == pytest.approx(
        3 * CACHES[kind][0], rel=0.01
    )
    assert sizes(registry, kind, Settings()).caches == 0


def sizes(registry: Registry, kind: str, settings: Settings, **others) -> Disk:
    given = {"layers": None, "latents": [(128, 128)] * 3, "checkpoints": 2, "samples": 0, "sample_size": (1, 1)}
    return estimate_disk(settings, footprint=registry[kind].type.footprint(), **given | others)


# One saved state of SD3 with two blocks, dim 16, in bytes: weights, optimizer and the rest.
@pytest.mark.parametrize(("optimizer", "size"), [("AdamW", 1_918_320), ("Prodigy", 2_763_632)])
def test_a_state_is_as_large_as_the_real_one(registry, optimizer, size):
    settings = Settings(network_dim=16, optimizer=optimizer, save_state=True)
    assert sizes(registry, "sd3", settings, layers=SMALL).states == pytest.approx(3 * size, rel=0.05)
    assert sizes(registry, "sd3", attrs.evolve(settings, save_state=False), layers=SMALL).states == 0


def test_the_parts_add_up():
    disk = Disk(lora=1, checkpoints=20, states=300, samples=4_000, caches=50_000)
    assert (disk.output, disk.total) == (4_321, 54_321)
    assert (Disk(caches=5).output, Disk(caches=5).total, Disk().total) == (None, 5, None)


# ---- what the types say of themselves ----


def test_footprints_are_those_of_the_published_files(registry, folder):
    seen = 0
    for kind in FILES:
        files = registry[kind].scan_models(folder).files
        for variant, footprint in registry[kind].type.footprints.items():
            assert set(footprint.encoders) | {"model", footprint.vae} == set(footprint.parameters)
            for file in files:
                if file.role == "model" and file.variant == variant:
                    seen += 1
                    assert file.parameters["model"] == footprint.parameters["model"]
                    assert layer_parameters(file.layers["model"]) == footprint.lora_parameters
                    assert file.limits.get("blocks_to_swap", 0) == footprint.swappable
                if file.role in footprint.encoders or file.role == footprint.vae:
                    assert file.parameters[file.role] == footprint.parameters[file.role]
    assert seen == 5  # all but SD3.5 large, of which there is no header here


def test_a_type_that_says_nothing_gets_no_estimate(registry):
    kind = attrs.evolve(registry["sdxl"].type, footprints={})
    job = job_of(registry, "sdxl", {})
    assert cost_of(kind, job, None, 0, 0).vram is None
    unknown = ModelFile(path="m.safetensors", role="model", variant="inpaint")
    assert registry["sdxl"].vram(job.settings, {"model": unknown}) is None


# ---- memory of the card ----

# That a FLUX LoRA of 1024 px fits is what sd-scripts' documentation says (docs/flux_train_network.md, section 6.1):
# GB, batch, blocks to swap, optimizer, whether T5 is to be in FP8.
FITS = [
    (24, 2, 0, "AdamW8bit", False),
    (12, 1, 16, "AdamW8bit", False),
    (10, 1, 22, "AdamW8bit", True),
    (8, 1, 28, "AdamW8bit", True),
]


@pytest.mark.parametrize(("there", "batch", "blocks", "optimizer", "small_t5"), FITS)
def test_what_is_said_to_fit_fits(registry, folder, there, batch, blocks, optimizer, small_t5):
    models = scanned(registry, folder, "flux", **{"t5xxl": "fp8/t5xxl_fp8_e4m3fn"} if small_t5 else {})
    settings = job_of(
        registry, "flux", models, resolution=1024, batch_size=batch, blocks_to_swap=blocks, optimizer=optimizer,
        sample_every=0,
    ).settings  # fmt: skip
    assert registry["flux"].vram(settings, models).gb <= there


def test_what_is_said_not_to_fit_does_not(registry, folder):
    models = scanned(registry, folder, "flux")
    flux, job = registry["flux"], job_of(registry, "flux", models)
    # A T5 in 16 bits is for cards of more than 10 GB, and without FP8 the transformer alone has 22 GB.
    captions = flux.vram(job.settings, models)
    assert captions.phase == "caching_text_encoders" and captions.gb > 9.7
    assert flux.vram(attrs.evolve(job.settings, fp8_base=False, blocks_to_swap=0), models).gb > 24


def test_where_no_file_tells_t5_may_be_either(registry, folder):
    flux = registry["flux"]
    settings = flux.presets["8gb"].settings()
    nothing = flux.vram(settings)
    in_16_bits = flux.vram(settings, scanned(registry, folder, "flux"))
    assert nothing.gb < 8 < in_16_bits.gb and nothing.high == in_16_bits.high


some_settings = st.builds(
    Settings,
    resolution=st.sampled_from([256, 512, 768, 1024]),
    batch_size=st.integers(1, 8),
    network_dim=st.integers(1, 128),
    optimizer=st.sampled_from(["AdamW", "AdamW8bit", "Prodigy", "Adafactor", "SomethingNew"]),
    fp8_base=st.booleans(),
    blocks_to_swap=st.integers(0, 40),
    gradient_checkpointing=st.booleans(),
    cache_latents=st.booleans(),
    cache_text_encoders=st.booleans(),
    mixed_precision=st.sampled_from(["no", "fp16", "bf16"]),
    sample_every=st.sampled_from([0, 250]),
)


@given(some_settings, st.sampled_from(["flux", "sd3", "sdxl"]))
def test_an_estimate_has_a_range_and_grows_with_what_is_asked(settings, kind):
    from importlib import import_module

    for footprint in import_module(f"cinderlora_{kind}.cost").FOOTPRINTS.values():
        found = estimate_vram(footprint, settings)
        assert 0 < found.low <= found.gb <= found.high < 2000
        assert found.gb == max(found.phases.values()) == found.phases[found.phase]
        for more in (
            {"resolution": settings.resolution + 64},
            {"batch_size": settings.batch_size + 1},
            {"network_dim": settings.network_dim + 1},
            {"gradient_checkpointing": False},
            {"blocks_to_swap": 0},
        ):
            assert estimate_vram(footprint, attrs.evolve(settings, **more)).gb >= found.gb
        loading = estimate_ram(footprint, settings)
        assert 0 < loading.low <= loading.gb <= loading.high


# ---- what is said of a machine ----


def codes(problems) -> list[str]:
    return [problem.code for problem in problems]


def of_card(registry: Registry, kind: str, job, total: float, free: float | None = None, holders=()):
    card = Memory(total, total if free is None else free)
    estimate = cost_of(registry[kind].type, job, None, 0, 0).vram
    return estimate, list(vram_problems(registry[kind].type, job, estimate, card, holders))


def test_the_cure_for_too_small_a_card_brings_it_in(registry, folder):
    models = scanned(registry, folder, "flux", t5xxl="fp8/t5xxl_fp8_e4m3fn")
    job = job_of(registry, "flux", models, blocks_to_swap=0, resolution=1024)
    estimate, (problem,) = of_card(registry, "flux", job, 12)
    assert (problem.code, problem.severity) == ("vram_small", "warning") and estimate.gb > 12
    assert set(problem.changes) == {"blocks_to_swap"}
    assert f"blocks_to_swap = {problem.changes['blocks_to_swap']}" in problem.fix
    cured, others = of_card(registry, "flux", job.evolve(**problem.changes), 12)
    assert cured.gb <= 12 and "vram_small" not in codes(others)
    one_less = job.evolve(blocks_to_swap=problem.changes["blocks_to_swap"] - 1)
    assert of_card(registry, "flux", one_less, 12)[0].gb > 12


def test_sdxl_is_made_to_fit_by_what_costs_least(registry, folder):
    models = scanned(registry, folder, "sdxl")
    job = job_of(registry, "sdxl", models, preset="24gb", sample_every=0)
    wasteful = job.evolve(gradient_checkpointing=False)
    assert of_card(registry, "sdxl", wasteful, 12)[1][0].changes == {"gradient_checkpointing": True}
    assert of_card(registry, "sdxl", job, 7.2)[1][0].changes == {"batch_size": 1}
    (hopeless,) = of_card(registry, "sdxl", job, 4)[1]
    assert not hopeless.changes and "Set" not in hopeless.fix


def test_captions_too_large_for_a_card_are_no_matter_of_settings(registry, folder):
    job = job_of(registry, "flux", scanned(registry, folder, "flux"), preset="8gb")
    _, (problem,) = of_card(registry, "flux", job, 8)
    assert problem.code == "vram_small_for_captions" and "fp8" in problem.fix and not problem.changes
    # What the training itself takes is told beside it, with its own cure.
    both = job.evolve(blocks_to_swap=0)
    captions, training = of_card(registry, "flux", both, 8)[1]
    assert captions.code == "vram_small_for_captions" and captions.params["needed"] == 10.0
    assert training.code == "vram_small" and training.params["needed"] > 11
    _, (left,) = of_card(registry, "flux", both.evolve(**training.changes), 8)
    assert left.code == "vram_small_for_captions"
    # One that is in FP8 already gets no smaller.
    small = job_of(registry, "flux", scanned(registry, folder, "flux", t5xxl="fp8/t5xxl_fp8_e4m3fn"), preset="8gb")
    assert codes(of_card(registry, "flux", small, 4)[1]) == ["vram_small"]


def test_what_others_hold_matters_where_the_rest_is_too_little(registry, folder):
    job = job_of(registry, "sdxl", scanned(registry, folder, "sdxl"))
    _, (problem,) = of_card(registry, "sdxl", job, 16, 5, ["ComfyUI, process 7, 11.0 GB"])
    assert problem.code == "gpu_in_use" and "ComfyUI" in problem.message and "5 of the GPU's 16" in problem.message
    assert of_card(registry, "sdxl", job, 16, 14, ["Xorg, process 7, 0.3 GB"])[1] == []


def test_blocks_that_are_swapped_for_nothing_are_mentioned(registry, folder):
    models = scanned(registry, folder, "flux", t5xxl="fp8/t5xxl_fp8_e4m3fn")
    job = job_of(registry, "flux", models)  # 20 blocks
    _, (problem,) = of_card(registry, "flux", job, 16)
    assert problem.code == "blocks_to_swap_spare" and problem.changes["blocks_to_swap"] < 16
    faster, others = of_card(registry, "flux", job.evolve(**problem.changes), 16)
    assert faster.high <= 16 and others == []


def test_what_sdxl_really_took_of_the_memory_is_within_the_estimate(registry, tmp_path):
    """Measured with the real script on a checkpoint of full size in BF16, without a card: 17.0 GB at most."""
    (file,) = registry["sdxl"].scan_models(write(tmp_path / "sdxl.safetensors", "sdxl_base")).files
    settings = registry["sdxl"].presets["16gb"].settings()
    found = estimate_ram(registry["sdxl"].type.footprint("base"), settings, {"model": file})
    assert found.low <= 17.0 <= found.high
    (file,) = registry["sdxl"].scan_models(write(tmp_path / "sdxl.safetensors", "sdxl_base", "F32")).files
    floats = estimate_ram(registry["sdxl"].type.footprint("base"), settings, {"model": file})
    assert floats.gb == found.gb and floats.high < found.high  # nothing is cast


def test_what_is_cast_lies_in_memory_twice_at_most(registry, folder):
    models = scanned(registry, folder, "flux")
    job = job_of(registry, "flux", models, fp8_base=False, mixed_precision="bf16")
    footprint = registry["flux"].type.footprint("dev")
    same, cast = (estimate_ram(footprint, job.evolve(mixed_precision=p).settings, models) for p in ("bf16", "fp16"))
    assert same.gb == cast.gb and cast.high - same.high == pytest.approx(11_901_408_320 * 2 / 2**30)


def test_too_little_memory_to_load_the_models():
    estimate = Estimate(20.0, 18.0, 30.0)
    (problem,) = ram_problems(estimate, Memory(32, 15))
    assert (problem.code, problem.severity) == ("ram_small", "warning") and "15 of 32 GB" in problem.message
    assert not list(ram_problems(estimate, Memory(64, 20)))


def test_a_full_disk_is_an_error_only_where_not_one_lora_fits(tmp_path):
    output, runs = tmp_path / "loras", tmp_path / "runs" / "deep"
    plenty, endless = Disk(lora=1, checkpoints=2, samples=3, caches=4), 2**62
    assert not list(disk_problems(plenty, output, runs))
    (problem,) = disk_problems(attrs.evolve(plenty, checkpoints=endless), output, runs)
    assert (problem.code, problem.severity) == ("disk_small", "warning")
    (problem,) = disk_problems(attrs.evolve(plenty, lora=endless), output, runs)
    assert (problem.code, problem.severity) == ("disk_small", "error")
    # Both folders lie on one file system: what is needed is told once, in all.
    (problem,) = disk_problems(Disk(lora=1, caches=endless), output, runs)
    assert problem.severity == "warning" and str(output) in problem.message


def test_a_folder_that_is_not_there_has_the_room_of_the_one_above(tmp_path):
    assert room(tmp_path / "not" / "yet") == room(tmp_path)
    assert room(tmp_path).free > 0


def test_a_container_has_what_it_may_use(tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text("1073741824\n")
    assert memory(limit).total == 1 and memory(limit).free <= 1
    limit.write_text("max\n")
    assert memory(limit).total == memory(tmp_path / "nowhere").total > 0


# ---- in a report ----


def test_a_report_has_the_cost(registry, folder, pictures, tmp_path):
    flux = registry["flux"]
    settings = {"dataset": pictures, "output": tmp_path / "out", "steps": 1500, "save_every": 500, "save_state": True}
    job = job_of(registry, "flux", scanned(registry, folder, "flux"), **settings)
    report = flux.check(job, SdScripts(tmp_path), runs=tmp_path / "runs")
    assert report.disk.lora == pytest.approx(153_400_000, rel=0.01)
    assert report.disk.checkpoints == 3 * report.disk.lora
    assert report.disk.caches == pytest.approx(6 * 8_400_000, rel=0.01)  # one of 512 tokens for each caption
    assert report.disk_bytes == report.disk.total == report.disk.output + report.disk.caches
    assert report.vram.low < report.vram.gb < report.vram.high and report.vram_gb == 16
    assert report.ram.gb > 20  # the transformer in FP8 and T5 in 16 bits
    said = to_json(report)
    assert said["buckets"] == dict(report.buckets) and sum(report.buckets.values()) == 60  # six with ten repeats
    assert said["disk"]["lora"] == report.disk.lora and said["vram"]["phases"]["training"] > 0


def test_bare_paths_are_looked_into(registry, folder, pictures, tmp_path):
    paths = {role: folder / f"{name}.safetensors" for role, name in FILES["flux"].items()}
    job = job_of(registry, "flux", paths, dataset=pictures, output=tmp_path / "out")
    seen = job.evolve(models=scanned(registry, folder, "flux"))
    assert (
        registry["flux"].check(job, SdScripts(tmp_path)).disk == registry["flux"].check(seen, SdScripts(tmp_path)).disk
    )


@pytest.mark.parametrize("change", [{"network_module": "lycoris.kohya"}, {"network_args": ["conv_dim=8"]}])
def test_of_another_network_the_size_is_not_known(registry, folder, pictures, tmp_path, change):
    models = scanned(registry, folder, "sdxl")
    job = job_of(registry, "sdxl", models, dataset=pictures, output=tmp_path / "out", **change)
    report = registry["sdxl"].check(job, SdScripts(tmp_path))
    assert report.disk.lora is None and report.disk.checkpoints is None and report.disk.caches > 0


def test_a_rehearsal_costs_nothing_worth_a_number(registry, pictures, tmp_path):
    job = job_of(registry, "sdxl", {}, dataset=pictures, output=tmp_path / "out")
    report = registry["sdxl"].check(job, SdScripts.rehearsal())
    assert (report.disk, report.vram, report.ram, report.disk_bytes) == (None, None, None, None)


# ---- presets ----


@pytest.mark.parametrize(
    ("kind", "there", "preset"),
    [("flux", 24, "24gb"), ("flux", 16, "16gb"), ("flux", 6, "8gb"), ("sdxl", 12, "24gb"), ("sd3", 4, "8gb")],
)
def test_the_largest_preset_that_fits_with_these_models(registry, folder, kind, there, preset):
    models = scanned(registry, folder, kind)
    assert registry[kind].fitting_preset(models, memory=there).name == preset


def test_what_is_asked_for_counts_for_what_fits(registry, folder):
    models = scanned(registry, folder, "flux")
    flux = registry["flux"]
    assert flux.fitting_preset(models, Settings(batch_size=16), memory=24).name != "24gb"
    assert flux.fitting_preset(memory=12).name == "12gb"  # of no model, by its figure


@pytest.fixture
def _comfyui(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("CINDERLORA_COMFYUI", str(folder.parent))
    monkeypatch.setenv("CINDERLORA_LANGUAGE", "en")


@pytest.mark.usefixtures("_comfyui")
def test_the_command_line_marks_what_fits(capsys):
    assert main(["presets", "flux", "--fit", "--vram", "12", "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["fits"] for record in found] == [True, True, True, True, False]
    assert [record["name"] for record in found if record["largest_fitting"]] == ["16gb"]
    assert all(record["estimate"]["low"] <= record["estimate"]["gb"] for record in found)
    assert main(["presets", "flux", "--vram", "12"]) == 0
    said = capsys.readouterr().out
    assert "yes, the largest" in said and "For a card of 12.0 GB" in said


@pytest.mark.usefixtures("_comfyui")
def test_check_says_what_it_will_take(capsys, pictures, tmp_path):
    asked = ["-t", "flux", "-n", "elena", "-d", str(pictures), "-o", str(tmp_path / "out"), "-p", "16gb"]
    assert main(["check", *asked, "--save-every", "500", "--sd-scripts", str(tmp_path)]) == 2  # no sd-scripts there
    out = capsys.readouterr().out
    assert "3, 153.3 MB each" in out and "checkpoints 459.8 MB" in out and "caches 50.5 MB" in out
    assert "about 8.7 GB" in out and "Memory" in out
    assert "Buckets          128x128: 60\n" in out


# ---- measuring ----

ROOT = Path(__file__).parent.parent


def test_where_nothing_is_measured_the_benchmark_says_what_it_would_do(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmarks/vram.py -->\nold\n<!-- end -->\nafter\n")
    command = [sys.executable, ROOT / "benchmarks/vram.py", "--dry-run", "--write", page, "--", "sdxl/8gb"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "nothing is measured" in said.stdout and "sdxl_base_f16.safetensors 6.9 GB" in said.stdout
    assert "old" not in page.read_text() and "| sdxl 8gb |" in page.read_text()
    assert page.read_text().startswith("before\n") and page.read_text().endswith("after\n")
    assert "not measured" in page.read_text()


def test_the_estimates_in_the_documentation_are_those_of_today(registry, tmp_path):
    benchmark = runpy.run_path(str(ROOT / "benchmarks/vram.py"))
    rows = {}
    for line in (ROOT / "docs/cost.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[cells[0]] = cells
    for adapter, preset in benchmark["wanted"](registry, ()):
        models = {}
        for role, (name, dtype) in benchmark["files_of"](adapter.name, preset).items():
            path = benchmark["hollow"](tmp_path, name, dtype)
            (models[role],) = (file for file in adapter.scan_models(path).files if file.role == role)
        takes = adapter.vram(preset.settings(), models)
        said = rows[f"{adapter.name} {preset.name}"][-2]
        assert said == f"{takes.gb:.1f} ({takes.low:.1f} to {takes.high:.1f})", (
            "python benchmarks/vram.py --dry-run --write"
        )
