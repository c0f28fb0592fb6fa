"""Run an operator's command after each batch, beside the heartbeats; if it fails, the roll stops.

The command comes from the command line of the process that runs it, and from nowhere else: no tag, no config file and
no journal can make a machine run one.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Protocol, TypeAlias

from rackctl.errors import RackctlError, Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rackctl.roll.hold import Hold
    from rackctl.roll.report import Event

# A command that writes faster than it is read waits; a line without an end is cut.
_LINES = 1000
_LINE_BYTES = 4096
# How long a command may take to end once it is asked to, and its output to come once it has ended, in seconds.
_ENDS_WITHIN = 5.0
_SAYS_WITHIN = 1.0


class Running(Protocol):
    """A command under way."""

    def status(self) -> int | None:
        """Return its exit status, as a shell would: None while it runs."""

    def lines(self) -> list[str]:
        """Return the lines that it has written since this was asked last."""

    def stop(self) -> None:
        """End it, if it still runs."""


# Begins a command, with some variables added to its environment.
Check: TypeAlias = "Callable[[Mapping[str, str]], Running]"


class ShellCommand:
    """A command for the shell, in the environment that rackctl was started in. It reads nothing from the terminal."""

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment

    def __call__(self, variables: Mapping[str, str]) -> Running:
        try:
            process = subprocess.Popen(
                ["/bin/sh", "-c", self._command],
                env={**self._environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Ctrl-C stops the roll at a safe point, which ends it.
                start_new_session=True,
            )
        except OSError as error:
            raise RackctlError(f"the check could not be started: {error}") from error
        return _Process(process)


class _Process:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._read: queue.Queue[str] = queue.Queue(_LINES)
        assert process.stdout
        self._reader = threading.Thread(target=self._follow, args=(process.stdout,), name="check", daemon=True)
        self._reader.start()

    def _follow(self, output: IO[bytes]) -> None:
        with output:
            while line := output.readline(_LINE_BYTES):
                self._read.put(line.decode("utf-8", "replace").rstrip("\r\n"))

    def status(self) -> int | None:
        status = self._process.poll()
        if status is None or self._read.full():
            return None
        # What it has left running may keep its output open.
        self._reader.join(_SAYS_WITHIN)
        return 128 - status if status < 0 else status

    def lines(self) -> list[str]:
        found: list[str] = []
        with suppress(queue.Empty):
            while len(found) < _LINES:
                found.append(self._read.get_nowait())
        return found

    def stop(self) -> None:
        if self._process.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDS_WITHIN)
                break
        self.lines()  # or the last one waits to be read for ever
        self._reader.join(_SAYS_WITHIN)


def run_check(hold: Hold, check: Check, group: str, ec2_instance_ids: Sequence[str]) -> Iterator[Event]:
    """Run a check after a batch, and yield what it writes. Raises RackctlError if it fails, Timeout, StopNow."""
    limit, began = hold.journal.options.check_timeout, hold.clock.monotonic()
    yield hold.event("check", "running the check", group=group)
    running = check(
        {
            "RACKCTL_RACK": hold.journal.rack,
            "RACKCTL_ROLL_GROUP": group,
            "RACKCTL_ROLL_INSTANCES": " ".join(ec2_instance_ids),
            "RACKCTL_ROLL_DONE": str(hold.progress.done),
            "RACKCTL_ROLL_TOTAL": str(hold.journal.total),
        }
    )
    try:
        while True:
            status = running.status()
            for line in running.lines():
                yield hold.event("check", f"check: {line}", group=group)
            if status is not None:
                break
            if hold.clock.monotonic() - began >= limit:
                raise Timeout(
                    f"the check after a batch did not end within {limit:g} s",
                    hint="continue with a longer --check-timeout, or without it (--no-check)",
                )
            hold.short_pause()
    finally:
        running.stop()
    if status:
        # What it has written stays here: the error goes into the journal.
        raise RackctlError(
            f"the check after a batch failed with exit status {status}",
            hint="find out what is wrong; resume runs the check again before the next batch",
        )
    yield hold.event("check", "the check succeeded", group=group)
