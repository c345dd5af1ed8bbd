"""What a configuration calls things: arguments by older names, the character, folders and model files. And what of it
must not be read any further: secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinderlora.errors import CinderloraError
from cinderlora.importing.data import Dropped, Entry
from cinderlora.importing.work import DATASET, TRAINING, Work
from cinderlora.problems import Problem
from cinderlora.sd_scripts.arguments import MOVED, RENAMED, SECRETS
from cinderlora.serial import is_secret

__all__ = ["leave_empty", "leave_secrets", "take_models", "take_names", "take_old_names"]

_MODELS = frozenset({".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf"})
_FOLDERS = ("reg_data_dir", "in_json")
# What else names a file or a folder, and is kept for the script as it is.
_PATHS = ("conditioning_data_dir", "log_tracker_config", "logging_dir", "network_weights", "tokenizer_cache_dir", "vae")


def leave_secrets(work: Work) -> None:
    """Take secrets out, before anything of them is shown."""
    for argument, entry in list(work.table.items()):
        if is_secret(argument) or is_secret(entry.key):
            del work.table[argument]
            params = {"variable": SECRETS.get(argument)}
            why = Problem("import_secret", params, "warning")
            if entry.value not in ("", None):
                work.reading.dropped.append(Dropped(key=entry.key, value="", why=why))


def leave_empty(work: Work) -> None:
    """Leave out what says nothing: an empty text is no value, and a switch that is off is not there."""
    for argument, entry in list(work.table.items()):
        if entry.value in ("", None) or (entry.value is False and argument not in {*TRAINING, *DATASET}):
            del work.table[argument]


def take_old_names(work: Work) -> None:
    """Arguments that sd-scripts has renamed or made part of another one since."""
    known: Mapping[str, Any] = work.known or {}
    for argument, entry in list(work.table.items()):
        if argument not in known and RENAMED.get(argument) in known:
            work.table.setdefault(RENAMED[argument], work.table.pop(argument))
        elif argument not in known and argument in MOVED:
            del work.table[argument]
            args = work.table.get(MOVED[argument])
            told = [*(args.value if args and isinstance(args.value, list) else ()), f"{argument}={entry.value}"]
            work.table[MOVED[argument]] = Entry(told, entry.key, entry.theirs)
    for key in ("use_8bit_adam", "use_lion_optimizer"):
        flag = work.pop(key)
        if flag is not None and "optimizer_type" not in work.table:
            work.table["optimizer_type"] = Entry("AdamW8bit" if "adam" in key else "Lion", flag.key, flag.theirs)


def take_names(work: Work) -> None:
    """The trigger word, the character's name, the folders; and what is done about files otherwise here."""
    entry = work.pop("metadata_trigger_phrase") or work.reading.trigger
    if entry is not None:
        work.job["trigger"] = str(entry.value)
        work.note(entry, "trigger", entry.value)
    entry = work.pop("output_name")
    if entry is not None:
        prefix, name = _split(str(entry.value), work)
        work.job["name"] = name
        work.note(entry, "name", name)
        if prefix is not None:
            work.settings["output_prefix"] = prefix
    elif work.reading.name:
        work.job["name"] = work.reading.name
    for argument, ours in (("output_dir", "output"), ("train_data_dir", "dataset")):
        entry = work.pop(argument)
        if entry is not None:
            path = work.source.local(entry.value)
            if path is None:
                work.reading.drop(entry.key, entry.theirs, "import_path_elsewhere")
            else:
                work.job[ours] = path
                work.note(entry, ours, path)
                if ours == "dataset" and "trigger" not in work.job:
                    _take_folders_word(work, entry, path)
    entry = work.pop("save_model_as")
    if entry is not None and entry.value != "safetensors":
        work.reading.drop(entry.key, entry.theirs, "import_safetensors")
    for argument in _FOLDERS:
        entry = work.pop(argument)
        if entry is not None:
            work.reading.drop(entry.key, entry.theirs, "import_regularization")
    for argument in _PATHS:
        entry = work.table.get(argument)
        if entry is not None and isinstance(entry.value, str) and work.source.local(entry.value) is None:
            del work.table[argument]
            work.reading.drop(entry.key, entry.theirs, "import_path_elsewhere")
    entry = work.pop("resume")
    if entry is not None:
        work.reading.drop(entry.key, entry.theirs, "import_resume")


def _take_folders_word(work: Work, entry: Entry, folder: Path) -> None:
    """The trigger word that a `<repeats>_<words>` folder names: all its words, or the first ("elena woman": the
    character, then what kind of thing it is), whichever most of the captions have."""
    if not work.source.there(folder):
        return
    from cinderlora.dataset.check import has_trigger
    from cinderlora.dataset.read import read_dataset

    extension = work.table.get("caption_extension")
    try:
        dataset = read_dataset(folder, str(extension.value) if extension else ".txt")
    except (OSError, CinderloraError):
        return
    named = {subset.class_tokens for subset in dataset.subsets} - {None, ""}
    if len(named) != 1:
        return
    words = str(named.pop())
    said = [picture.caption for picture in dataset.pictures if picture.caption]
    for word in (words, words.split(maxsplit=1)[0]):
        if 2 * sum(has_trigger(caption, word) for caption in said) >= len(said):
            work.job["trigger"] = word
            work.note(entry, "trigger", word)
            return


def _split(output_name: str, work: Work) -> tuple[str | None, str]:
    """The prefix, None where it is the usual one, and the character's name in the LoRA's file name."""
    usual = next((i.default for i in work.adapter.settings() if i.name == "output_prefix"), "") if work.adapter else ""
    name = work.reading.name
    if name and output_name.endswith(name):
        prefix = output_name.removesuffix(name)
        return (None if prefix == usual else prefix), name
    if usual and output_name.startswith(usual) and output_name != usual:
        return None, output_name.removeprefix(usual)
    return "", output_name


def take_models(work: Work) -> None:
    """The files of the model type's components."""
    if work.adapter is None:
        return
    for component in work.adapter.type.components:
        entry = work.pop(component.key)
        if entry is None:
            continue
        path = work.source.local(entry.value)
        if path is None:
            work.reading.drop(entry.key, entry.theirs, "import_path_elsewhere")
        elif not _names_a_file(work, str(entry.value), path):
            work.reading.drop(entry.key, entry.theirs, "import_not_a_file")
        else:
            work.models[component.role] = path
            work.note(entry, f"models.{component.role}", path)


def _names_a_file(work: Work, name: str, path: Path) -> bool:
    """Whether it is a path: "black-forest-labs/FLUX.1-dev" is a name on Hugging Face."""
    return path.suffix.lower() in _MODELS or Path(name).expanduser().is_absolute() or work.source.there(path)
