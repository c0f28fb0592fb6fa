"""A roll's progress: as JSON lines, as log lines, and as a live view on a terminal."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from rackctl.text import minutes_and_seconds, printable, rfc3339, roughly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from rich.console import Console, RenderableType
    from rich.live import Live

    from rackctl.clock import Clock
    from rackctl.errors import RackctlError
    from rackctl.roll.report import Event


class View(ABC):
    """Shows events as they come. Its output failing must not fail the roll."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 - only some views have something to close
        """Show no more."""

    @abstractmethod
    def show(self, event: Event) -> None:
        """Show one event."""

    def fail(self, error: RackctlError) -> None:  # noqa: B027 - only some views show it themselves
        """Show how the roll failed, unless that is left to the command line's end, which tells every error."""


def event_fields(event: Event) -> dict[str, Any]:
    """Return an event as a line of ``-o json``. Names and meanings are documented and stable."""
    return {
        "at": rfc3339(event.at),
        "event": event.kind,
        "message": event.message,
        "group": event.auto_scaling_group_name or None,
        "instance": event.ec2_instance_id or None,
        "key": None if event.is_new is None else "new" if event.is_new else "old",
        "phase": event.phase,
        "tasks_left": event.tasks_left,
        "service_event": event.service_event or None,
        "done": event.done,
        "total": event.total,
        "seconds_left": None if event.seconds_left is None else round(event.seconds_left),
    }


class JsonView(View):
    """One JSON object a line on stdout; the last one of a roll that does not get through has the event ``failed``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def show(self, event: Event) -> None:
        self._print(event_fields(event))

    def fail(self, error: RackctlError) -> None:
        self._print(
            {
                "at": rfc3339(self._clock.now()),
                "event": "failed",
                "message": str(error),
                "hint": error.hint or None,
                "exit_status": error.exit_code,
            }
        )

    @staticmethod
    def _print(document: Mapping[str, Any]) -> None:
        click.echo(json.dumps(document))


class LineView(View):
    """One timestamped line an event on stderr; for logs."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin

    def show(self, event: Event) -> None:
        if event.kind != "finished":
            self._begin()
        click.echo(f"{rfc3339(event.at)} [{event.done}/{event.total}] {_one_line(event.message)}", err=True)


@dataclass(slots=True)
class _Row:
    phase: str
    since: float
    is_new: bool
    waits_for: str


_PHASE_STYLE = {
    "draining": "yellow",
    "drained": "yellow",
    "terminating": "magenta",
    "launching": "cyan",
    "booting": "cyan",
    "ready": "green",
}
# Instances in these phases are counted rather than shown if there are many.
_QUIET = ("waiting", "ready", "gone")


class LiveView(View):
    """A table that is redrawn in place on a terminal: each instance, what it waits for, and how far all is."""

    def __init__(
        self, console: Console, clock: Clock, rack: str, begin: Callable[[], None], stopping: Callable[[], bool]
    ) -> None:
        self._console = console
        self._rack = rack
        self._clock = clock
        self._begin = begin
        self._stopping = stopping
        self._began = clock.monotonic()
        self._rows: dict[str, _Row] = {}
        self._latest: Event | None = None
        self._latest_at = self._began
        self._live: Live | None = None
        self._waiting = ""

    def __exit__(self, *_: object) -> None:
        if self._live and self._latest:
            self._live.stop()
            if self._latest.kind == "finished":
                took = minutes_and_seconds(self._clock.monotonic() - self._began)
                click.echo(
                    f"rackctl: replaced {self._latest.done} of {self._latest.total} instances in {took}", err=True
                )

    def show(self, event: Event) -> None:
        from rich.live import Live

        self._latest, self._latest_at = event, self._clock.monotonic()
        if self._live is None:
            if event.kind != "finished":
                self._begin()
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        if event.ec2_instance_id and event.phase:
            row = self._rows.get(event.ec2_instance_id)
            if row is None or row.phase != event.phase:
                new = bool(row and row.is_new) if event.is_new is None else event.is_new
                row = self._rows[event.ec2_instance_id] = _Row(event.phase, self._clock.monotonic(), new, "")
            row.waits_for = _one_line(event.waits_for)
        self._waiting = event.message if event.kind == "waiting" else ""
        if event.kind != "waiting" and not (event.ec2_instance_id and event.phase):
            # It stays on the screen above the table, and can be read when all is over.
            self._console.print(_one_line(event.message), highlight=False, markup=False)

    def _render(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        now = self._clock.monotonic()
        height = max(shutil.get_terminal_size().lines - 4, 1)
        busy = [(id_, row) for id_, row in self._rows.items() if row.phase not in _QUIET]
        quiet = [(id_, row) for id_, row in self._rows.items() if row.phase in _QUIET]
        shown = [*busy, *quiet] if len(self._rows) <= height else busy[:height]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column, width in _WIDTHS.items():
            table.add_column(column, no_wrap=True, min_width=width)
        table.add_column("WAITS FOR", no_wrap=True)
        # What is too long is cut here, where it is known to be of least worth, and not shared out by the table.
        room = max(self._console.width - sum(width + 2 for width in _WIDTHS.values()), len("WAITS FOR"))
        for id_, row in shown:
            waits_for = Text(row.waits_for)
            waits_for.truncate(room, overflow="ellipsis")
            table.add_row(
                id_,
                "new" if row.is_new else "old",
                Text(row.phase, _PHASE_STYLE.get(row.phase, "dim")),
                "" if row.phase in _QUIET else minutes_and_seconds(now - row.since),
                waits_for,
            )
        lines: list[RenderableType] = [table] if shown else []
        if rest := self._rest(shown, busy, quiet):
            lines.append(Text(("and " if shown else "") + ", ".join(rest), "dim"))
        if self._waiting:
            # Wrapped, never cut: it is what an operator wants to know.
            lines.append(Text(_one_line(self._waiting), "yellow"))
        lines.append(self._summary(now))
        return Group(*lines)

    def _rest(
        self, shown: list[tuple[str, _Row]], busy: list[tuple[str, _Row]], quiet: list[tuple[str, _Row]]
    ) -> list[str]:
        """Count the instances that have no line of their own."""
        assert self._latest is not None
        counts = {phase: sum(row.phase == phase for _, row in quiet) for phase in _QUIET}
        if len(shown) == len(self._rows):
            counts = dict.fromkeys(counts, 0)
        # Those whose turn has not come have had no event yet.
        counts["waiting"] = self._latest.waiting
        rest = [f"{count} {phase}" for phase, count in counts.items() if count]
        if len(busy) > len(shown):
            rest.insert(0, f"{len(busy) - len(shown)} more under way")
        return rest

    def _summary(self, now: float) -> RenderableType:
        from rich.text import Text

        event = self._latest
        assert event is not None
        doing = "rolling back" if event.doing == "aborting" else event.doing
        parts = [f"{self._rack}: {doing}"]
        if event.doing != "aborting":
            parts.append(f"{event.done} of {event.total} replaced")
        parts.append(minutes_and_seconds(now - self._began))
        if event.seconds_left is not None and (left := event.seconds_left - (now - self._latest_at)) > 0:
            parts.append(f"about {roughly(left)} left")
        if self._stopping():
            parts.append("stopping; Ctrl-C again stops at once")
        return Text("  ".join(parts), "bold", no_wrap=True, overflow="ellipsis")


# An instance's id has 19 characters; of the phases "terminating" is the longest; a time may be 1:02:03.
_WIDTHS = {"INSTANCE": 19, "": 3, "PHASE": 11, "TIME": 7}


def _one_line(text: str) -> str:
    """Return a text that may be AWS's or a server's as one line that cannot steer the terminal."""
    return printable(text, kept="")
