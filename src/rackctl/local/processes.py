"""The processes on instances: started with or without a terminal, killed with their instance."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

# Runs in an interpreter of its own before the program. In a process with threads, Python code between fork and exec may
# deadlock on a lock of a thread that the child does not have.
_PRELUDE: Final = """
import os, resource, sys
if sys.argv[1] == "tty":
    import fcntl, termios
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
os.execv(sys.argv[3], [os.fsencode(word) for word in sys.argv[3:]])
"""
_OPEN_FILES: Final = 1024


@dataclass
class Started:
    """A process and this end of its streams; with a terminal, the three are one descriptor and its copies."""

    process: subprocess.Popen[bytes]
    stdin: int
    stdout: int
    stderr: int | None


def start(
    command: Sequence[str], *, environment: Mapping[str, str], directory: Path, terminal: Terminal | None
) -> Started:
    """Start a command as the leader of a session of its own. Raises OSError."""
    ours: tuple[int, int, int | None]
    prelude = [sys.executable, "-I", "-S", "-c", _PRELUDE, "tty" if terminal else "-", str(_OPEN_FILES), *command]
    if terminal is None:
        ours, theirs = _pipes()
    else:
        master, slave = pty.openpty()
        terminal.apply(slave)
        ours, theirs = (os.dup(master), master, None), (slave, slave, slave)
    try:
        process = subprocess.Popen(
            prelude,
            stdin=theirs[0],
            stdout=theirs[1],
            stderr=theirs[2],
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
        )
    except BaseException:
        for descriptor in {d for d in ours if d is not None}:
            os.close(descriptor)
        raise
    finally:
        for descriptor in set(theirs):
            os.close(descriptor)
    return Started(process, *ours)


def _pipes() -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    (their_in, our_in), (our_out, their_out), (our_err, their_err) = (os.pipe() for _ in range(3))
    return (our_in, our_out, our_err), (their_in, their_out, their_err)


@dataclass
class Terminal:
    """A terminal as a client requests it: RFC 4254, section 6.2; its modes by the numbers of section 8."""

    name: str
    columns: int
    rows: int
    modes: Mapping[int, int]

    def apply(self, descriptor: int) -> None:
        attributes = termios.tcgetattr(descriptor)
        for number, value in self.modes.items():
            if number in _CHARACTERS and value < 256:
                # 255 disables a character.
                character = os.fpathconf(descriptor, "PC_VDISABLE") if value == 255 else value
                attributes[6][_CHARACTERS[number]] = bytes([character])
            elif number in _FLAGS:
                word, flag = _FLAGS[number]
                attributes[word] = attributes[word] | flag if value else attributes[word] & ~flag
        termios.tcsetattr(descriptor, termios.TCSANOW, attributes)
        resize(descriptor, self.columns, self.rows)


def resize(descriptor: int, columns: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def _characters() -> dict[int, int]:
    names = {
        1: "VINTR", 2: "VQUIT", 3: "VERASE", 4: "VKILL", 5: "VEOF", 6: "VEOL", 7: "VEOL2", 8: "VSTART", 9: "VSTOP",
        10: "VSUSP", 12: "VREPRINT", 13: "VWERASE", 14: "VLNEXT", 18: "VDISCARD",
    }  # fmt: skip
    return {number: getattr(termios, name) for number, name in names.items() if hasattr(termios, name)}


def _flags() -> dict[int, tuple[int, int]]:
    names = {
        0: {30: "IGNPAR", 31: "PARMRK", 32: "INPCK", 33: "ISTRIP", 34: "INLCR", 35: "IGNCR", 36: "ICRNL",
            38: "IXON", 39: "IXANY", 40: "IXOFF", 41: "IMAXBEL"},
        1: {70: "OPOST", 72: "ONLCR", 73: "OCRNL", 74: "ONOCR", 75: "ONLRET"},
        2: {90: "CS7", 91: "CS8", 92: "PARENB", 93: "PARODD"},
        3: {50: "ISIG", 51: "ICANON", 53: "ECHO", 54: "ECHOE", 55: "ECHOK", 56: "ECHONL", 57: "NOFLSH", 58: "TOSTOP",
            59: "IEXTEN", 60: "ECHOCTL", 61: "ECHOKE", 62: "PENDIN"},
    }  # fmt: skip
    found = {
        number: (word, getattr(termios, name))
        for word, flags in names.items()
        for number, name in flags.items()
        if hasattr(termios, name)
    }
    # termios has no IUTF8 before Python 3.14; Linux and macOS have the same value (RFC 8160).
    return {**found, 42: (0, 0x4000)}


_CHARACTERS: Final = _characters()
_FLAGS: Final = _flags()


def end(homes: Collection[Path], sessions: Collection[int] = ()) -> None:
    """Kill all processes with one of these homes, or in one of these sessions, as a power loss does."""
    deadline = time.monotonic() + 5
    while (found := list(_running(homes, sessions))) and time.monotonic() < deadline:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.01)


def _running(homes: Collection[Path], sessions: Collection[int]) -> Iterable[int]:
    marks = [f"HOME={home}".encode() for home in homes]
    for pid in _all_pids():
        try:
            homes_here = [entry for entry in _environment(pid) if entry.startswith(b"HOME=")]
            # The number of a session may have been reused; the processes of the new session have another home. A zombie
            # need not be killed.
            in_session = os.getsid(pid) in sessions and not homes_here and not _is_zombie(pid)
            if in_session or any(entry in marks for entry in homes_here):
                yield pid
        except (ProcessLookupError, PermissionError):
            continue


def _all_pids() -> list[int]:
    if Path("/proc/self").exists():
        return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - names are all
    listed = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=True)
    return [int(word) for word in listed.stdout.split()]


def _environment(pid: int) -> list[bytes]:
    """Return a process's environment, if the system reveals it."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:
        return False
