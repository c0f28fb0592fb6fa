"""How instances look: the table of the document we mirror, and the formats that programs read."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC
from typing import TYPE_CHECKING

from rackctl.errors import UsageError
from rackctl.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from rackctl.model import RackInstance

# Units as convox counted them (its library has months of 30 days and years of 12 such months).
_UNITS = (
    (360 * 86400, "year"),
    (30 * 86400, "month"),
    (7 * 86400, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
    (1, "second"),
)
_TWO_YEARS_FROM = 540 * 86400


def ago(then: datetime | None, now: datetime) -> str:
    """Say how long ago something was, in whole units, rounded down: "1 hour ago", "now", "5 minutes from now"."""
    if then is None:
        return ""
    seconds = int(abs((now - then).total_seconds()))
    for size, unit in _UNITS:
        if seconds >= size:
            # Everything is rounded down, but for the second year, which convox counts from its middle.
            count = max(seconds // size, 2 if seconds >= _TWO_YEARS_FROM else 1)
            return f"{count} {unit}{'s' if count > 1 else ''} {'ago' if then <= now else 'from now'}"
    return "now"


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out columns, left-aligned and two spaces apart, with no space at the end of a line."""
    from tabulate import tabulate

    cells = ([printable(cell, kept="") for cell in row] for row in rows)
    # As headers proper they would get two more spaces each.
    text = tabulate([headers, *cells], tablefmt="plain", disable_numparse=True, stralign="left")
    return "\n".join(line.rstrip() for line in text.splitlines())


def fields(instance: RackInstance) -> dict[str, str | int | float | bool | None]:
    """Give an instance as the flat object of ``-o json``. Names and meanings are documented and stable."""
    ec2, ecs = instance.instance, instance.container_instance
    return {
        "id": instance.ec2_instance_id,
        "status": instance.status,
        "ec2_state": ec2.state if ec2 else None,
        "ecs_status": ecs.status if ecs else None,
        "ecs_status_reason": (ecs.status_reason or None) if ecs else None,
        "agent_connected": ecs.agent_connected if ecs else None,
        "agent_version": (ecs.agent_version or None) if ecs else None,
        "started": _rfc3339(instance.started),
        "running_tasks": ecs.running_tasks_count if ecs else None,
        "pending_tasks": ecs.pending_tasks_count if ecs else None,
        "cpu_registered": ecs.registered.cpu if ecs else None,
        "cpu_remaining": ecs.remaining.cpu if ecs else None,
        "cpu_percent": _rounded(instance.cpu_percent),
        "memory_registered": ecs.registered.memory if ecs else None,
        "memory_remaining": ecs.remaining.memory if ecs else None,
        "memory_percent": _rounded(instance.memory_percent),
        "type": (ec2.instance_type or None) if ec2 else None,
        "zone": (ec2.availability_zone or None) if ec2 else None,
        "private_ip": (ec2.private_ip or None) if ec2 else None,
        "public_ip": (ec2.public_ip or None) if ec2 else None,
        "key_name": (ec2.key_name or None) if ec2 else None,
        "group": (ec2.auto_scaling_group_name or None) if ec2 else None,
        "container_instance_arn": ecs.container_instance_arn if ecs else None,
    }


def _rfc3339(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if moment else None


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 2)


def _percent(percent: float | None) -> str:
    return "" if percent is None else f"{percent:.2f}%"


_COLUMNS: Mapping[str, Callable[[RackInstance, datetime], str]] = {
    "ID": lambda i, _: i.ec2_instance_id,
    "AGENT": lambda i, _: "on" if i.agent_connected else "off",
    "STATUS": lambda i, _: i.status,
    "STARTED": lambda i, now: ago(i.started, now),
    "PS": lambda i, _: str(i.container_instance.running_tasks_count if i.container_instance else 0),
    "CPU": lambda i, _: _percent(i.cpu_percent),
    "MEM": lambda i, _: _percent(i.memory_percent),
}
_WIDE: Mapping[str, Callable[[RackInstance, datetime], str]] = {
    **_COLUMNS,
    "TYPE": lambda i, _: i.instance.instance_type if i.instance else "",
    "ZONE": lambda i, _: i.instance.availability_zone if i.instance else "",
    "PRIVATE": lambda i, _: i.instance.private_ip if i.instance else "",
    "PUBLIC": lambda i, _: i.instance.public_ip if i.instance else "",
    "KEY": lambda i, _: i.instance.key_name if i.instance else "",
    "AGENT VERSION": lambda i, _: i.container_instance.agent_version if i.container_instance else "",
}


def _as_table(columns: Mapping[str, Callable[[RackInstance, datetime], str]]) -> Callable[..., str]:
    def render(instances: Sequence[RackInstance], now: datetime) -> str:
        return table(list(columns), ([cell(i, now) for cell in columns.values()] for i in instances))

    return render


def _as_json(instances: Sequence[RackInstance], _: datetime) -> str:
    return json.dumps([fields(i) for i in instances], indent=2)


def _as_csv(instances: Sequence[RackInstance], _: datetime) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([_text(value) for value in fields(i).values()] for i in instances)
    return text.getvalue().rstrip("\n")


def _as_ids(instances: Sequence[RackInstance], _: datetime) -> str:
    return "\n".join(i.ec2_instance_id for i in instances)


FORMATS: Mapping[str, Callable[[Sequence[RackInstance], datetime], str]] = {
    "table": _as_table(_COLUMNS),
    "wide": _as_table(_WIDE),
    "json": _as_json,
    "csv": _as_csv,
    "id": _as_ids,
}


def _field_names() -> tuple[str, ...]:
    from rackctl.model import RackInstance

    return tuple(fields(RackInstance("")))


FIELDS = _field_names()


def _text(value: str | float | bool | None) -> str:
    """Give a field's value as a filter is written against it: as JSON writes it, but strings bare and null empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _require_field(name: str, option: str) -> None:
    if name not in FIELDS:
        raise UsageError(f'{option}: there is no field "{name}"', hint=f"the fields are {', '.join(FIELDS)}")


def filtered(instances: Sequence[RackInstance], expressions: Sequence[str]) -> list[RackInstance]:
    """Keep the instances that every ``KEY=VALUE`` is true of. Raises UsageError for an unknown key."""
    wanted: list[tuple[str, str]] = []
    for expression in expressions:
        key, equals, value = expression.partition("=")
        if not equals:
            raise UsageError(f'--filter: "{expression}" is not KEY=VALUE', hint="for example --filter status=active")
        _require_field(key, "--filter")
        wanted.append((key, value))
    return [i for i in instances if all(_text(found[key]) == value for found in [fields(i)] for key, value in wanted)]


def ordered(instances: Sequence[RackInstance], by: str) -> list[RackInstance]:
    """Sort by a field, downwards with a ``-`` before it; what has no value comes last. Raises UsageError."""
    name = by.removeprefix("-")
    _require_field(name, "--sort")
    keyed = [(fields(i)[name], i) for i in instances]
    present = sorted(
        ((value, i) for value, i in keyed if value is not None),
        key=lambda pair: pair[0],
        reverse=by.startswith("-"),
    )
    return [i for _, i in present] + [i for value, i in keyed if value is None]
