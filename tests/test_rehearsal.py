"""The rehearsal trainer, as real processes on real files, against recordings of the real trainer."""

import atexit
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from PIL import Image, ImageDraw

import cinderlora.rehearsal
from cinderlora.rehearsal import encoders, failures
from cinderlora.rehearsal.console import LossRecorder, figure, meter
from cinderlora.rehearsal.files import bfloat16
from cinderlora.rehearsal.network import Network
from cinderlora.rehearsal.sampling import prompt_of

# Dozens of short processes: compiling the sources anew in each would be a third of their time.
COMPILED = tempfile.mkdtemp(prefix="rehearsal-test-")
atexit.register(shutil.rmtree, COMPILED, ignore_errors=True)

DATA = Path(__file__).parent / "data" / "rehearsal"
SOURCE = str(Path(cinderlora.rehearsal.__file__).parents[2])
KINDS = ("flux", "sdxl", "sd3")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
PROMPTS = """# a comment
elena, a red circle --w 64 --h 64 --s 2 --d 42
elena portrait in paris --w 64 --h 64 --s 2 --l 2.0 --d 43 --n blurry
"""
BAR = re.compile(
    r"(?P<left>(?:(?P<desc>[a-z ]+): )?[ \d]{3}%\|.{10}\| (?P<n>\d+)/(?P<total>\d+)) \[(?P<rest>[^\]]*)\] *"
)


def draw(folder: Path, size: tuple[int, int] = (128, 128)) -> None:
    """Six captioned pictures, squares and circles."""
    folder.mkdir(parents=True)
    for index, colour in enumerate(COLOURS):
        picture = Image.new("RGB", size, (230 - 10 * index, 225, 215))
        shape = "circle" if index % 2 else "square"
        pen = ImageDraw.Draw(picture)
        (pen.ellipse if index % 2 else pen.rectangle)((30, 30, 100, 100), fill=colour)
        picture.save(folder / f"elena_{index:02d}.png")
        (folder / f"elena_{index:02d}.txt").write_text(f"elena, a {colour} {shape} on a plain wall\n", encoding="utf-8")


def environment(act: str = "") -> dict[str, str]:
    own = {"PYTHONPATH": SOURCE, "PYTHONPYCACHEPREFIX": COMPILED, "CINDERLORA_REHEARSE": act}
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | own


@dataclass
class Ran:
    folder: Path
    output: Path
    code: int
    log: str

    def lora(self, name: str = "cg_elena") -> tuple[dict[str, np.ndarray], dict[str, str]]:
        return read_safetensors(self.output / f"{name}.safetensors")

    @property
    def losses(self) -> dict[int, float]:
        """The last loss shown at each step."""
        found = re.findall(r"\rsteps: +\d+%\|.{10}\| (\d+)/\d+ \[[^\]]*avr_loss=([^\]]+)\]", self.log)
        return {int(step): float(loss) for step, loss in found}


def rehearse(
    folder: Path,
    kind: str = "flux",
    *arguments: str,
    act: str = "",
    dataset: dict[str, object] | None = None,
    images: str = "pictures",
    **settings: object,
) -> Ran:
    """One rehearsal in ``folder``; keyword arguments go over the usual settings, None takes one away."""
    if not (folder / images).exists():
        draw(folder / images)
    (folder / "dataset.toml").write_bytes(
        tomli_w.dumps(
            {
                "general": {
                    "resolution": 128,
                    "enable_bucket": True,
                    "min_bucket_reso": 64,
                    "caption_extension": ".txt",
                },
                "datasets": [{"batch_size": 1, "subsets": [{"image_dir": images, "num_repeats": 1}]}],
            }
            if dataset is None
            else dataset
        ).encode()
    )
    (folder / "prompts.txt").write_text(PROMPTS, encoding="utf-8")
    table = {
        "network_module": "networks.lora_flux",
        "network_dim": 4,
        "network_alpha": 2,
        "max_train_steps": 8,
        "output_dir": "out",
        "output_name": "cg_elena",
        "save_precision": "bf16",
        "optimizer_type": "AdamW",
        "learning_rate": 1e-4,
        "seed": 42,
        "dataset_config": "dataset.toml",
        "sample_prompts": "prompts.txt",
        "cache_text_encoder_outputs": True,
        "console_log_simple": True,
        "unknown_to_all": 1,
        "pretrained_model_name_or_path": "nowhere/flux.safetensors",
        **settings,
    }
    config = {"training": {key: value for key, value in table.items() if value is not None}}
    (folder / "elena_kohya_training.toml").write_bytes(tomli_w.dumps(config).encode())
    command = [sys.executable, "-P", "-m", "cinderlora.rehearsal", f"{kind}_train_network.py"]
    command += ["--config_file", "elena_kohya_training.toml", *arguments]
    with (folder / "output.log").open("wb") as log:  # one file for both streams, as in a run folder
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(act),
            stdout=log,
            stderr=log,
            check=False,
            timeout=60,
        )
    text = (folder / "output.log").read_bytes().decode()
    return Ran(folder, folder / str(table["output_dir"] or "out"), done.returncode, text)


def at_once(run: Callable[[str], Ran], names: Iterable[str]) -> list[Ran]:
    """Several rehearsals side by side, in folders of their own."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(run, names))


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read strictly: the offsets must cover the file without gap or overlap, as the safetensors library demands."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    body = content[8 + length :]
    tensors, end = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        width = {"F32": 4, "F16": 2, "BF16": 2}[entry["dtype"]]
        assert begin == end
        assert stop - begin == math.prod(entry["shape"]) * width
        raw, end = body[begin:stop], stop
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, np.float16 if entry["dtype"] == "F16" else np.float32)
        tensors[name] = values.reshape(entry["shape"])
    assert end == len(body)
    assert all(isinstance(value, str) for value in metadata.values())
    return tensors, metadata


def latent(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return encoders.encode(picture)


def part(tensors: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    return [values for key, values in tensors.items() if key.endswith(f"lora_{name}.weight")]


# --- the trainer's contract -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=KINDS)
def complete(request, tmp_path_factory) -> tuple[str, Ran]:
    """The settings of the recording of that kind."""
    kind = request.param
    every = 2 if kind == "sdxl" else 4
    folder = tmp_path_factory.mktemp(kind)
    return kind, rehearse(
        folder, kind, max_train_steps=2 * every, save_every_n_steps=every, sample_every_n_steps=every, network_alpha=1
    )


def shapes(log: str) -> list[str]:
    """The lines of a log without what differs from run to run: numbers, paths, refreshes that depend on the clock."""
    result: list[str] = []
    for piece in re.split(r"\n|(?=\r)|\x1b\[A", log):
        bar = BAR.match(piece.lstrip("\r"))
        if bar and bar["desc"] == "steps":
            shape = f"steps {bar['n']}/{bar['total']}"
            result = [line for line in result if line != shape]  # slow steps show twice, some again after sampling
            result.append(shape)
            continue
        shape = "bar" if bar else re.sub(r"[\d.]+", "#", re.sub(r"\S*/\S+/\S*|out/\S+", "PATH", piece)).strip()
        noise = ("Warning", "super()", "check_backward", "epoch is incremented", "dtype:")
        if shape and not any(word in shape for word in noise) and [shape] != result[-1:]:
            result.append(shape)
    return result


def test_prints_what_the_real_trainer_prints(complete):
    kind, ran = complete
    ours, real = shapes(ran.log), shapes((DATA / f"{kind}.log").read_bytes().decode())
    start, real_start = (lines.index("running training / 学習開始") for lines in (ours, real))
    assert [line for line in ours[start:] if line != "bar"] == [line for line in real[real_start:] if line != "bar"]
    # Before the training the rehearsal has less to say, but says nothing else, and says it in the same order.
    remaining = iter(real[:real_start])
    own = (
        "REHEARSAL",
        "Loading",
        "image_dir",
        "import network",
        "create LoRA",
        "enable LoRA",
        "found dir",
        "cache Text",
    )
    for line in ours[:start]:
        if not line.startswith(own):
            assert line in remaining, line


def test_every_file_has_the_real_name(complete):
    kind, ran = complete
    every = 2 if kind == "sdxl" else 4
    assert ran.code == 0
    names = [f"cg_elena-step{every:08d}", f"cg_elena-step{2 * every:08d}", "cg_elena"]
    assert sorted(path.name for path in ran.output.glob("*.*")) == sorted(f"{name}.safetensors" for name in names)
    samples = sorted(path.name for path in (ran.output / "sample").iterdir())
    expected = [rf"cg_elena_{step:06d}_{i:02d}_\d{{14}}_{42 + i}\.png" for step in (every, 2 * every) for i in (0, 1)]
    assert len(samples) == len(expected)
    assert all(re.fullmatch(pattern, name) for pattern, name in zip(expected, samples, strict=True))
    announced = [Path(line).name for line in re.findall(r"saving checkpoint: (.+)", ran.log)]
    assert announced == [f"{name}.safetensors" for name in names]
    assert re.search(r"\rsteps: +\d+%\|", ran.log)
    assert ran.log.startswith("REHEARSAL: ")
    assert list(ran.losses) == list(range(1, 2 * every + 1))
    assert not [path for path in (ran.folder / "pictures").iterdir() if path.suffix not in {".png", ".txt"}]


def test_lora_has_real_keys_shapes_and_metadata(complete):
    kind, ran = complete
    tensors, metadata = ran.lora()
    real = json.loads((DATA / "real_lora_keys.json").read_text())[kind]
    assert len(tensors) == 18
    assert set(tensors) <= set(real["tensors"])
    for name in (key.removesuffix(".alpha") for key in tensors if key.endswith(".alpha")):
        down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
        assert tensors[f"{name}.alpha"].shape == ()
        assert tensors[f"{name}.alpha"] == 1
        assert down.shape[0] == up.shape[1] == 4
    assert set(metadata) == {*real["metadata"], "cinderlora_rehearsal"}
    assert metadata["cinderlora_rehearsal"] == "true"
    assert "rehearsal" in metadata["ss_training_comment"]
    steps = 4 if kind == "sdxl" else 8
    assert metadata["ss_steps"] == metadata["ss_max_train_steps"] == str(steps)
    assert metadata["ss_num_train_images"] == "6"
    assert metadata["modelspec.title"] == "cg_elena"
    assert json.loads(metadata["ss_tag_frequency"])["pictures"]["elena"] == 6
    assert json.loads(metadata["ss_datasets"])[0]["bucket_info"]["buckets"]["0"]["resolution"] == [128, 128]
    step_metadata = ran.lora(f"cg_elena-step{steps // 2:08d}")[1]
    assert step_metadata["ss_steps"] == str(steps // 2)
    content = (ran.output / "cg_elena.safetensors").read_bytes()
    data = content[8 + int.from_bytes(content[:8], "little") :]
    assert metadata["sshs_model_hash"] == hashlib.sha256(data).hexdigest()


def test_other_scripts_run_with_generic_names(tmp_path):
    ran = rehearse(tmp_path, "lumina", max_train_steps=2)
    assert ran.code == 0
    assert all(name.startswith("lora_unet_blocks_") for name in ran.lora()[0])


def test_epochs(tmp_path):
    ran = rehearse(tmp_path, max_train_steps=None, max_train_epochs=3, save_every_n_epochs=1, sample_every_n_epochs=1)
    assert ran.code == 0
    assert max(ran.losses) == 18
    saved = sorted(path.name for path in ran.output.glob("*.safetensors"))
    assert saved == [f"cg_elena{epoch}.safetensors" for epoch in ("-000001", "-000002", "")]
    samples = {path.name[:16] for path in (ran.output / "sample").iterdir()}
    assert samples == {"cg_elena_e000001", "cg_elena_e000002", "cg_elena_e000003"}
    assert ran.lora("cg_elena-000002")[1]["ss_epoch"] == "2"


def test_gradient_accumulation_counts_like_the_trainer(tmp_path):
    """Six batches by four: two steps an epoch, and a figure for every batch."""
    ran = rehearse(tmp_path, max_train_steps=5, gradient_accumulation_steps=4)
    assert "num epochs / epoch数: 3" in ran.log
    counts = re.findall(r"\| (\d)/5 \[[^\]]*avr_loss", ran.log)
    assert counts[:3] == ["0", "0", "0"]
    assert counts[-1] == "5"
    assert ran.code == 0


def test_batches_and_buckets(tmp_path):
    draw(tmp_path / "wide", (192, 64))
    draw(tmp_path / "pictures")
    subsets = [{"image_dir": "pictures", "num_repeats": 2}, {"image_dir": "wide", "num_repeats": 1}]
    general = {"resolution": [128, 128], "enable_bucket": True, "min_bucket_reso": 64, "caption_extension": ".txt"}
    dataset = {"general": general, "datasets": [{"batch_size": 4, "subsets": subsets}]}
    ran = rehearse(tmp_path, dataset=dataset, max_train_steps=5)
    assert ran.code == 0
    assert "bucket 0: resolution (128, 128), count: 12" in ran.log
    assert "bucket 1: resolution (192, 64), count: 6" in ran.log
    assert "num batches per epoch / 1epochのバッチ数: 5" in ran.log


def test_command_line_goes_over_the_file(tmp_path):
    ran = rehearse(tmp_path, "flux", "--max_train_steps", "3", "--output_name=cg_other", "--save_precision", "float")
    assert max(ran.losses) == 3
    assert ran.lora("cg_other")[1]["ss_output_name"] == "cg_other"


def test_precision(tmp_path):
    """bf16 is what the other tests save in."""
    precisions = {"fp16": "F16", "float": "F32", "none": "F32"}

    def run(name: str) -> Ran:
        return rehearse(tmp_path / name, max_train_steps=1, save_precision=None if name == "none" else name)

    for ran, dtype in zip(at_once(run, precisions), precisions.values(), strict=True):
        content = (ran.output / "cg_elena.safetensors").read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {dtype}
        assert all(np.isfinite(values).all() for values in ran.lora()[0].values())


def test_lora_up_starts_at_zero(tmp_path):
    ran = rehearse(tmp_path, max_train_steps=0)
    tensors, _ = ran.lora()
    assert ran.code == 0
    assert "steps: 0it [00:00, ?it/s]" in ran.log
    assert not any(values.any() for values in part(tensors, "up"))
    assert all(values.any() for values in part(tensors, "down"))


def test_old_checkpoints_are_removed(tmp_path):
    ran = rehearse(tmp_path, max_train_steps=8, save_every_n_steps=2, save_last_n_steps=2)
    assert "removing old checkpoint" in ran.log
    saved = sorted(path.name for path in ran.output.glob("*-step*"))
    assert saved == ["cg_elena-step00000006.safetensors", "cg_elena-step00000008.safetensors"]


def test_a_saved_state_can_be_resumed(tmp_path):
    first = rehearse(tmp_path, max_train_steps=6, save_every_n_steps=6, save_state=True, save_precision=None)
    state = first.output / "cg_elena-step00000006-state"
    assert json.loads((state / "train_state.json").read_text()) == {"current_epoch": 1, "current_step": 6}
    before = part(first.lora()[0], "up")
    rest = rehearse(
        tmp_path, max_train_steps=0, initial_step=0, resume=str(state), output_dir="rest", save_precision=None
    )
    assert rest.code == 0
    assert all(np.array_equal(a, b) for a, b in zip(before, part(rest.lora()[0], "up"), strict=True))
    plain = rehearse(tmp_path, max_train_steps=12, resume=str(state), output_dir="plain")
    assert max(plain.losses) == 6  # the trainer's own habit: the epochs before are skipped, the count begins anew
    assert "epoch 2/2" in plain.log


@pytest.mark.parametrize("precision", [None, "fp16", "bf16"])
def test_it_starts_from_given_weights(tmp_path, precision):
    first = rehearse(tmp_path, max_train_steps=6, save_precision=precision)
    lora = first.output / "cg_elena.safetensors"
    more = rehearse(tmp_path, max_train_steps=0, network_weights=str(lora), output_dir="more", save_precision=precision)
    assert f"load network weights from {lora}" in more.log
    (before, _), (after, _) = first.lora(), more.lora()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_hostile_names(tmp_path):
    names = ["it's quoted ", "Jürgen größe 火🔥", "--100%{x}", *([] if sys.platform == "win32" else ['a "b"\\*[c]'])]

    def run(name: str) -> Ran:
        return rehearse(
            tmp_path / name,
            images=f"{name}/pictures",
            output_dir=f"./{name}/out",
            output_name=name,
            max_train_steps=2,
            sample_every_n_steps=2,
        )

    for name, ran in zip(names, at_once(run, names), strict=True):
        assert ran.code == 0, ran.log
        assert ran.lora(name)[1]["ss_output_name"] == name
        assert len(list((ran.output / "sample").iterdir())) == 2
        assert f"saving checkpoint: {Path(name, 'out', name)}.safetensors\n" in ran.log


# --- the training -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Ran:
    folder = tmp_path_factory.mktemp("trained")
    draw(folder / "pictures")
    prompt = "elena, a red square on a plain wall --w 128 --h 128 --s 20 --d 7\nelena --w 128 --h 128 --s 20 --d 8\n"
    (folder / "own.txt").write_text(prompt)
    return rehearse(
        folder,
        network_dim=16,
        network_alpha=8,
        max_train_steps=300,
        sample_every_n_steps=300,
        sample_at_first=True,
        sample_prompts="own.txt",
        optimizer_type="Prodigy",
        learning_rate=1.0,
    )


def test_loss_falls(trained):
    assert trained.code == 0
    assert trained.losses[300] < 0.5 * trained.losses[6]


def test_samples_come_to_look_like_the_pictures(trained):
    pictures = np.stack([latent(path) for path in sorted(trained.folder.glob("pictures/*.png"))])

    def distances(moment: str, index: int) -> np.ndarray:
        (path,) = (trained.output / "sample").glob(f"cg_elena_{moment}_{index:02d}_*.png")
        return np.sqrt(np.mean((pictures - latent(path)) ** 2, axis=1))

    for index in (0, 1):
        assert distances("000300", index).min() < 0.6 * distances("e000000", index).min()
    assert distances("000300", 0).argmin() == 0  # the prompt asked for the red square


def test_every_layer_learned(trained):
    tensors, _ = trained.lora()
    assert all(values.any() and np.isfinite(values).all() for values in part(tensors, "up"))


def test_a_seed_decides_everything(tmp_path):
    seeds = {"first": 1, "same": 1, "other": 2}
    first, same, other = at_once(
        lambda name: rehearse(tmp_path / name, seed=seeds[name], sample_every_n_steps=8, save_precision=None), seeds
    )
    a, b, c = (ran.lora()[0] for ran in (first, same, other))
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not all(np.array_equal(a[name], c[name]) for name in a)
    pictures = [[path.read_bytes() for path in sorted(ran.output.glob("sample/*"))] for ran in (first, same, other)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_learning_rate_matters(tmp_path, trained):
    """Prodigy with the rate of AdamW learns nothing, as it does with the real trainer."""
    slow = rehearse(tmp_path, optimizer_type="prodigy", learning_rate=1e-4, max_train_steps=150)
    assert slow.losses[150] > 0.8 * slow.losses[6]
    assert trained.losses[150] < 0.6 * slow.losses[150]


# --- what goes wrong --------------------------------------------------------------------------------------------------


def last_exception(log: str) -> str:
    return [line for line in log.splitlines() if re.match(r"[\w.]+(Error|Invalid|Exception): ", line)][-1]


def test_out_of_memory(tmp_path):
    ran = rehearse(tmp_path, act="oom@4")
    assert ran.code == 1
    assert re.search(r"avr_loss=[\d.]+\] *Traceback \(most recent call last\):", ran.log)
    assert last_exception(ran.log).startswith(
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 80.00 MiB."
    )
    assert BAR.match(ran.log.split("\r")[-1].rstrip("\n"))  # the bar is closed after the traceback
    assert max(ran.losses) == 3
    assert not ran.output.exists()


def test_nan(tmp_path):
    ran = rehearse(tmp_path, act="nan@4", sample_every_n_steps=8)
    assert ran.code == 0
    assert "model saved." in ran.log
    assert [math.isnan(ran.losses[step]) for step in range(1, 9)] == [False] * 3 + [True] * 5
    tensors, _ = ran.lora()
    assert all(np.isnan(values).all() for values in part(tensors, "up"))


def test_a_huge_learning_rate_gives_nan_by_itself(tmp_path):
    ran = rehearse(tmp_path, learning_rate=1e30)
    assert ran.code == 0
    assert math.isnan(ran.losses[8])


def test_crash(tmp_path):
    ran = rehearse(tmp_path, act="slow@0.001, crash@2")
    assert ran.code == 1
    assert last_exception(ran.log).startswith("RuntimeError: ")


@pytest.mark.parametrize("way", [signal.SIGTERM, signal.SIGINT])
def test_hang_still_obeys_signals(tmp_path, way):
    if sys.platform == "win32":
        pytest.skip("POSIX signals")
    rehearse(tmp_path, max_train_steps=0)
    command = [sys.executable, "-P", "-m", "cinderlora.rehearsal", "flux_train_network.py", "--config_file"]
    with subprocess.Popen(
        [*command, "elena_kohya_training.toml", "--max_train_steps", "9"],
        cwd=tmp_path,
        env=environment("hang@2"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        seen = b""
        while b"1/9 [" not in seen:
            seen += os.read(process.stdout.fileno(), 65536)
        process.send_signal(way)
        rest = process.stdout.read()
    assert process.returncode == -way
    assert (b"KeyboardInterrupt" in rest) == (way == signal.SIGINT)


def test_kill(tmp_path):
    ran = rehearse(tmp_path, act="kill@3")
    assert ran.code == (-9 if sys.platform != "win32" else signal.SIGTERM)
    assert max(ran.losses) == 2


def test_disk_full(tmp_path):
    ran = rehearse(tmp_path, act="disk_full@5", save_every_n_steps=4)
    assert ran.code == 1
    expected = (
        "safetensors._safetensors_rust.SafetensorError: Error while serializing: I/O error: No space left on device"
    )
    assert last_exception(ran.log).startswith(expected)
    assert [path.name for path in ran.output.iterdir()] == ["cg_elena-step00000004.safetensors"]


def test_unknown_directive(tmp_path):
    ran = rehearse(tmp_path, act="slow@0.1,explode@3")
    assert ran.code == 2
    assert "unknown directive 'explode@3'" in ran.log
    assert not ran.output.exists()


@pytest.mark.parametrize("act", ["oom", "oom@x", "oom@0", "oom@1.5", "slow@-1", "@3", "oom@3;nan@4"])
def test_directives_are_checked(act):
    with pytest.raises(failures.UnknownDirective, match="unknown directive"):
        failures.read(act)


@pytest.mark.parametrize("exists", [True, False])
def test_empty_dataset_ends_with_0_and_nothing(tmp_path, exists):
    general = {"resolution": 128, "enable_bucket": True}
    if exists:
        (tmp_path / "empty").mkdir()
    ran = rehearse(tmp_path, dataset={"general": general, "datasets": [{"subsets": [{"image_dir": "empty"}]}]})
    assert ran.code == 0
    assert ran.log.rstrip().splitlines()[-1].startswith("No data found. Please verify arguments")
    assert ("not directory: empty" in ran.log) == (not exists)
    assert not ran.output.exists()


def test_unreadable_picture(tmp_path):
    draw(tmp_path / "pictures")
    (tmp_path / "pictures" / "elena_02.png").write_bytes(b"not a picture")
    ran = rehearse(tmp_path)
    assert ran.code == 1
    assert re.search(r"Error loading file: pictures.elena_02\.png", ran.log)
    assert re.match(r"PIL\.UnidentifiedImageError: cannot identify image file .*elena_02\.png", last_exception(ran.log))


def test_empty_caption(tmp_path):
    draw(tmp_path / "pictures")
    (tmp_path / "pictures" / "elena_03.txt").write_text("")
    ran = rehearse(tmp_path)
    assert ran.code == 1
    assert last_exception(ran.log).startswith("AssertionError: caption file is empty")


def test_missing_captions_use_class_tokens(tmp_path):
    draw(tmp_path / "pictures")
    for path in (tmp_path / "pictures").glob("*.txt"):
        path.unlink()
    subset = {"image_dir": "pictures", "class_tokens": "elena"}
    ran = rehearse(tmp_path, dataset={"datasets": [{"resolution": 128, "subsets": [subset]}]}, max_train_steps=1)
    assert ran.code == 0
    assert "No caption file found for 6 images." in ran.log
    assert json.loads(ran.lora()[1]["ss_tag_frequency"]) == {"pictures": {"elena": 6}}


def test_missing_configuration(tmp_path):
    ran = rehearse(tmp_path, "flux", "--config_file", "absent")
    assert ran.code == 1
    assert ran.log.splitlines()[-1] == "absent.toml not found."


BAD_SETTINGS = {
    "TypeError: network_dim": {"network_dim": "8"},
    "TypeError: max_train_steps": {"max_train_steps": "8"},
    "TypeError: learning_rate": {"learning_rate": "1e-4"},
    "TypeError: expected str, bytes or os.PathLike object, not NoneType": {"output_dir": None},
    "ZeroDivisionError: ": {"save_every_n_steps": 0},
    "ValueError: file not found": {"dataset_config": "absent.toml"},
    "TypeError: stat: path should be string": {"sample_prompts": None, "sample_every_n_steps": 2},
}


def test_bad_settings_end_like_the_trainers(tmp_path):
    def run(error: str) -> Ran:
        return rehearse(tmp_path / str(list(BAD_SETTINGS).index(error)), **BAD_SETTINGS[error])

    for error, ran in zip(BAD_SETTINGS, at_once(run, BAD_SETTINGS), strict=True):
        assert ran.code == 1
        assert last_exception(ran.log).startswith(error)


def test_resolution_as_text(tmp_path):
    general = {"resolution": "128,128"}
    ran = rehearse(tmp_path, dataset={"general": general, "datasets": [{"subsets": [{"image_dir": "pictures"}]}]})
    assert ran.code == 1
    expected = "voluptuous.error.MultipleInvalid: expected int for dictionary value @ data['general']['resolution']"
    assert last_exception(ran.log) == expected


def test_without_a_script():
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cinderlora.rehearsal"],
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"usage: " in done.stderr


# --- small parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_bars_are_drawn_as_recorded(kind):
    bars = list(BAR.finditer((DATA / f"{kind}.log").read_bytes().decode()))
    assert len(bars) > 20
    for bar in bars:
        assert meter(int(bar["n"]), int(bar["total"]), 1.0, bar["desc"] or "").startswith(bar["left"] + " [")


def test_meter():
    assert meter(4, 8, 19.44, "steps", "avr_loss=2.61") == (
        "steps:  50%|█████     | 4/8 [00:19<00:19,  4.86s/it, avr_loss=2.61]"
    )
    assert meter(0, 8, 0, "steps") == "steps:   0%|          | 0/8 [00:00<?, ?it/s]"
    assert meter(7, 18, 0.97, "steps") == "steps:  39%|███▉      | 7/18 [00:00<00:01,  7.22it/s]"
    assert meter(1000, 20000, 3800) == "  5%|▌         | 1000/20000 [1:03:20<20:03:20,  3.80s/it]"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.02346, "0.0235"), (2.0, "2"), (1234.5678, "1.23e+3"), (1e30, "1e+30"), (math.nan, "nan"), (0.1 + 0.2, "0.3")],
)
def test_figures(value, text):
    assert figure(value) == text


def test_moving_average():
    recorder = LossRecorder()
    for step, loss in enumerate((1.0, 2.0, 3.0)):
        recorder.add(0, step, loss)
    assert recorder.average == 2
    recorder.add(1, 0, 4.0)
    assert recorder.average == 3


def test_bfloat16_rounds_to_even_and_keeps_nan():
    values = np.array([1.0, -2.5, 1 + 2**-8, 1 + 3 * 2**-8, np.inf, np.nan, 0.0], np.float32)
    assert bfloat16(values).tolist() == [0x3F80, 0xC020, 0x3F80, 0x3F82, 0x7F80, 0x7FC0, 0]


def test_gradients_are_right():
    """The hand-written backward pass against differences of the loss, layer by layer."""
    random = np.random.default_rng(0)
    network = Network(4, 4, random)
    network.parameters += random.normal(0, 0.02, network.parameters.shape).astype(np.float32)
    pictures = random.normal(0, 0.5, (16, encoders.LATENT)).astype(np.float32)
    captions = encoders.direction(random.normal(size=(16, encoders.WORD)).astype(np.float32))

    def loss() -> float:
        return network.learn(pictures, captions, np.random.default_rng(1))

    loss()
    gradients, start = network.gradients.copy(), network.parameters.copy()
    for name, weights in network.weights.items():
        network.parameters[:] = 0
        weights[:] = 1
        direction = network.parameters.copy() * np.sign(gradients) * 1e-3
        network.parameters[:] = start + direction
        above = loss()
        network.parameters[:] = start - direction
        assert (above - loss()) / 2 == pytest.approx(float(gradients @ direction), rel=0.03), name


def test_prompt_lines():
    prompt = prompt_of("elena -- in paris --w 640 --h x --s 5 --d 3 --l 2.5 --g 4 --n bad hands --zz 3")
    assert (prompt.text, prompt.width, prompt.height, prompt.steps) == ("elena", 640, 512, 5)
    assert (prompt.seed, prompt.scale, prompt.guidance, prompt.negative) == (3, 2.5, 4.0, "bad hands")


def test_samples_have_the_size_asked_for_up_to_a_limit(tmp_path):
    (tmp_path / "sizes.txt").write_text("elena --w 128 --h 200 --s 1\nelena --w 1024 --h 768 --s 1 --d 1\n")
    ran = rehearse(tmp_path, "flux", "--sample_prompts", "sizes.txt", max_train_steps=0, sample_at_first=True)
    files = sorted((ran.output / "sample").iterdir())
    sizes = []
    for path in files:
        with Image.open(path) as picture:
            sizes.append(picture.size)
    assert sizes == [(128, 192), (512, 384)]
    assert re.fullmatch(r"cg_elena_e000000_00_\d{14}\.png", files[0].name)  # no seed was asked for


def test_pictures_survive_the_encoder():
    picture = Image.linear_gradient("L").resize((128, 128)).convert("RGB")
    again = encoders.decode(encoders.encode(picture), (128, 128))
    difference = np.abs(np.asarray(picture, float) - np.asarray(again, float))
    assert difference.mean() < 4
