"""The fields of an instance, and ``--filter``, ``--sort`` and ``--columns``, which refer to them."""

from __future__ import annotations

import json
import operator
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias

from rackctl.errors import UsageError
from rackctl.text import quoted, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from rackctl.model import ContainerInstance, Instance
    from rackctl.rack_instance import RackInstance

Field: TypeAlias = str | float | bool | None
# The field that the list alone does not tell: Auto Scaling and EC2 are asked for it where it is wanted.
OUTDATED = "outdated"


def _ec2(read: Callable[[Instance], str]) -> Callable[[RackInstance, datetime], Field]:
    """Return a field that EC2 tells; what it leaves out is None."""
    return lambda i, _: (read(i.instance) or None) if i.instance else None


def _ecs(read: Callable[[ContainerInstance], Field]) -> Callable[[RackInstance, datetime], Field]:
    """Return a field of the registration that counts, None where there is none."""
    return lambda i, _: read(i.container_instance) if i.container_instance else None


def _template_version(instance: RackInstance, _: datetime) -> Field:
    from rackctl.launches import launched_from

    source = launched_from(instance.instance, instance.member) if instance.instance else None
    return (source.version_number or None) if source else None


def _rounded(percent: float | None) -> float | None:
    return None if percent is None else round(percent, 2)


# Names and meanings are documented and stable.
_FIELDS: Mapping[str, Callable[[RackInstance, datetime], Field]] = {
    "id": lambda i, _: i.ec2_instance_id,
    "status": lambda i, _: i.status,
    "ec2_state": _ec2(lambda ec2: ec2.state),
    "ecs_status": _ecs(lambda ecs: ecs.status),
    "ecs_status_reason": _ecs(lambda ecs: ecs.status_reason or None),
    "agent_connected": _ecs(lambda ecs: ecs.agent_connected),
    "agent_version": _ecs(lambda ecs: ecs.agent_version or None),
    "started": lambda i, _: rfc3339(i.started) if i.started else None,
    "running_tasks": lambda i, _: i.running_tasks_count if i.registrations else None,
    "pending_tasks": lambda i, _: i.pending_tasks_count if i.registrations else None,
    "cpu_registered": _ecs(lambda ecs: ecs.registered.cpu),
    "cpu_remaining": _ecs(lambda ecs: ecs.remaining.cpu),
    "cpu_percent": lambda i, _: _rounded(i.cpu_percent),
    "memory_registered": _ecs(lambda ecs: ecs.registered.memory),
    "memory_remaining": _ecs(lambda ecs: ecs.remaining.memory),
    "memory_percent": lambda i, _: _rounded(i.memory_percent),
    "type": _ec2(lambda ec2: ec2.instance_type),
    "zone": _ec2(lambda ec2: ec2.availability_zone),
    "private_ip": _ec2(lambda ec2: ec2.private_ip),
    "public_ip": _ec2(lambda ec2: ec2.public_ip),
    "key_name": _ec2(lambda ec2: ec2.key_name),
    "group": _ec2(lambda ec2: ec2.auto_scaling_group_name),
    "container_instance_arn": _ecs(lambda ecs: ecs.container_instance_arn),
    "registrations": lambda i, _: len(i.registrations),
    "name": _ec2(lambda ec2: ec2.tags.get("Name", "")),
    "ipv6": _ec2(lambda ec2: ec2.ipv6_address),
    "age": lambda i, now: max(int((now - i.first_started).total_seconds()), 0) if i.first_started else None,
    "image_id": _ec2(lambda ec2: ec2.image_id),
    "launch_template_version": _template_version,
    OUTDATED: lambda i, _: i.outdated,
}
FIELDS = tuple(_FIELDS)


def fields(instance: RackInstance, now: datetime, names: Sequence[str] = FIELDS) -> dict[str, Field]:
    """Return an instance as the flat object of ``-o json``, of all fields or of some."""
    return {name: _FIELDS[name](instance, now) for name in names}


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
    return [i for i in instances if all(f.matches(_FIELDS[f.field](i, now)) for f in filters)]


def ordered(instances: Sequence[RackInstance], by: str, now: datetime) -> list[RackInstance]:
    """Sort by a field, in descending order after a ``-``; missing values come last. Raises UsageError."""
    name = by.removeprefix("-")
    require_field(name, "--sort")
    field = _FIELDS[name]
    keyed = [(field(i, now), i) for i in instances]
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
