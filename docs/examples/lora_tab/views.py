"""How what the workshop knows is said: words and figures. What they are drawn with is in parts.html."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import localtime, strftime
from typing import Any

from jinja2 import Environment

from cinderlora import Diagnosis, Entry, Problem, Warned, sync
from cinderlora.dataset import DatasetEntry

LANGUAGES = {"en": "English", "de": "Deutsch"}
HERE = Path(__file__).parent
JAPANESE = re.compile(r" / [^\s:]*[\u3040-\u30ff\u4e00-\u9fff][^\s:]*( [\u3040-\u30ff\u4e00-\u9fff][^\s:]*)*")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


parts = Environment(autoescape=True).from_string((HERE / "parts.html").read_text("utf-8"), {"duration": duration})
html: Any = parts.module


class Words:
    """The tab's own words in a language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._words = tomllib.loads((HERE / f"{language}.toml").read_text(encoding="utf-8"))

    def __call__(self, key: str, /, **values: object) -> str:
        return str(self._words[key]).format(**values)

    def of(self, table: str, key: str) -> str:
        """A word of a table. What is not in it, such as a phase that only one adapter has, stands for itself."""
        return str(self._words[table].get(key, key))

    def explained(self, what: Problem | Diagnosis | Warned) -> tuple[str, str]:
        """What is wrong, and what to do."""
        if isinstance(what, Warned):
            what = Problem(what.code, what.params, "warning", what.message)
        own = self._words["problem"].get(what.code)
        return what.text(self.language) if own is None else (own["message"].format(**what.params), own["fix"])

    def changes(self, changes: Mapping[str, Any], labels: Mapping[str, str]) -> str:
        said = {name: self("unset") if value is None else value for name, value in changes.items()}
        return ", ".join(f"{labels.get(name, name)} = {value}" for name, value in said.items())


def curve_html(points: list[tuple[int, float]], words: Words) -> str:
    """The loss by step, the axes as long as the data."""
    if len(points) < 2:
        return ""
    losses, first = [loss for _, loss in points], points[0][0]
    low, high = min(losses), max(losses)
    across, down = 540 / max(1, points[-1][0] - first), 140 / (high - low or 1)
    drawn = " ".join(f"{50 + (step - first) * across:.1f},{12 + (high - loss) * down:.1f}" for step, loss in points)
    return str(html.curve(words, points, drawn, low, high))


def log_html(lines: Iterable[str], words: Words) -> str:
    """The log without what the trainer says once more in Japanese, for which many systems have no font."""
    return str(html.log(words, [JAPANESE.sub("", line) for line in lines]))


def dataset_label(entry: DatasetEntry, words: Words) -> str:
    state = words.of("dataset_state", entry.state)
    return words("dataset_label", name=entry.name, pictures=entry.pictures, state=state)


def entry_label(entry: Entry, words: Words) -> str:
    return f"#{entry.id} {entry.name} ({entry.model_type}): {words.of('state', entry.state)}"


def run_label(run: sync.Run, words: Words) -> str:
    when = strftime("%Y-%m-%d %H:%M", localtime(run.created))
    step, total, loss = run.figures if run.state != "running" else (None, None, None)
    steps = f" · {step}/{total}" if step is not None else ""
    loss_said = f" · {words('loss')} {loss:.4f}" if loss is not None else ""
    return f"{when} {run.name} ({run.model_type}): {words.of('state', run.state)}{steps}{loss_said}"
