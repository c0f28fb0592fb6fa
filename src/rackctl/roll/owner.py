"""Who holds a journal: a process, and whether its own machine knows it to be dead."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds the journal.

    ``machine`` is the same for processes that share process numbers, and ``began`` tells apart those that had the
    same number one after the other; empty if the system does not say.
    """

    who: str
    pid: int
    token: str
    machine: str = ""
    began: str = ""

    @classmethod
    def this_process(cls) -> Owner:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a user without a name, as in many containers
            user = str(os.getuid())
        pid = os.getpid()
        return cls(f"{user}@{socket.gethostname()}", pid, secrets.token_hex(8), _machine(), _began(pid) or "")

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended, as only its own machine can tell."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # another user's
        return _began(self.pid) not in {None, self.began}

    def __str__(self) -> str:
        return f"{self.who} (process {self.pid})"


@dataclass(frozen=True, slots=True)
class Operator:
    """Who has run a roll: a user and a machine, and the ARN of the AWS caller, empty where STS did not say."""

    who: str
    caller_arn: str = ""


def _machine() -> str:
    """Return what two processes share exactly if they share process numbers: the boot and the pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str | None:
    """Return when a process began, in ticks since the boot; empty for a zombie.

    None where the system does not say, as of other users' processes under some of its settings (proc(5), hidepid).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # proc_pid_stat(5): the name, in brackets, may hold anything; then the state, and as the 22nd field the start time.
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in {"Z", "X"} else fields[18]
