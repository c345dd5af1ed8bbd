"""Options that say which runs are meant: by state, type, name and time."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from typing import Any

import click

from cinderlora.errors import SettingError

__all__ = ["Age", "When", "name_option", "states_option", "type_option"]

_STATES = ("running", "finished", "failed", "stopped", "lost")
_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}  # seconds


class Age(click.ParamType):  # type: ignore[type-arg]
    """A time span: 45m, 12h, 30d, 2w."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,6})([mhdw])", value.strip().lower())
        if found is None:
            raise _not_like_that(value, param, "30d (m, h, d, w)")
        return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


class When(Age):
    """A day or time, or how long ago: 2026-01-31, "2026-01-31 10:00", 7d."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            pass
        try:
            ago: timedelta = super().convert(value, param, ctx)
        except SettingError as error:
            raise _not_like_that(value, param, "2026-01-31, 7d") from error
        return time.time() - ago.total_seconds()


def _not_like_that(value: str, param: click.Parameter | None, expected: str) -> SettingError:
    return SettingError("option_form", option=param.opts[0] if param else "", value=repr(value), expected=expected)


states_option = click.option(
    "--state", "states", multiple=True, type=click.Choice(_STATES), help="Only those; to be given again for others."
)
type_option = click.option("--type", "-t", "model_type", metavar="TYPE", help="Only those of this model type.")
name_option = click.option("--name", metavar="PATTERN", help="Only those of this name; * stands for anything.")
