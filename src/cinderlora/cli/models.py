"""`models`: what lies in a folder, what each file is good for, and what would be used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cinderlora.cli.job_options import json_option
from cinderlora.cli.tables import print_table, show_broken
from cinderlora.cli.terminal import Terminal, clean, gigabytes
from cinderlora.registry import Registry

if TYPE_CHECKING:
    from rich.text import Text

    from cinderlora.adapter import Adapter
    from cinderlora.models import ModelLibrary
    from cinderlora.problems import Problem
    from cinderlora.types import ModelFile

__all__ = ["PROBLEMS_IN_A_WORD", "models"]

PROBLEMS_IN_A_WORD = {
    "model_unreadable": ("unreadable", "unlesbar"),
    "model_empty": ("empty", "leer"),
    "model_not_safetensors": ("no model", "kein Modell"),
    "model_truncated": ("incomplete", "unvollständig"),
    "model_unfinished": ("download", "Download"),
    "model_oversized": ("damaged", "beschädigt"),
    "model_shard_missing": ("part missing", "Teil fehlt"),
    "model_header_too_large": ("damaged", "beschädigt"),
    "model_header_not_utf8": ("damaged", "beschädigt"),
    "model_header_not_json": ("damaged", "beschädigt"),
    "model_header_too_deep": ("damaged", "beschädigt"),
    "model_header_duplicate": ("damaged", "beschädigt"),
    "model_header_invalid": ("damaged", "beschädigt"),
    "model_header_offsets": ("damaged", "beschädigt"),
    "model_pickle": ("pickle", "Pickle"),
    "model_gguf": ("GGUF", "GGUF"),
    "model_lfs_pointer": ("only a pointer", "nur ein Verweis"),
    "model_web_page": ("web page", "Webseite"),
    "model_fp8_scaled": ("scaled FP8", "skaliertes FP8"),
    "model_fp8_e5m2": ("FP8 e5m2", "FP8 e5m2"),
    "model_quantized": ("quantised", "quantisiert"),
    "model_sharded": ("in parts", "in Teilen"),
    "model_layout": ("layout", "Aufbau"),
    "model_prefix": ("no prefix", "ohne Präfix"),
    "model_incomplete": ("parts missing", "Teile fehlen"),
    "model_bundle_order": ("mixed", "vermischt"),
    "model_variant": ("other variant", "andere Variante"),
    "model_distilled": ("distilled", "destilliert"),
    "model_fp8_for_nothing": ("FP8 for nothing", "FP8 ohne Nutzen"),
    "model_v_prediction": ("v-prediction", "v-Prediction"),
    "model_encoders_inside": ("encoders inside", "mit Encodern"),
    "model_no_weights": ("no weights", "ohne Gewichte"),
    "model_weights_variant": ("fp16 variant", "fp16-Variante"),
    "model_link": ("link", "Link"),
    "model_ending": ("file name", "Dateiname"),
    "model_vae_unnamed": ("whose VAE?", "wessen VAE?"),
}
"""In English and German, by code. A plugin's own problem is shown by its code."""


@click.command(params=[json_option()])
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
@click.option("--type", "-t", "model_type", metavar="TYPE", help="For this model type only.")
@click.pass_obj
def models(terminal: Terminal, folder: Path | None, model_type: str | None) -> int | None:
    """List the model files in a folder (ComfyUI's where that is configured) and what each is good for."""
    from cinderlora.errors import ConfigError

    folder = folder or terminal.config.models
    if folder is None:
        raise ConfigError("models_folder_missing")
    if not folder.expanduser().exists():
        raise ConfigError("folder_not_found", path=str(folder))
    registry = Registry.from_installed()
    if model_type:
        libraries = {model_type: registry[model_type].scan_models(folder.expanduser())}
    else:
        libraries = registry.scan_models(folder.expanduser())
    found = [(registry[name], library) for name, library in libraries.items()]
    if terminal.json:
        for adapter, library in found:
            _record(terminal, adapter, library)
        return None
    for adapter, library in found:
        _show(terminal, adapter, library, folder)
    _show_others(terminal, [library for _, library in found])
    _explain(terminal, found)
    show_broken(terminal, registry)
    return None


def _record(terminal: Terminal, adapter: Adapter, library: ModelLibrary) -> None:
    from cinderlora.serial import to_json

    chosen = {file.path for file in library.defaults().values()}
    for file in library.files:
        terminal.record({"model_type": adapter.name, **to_json(file), "default": file.path in chosen})


def _own(adapter: Adapter, library: ModelLibrary) -> list[ModelFile]:
    """The files of the type's components, in their order, the best of each first."""
    return [file for component in adapter.type.components for file in library.of(component.role)]


def _show(terminal: Terminal, adapter: Adapter, library: ModelLibrary, folder: Path) -> None:
    terminal.print(adapter.title, "bold")
    files = _own(adapter, library)
    if not files:
        terminal.print(f"  {terminal.say('no_models', model_type=adapter.title, folder=folder)}\n")
        return
    defaults = library.defaults()
    chosen = {file.path for file in defaults.values()}
    usable, refused = [file for file in files if file.usable], [file for file in files if not file.usable]
    if usable:
        _table(terminal, usable, folder, chosen)
    if refused:
        terminal.print(f"  {terminal.say('not_usable')}", "bold red")
        _table(terminal, refused, folder, chosen)
    missing = _missing(adapter, defaults)
    if missing:
        terminal.note(terminal.say("missing_roles", model_type=adapter.title, roles=", ".join(missing)), "yellow")
    terminal.print(f"{terminal.say('default_mark')}\n" if chosen else "", "dim")


def _table(terminal: Terminal, files: Sequence[ModelFile], folder: Path, chosen: set[Path]) -> None:
    """A line for each file; two, where one is too narrow for all that there is to say."""
    from rich.text import Text

    heads: tuple[str, ...] = ("role", "file", "variant", "layout", "precision", "size", "problem")
    rows: list[tuple[Text, str, list[str], Text]] = []
    for file in files:
        mark = Text("* " if file.path in chosen else "  ", "bold green") + Text(clean(file.role))
        size = gigabytes(file.size) if file.size is not None else ""
        details = [clean(file.variant), clean(file.layout), clean(file.precision), size]
        rows.append((mark, clean(_within(file.path, folder)), details, _in_words(terminal, file)))
    lines = [[mark, path, *details, trouble] for mark, path, details, trouble in rows]
    widths = [max(map(len, column)) for column in zip(*lines, map(terminal.say, heads), strict=True)]
    if sum(widths) + 2 * len(widths) > terminal.out.width:
        heads = ("role", "file")
        lines = [
            [mark, Text(f"{path}\n") + Text(", ".join(filter(None, details)), "dim") + Text("  ") + trouble]
            for mark, path, details, trouble in rows
        ]
    print_table(terminal, heads, lines)


def _in_words(terminal: Terminal, file: ModelFile) -> Text:
    """Its problems, each in a word."""
    from rich.text import Text

    words = {_word(terminal, problem): "red" if problem.severity == "error" else "yellow" for problem in file.problems}
    return Text(", ").join(Text(word, colour) for word, colour in words.items())


def _word(terminal: Terminal, problem: Problem) -> str:
    words = PROBLEMS_IN_A_WORD.get(problem.code)
    return words[terminal.language == "de"] if words else clean(problem.code)


def _show_others(terminal: Terminal, libraries: Sequence[ModelLibrary]) -> None:
    """What lies there besides: how many files of each kind, and the first of them."""
    claimed = {file.path for library in libraries for file in library.files if file.role not in {"", "lora"}}
    kinds: dict[str, list[ModelFile]] = {}
    for file in libraries[0].files if libraries else ():
        if file.path not in claimed:
            kinds.setdefault(_kind(terminal, file), []).append(file)
    if not kinds:
        return
    terminal.print(terminal.say("others"), "bold")
    rows = [
        (kind, len(files), ", ".join(file.path.name for file in files[:2]) + ("" if len(files) < 3 else ", ..."))
        for kind, files in sorted(kinds.items(), key=lambda item: -len(item[1]))
    ]
    print_table(terminal, ("what_kind", "file_count", "file_names"), rows)
    terminal.print()


def _kind(terminal: Terminal, file: ModelFile) -> str:
    if file.role == "lora":
        return "LoRA"
    broken = [problem for problem in file.problems if problem.severity == "error"]
    return file.variant or (_word(terminal, broken[0]) if broken else terminal.say("unknown_kind"))


def _explain(terminal: Terminal, found: Iterable[tuple[Adapter, ModelLibrary]]) -> None:
    """What the words mean, and what to do: each once, with the first file that it was said of."""
    first: dict[str, Problem] = {}
    for adapter, library in found:
        for problem in (*library.problems, *(p for file in _own(adapter, library) for p in file.problems)):
            first.setdefault(problem.code, problem)
    terminal.problems(list(first.values()))


def _missing(adapter: Adapter, chosen: dict[str, ModelFile]) -> list[str]:
    inside = set(chosen["model"].bundled) if "model" in chosen else set()
    return [c.title for c in adapter.type.components if c.required and c.role not in chosen and c.role not in inside]


def _within(path: Path, folder: Path) -> Path:
    root = folder.expanduser().absolute()
    return path.relative_to(root) if path != root and path.is_relative_to(root) else path
