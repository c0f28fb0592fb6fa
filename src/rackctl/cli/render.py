"""Output formats of the list: the table of the document that we mirror, and formats for programs."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.cli.selection import FIELDS, Field, as_text, fields
from rackctl.text import ago, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from rackctl.rack_instance import RackInstance


@dataclass(frozen=True, slots=True)
class Canvas:
    """Properties of the output: its width (0: unlimited) and whether it shows colour."""

    width: int = 0
    color: bool = False


# In characters; a last column for which less room is left is not wrapped.
_NARROWEST = 16


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, width: int = 0) -> str:
    """Lay out columns, left-aligned and two spaces apart, with no space at the end of a line.

    The last column is wrapped at spaces, below itself, to fit into a width (0: unlimited).
    """
    cells: list[Sequence[str]] = [headers, *([printable(cell, kept="") for cell in row] for row in rows)]
    before = sum(max(map(len, column)) + 2 for column in list(zip(*cells, strict=True))[:-1])
    if width - before < _NARROWEST:
        return _laid_out(cells)
    return _laid_out([line for row in cells for line in _wrapped(row, width - before)])


def _wrapped(row: Sequence[str], room: int) -> Iterator[Sequence[str]]:
    from textwrap import wrap

    first, *others = wrap(row[-1], room, break_long_words=False, break_on_hyphens=False) or [""]
    yield [*row[:-1], first]
    yield from ([*[""] * (len(row) - 1), more] for more in others)


def _laid_out(rows: Sequence[Sequence[str]]) -> str:
    from tabulate import tabulate

    # tabulate would pad real headers with two more spaces.
    text = tabulate(rows, tablefmt="plain", disable_numparse=True, stralign="left")
    return "\n".join(line.rstrip() for line in text.splitlines())


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the tables: its header, its cells, and the colour of cells that show a problem."""

    header: str
    cell: Callable[[RackInstance, datetime], str]
    color: Callable[[RackInstance], str | None] = lambda _: None


def _percent(percent: float | None) -> str:
    return "" if percent is None else f"{percent:.2f}%"


_STATUS_COLORS = {
    "gone": "red",
    "registration_failed": "red",
    **dict.fromkeys(("draining", "deregistering", "unregistered", "stopping", "stopped", "shutting-down"), "yellow"),
}

_COLUMNS: Mapping[str, _Column] = {
    "id": _Column("ID", lambda i, _: i.ec2_instance_id),
    "agent_connected": _Column(
        "AGENT",
        lambda i, _: "on" if i.agent_connected else "off",
        lambda i: "red" if i.container_instance and not i.agent_connected else None,
    ),
    "status": _Column("STATUS", lambda i, _: i.status, lambda i: _STATUS_COLORS.get(i.status)),
    "started": _Column("STARTED", lambda i, now: ago(i.started, now)),
    "running_tasks": _Column("PS", lambda i, _: str(i.running_tasks_count)),
    # An instance has one; where there are more, that is what an operator wants to see.
    "registrations": _Column("REGS", lambda i, _: str(n) if (n := len(i.registrations)) > 1 else "", lambda _: "red"),
    "cpu_percent": _Column("CPU", lambda i, _: _percent(i.cpu_percent)),
    "memory_percent": _Column("MEM", lambda i, _: _percent(i.memory_percent)),
    "outdated": _Column("OUTDATED", lambda i, _: {True: "yes", False: "no", None: ""}[i.outdated]),
}
TABLE = tuple(name for name in _COLUMNS if name not in {"registrations", "outdated"})
_SHORT = {
    "private_ip": "PRIVATE", "public_ip": "PUBLIC", "key_name": "KEY", "launch_template_version": "TEMPLATE",
    "image_id": "IMAGE",
}  # fmt: skip
WIDE = (
    *TABLE, "name", "type", "zone", "outdated", "private_ip", "public_ip", "key_name", "agent_version",
    "launch_template_version", "image_id",
)  # fmt: skip


def _column(name: str) -> _Column:
    if name in _COLUMNS:
        return _COLUMNS[name]
    header = _SHORT.get(name, name.replace("_", " ").upper())
    return _Column(header, lambda i, now: as_text(fields(i, now, [name])[name]))


def wide(instances: Sequence[RackInstance]) -> Sequence[str]:
    """Return the columns of ``wide``: REGS is one of them where an instance has several registrations."""
    return (*WIDE, "registrations") if any(len(i.registrations) > 1 for i in instances) else WIDE


def fitting(instances: Sequence[RackInstance], now: datetime, width: int) -> tuple[Sequence[str], Sequence[str]]:
    """Return the columns of `wide` that fit into a width, and the headers of those that do not.

    Columns that are blank in every row are dropped first, then from the right; the columns of `TABLE` stay.
    """
    all_ = wide(instances)
    cells = {n: [printable(_column(n).cell(i, now), kept="") for i in instances] for n in all_}
    widths = {n: max(map(len, [_column(n).header, *cells[n]])) + 2 for n in all_}
    blank = [n for n in all_ if not any(cells[n])]
    left_out: list[str] = []
    for name in [*reversed(blank), *(n for n in reversed(all_) if n not in blank)]:
        if sum(widths[n] for n in all_ if n not in left_out) - 2 <= width:
            break
        if name not in TABLE:
            left_out.append(name)
    return [n for n in all_ if n not in left_out], [_column(n).header for n in all_ if n in left_out]


def as_table(
    instances: Sequence[RackInstance], now: datetime, columns: Sequence[str] = TABLE, canvas: Canvas = Canvas()
) -> str:
    """Lay out instances as a table of the given fields."""
    chosen = [_column(name) for name in columns]

    def shown(column: _Column, instance: RackInstance) -> str:
        text = printable(column.cell(instance, now), kept="")
        color = column.color(instance) if canvas.color else None
        if color is None:
            return text
        import click

        return click.style(text, fg=color)

    return _laid_out([[c.header for c in chosen], *([shown(c, i) for c in chosen] for i in instances)])


def as_json(instances: Sequence[RackInstance], now: datetime, columns: Sequence[str] = FIELDS) -> str:
    return json.dumps([fields(i, now, columns) for i in instances], indent=2)


def as_csv(instances: Sequence[RackInstance], now: datetime, columns: Sequence[str] = FIELDS) -> str:
    """Write a header and one line per instance, safe for terminals and spreadsheets."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_csv_cell(value) for value in fields(i, now, columns).values()] for i in instances)
    return text.getvalue().rstrip("\n")


# https://owasp.org/www-community/attacks/CSV_Injection; `printable` has escaped tabs and line ends.
_FORMULA = tuple("=+-@＝＋－＠")  # noqa: RUF001 - the full-width forms count too


def _csv_cell(value: Field) -> str:
    text = printable(as_text(value), kept="")
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def as_ids(instances: Sequence[RackInstance]) -> str:
    return "\n".join(i.ec2_instance_id for i in instances)
