"""sd-scripts' own files: the training TOML, and the data-set TOML that it refers to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from cinderlora.importing.data import Entry, Reading, shown
from cinderlora.importing.source import Source, parse_toml

__all__ = ["add_dataset", "add_referred", "read"]

# In the data-set TOML, and what the script's argument for the same thing is called.
_NAMES = {"batch_size": "train_batch_size"}
# Of a data-set TOML's table, what is not a setting of the pictures.
_TABLES = ("subsets", "datasets", "general")


def read(source: Source) -> Reading:
    """A training TOML; names of sections mean nothing, and what is nested deeper is ignored, as in sd-scripts. One
    that is a data-set TOML is read as that."""
    reading = Reading(format="sd_scripts")
    values = parse_toml(source.path, source.text)
    if isinstance(values.get("datasets"), list):
        reading.complete = False
        add_dataset(reading, source, values, source.path if source.on_disk else None)
        return reading
    _take_flat(reading, values)
    if (found := re.fullmatch(r"(.+)_kohya_training", source.path.stem)) is not None:
        reading.name = found[1]
    return reading


def _take_flat(reading: Reading, values: Mapping[str, Any]) -> None:
    for section, value in values.items():
        table = value if isinstance(value, dict) else {section: value}
        for key, item in table.items():
            if isinstance(item, dict):
                reading.drop(f"{section}.{key}", "", "import_nested")
            elif key not in reading.table:  # what is said first on a command line goes over its file
                reading.take(key, item)


def add_referred(reading: Reading, source: Source) -> None:
    """Read what the configuration refers to: its training TOML, its data-set TOML, its prompts."""
    config = reading.table.pop("config_file", None)
    if config is not None:
        name = str(config.value)
        values = source.toml(name if name.endswith(".toml") else f"{name}.toml")
        if values is None:
            reading.problem("import_file_missing", key=config.key, path=shown(name))
        else:
            _take_flat(reading, values)
    dataset = reading.table.pop("dataset_config", None)
    if dataset is not None and str(dataset.value):
        values = source.toml(dataset.value)
        reading.dataset_known = values is not None
        if values is None:
            reading.problem("import_file_missing", key=dataset.key, path=shown(dataset.value))
        else:
            add_dataset(reading, source, values, source.files[-1])
    prompts = reading.table.pop("sample_prompts", None)
    if prompts is not None and str(prompts.value):
        lines = source.lines(prompts.value)
        if lines is None:
            reading.drop(prompts.key, prompts.theirs, "import_prompts_elsewhere")
        reading.prompts = lines or ()


def add_dataset(reading: Reading, source: Source, values: Mapping[str, Any], file: Path | None) -> None:
    """Take what a data-set TOML says: its folders, and how their pictures are used. The subset goes over the data set,
    that over what is general, and all of them over the script's own arguments."""
    datasets = [table for table in _list(values.get("datasets")) if _subsets(table)]
    if len(datasets) > 1:
        reading.problem("import_several_datasets", count=len(datasets))
    subsets = [table for dataset in datasets for table in _subsets(dataset)]
    regular = [table for table in subsets if not table.get("is_reg")]
    for subset in subsets:
        if subset.get("is_reg"):
            reading.drop("image_dir", subset.get("image_dir", ""), "import_regularization")
    general = values.get("general")
    for table in (general if isinstance(general, dict) else {}, datasets[0] if datasets else {}, *regular[:1]):
        for key, value in table.items():
            if key in {"image_dir", "class_tokens", "is_reg", *_TABLES}:
                continue
            if isinstance(value, dict):
                reading.drop(key, "", "import_nested")
            else:
                reading.take(_NAMES.get(key, key), value, key=key, theirs=value)
    tokens = regular[0].get("class_tokens") if regular else None
    if isinstance(tokens, str) and tokens.strip():
        reading.trigger = Entry(tokens.strip(), "class_tokens", tokens)
    _take_folder(reading, source, regular, file if len(regular) == len(subsets) else None)


def _take_folder(reading: Reading, source: Source, subsets: list[dict[str, Any]], file: Path | None) -> None:
    """The data set: the folder, or that around `<repeats>_<words>` folders. Several others are one by their file."""
    folders = [subset.get("image_dir") for subset in subsets]
    if not folders or not all(isinstance(folder, str) for folder in folders):
        return
    names = [str(folder) for folder in folders]
    kind = PureWindowsPath if any("\\" in name for name in names) else PurePath
    parents = {kind(name).parent for name in names}
    kohyas = len(parents) == 1 and all(
        re.match(rf"{subset.get('num_repeats', 1)}_", kind(name).name)
        for subset, name in zip(subsets, names, strict=True)
    )
    folder = names[0]
    if len(names) > 1:
        if kohyas:
            folder = str(parents.pop())
        elif file is not None and all(source.local(name) is not None for name in names):
            folder = str(file)
        else:
            for name in names[1:]:
                reading.drop("image_dir", name, "import_other_folder")
            names = names[:1]
    if len(names) > 1:
        reading.table.pop("num_repeats", None)  # each folder has its own
    reading.take("train_data_dir", folder, key="image_dir", theirs=names)


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _subsets(dataset: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _list(dataset.get("subsets"))
