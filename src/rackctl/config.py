"""The config file: racks and their settings."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackctl.errors import UsageError
from rackctl.files import read_own
from rackctl.settings import SETTINGS, rack_name_problem
from rackctl.text import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LARGEST = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Config:
    """The config file: ``default_rack`` and a table of settings for each rack."""

    path: Path
    default_rack: str = ""
    racks: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def read_config(path: Path) -> Config:
    """Read a config file; one that does not exist, or /dev/null, is empty.

    Raises UsageError for an invalid file, naming the file, the line and the key. A file that another user can write is
    refused too, since it may name a command to run.
    """
    if path == Path(os.devnull):
        return Config(path)
    try:
        text = read_own(path, limit=_LARGEST).decode()
    except FileNotFoundError:
        return Config(path)
    except UnicodeDecodeError as error:
        raise UsageError(f"cannot read the config file {path}: {error}") from error
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}", hint="the config file is TOML: see https://toml.io") from error
    return Config(path, *_checked(document, _Complaints(path, text)))


@dataclass(frozen=True, slots=True)
class _Complaints:
    path: Path
    text: str

    def about(self, table: str, key: str, what: str) -> UsageError:
        return UsageError(f"{self.path}, line {self._line_of(table, key)}: {what}")

    def _line_of(self, table: str, key: str) -> int:
        """Find the line of a key, which tomllib does not report: in its table, or as a dotted key or table."""
        bare = rf"""["']?{re.escape(key)}["']?"""
        header = re.compile(r"\s*\[+\s*(?P<name>.*?)\s*\]+\s*(#.*)?$")
        inside = ""
        for number, line in enumerate(self.text.splitlines(), 1):
            if found := header.match(line):
                inside = re.sub(r"""["'\s]""", "", found["name"])
                if inside == f"{table}.{key}".lstrip("."):
                    return number
            elif inside == table and re.match(rf"\s*{bare}\s*[=.]", line):
                return number
        return next(
            (n for n, line in enumerate(self.text.splitlines(), 1) if re.search(rf"\b{re.escape(key)}\b", line)), 1
        )


def _checked(document: Mapping[str, Any], complaints: _Complaints) -> tuple[str, dict[str, dict[str, str]]]:
    for key in document.keys() - {"default_rack", "racks"}:
        raise complaints.about("", key, f'unknown key "{key}"{_did_you_mean(key, ["default_rack", "racks"])}')
    default, racks = document.get("default_rack", ""), document.get("racks", {})
    if not isinstance(default, str):
        raise complaints.about("", "default_rack", "default_rack must be the name of a rack, as a string")
    if not isinstance(racks, dict):
        raise complaints.about("", "racks", "racks must be tables: [racks.NAME]")
    checked: dict[str, dict[str, str]] = {}
    for name, table in racks.items():
        if not isinstance(table, dict):
            raise complaints.about("racks", name, f'"{name}" is not a setting: racks are tables, [racks.NAME]')
        if problem := rack_name_problem(name):
            raise complaints.about("racks", name, f"{quoted(name)}: {problem}")
        checked[name] = dict(_checked_rack(name, table, complaints))
    if default and default not in checked:
        raise complaints.about("", "default_rack", f'default_rack is "{default}", but there is no [racks.{default}]')
    return default, checked


def _checked_rack(name: str, table: Mapping[str, Any], complaints: _Complaints) -> Iterator[tuple[str, str]]:
    where = f"racks.{name}"
    for key, value in table.items():
        setting = SETTINGS.get(key)
        if setting is None:
            raise complaints.about(where, key, f'unknown setting "{key}"{_did_you_mean(key, list(SETTINGS))}')
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise complaints.about(where, key, f"{key} must be a string")
        if not str(value):
            raise complaints.about(where, key, f"{key} is empty: give it a value, or remove the line")
        if problem := setting.problem(str(value)):
            raise complaints.about(where, key, f"{key} is {quoted(str(value))}: {problem}")
        yield key, str(value)


def _did_you_mean(word: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1)
    return f": did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
