"""The run from the command line to the saved LoRA, in the order of sd-scripts' ``train_network.py``."""

import math
import os
import sys
import time
from collections.abc import Sequence

import numpy as np

from . import config, data, failures, metadata
from .config import Settings
from .console import Bar, LossRecorder, log, prepare_streams
from .data import Dataset
from .failures import Script
from .kinds import Kind, of_script
from .network import DRAWS, Adam, Network, learning_rate, mixed
from .sampling import Sampler, read_prompts
from .saving import Saver

OPTIMIZERS = {"adamw": "AdamW", "adamw8bit": "8-bit AdamW", "prodigy": "Prodigy", "adafactor": "Adafactor"}
NO_DATA = (
    "No data found. Please verify arguments (train_data_dir must be the parent of folders with images) / "
    "画像がありません。引数指定を確認してください（train_data_dirには画像があるフォルダではなく、"
    "画像があるフォルダの親フォルダを指定する必要があります）"
)


def main(argv: Sequence[str]) -> int:
    """The exit code. Errors of the training are left to Python: a traceback on stderr, exit code 1."""
    prepare_streams()
    try:
        script = failures.read(os.environ.get(failures.VARIABLE, ""))
        kind = of_script(config.script(argv))
    except (failures.UnknownDirective, config.UsageError) as error:
        print(error, file=sys.stderr)
        return 2
    title = kind.name.upper()
    log(f"REHEARSAL: a miniature NumPy training, not {title} (no GPU, no downloads); the LoRA is for practice only")
    if script.at or script.pause:
        log(f"REHEARSAL: acts out {os.environ[failures.VARIABLE]} ({failures.VARIABLE})")
    try:
        settings = config.read(argv[1:])
    except config.UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except config.NotFound as error:
        log(str(error))
        return 1
    with np.errstate(all="ignore"):  # a training that blows up goes on to the end, as torch's does
        Training(settings, kind, script).run()
    return 0


class Training:
    """One run. The attributes are set in the order in which the trainer prints about them.

    The rehearsal of another trainer derives from it, and says by `read` and `load` what is different before training.
    """

    def __init__(self, settings: Settings, kind: Kind, script: Script) -> None:
        self.settings = settings
        self.kind = kind
        self.script = script
        self.random = np.random.default_rng(settings.optional_whole("seed"))

    def run(self) -> None:
        datasets = self.read()
        if not sum(dataset.images for dataset in datasets):
            log(NO_DATA)
            return
        self.load(datasets)
        self._prepare()
        batches = sum(dataset.batches_per_epoch() for dataset in datasets)
        accumulation = self.settings.whole("gradient_accumulation_steps")
        per_epoch = math.ceil(batches / accumulation)
        steps = self.settings.whole("max_train_steps")
        epochs_wanted = self.settings.optional_whole("max_train_epochs")
        if epochs_wanted is not None:
            steps = epochs_wanted * per_epoch
            log(f"override steps. steps for {epochs_wanted} epochs is / 指定エポックまでのステップ数: {steps}")
        resumed = self.saver.resume(self.adam)
        epochs = math.ceil(steps / per_epoch)
        self._announce(datasets, batches, epochs, accumulation, steps)
        self.saver.run_metadata = metadata.of_run(
            self.settings, self.kind, datasets, batches=batches, epochs=epochs, steps=steps
        )
        if resumed and self.settings.get("initial_step") is not None:
            resumed = self.settings.whole("initial_step")
        if self.settings.flag("cache_text_encoder_outputs") and self.kind.caches_prompts:
            log("text_encoder is not needed for training. deleting to save memory.")
        if self.sampler.due(0, None):
            self.sampler.draw(0, 0)
        log("unet dtype: torch.float32, device: cpu")
        self._train(datasets, steps, epochs, accumulation, first_epoch=resumed // per_epoch)

    def read(self) -> list[Dataset]:
        """The data sets, sorted into buckets."""
        return data.read(self.settings.text("dataset_config"))

    def load(self, datasets: Sequence[Dataset]) -> None:
        """Load the models, and give the data sets their `latents` and `words`."""
        log("preparing accelerator")
        log("accelerator device: cpu")
        for line in self.kind.loading:
            log(line)
        data.cache_latents(datasets)
        for line in self.kind.after_latents:
            log(line)
        data.cache_captions(datasets)
        if self.kind.caches_prompts and self.settings.get("sample_prompts"):
            file = str(self.settings.text("sample_prompts"))
            log(f"cache Text Encoder outputs for sample prompt: {file}")
            texts = [text for prompt in read_prompts(file) for text in (prompt.text, prompt.negative or "")]
            for text in dict.fromkeys(texts):
                log(f"cache Text Encoder outputs for prompt: {text}")
        for line in self.kind.after_captions:
            log(line)

    def _prepare(self) -> None:
        settings = self.settings
        dim, alpha = settings.whole("network_dim"), settings.number("network_alpha")
        log(f"import network module: {settings.text('network_module')}")
        log(f"create LoRA network. base dim (rank): {dim}, alpha: {alpha}")
        log("neuron dropout: p=None, rank dropout: p=None, module dropout: p=None")
        self.network = Network(dim, float(alpha), self.random)
        modules = sum(len(block) for block in self.kind.layers)
        log(f"create LoRA for {self.kind.title}: {modules} modules.")
        log(f"enable LoRA for U-Net: {modules} modules")
        log("prepare optimizer, data loader etc.")
        optimizer = settings.text("optimizer_type") or "AdamW"
        log(f"use {OPTIMIZERS.get(optimizer.lower(), optimizer)} optimizer | {settings.pairs('optimizer_args')}")
        self.adam = Adam(self.network, learning_rate(optimizer, settings.number("learning_rate"), dim))
        self.saver = Saver(settings, self.kind, self.network, float(alpha), self.script)
        self.saver.start_from_weights()
        self.sampler = Sampler(settings, self.kind, self.network)

    def _announce(self, datasets: Sequence[Dataset], batches: int, epochs: int, accumulation: int, steps: int) -> None:
        sizes = ", ".join(str(dataset.batch_size) for dataset in datasets)
        log("running training / 学習開始")
        log(f"  num train images * repeats / 学習画像の数×繰り返し回数: {sum(dataset.images for dataset in datasets)}")
        log("  num validation images * repeats / 学習画像の数×繰り返し回数: 0")
        log("  num reg images / 正則化画像の数: 0")
        log(f"  num batches per epoch / 1epochのバッチ数: {batches}")
        log(f"  num epochs / epoch数: {epochs}")
        log(f"  batch size per device / バッチサイズ: {sizes}")
        log(f"  gradient accumulation steps / 勾配を合計するステップ数 = {accumulation}")
        log(f"  total optimization steps / 学習ステップ数: {steps}")

    def _train(self, datasets: Sequence[Dataset], steps: int, epochs: int, accumulation: int, first_epoch: int) -> None:
        bar = Bar(steps, "steps")
        losses = LossRecorder()
        step = 0
        for epoch in range(first_epoch, epochs):
            log(f"\nepoch {epoch + 1}/{epochs}\n")
            log(f"epoch is incremented. current_epoch: 0, epoch: {epoch + 1}")
            batches = [(dataset, batch) for dataset in datasets for batch in dataset.epoch(self.random)]
            gathered = 0
            for place, (dataset, batch) in enumerate(batches):
                if not gathered:
                    self.script.during_step(step + 1, self.network)
                loss = self._learn(dataset, batch)
                gathered += 1
                if gathered == accumulation or place == len(batches) - 1:  # the end of an epoch is a step, too
                    self.adam.step(gathered)
                    gathered = 0
                    step += 1
                    bar.update()
                    self._sample(bar, step, None)
                    self.saver.after_step(step, epoch, self.adam)
                losses.add(epoch - first_epoch, place, loss)
                bar.set_postfix(avr_loss=losses.average)
                if step >= steps:
                    break
            self.saver.after_epoch(step, epoch + 1, epochs, self.adam)
            self._sample(bar, step, epoch + 1)
        self.saver.at_the_end(step, epochs, self.adam)
        bar.close()

    def _learn(self, dataset: Dataset, batch: Sequence[int]) -> float:
        latents = np.repeat(np.stack([dataset.latents[picture] for picture in batch]), DRAWS, axis=0)
        captions = np.concatenate([mixed(dataset.words[picture], self.random) for picture in batch])
        return self.network.learn(latents, captions, self.random)

    def _sample(self, bar: Bar, step: int, epoch: int | None) -> None:
        if step and self.sampler.due(step, epoch):
            begun = time.perf_counter()
            self.sampler.draw(step, epoch)
            bar.leave_out(time.perf_counter() - begun)
