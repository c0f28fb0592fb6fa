"""What goes wrong on purpose between a client and the APIs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from rackctl.local.world.base import validation_error
from rackctl.local.world.conditions import CONDITIONS, INCIDENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

KINDS: Final = {
    "throttle": "answer with the service's own throttling error",
    "error": "answer with an error code",
    "delay": "answer after so many seconds",
    "late": "answer a read of EC2, Auto Scaling or ECS as it was so many of AWS's seconds ago",
    "drop-before": "drop the connection and carry nothing out",
    "drop-after": "carry the call out, then drop the connection without an answer",
    "hang-before": "hold the call until its caller is gone, and carry nothing out",
    "hang-after": "carry the call out, then hold the answer until the caller is gone",
}


def known() -> dict[str, dict[str, tuple[str, str]]]:
    """Give every fault by its name, in three kinds: each with what it is aimed at, and what it does."""
    return {
        "Calls to the API (TARGET is SERVICE:ACTION, with * and ?)": {
            name: ("TARGET", text) for name, text in KINDS.items()
        },
        "Conditions, in force until they are cleared": {
            name: (f"[{argument}]" if argument else "", text) for name, (text, argument) in CONDITIONS.items()
        },
        "What happens to an instance, once": {name: ("INSTANCE", text) for name, text in INCIDENTS.items()},
    }


# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/throttling.html and the services' common errors
THROTTLING: Final = {
    "ec2": ("RequestLimitExceeded", "Request limit exceeded.", 503),
    "autoscaling": ("Throttling", "Rate exceeded", 400),
    "ecs": ("ThrottlingException", "Rate exceeded", 400),
    "kms": ("ThrottlingException", "You have exceeded the rate at which you may call KMS.", 400),
    "s3": ("SlowDown", "Please reduce your request rate.", 503),
    "sts": ("Throttling", "Rate exceeded", 400),
}


@dataclass
class Fault:
    """One thing that goes wrong.

    ``pattern`` is ``service:Action`` with wildcards. ``count`` is how often it still happens (None: for ever),
    ``skip`` how many calls it lets pass first, ``probability`` how likely it is each time. ``mutating`` keeps it
    to calls that change something.
    """

    number: int
    kind: str
    pattern: str
    code: str = "InternalFailure"
    status: int = 500
    seconds: float = 1.0
    count: int | None = None
    skip: int = 0
    probability: float = 1.0
    mutating: bool = False


class Faults:
    """What is to go wrong with calls; ``calls`` names all that there can be, each as ``service:Action``."""

    def __init__(self, calls: Callable[[], Collection[str]], seed: int | None = None) -> None:
        self._calls = calls
        self._faults: dict[int, Fault] = {}
        self._number = 0
        self._random = random.Random(seed)  # noqa: S311 - chance, not secrets

    def __iter__(self) -> Iterator[Fault]:
        return iter(list(self._faults.values()))

    def add(self, kind: str, pattern: str, **details: Any) -> Fault:
        """Add a fault. Raises Refused for one that makes no sense."""
        if kind not in KINDS:
            raise validation_error(f"there is no fault {kind}; there are {', '.join(KINDS)}")
        service, colon, action = pattern.partition(":")
        if not service or not colon or not action:
            raise validation_error(f'"{pattern}" is not SERVICE:ACTION, for example ecs:* or ec2:DescribeInstances')
        calls = self._calls()
        if not any(fnmatchcase(call.lower(), pattern.lower()) for call in calls):
            like = ", ".join(get_close_matches(pattern, calls)) or "ecs:*, ec2:Describe*"
            raise validation_error(f'the local rack has no call "{pattern}"; there are, for example, {like}')
        if kind == "late" and service.lower() not in {"ec2", "autoscaling", "ecs"}:
            raise validation_error("only answers of ec2, autoscaling and ecs can be late")
        try:
            fault = Fault(self._number + 1, kind, pattern, **details)
        except TypeError as error:
            raise validation_error(str(error)) from error
        self._number += 1
        self._faults[fault.number] = fault
        return fault

    def clear(self, number: int | None = None) -> int:
        """Remove a fault, or all of them; give how many that were."""
        gone = [n for n in self._faults if number in {None, n}]
        for n in gone:
            del self._faults[n]
        return len(gone)

    def befalling(self, call: str, *, mutating: bool) -> list[Fault]:
        """Give what goes wrong with a call, in the order it was added, and count it as having happened."""
        happening = []
        for fault in list(self._faults.values()):
            if not fnmatchcase(call.lower(), fault.pattern.lower()) or (fault.mutating and not mutating):
                continue
            if self._random.random() >= fault.probability:
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            if fault.count is not None:
                fault.count -= 1
                if fault.count <= 0:
                    del self._faults[fault.number]
            happening.append(fault)
        return happening
