"""How long a server has, from the first attempt to reach it until a key has logged in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rackctl.clock import SystemClock

if TYPE_CHECKING:
    from rackctl.clock import Clock

CONNECT_TIMEOUT = 30.0
# As long as sshd's LoginGraceTime: a login may wait for an AuthorizedKeysCommand or for PAM.
LOGIN_TIMEOUT = 120.0


class Deadline:
    """One limit, in seconds, over connection, version, key exchange and login.

    The first byte must arrive within ``first_byte``; from then on there are ``login`` more for everything up to the
    login. ``total`` limits both together. `finish` ends it.
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
        self.is_heard = False

    def heard(self) -> None:
        """Note that a byte has arrived."""
        if not self.is_heard:
            self.is_heard = True
            self._limit = min(self._clock.monotonic() + self.login, self._begin + self.total)

    def finish(self) -> None:
        """Lift the limit: the key has logged in."""
        self._limit = math.inf

    @property
    def left(self) -> float:
        """The seconds that are left; 0 or less when time is up."""
        return self._limit - self._clock.monotonic()
