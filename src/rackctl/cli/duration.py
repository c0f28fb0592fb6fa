"""A length of time as an option's value."""

from __future__ import annotations

import re

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[float]):
    """A length of time such as 90s, 15m, 1h30m or 30d, in seconds."""

    name = "duration"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        return "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        text = str(value)
        if not text.strip():
            self.fail("it is empty: is a variable in your script unset?", param, ctx)
        if not re.fullmatch(r"([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?", text):
            self.fail(f'"{text}" is not a length of time such as 90s, 15m, 1h30m or 30d', param, ctx)
        return float(sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"([0-9]+)([dhms])", text)))
