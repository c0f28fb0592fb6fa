"""Ids, errors, clock and scheduled events, which the parts of a world share."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Final

# The IAM user of the credentials.
USER: Final = "rackctl-local"


class Refused(Exception):
    """An AWS error response: code, message and HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status

    @property
    def message(self) -> str:
        return str(self)


def validation_error(message: str) -> Refused:
    return Refused("ValidationError", message)


class Ids:
    """Generates ids in AWS's formats; the same seed gives the same ids."""

    def __init__(self, seed: int | None = None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - names, not secrets

    def hex(self, digits: int) -> str:
        return f"{self._random.getrandbits(4 * digits):0{digits}x}"

    def ec2(self, prefix: str) -> str:
        return f"{prefix}-0{self.hex(16)}"

    def uuid(self) -> str:
        h = self.hex(32)
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-8{h[17:20]}-{h[20:]}"


@dataclass(order=True, frozen=True, slots=True)
class _Due:
    at: float
    number: int
    part: str
    method: str
    arguments: tuple[object, ...]


class Schedule:
    """Scheduled events. An entry names the method that it calls, so that a world can be pickled."""

    def __init__(self) -> None:
        self._due: list[_Due] = []
        self._number = 0

    def add(self, at: float, part: str, method: str, arguments: tuple[object, ...]) -> None:
        self._number += 1
        heappush(self._due, _Due(at, self._number, part, method, arguments))

    def next(self) -> float | None:
        return self._due[0].at if self._due else None

    def put_off(self, seconds: float) -> None:
        """Postpone all events."""
        self._due = [replace(due, at=due.at + seconds) for due in self._due]

    def pop(self, until: float) -> _Due | None:
        return heappop(self._due) if self._due and self._due[0].at <= until else None


class Commons:
    """Names, clock, ids, conditions and events, which the parts of a world share.

    Durations are AWS's, divided by ``speed``; times are epoch seconds. The parts see the world as this base class.
    """

    def __init__(self, region: str, account_id: str, *, now: float, speed: float, seed: int | None) -> None:
        self.region = region
        self.account_id = account_id
        self.now = now
        self.speed = speed
        self.version = 0
        self.conditions: dict[str, str] = {}
        # The state of each CloudWatch alarm, and the reason; the alarms themselves are moto's.
        self.alarms: dict[str, tuple[str, str]] = {}
        self.ids = Ids(seed)
        self.schedule = Schedule()
        self._subscribers: dict[str, list[str]] = {}

    def after(self, seconds: float, part: str, method: str, *arguments: object) -> None:
        """Schedule ``world.<part>.<method>(*arguments)`` after a number of AWS's seconds."""
        self.schedule.add(self.now + seconds / self.speed, part, method, arguments)

    def second(self) -> float:
        """Return the time in whole seconds, as EC2 reports it."""
        return math.floor(self.now * self.speed) / self.speed

    def changed(self) -> None:
        self.version += 1

    def subscribe(self, part: str, *events: str) -> None:
        """Call ``world.<part>.<event>`` on each of these events."""
        for event in events:
            self._subscribers.setdefault(event, []).append(part)

    def tell(self, event: str, *arguments: object) -> None:
        for part in self._subscribers.get(event, ()):
            getattr(getattr(self, part), event)(*arguments)
