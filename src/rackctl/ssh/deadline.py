"""The time limit from the start of a connection to the end of its login."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rackctl.clock import SystemClock

if TYPE_CHECKING:
    from rackctl.clock import Clock

CONNECT_TIMEOUT = 30.0
# The default of sshd's LoginGraceTime: a login may wait for an AuthorizedKeysCommand or for PAM.
LOGIN_TIMEOUT = 120.0


class Deadline:
    """One limit, in seconds, for connection, version, key exchange and login together.

    The first byte must arrive within ``first_byte`` seconds, and the login must end ``login`` seconds after it.
    ``total`` limits both together.
    """

    def __init__(
        self,
        first_byte: float = CONNECT_TIMEOUT,
        login: float = LOGIN_TIMEOUT,
        *,
        total: float = math.inf,
        clock: Clock | None = None,
    ) -> None:
        self.first_byte, self.login, self.total = first_byte, login, total
        self._clock = clock or SystemClock()
        self._begin = self._clock.monotonic()
        self._limit = self._begin + min(first_byte, total)
        self.has_received = False

    def received(self) -> None:
        """Record that a byte has arrived: the limit for the login begins."""
        if not self.has_received:
            self.has_received = True
            self._limit = min(self._clock.monotonic() + self.login, self._begin + self.total)

    def finish(self) -> None:
        """Remove the limit: the login has succeeded."""
        self._limit = math.inf

    @property
    def left(self) -> float:
        """The remaining seconds; 0 or less after the limit."""
        return self._limit - self._clock.monotonic()
