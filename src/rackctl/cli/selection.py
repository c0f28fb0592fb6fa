"""The fields of an instance, and ``--filter``, ``--sort`` and ``--columns``, which refer to them."""

from __future__ import annotations

import json
import operator
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias

from rackctl.errors import UsageError
from rackctl.text import quoted, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rackctl.rack_instance import RackInstance

Field: TypeAlias = str | float | bool | None
# The field that the list alone does not tell: Auto Scaling and EC2 are asked for it where it is wanted.
OUTDATED = "outdated"


def fields(instance: RackInstance, now: datetime) -> dict[str, Field]:
    """Return an instance as the flat object of ``-o json``. Names and meanings are documented and stable."""
    from rackctl.launches import launched_from

    ec2, ecs = instance.instance, instance.container_instance
    source = launched_from(ec2, instance.member) if ec2 else None
    since = instance.first_started
    return {
        "id": instance.ec2_instance_id,
        "status": instance.status,
        "ec2_state": ec2.state if ec2 else None,
        "ecs_status": ecs.status if ecs else None,
        "ecs_status_reason": (ecs.status_reason or None) if ecs else None,
        "agent_connected": ecs.agent_connected if ecs else None,
        "agent_version": (ecs.agent_version or None) if ecs else None,
        "started": rfc3339(instance.started) if instance.started else None,
        "running_tasks": instance.running_tasks_count if ecs else None,
        "pending_tasks": instance.pending_tasks_count if ecs else None,
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
        "registrations": len(instance.registrations),
        "name": (ec2.tags.get("Name") or None) if ec2 else None,
        "ipv6": (ec2.ipv6_address or None) if ec2 else None,
        "age": max(int((now - since).total_seconds()), 0) if since else None,
        "image_id": (ec2.image_id or None) if ec2 else None,
        "launch_template_version": (source.version_number or None) if source else None,
        OUTDATED: instance.outdated,
    }


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 2)


def _field_names() -> tuple[str, ...]:
    from rackctl.rack_instance import RackInstance

    return tuple(fields(RackInstance(""), datetime.max.replace(tzinfo=UTC)))


FIELDS = _field_names()
_BOOLEANS = frozenset({"agent_connected", OUTDATED})
_NUMBERS = frozenset(
    {
        "age",
        "launch_template_version",
        "running_tasks",
        "registrations",
        "pending_tasks",
        "cpu_registered",
        "cpu_remaining",
        "cpu_percent",
        "memory_registered",
        "memory_remaining",
        "memory_percent",
    }
)


# Known values of fields: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerInstance.html
# and https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html
_ECS_STATUSES = ("ACTIVE", "DRAINING", "REGISTERING", "REGISTRATION_FAILED", "DEREGISTERING")
_EC2_STATES = ("pending", "running", "stopping", "stopped", "shutting-down", "terminated")
VALUES: Mapping[str, Sequence[str]] = {
    "agent_connected": ("true", "false"),
    OUTDATED: ("true", "false"),
    "ec2_state": _EC2_STATES,
    "ecs_status": _ECS_STATUSES,
    "status": (
        *(status.lower() for status in _ECS_STATUSES),
        *(state for state in _EC2_STATES if state not in {"running", "terminated"}),
        "unregistered",
        "gone",
    ),
}


def as_text(value: Field) -> str:
    """Return a field's value as filters and CSV write it: as in JSON, but strings bare and null empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_EXPRESSION = re.compile(r"(?P<field>[^=!<>~]*)(?P<operator>==|=~|!=|>=|<=|=|>|<)(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Filter:
    field: str
    matches: Callable[[Field], bool]


def _parsed(expression: str) -> _Filter:
    found = _EXPRESSION.fullmatch(expression)
    if found is None:
        raise UsageError(
            f"--filter: {quoted(expression)} is not FIELD=VALUE",
            hint="for example status=draining, status!=active, zone=~us-east-1*, cpu_percent>80",
        )
    name, sign, value = found.groups()
    require_field(name, "--filter")
    if sign in _ORDERS:
        return _Filter(name, _compares(name, _ORDERS[sign], value))
    if sign == "=~":
        globs = value.split(",")
        return _Filter(name, lambda actual: any(fnmatchcase(as_text(actual), glob) for glob in globs))
    values = [_as_field(name, word) for word in value.split(",")]
    if sign == "!=":
        return _Filter(name, lambda actual: actual not in values)
    return _Filter(name, lambda actual: actual in values)


def _as_field(name: str, word: str) -> Field:
    """Parse a value of a field's type. Raises UsageError for one that the field can never have."""
    if not word:
        return None
    if name in _NUMBERS:
        return _number(name, word)
    if name in _BOOLEANS:
        if word not in {"true", "false"}:
            raise UsageError(f"--filter: {name} is true or false, not {quoted(word)}")
        return word == "true"
    return word


def _number(name: str, word: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", word):
        raise UsageError(f"--filter: {name} is a number, not {quoted(word)}")
    return float(word)


def _compares(name: str, order: Callable[[float, float], bool], word: str) -> Callable[[Field], bool]:
    if name not in _NUMBERS:
        raise UsageError(
            f"--filter: {name} has no order; > and < compare numbers",
            hint=f"the numbers are {', '.join(n for n in FIELDS if n in _NUMBERS)}",
        )
    limit = _number(name, word)
    return lambda actual: isinstance(actual, int | float) and order(actual, limit)


def require_field(name: str, option: str) -> None:
    """Raise UsageError unless there is such a field."""
    if name not in FIELDS:
        raise UsageError(f"{option}: there is no field {quoted(name)}", hint=f"the fields are {', '.join(FIELDS)}")


def names_outdated(expressions: Sequence[str]) -> bool:
    """Tell whether one of some filters is on the field *outdated*. Raises UsageError for an invalid one."""
    return any(_parsed(expression).field == OUTDATED for expression in expressions)


def filtered(instances: Sequence[RackInstance], expressions: Sequence[str], now: datetime) -> list[RackInstance]:
    """Return the instances that match every expression. Raises UsageError for an invalid expression."""
    filters = [_parsed(expression) for expression in expressions]
    if not filters:
        return list(instances)
    return [i for i in instances for found in [fields(i, now)] if all(f.matches(found[f.field]) for f in filters)]


def ordered(instances: Sequence[RackInstance], by: str, now: datetime) -> list[RackInstance]:
    """Sort by a field, in descending order after a ``-``; missing values come last. Raises UsageError."""
    name = by.removeprefix("-")
    require_field(name, "--sort")
    keyed = [(fields(i, now)[name], i) for i in instances]
    present = sorted(
        ((value, i) for value, i in keyed if value is not None),
        key=lambda pair: pair[0],
        reverse=by.startswith("-"),
    )
    return [i for _, i in present] + [i for value, i in keyed if value is None]


def columns_of(text: str) -> tuple[str, ...]:
    """Parse the value of ``--columns``. Raises UsageError."""
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        require_field(name, "--columns")
    return names
