"""Checkpoints, the final LoRA, and training states to resume from: names, lines and files as sd-scripts has them."""

import json
from pathlib import Path

import numpy as np

from . import files, metadata
from .config import Settings
from .console import log
from .encoders import Array
from .failures import Script
from .kinds import Kind
from .network import Adam, Network


def named(network: Network, kind: Kind, alpha: float) -> dict[str, Array]:
    """The LoRA by the names that web UIs know, in torch's layout: down [dim, in], up [out, dim], alpha []."""
    tensors = {}
    for block, layers in enumerate(kind.layers):
        for layer, module in layers.items():
            tensors[f"lora_unet_{module}.alpha"] = np.array(alpha, np.float32)
            for part in ("down", "up"):
                tensors[f"lora_unet_{module}.lora_{part}.weight"] = network.weights[f"{block}.{layer}.{part}"].T
    return tensors


def load(network: Network, kind: Kind, tensors: dict[str, Array]) -> None:
    for block, layers in enumerate(kind.layers):
        for layer, module in layers.items():
            for part in ("down", "up"):
                network.weights[f"{block}.{layer}.{part}"][:] = tensors[f"lora_unet_{module}.lora_{part}.weight"].T


class Saver:
    """Writes what the settings ask for, when they ask for it."""

    def __init__(self, settings: Settings, kind: Kind, network: Network, alpha: float, script: Script) -> None:
        self.settings = settings
        self.kind = kind
        self.network = network
        self.alpha = alpha
        self.script = script
        self.run_metadata: dict[str, str] = {}
        self.extension = f".{settings.text('save_model_as')}"
        if self.extension != ".safetensors":
            raise ValueError(f"the rehearsal writes safetensors only, not {self.extension}")
        if settings.text("save_precision") not in files.PRECISIONS:
            raise ValueError(f"save_precision: {settings.get('save_precision')!r} is none of float, fp16, bf16")

    def after_step(self, step: int, epoch: int, adam: Adam) -> None:
        """``epoch`` counts from 0: that is what the trainer writes into these files."""
        every = self.settings.optional_whole("save_every_n_steps")
        if every is None or step % every:
            return
        self.save(f"{self._name('at')}-step{step:08d}", step, epoch)
        if self.settings.flag("save_state"):
            log(f"saving state at step {step}")
            self.save_state(f"{self._name('at')}-step{step:08d}", step, epoch + 1, adam)
        last = self.settings.optional_whole("save_last_n_steps")
        old = -1 if last is None else (step - last - 1) // every * every
        self._remove(f"{self._name('at')}-step{old:08d}", old)

    def after_epoch(self, step: int, epoch: int, epochs: int, adam: Adam) -> None:
        """``epoch`` counts from 1. The last epoch's file is the final one."""
        every = self.settings.optional_whole("save_every_n_epochs")
        if every is None or epoch % every or epoch >= epochs:
            return
        self.save(f"{self._name('epoch')}-{epoch:06d}", step, epoch)
        if self.settings.flag("save_state"):
            log(f"saving state at epoch {epoch}")
            self.save_state(f"{self._name('epoch')}-{epoch:06d}", step, epoch, adam)
        last = self.settings.optional_whole("save_last_n_epochs")
        old = -1 if last is None else epoch - every * last
        self._remove(f"{self._name('epoch')}-{old:06d}", old)

    def at_the_end(self, step: int, epochs: int, adam: Adam) -> None:
        if self.settings.flag("save_state") or self.settings.flag("save_state_on_train_end"):
            log("saving last state.")
            self.save_state(self._name("last"), step, epochs, adam)
        self.save(self._name("last"), step, epochs)
        log("model saved.")

    def save(self, name: str, step: int, epoch: int) -> None:
        folder = self.settings.values.get("output_dir")
        if not isinstance(folder, str):
            raise TypeError(f"expected str, bytes or os.PathLike object, not {type(folder).__name__}")
        Path(folder).mkdir(parents=True, exist_ok=True)
        path = Path(folder) / (name + self.extension)
        log(f"\nsaving checkpoint: {path}")
        self.script.before_save(step)
        precision = files.PRECISIONS[self.settings.text("save_precision")]
        entries, data = files.pack(named(self.network, self.kind, self.alpha), precision)
        described = metadata.of_file(self.settings, self.kind, self.run_metadata, step, epoch)
        files.write(path, entries, data, {**described, **files.hashes(entries, data)})

    def save_state(self, name: str, step: int, epoch: int, adam: Adam) -> None:
        folder = Path(str(self.settings.text("output_dir"))) / f"{name}-state"
        folder.mkdir(parents=True, exist_ok=True)
        log(f"Saving current state to {folder}")
        log(f"save train state to {folder / 'train_state.json'} at epoch {epoch} step {step}")
        (folder / "train_state.json").write_text(json.dumps({"current_epoch": epoch, "current_step": step}))
        entries, data = files.pack(named(self.network, self.kind, self.alpha), "F32")
        files.write(folder / "model.safetensors", entries, data, {"cinderlora_rehearsal": "true"})
        log(f"Model weights saved in {folder / 'model.safetensors'}")
        with (folder / "optimizer.bin").open("wb") as file:
            np.savez(file, mean=adam.mean, square=adam.square, steps=adam.steps)
        log(f"Optimizer state saved in {folder / 'optimizer.bin'}")
        # The trainer's own are pickles; nothing needs to be read from them here.
        for what, part in (("Scheduler state", "scheduler.bin"), ("Random states", "random_states_0.pkl")):
            with (folder / part).open("wb") as file:
                np.savez(file, steps=adam.steps)
            log(f"{what} saved in {folder / part}")

    def start_from_weights(self) -> None:
        """Take up the weights of the LoRA that ``network_weights`` names, where it names one."""
        path = self.settings.text("network_weights")
        if path:
            load(self.network, self.kind, files.read(Path(path)))
            log(f"load network weights from {path}: <All keys matched successfully>")

    def resume(self, adam: Adam) -> int:
        """Take up the state that ``resume`` names; the step it was saved at, 0 without one."""
        if not self.settings.get("resume"):
            return 0
        folder = Path(str(self.settings.text("resume")))
        log(f"resume training from local state: {folder}")
        log(f"Loading states from {folder}")
        state = json.loads((folder / "train_state.json").read_text())
        log(f"load train state from {folder / 'train_state.json'}: {state}")
        load(self.network, self.kind, files.read(folder / "model.safetensors"))
        log("All model weights loaded successfully")
        with np.load(folder / "optimizer.bin") as saved:
            adam.mean[:], adam.square[:], adam.steps = saved["mean"], saved["square"], int(saved["steps"])
        log("All optimizer states loaded successfully")
        return int(state["current_step"])

    def _name(self, otherwise: str) -> str:
        return self.settings.text("output_name") or otherwise

    def _remove(self, name: str, number: int) -> None:
        path = Path(str(self.settings.text("output_dir"))) / (name + self.extension)
        if number >= 0 and path.exists():
            log(f"removing old checkpoint: {path}")
            path.unlink()
