"""Lengths of time, as they are typed and as they are shown."""

from __future__ import annotations

import re

import click

_UNITS = {"s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType[float]):
    """A length of time such as 90s, 15m or 1h30m, in seconds."""

    name = "duration"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        return "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value)
        if not text.strip():
            self.fail("it is empty: is a variable in your script unset?", param, ctx)
        if not re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?", text):
            self.fail(f'"{text}" is not a length of time such as 90s, 15m or 1h30m', param, ctx)
        return float(sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)([hms])", text)))


def as_typed(seconds: int) -> str:
    """Write a length of time as `Duration` reads it: 90s is 1m30s."""
    parts = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count)


def minutes_and_seconds(seconds: float) -> str:
    """Write a length of time as 0:05, 12:34 or 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def roughly(seconds: float) -> str:
    """Say about how long something takes: 40 seconds, 12 minutes, 2 hours 5 minutes."""
    if seconds < 60:
        return counted(max(int(seconds), 1), "second")
    hours, minutes = divmod(round(seconds / 60), 60)
    words = [counted(hours, "hour")] if hours else []
    return " ".join([*words, counted(minutes, "minute")] if minutes else words)


def counted(count: int, unit: str) -> str:
    """Write a count with its unit, which takes an s unless it is one."""
    return f"{count} {unit}{'s' if count != 1 else ''}"
