"""`rackctl instances ssh` beside the OpenSSH client, on the same sshd, in turns.

The command line is the real one in a process of its own; AWS is in its memory, so that its calls cost nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.ssh.entry import ID
from tests.ssh.sshd import HOW_TO_INSTALL, Sshd, find_sshd, running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).parents[1]
GIB = 1024**3


@dataclass(frozen=True)
class Run:
    seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Row:
    """One line of the table. ``goal`` is the bound of ``value``, from above or, with ``at_least``, from below."""

    what: str
    ours: str
    theirs: str
    value: float
    goal: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def run(argv: Sequence[str], environment: Mapping[str, str], stdin: Path | None = None) -> Run:
    """Run a command to its end, its output thrown away; peak memory is of its largest process."""
    with open(stdin or os.devnull, "rb") as source:  # noqa: PTH123 - /dev/null is a str
        begun = time.perf_counter()
        process = subprocess.Popen(argv, env=environment, stdin=source, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, argv
    return Run(seconds, usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2))


def measure(server: Sshd, repeats: int, size: int) -> list[Row]:
    """Measure what is claimed, each of the two in turn, and give the table's rows."""
    state = server.directory / "state"
    state.mkdir()
    (state / "host_keys").write_text(f"{ID} {server.host_key}\n")
    described = {"key": str(server.key), "port": server.port, "user": server.user}
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RACKCTL_CONFIG": "/nowhere",
        "RACKCTL_STATE_DIR": str(state),
        "RACKCTL_TEST_INSTANCE": json.dumps(described),
    }
    data = server.directory / "data"
    with data.open("wb") as random:
        for _ in range(size // 2**20):
            random.write(os.urandom(2**20))

    def both(command: str, stdin: Path | None = None) -> tuple[list[Run], list[Run]]:
        argv = [sys.executable, "-m", "tests.ssh.entry", "instances", "ssh", ID, command]
        run(argv, environment, stdin)
        turns = [
            (run(argv, environment, stdin), run(server.ssh(command), environment, stdin)) for _ in range(repeats)
        ]
        return [ours for ours, _ in turns], [theirs for _, theirs in turns]

    rows = []
    for what, command, stdin, goal, at_least in (
        ("ssh ID true, whole process", "true", None, 1.0, False),
        (f"{size // 2**20} MiB down", f"cat {data}", None, 1.2, True),
        (f"{size // 2**20} MiB up", "cat > /dev/null", data, 0.75, True),
    ):
        ours, theirs = both(command, stdin)
        mine, others = median(r.seconds for r in ours), median(r.seconds for r in theirs)
        if at_least:
            shown: Callable[[float], str] = lambda seconds: f"{size / 2**20 / seconds:.0f} MiB/s"  # noqa: E731
            rows.append(Row(what, shown(mine), shown(others), others / mine, goal, at_least=True))
            peak = max(r.peak_mb for r in ours)
            rows.append(
                Row("  peak memory, MB", f"{peak:.0f}", f"{max(r.peak_mb for r in theirs):.0f}", peak, 60)
            )
        else:
            rows.append(Row(what, f"{mine * 1000:.0f} ms", f"{others * 1000:.0f} ms", mine / others, goal))
    return rows


def main(repeats: int = 7, size: int = GIB) -> list[Row]:
    """Print the table, and give its rows."""
    if find_sshd() is None:
        sys.exit(f"sshd is not installed: {HOW_TO_INSTALL}")
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as server:
        rows = measure(server, repeats, size)
    version = subprocess.run(["ssh", "-V"], check=True, capture_output=True, text=True).stderr.split(",")[0]
    print(f"{'':30}{'rackctl':>12}{version:>24}{'':>4}{'ratio':>8}  goal")
    for row in rows:
        bound = "at least" if row.at_least else "at most"
        print(
            f"{row.what:30}{row.ours:>12}{row.theirs:>24}{'':>4}{row.value:>8.2f}  "
            f"{bound} {row.goal:g}: {'met' if row.met else 'MISSED'}"
        )
    return rows


if __name__ == "__main__":
    main()
