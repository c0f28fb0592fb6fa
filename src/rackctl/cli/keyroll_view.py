"""What a keyroll looks like: the plan, the status, and the progress, as text, as JSON and as a live view."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import click

from rackctl.text import counted, minutes_and_seconds, printable, roughly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.console import Console, RenderableType
    from rich.live import Live

    from rackctl.clock import Clock
    from rackctl.errors import RackctlError
    from rackctl.keyroll.plan import Dip, GroupPlan, Plan, Refusal
    from rackctl.keyroll.run import Event
    from rackctl.keyroll.status import Status


# The plan


def plan_fields(plan: Plan) -> dict[str, Any]:
    """Give a plan as the object of ``-o json``. Names and meanings are documented and stable."""
    return {
        "rack": plan.rack,
        "refused": bool(plan.refusals),
        "refusals": [asdict(refusal) for refusal in plan.refusals],
        "groups": [
            {
                "group": group.auto_scaling_group_name,
                "desired_capacity": group.desired_capacity,
                "max_size": group.max_size,
                "launch_templates": [asdict(use) for use in group.templates],
                "replace": list(group.replace),
                "surge": group.surge,
                "surge_reason": group.surge_reason,
                "at_once": group.at_once,
                "seconds": group.seconds,
            }
            for group in plan.groups
        ],
        "services": [asdict(dip) for dip in plan.dips],
        "standalone_tasks": [{"task": task, "instance": id_} for task, id_ in plan.standalone_tasks],
        "left_alone": [{"instance": left.ec2_instance_id, "reason": left.reason} for left in plan.left_alone],
        "warnings": list(plan.warnings),
        "total": plan.total,
        "seconds": plan.seconds,
        "instance_hours": round(plan.instance_hours, 2),
    }


def plan_text(plan: Plan) -> str:
    """Give a plan as a person likes to read it."""
    return "\n\n".join("\n".join(section) for section in _sections(plan))


def _sections(plan: Plan) -> Iterator[list[str]]:
    count = counted(plan.total, "instance")
    about = f"in about {roughly(plan.seconds)}{_cost(plan)}"
    what = f"would replace {count}, {about}" if plan.total else "would replace nothing"
    refused = "; but it would be refused, as said at the end" if plan.refusals else ""
    yield [f'A keyroll of rack "{plan.rack}" {what}{refused}.']
    yield from map(_group, plan.groups)
    for title, dips in (
        ("These services run with less for a while:", [d for d in plan.dips if not d.stuck]),
        ("The tasks of these services cannot be moved:", [d for d in plan.dips if d.stuck]),
    ):
        if dips:
            yield [title, *map(_dip, dips)]
    if plan.standalone_tasks:
        what = "are stopped" if plan.options.stop_standalone else "are waited for; --stop-standalone stops them"
        yield [
            f"These tasks belong to no service and {what}:",
            *(f"  {task} on {id_}" for task, id_ in plan.standalone_tasks),
        ]
    if plan.left_alone:
        yield ["Left alone:", *(f"  {left.ec2_instance_id}: {left.reason}" for left in plan.left_alone)]
    if plan.warnings:
        yield ["Mind:", *(f"  {warning}" for warning in plan.warnings)]
    if plan.refusals:
        yield ["It would be refused:", *(line for refusal in plan.refusals for line in _refusal(refusal))]


def _dip(dip: Dip) -> str:
    return f"  {dip.service_name}: {counted(dip.desired_count, 'task')}, {dip.lowest_count} at the least ({dip.reason})"


def _refusal(refusal: Refusal) -> Iterator[str]:
    yield f"  {refusal.reason}"
    if refusal.remedy:
        yield f"    → {refusal.remedy}"


def _cost(plan: Plan) -> str:
    most = max((group.surge for group in plan.groups), default=0)
    if not most:
        return ""
    return f", with {counted(most, 'instance')} more meanwhile ({plan.instance_hours:.1f} instance-hours)"


def _group(group: GroupPlan) -> list[str]:
    def template(named: str, version: str, number: int, key: str) -> str:
        which = version if version == str(number) else f"{version} (now {number})"
        return f"  launches    {named} version {which}, with {f'key {key}' if key else 'no key'}"

    at_a_time = f", {group.at_once} at a time" if group.at_once > 1 else ""
    return [
        f"Group {group.auto_scaling_group_name}",
        f"  capacity    {group.desired_capacity}, at most {group.max_size}",
        *(template(u.launch_template_name or u.launch_template_id, u.version, u.version_number, u.key_name)
          for u in group.templates),
        f"  surge       {group.surge} ({group.surge_reason})",
        f"  replaces    {counted(len(group.replace), 'instance')}{at_a_time}, in about this order:"
        if group.replace
        else "  replaces    nothing",
        *(f"              {id_}" for id_ in group.replace),
    ]  # fmt: skip


# The status

# A roll's batch is seldom larger.
_SHOWN = 20


def status_fields(status: Status | None) -> dict[str, Any]:
    """Give a status as the object of ``-o json``. Names and meanings are documented and stable."""
    if status is None:
        return {"state": "none"}
    journal = status.journal
    return {
        "state": _state(status),
        "phase": journal.phase,
        "rack": journal.rack,
        "key_name": journal.key_name,
        "reason": journal.options.reason,
        "started": journal.started,
        "owner": str(journal.owner) if journal.owner else None,
        "heartbeat": _rfc3339(status.found.heartbeat),
        "problem": journal.problem or None,
        "total": status.total,
        "left": status.old,
        "groups": [
            {"group" if k == "auto_scaling_group_name" else k: v for k, v in asdict(group).items()}
            for group in status.groups
        ],
        "instances": [
            {
                "instance": instance.ec2_instance_id,
                "group": instance.auto_scaling_group_name,
                "key_name": instance.key_name or None,
                "phase": instance.phase,
                "since": instance.since or None,
            }
            for instance in status.instances
        ],
    }


def _state(status: Status) -> str:
    if status.found.is_live:
        return "running"
    return "stopped" if status.journal.owner is None else "dead"


def status_text(status: Status | None, rack: str) -> str:
    if status is None:
        return f'No keyroll is under way on rack "{rack}".'
    journal = status.journal
    doing = "being aborted" if journal.phase == "aborting" else journal.phase
    heard = f"last heard of {roughly(max(status.found.silent_for, 1))} ago"
    who = {
        "running": f"{journal.owner} is at work on it, {heard}",
        "stopped": f"it has stopped, {heard}" + (f": {journal.problem}" if journal.problem else ""),
        "dead": f"{journal.owner} has ended without giving it up, {heard}",
    }[_state(status)]
    lines = [
        f'Keyroll of rack "{journal.rack}", begun at {journal.started}: {doing}; {who}.',
        f"  key         {journal.key_name}",
        *([f"  reason      {journal.options.reason}"] if journal.options.reason else []),
        f"  replaced    {max(status.total - status.old, 0)} of {status.total}",
    ]
    for group in status.groups:
        surge = f", {group.surge} of it surge" if group.surge else ""
        lines += [
            f"Group {group.auto_scaling_group_name}",
            f"  capacity    {group.desired_capacity}{surge} (was {group.original_desired_capacity})",
            f"  old key     {group.old}" + (f", {group.draining} of them draining" if group.draining else ""),
            f"  new key     {group.new}, {group.ready} of them ready",
        ]
        if suspended := journal.groups[group.auto_scaling_group_name].suspended:
            lines.append(f"  suspended   {', '.join(suspended)}")
    busy = [i for i in status.instances if i.phase not in {"waiting", "ready"}]
    lines += [f"  {i.ec2_instance_id}  {i.phase}{f' since {i.since}' if i.since else ''}" for i in busy[:_SHOWN]]
    if len(busy) > _SHOWN:
        lines.append(f"  and {len(busy) - _SHOWN} more on their way")
    there = {group.auto_scaling_group_name for group in status.groups}
    lines += [f"Group {name} has been deleted" for name in journal.groups if name not in there]
    if not status.found.is_live:
        ways = ("abort",) if journal.phase == "aborting" else ("resume", "abort")
        lines.append("Go on with " + " or ".join(f"`rackctl instances keyroll {way} --rack {rack}`" for way in ways))
    return "\n".join(lines)


# The progress


class View(Protocol):
    """Shows events as they come. Its output failing must not fail the roll."""

    def __enter__(self) -> View: ...
    def __exit__(self, *_: object) -> None: ...
    def show(self, event: Event) -> None: ...
    def fail(self, error: RackctlError) -> None: ...


def event_fields(event: Event) -> dict[str, Any]:
    """Give an event as a line of ``-o json``. Names and meanings are documented and stable."""
    return {
        "at": _rfc3339(event.at),
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


class JsonView:
    """One JSON object a line on stdout; the last one of a roll that does not get through has the event ``failed``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __enter__(self) -> JsonView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: Event) -> None:
        self._print(event_fields(event))

    def fail(self, error: RackctlError) -> None:
        self._print(
            {
                "at": _rfc3339(self._clock.now()),
                "event": "failed",
                "message": str(error),
                "hint": error.hint or None,
                "exit_status": error.exit_code,
            }
        )

    @staticmethod
    def _print(document: Mapping[str, Any]) -> None:
        click.echo(json.dumps(document))


class LineView:
    """One timestamped line an event on stderr; for logs."""

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin

    def __enter__(self) -> LineView:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: Event) -> None:
        self._begin()
        click.echo(f"{_rfc3339(event.at)} [{event.done}/{event.total}] {_one_line(event.message)}", err=True)

    def fail(self, error: RackctlError) -> None:
        """Leave it to the command line's end, which tells every error."""


@dataclass(slots=True)
class _Row:
    phase: str
    since: float
    is_new: bool
    waits_for: str


_PHASE_STYLE = {
    "draining": "yellow",
    "drained": "yellow",
    "terminating": "red",
    "launching": "cyan",
    "booting": "cyan",
    "ready": "green",
}
# What is over, or has not begun, is counted rather than shown where there are many.
_QUIET = ("waiting", "ready", "gone")


class LiveView:
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

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live and self._latest:
            self._live.stop()
            if self._latest.kind == "finished":
                took = minutes_and_seconds(self._clock.monotonic() - self._began)
                click.echo(f"rackctl: {self._latest.done} of {self._latest.total} replaced; it took {took}", err=True)

    def show(self, event: Event) -> None:
        from rich.live import Live

        self._latest, self._latest_at = event, self._clock.monotonic()
        if self._live is None:
            self._begin()
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        if event.ec2_instance_id and event.phase:
            row = self._rows.get(event.ec2_instance_id)
            if row is None or row.phase != event.phase:
                new = bool(row and row.is_new) if event.is_new is None else event.is_new
                row = self._rows[event.ec2_instance_id] = _Row(event.phase, self._clock.monotonic(), new, "")
            row.waits_for = _one_line(_waits_for(event))
        elif event.kind != "waiting":
            # It stays on the screen above the table, and can be read when all is over.
            self._console.print(_one_line(event.message), highlight=False, markup=False)

    def fail(self, error: RackctlError) -> None:
        """Leave it to the command line's end, which tells every error."""

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
            rest.insert(0, f"{len(busy) - len(shown)} more at work")
        return rest

    def _summary(self, now: float) -> RenderableType:
        from rich.text import Text

        event = self._latest
        assert event is not None
        doing = "giving back" if event.doing == "aborting" else event.doing
        parts = [f"{self._rack}: {doing}"]
        if event.doing != "aborting":
            parts.append(f"{event.done} of {event.total} replaced")
        parts.append(minutes_and_seconds(now - self._began))
        if event.seconds_left is not None and (left := event.seconds_left - (now - self._latest_at)) > 0:
            parts.append(f"about {roughly(left)} left")
        if self._stopping():
            parts.append("stopping; once more to stop at once")
        return Text("  ".join(parts), "bold", no_wrap=True, overflow="ellipsis")


# An instance's id has 19 characters; of the phases "terminating" is the longest; a time may be 1:02:03.
_WIDTHS = {"INSTANCE": 19, "KEY": 3, "PHASE": 11, "TIME": 7}


def _waits_for(event: Event) -> str:
    match event.phase:
        case "draining":
            count = event.tasks_left or 0
            stuck = f": {event.service_event}" if event.service_event else ""
            return f"{counted(count, 'task')} left{stuck}"
        case "launching" | "booting":
            return event.message.partition(": new, ")[2]
        case "terminating":
            return "EC2 to end it"
    return ""


def _one_line(text: str) -> str:
    """Give what may be AWS's words, or a server's, as one line that cannot steer the terminal."""
    return printable(text, kept="")


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
