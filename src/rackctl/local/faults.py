"""Injected faults of API calls."""

from __future__ import annotations

import random
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from rackctl.local.s3_operations import S3_ACTIONS
from rackctl.local.world.base import validation_error
from rackctl.local.world.conditions import CONDITIONS, INCIDENTS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from rackctl.local.iam_policy import Need

CALLS: Final = {
    "throttle": "answer with the service's own throttling error",
    "error": "answer with an error code",
    "conflict": "answer S3's conditional requests with 409 ConditionalRequestConflict",
    "delay": "delay the answer by --seconds",
    "drop-before": "drop the connection without carrying out the call",
    "drop-after": "carry out the call, then drop the connection without an answer",
    "hang-before": "never answer, and do not carry out the call",
    "hang-after": "carry out the call, then never answer",
}
SPOILED: Final = {
    "cut": "send half of the answer's body, then close the connection",
    "truncate": "send half of the answer's body, with its length as Content-Length",
    "drip": "send the answer a byte at a time, --seconds apart",
    "html": "answer 200 with the HTML page of a captive portal",
    "object": "answer 200 with {}",
    "null": "answer 200 with null",
    "blank": "answer 200 with no body",
    "no-content": "answer 204",
    "garbage": "answer 200 with a meaningless body",
    "gzip-junk": "answer 200 with Content-Encoding gzip and a body that is not gzip",
    "two-dates": "send the header Date twice",
}
ANSWERS: Final = {
    "empty": "answer with all lists emptied",
    "incomplete": "leave one item out of the answer: the first, or the one with the id, ARN or name --which",
    "late": "answer a read of EC2, Auto Scaling or ECS with the state --seconds ago (AWS's seconds)",
    "same-token": "answer each page with the first page and the same next token, endlessly",
    **SPOILED,
}
DENIALS: Final = {"deny": "deny every call that needs this IAM action, with its service's message"}
# IAM actions that have no call of the same name.
EXTRA_ACTIONS: Final = (
    *("iam:PassRole", "kms:ReEncryptFrom", "kms:ReEncryptTo"),
    *sorted({f"s3:{action}" for action in S3_ACTIONS.values()}),
)
KINDS: Final = {**CALLS, **ANSWERS, **DENIALS}


def known() -> dict[str, dict[str, tuple[str, str]]]:
    """Return all faults by name, in groups, each with its target and its effect."""
    groups = {
        "Calls to the API (TARGET is SERVICE:ACTION, with * and ?)": CALLS,
        "Answers of the API (TARGET likewise)": ANSWERS,
        "Permissions (TARGET is an IAM action, for example ec2:RunInstances)": DENIALS,
    }
    return {
        **{title: {name: ("TARGET", text) for name, text in kinds.items()} for title, kinds in groups.items()},
        "Conditions, in force until they are cleared": {
            name: (f"[{argument}]" if argument else "", text) for name, (text, argument) in CONDITIONS.items()
        },
        "Incidents of an instance, once": {name: ("INSTANCE", text) for name, text in INCIDENTS.items()},
    }


# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/throttling.html and the services' common errors
THROTTLING: Final = {
    "ec2": ("RequestLimitExceeded", "Request limit exceeded.", 503),
    "autoscaling": ("Throttling", "Rate exceeded", 400),
    "cloudwatch": ("ThrottlingException", "Rate exceeded", 400),
    "ecs": ("ThrottlingException", "Rate exceeded", 400),
    "iam": ("Throttling", "Rate exceeded", 400),
    "ssm": ("ThrottlingException", "Rate exceeded", 400),
    "kms": ("ThrottlingException", "You have exceeded the rate at which you may call KMS.", 400),
    "s3": ("SlowDown", "Please reduce your request rate.", 503),
    "sts": ("Throttling", "Rate exceeded", 400),
}


@dataclass
class Fault:
    """One injected fault.

    ``pattern`` is ``service:Action`` with wildcards, of a call, or for "deny" of an IAM action. ``which`` is the item
    that an incomplete answer leaves out. ``count`` is the number of remaining injections (None: no limit), ``skip`` the
    number of calls that pass first, ``probability`` that of each injection. ``mutating`` restricts it to calls that
    change something.
    """

    number: int
    kind: str
    pattern: str
    code: str = "InternalFailure"
    status: int = 0
    seconds: float = 1.0
    which: str = ""
    count: int | None = None
    skip: int = 0
    probability: float = 1.0
    mutating: bool = False


class Faults:
    """The injected faults; ``calls`` returns all valid calls, each as ``service:Action``."""

    def __init__(self, calls: Callable[[], Collection[str]], seed: int | None = None) -> None:
        self._calls = calls
        self._faults: dict[int, Fault] = {}
        self._number = 0
        self._random = random.Random(seed)  # noqa: S311 - chance, not secrets

    def __iter__(self) -> Iterator[Fault]:
        return iter(list(self._faults.values()))

    def add(self, kind: str, pattern: str, **details: Any) -> Fault:
        """Add a fault. Raises Refused if it is invalid."""
        if kind not in KINDS:
            raise validation_error(f"there is no fault {kind}; the faults are {', '.join(KINDS)}")
        service, colon, action = pattern.partition(":")
        if not service or not colon or not action:
            raise validation_error(f'"{pattern}" is not SERVICE:ACTION, for example ecs:* or ec2:DescribeInstances')
        calls = [*self._calls(), *(EXTRA_ACTIONS if kind in DENIALS else ())]
        if not any(fnmatchcase(call.lower(), pattern.lower()) for call in calls):
            like = ", ".join(get_close_matches(pattern, calls)) or "ecs:*, ec2:Describe*"
            raise validation_error(f'the local rack has no call "{pattern}"; it has, for example, {like}')
        if kind == "late" and service.lower() not in {"ec2", "autoscaling", "ecs"}:
            raise validation_error("only answers of ec2, autoscaling and ecs can be late")
        try:
            fault = Fault(self._number + 1, kind, pattern, **details)
        except TypeError as error:
            raise validation_error(str(error)) from error
        fault.status = fault.status or _status_of(service.lower(), fault.code)
        self._number += 1
        self._faults[fault.number] = fault
        return fault

    def clear(self, number: int | None = None) -> int:
        """Remove a fault, or all of them; return their number."""
        gone = [n for n in self._faults if number in {None, n}]
        for n in gone:
            del self._faults[n]
        return len(gone)

    def befalling(self, call: str, *, mutating: bool, conditional: bool = False) -> list[Fault]:
        """Return the faults of a call, in the order in which they were added, and count each as injected."""
        return [
            fault
            for fault in self
            if fault.kind not in DENIALS
            and fnmatchcase(call.lower(), fault.pattern.lower())
            and (mutating or not fault.mutating)
            and (conditional or fault.kind != "conflict")
            and self._happens(fault)
        ]

    def denied(self, needs: Iterable[Need], *, mutating: bool) -> Need | None:
        """Return the first IAM action that a fault denies, and count that fault as injected."""
        denying = [f for f in self if f.kind in DENIALS and (mutating or not f.mutating)]
        for need in needs if denying else ():
            for fault in denying:
                if fnmatchcase(need.action.lower(), fault.pattern.lower()) and self._happens(fault):
                    return need
        return None

    def denies(self, action: str) -> bool:
        """Return whether a fault denies an IAM action; it is not counted as injected."""
        return any(f.kind in DENIALS and fnmatchcase(action.lower(), f.pattern.lower()) for f in self)

    def _happens(self, fault: Fault) -> bool:
        if self._random.random() >= fault.probability:
            return False
        if fault.skip:
            fault.skip -= 1
            return False
        if fault.count is not None:
            fault.count -= 1
            if fault.count <= 0:
                self._faults.pop(fault.number, None)
        return True


@cache
def _status_of(service: str, code: str) -> int:
    """Return the HTTP status of an error in a service's model; 500 if it has none."""
    from botocore.loaders import Loader

    if service not in THROTTLING:
        return 500
    shapes = Loader().load_service_model(service, "service-2")["shapes"].values()
    errors = [shape.get("error", {}) for shape in shapes if shape.get("exception")]
    return next((int(error["httpStatusCode"]) for error in errors if error.get("code") == code), 500)
