"""A person at a terminal: a process with its own PTY, its input and its output."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence

PATIENCE = 30


class Person:
    """A process at a terminal. ``stdin`` and ``stdout`` may lead elsewhere, as pipes."""

    def __init__(
        self,
        argv: Sequence[str | bytes],
        environment: Mapping[str, str],
        *,
        size: tuple[int, int] = (80, 24),
        stdin: int | None = None,
        stdout: int | None = None,
        prepare: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.terminal, self.inner = os.openpty()
        self.seen = b""
        self._read_to = 0
        self.resize(*size)
        prepare(self.inner)
        inner = self.inner

        def take_terminal() -> None:
            fcntl.ioctl(inner, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            argv,
            env={**environment, "TERM": environment.get("TEST_TERM", "xterm")},
            stdin=inner if stdin is None else stdin,
            stdout=inner if stdout is None else stdout,
            stderr=inner,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509 - one ioctl, and no lock that a thread might hold
            pass_fds=[inner],
        )

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.terminal)
        os.close(self.inner)

    def type(self, text: str | bytes) -> None:
        os.write(self.terminal, text.encode() if isinstance(text, str) else text)

    def expect(self, pattern: str | bytes) -> re.Match[bytes]:
        """Wait until something is seen, beyond what was expected before."""
        wanted = re.compile(pattern.encode() if isinstance(pattern, str) else pattern)
        while not (found := wanted.search(self.seen, self._read_to)):
            assert self._look(PATIENCE), f"{pattern!r} is not in {self.seen[self._read_to :]!r}"
        self._read_to = found.end()
        return found

    def wait(self) -> int:
        """Look on until the process ends, and give its status as a shell would."""
        while self.process.poll() is None:
            self._look(0.05)
        while self._look(0):
            pass
        status = self.process.wait()
        return status if status >= 0 else 128 - status

    def _look(self, timeout: float) -> bool:
        if not select.select([self.terminal], [], [], timeout)[0]:
            return False
        self.seen += os.read(self.terminal, 65536)
        return True

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.inner, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, signum: signal.Signals) -> None:
        os.kill(self.process.pid, signum)

    @property
    def attributes(self) -> list[Any]:
        return termios.tcgetattr(self.inner)

    @property
    def is_raw(self) -> bool:
        return not self.attributes[3] & (termios.ICANON | termios.ECHO)

    def until(self, condition: Callable[[], bool]) -> None:
        """Look on until something holds."""
        for _ in range(PATIENCE * 50):
            if condition():
                return
            if not self._look(0.02) and self.process.poll() is not None:
                break
        raise AssertionError(f"it never came to that; seen: {self.seen!r}")
