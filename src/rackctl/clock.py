"""Time as a parameter: nothing else in rackctl sleeps or reads a clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from rackctl.errors import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Seconds between two looks at a change that AWS carries out, and seconds for which AWS's answers may lag behind a
# change: its APIs are eventually consistent.
POLL = 3.0
LAG = 20.0


class Clock(Protocol):
    def now(self) -> datetime:
        """Return the time of day, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never decrease; for durations."""

    def sleep(self, seconds: float) -> None:
        """Wait this many seconds."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def wait_until(
    probe: Callable[[], T | None],
    *,
    clock: Clock,
    timeout: float,
    interval: float,
    what: Callable[[], str],
    notify: Callable[[str], None],
) -> T:
    """Call ``probe`` until it returns something other than None, and return that.

    ``timeout`` and ``interval`` are seconds of ``clock``. The probe runs at least once, and once more at the deadline.
    ``what`` completes "waiting for" and "gave up after … waiting for", and can name the last state seen. ``notify`` is
    called once if there is a wait. Raises Timeout.
    """
    deadline = clock.monotonic() + timeout
    said = False
    while True:
        result = probe()
        if result is not None:
            return result
        left = deadline - clock.monotonic()
        if left <= 0:
            raise Timeout(f"gave up after {timeout:g} s waiting for {what()}")
        if not said:
            said = True
            notify(f"waiting for {what()}")
        clock.sleep(min(interval, left))
