"""Clocks whose time passes only in sleep()."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class FakeClock:
    at: datetime = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += timedelta(seconds=seconds)


class Passing(FakeClock):
    """A clock that makes changes at certain times, in seconds from the start."""

    def __init__(self, *changes: tuple[float, Callable[[], object]]) -> None:
        super().__init__()
        self.start = self.monotonic()
        self.changes = list(changes)

    @property
    def passed(self) -> float:
        return self.monotonic() - self.start

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        while self.changes and self.passed >= self.changes[0][0]:
            self.changes.pop(0)[1]()
