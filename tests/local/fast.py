"""rackctl with a clock that goes as fast as a local rack's: ``python -m tests.local.fast SPEED ARGUMENT …``

On a fast local rack, a roll's waits end sooner; this makes it read AWS more often and its timeouts shorter by the same
factor. Everything else is the command itself.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from rackctl.clock import SystemClock


@dataclass(frozen=True)
class FastClock(SystemClock):
    """A clock on which sleeping and waiting take a fraction of the time; the time of day is the real one."""

    speed: float

    def monotonic(self) -> float:
        return time.monotonic() * self.speed

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / self.speed)


def main() -> None:
    from rackctl.cli.invocation import Invocation
    from rackctl.cli.main import cli

    cli(sys.argv[2:], prog_name="rackctl", obj=Invocation(clock=FastClock(float(sys.argv[1]))))


if __name__ == "__main__":
    main()
