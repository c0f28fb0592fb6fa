"""`rackctl instances ssh` compared with the OpenSSH client, on the same sshd, in turns.

The command line is the real one, as a process; AWS is in its memory, so that its calls take no time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.ssh.entry import ID
from tests.ssh.sshd import HOW_TO_INSTALL, Sshd, find_sshd, running

from benchmarks.aws import PYTHON, RACKCTL, serving, surroundings
from benchmarks.server import ec2_instance_id
from benchmarks.table import Row, Run, run, show

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
GIB = 1024**3


def measure(server: Sshd, repeats: int, size: int) -> list[Row]:
    """Measure the two in turns, and return the table's rows."""
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
        turns = [(run(argv, environment, stdin), run(server.ssh(command), environment, stdin)) for _ in range(repeats)]
        return [ours for ours, _ in turns], [theirs for _, theirs in turns]

    version = subprocess.run(["ssh", "-V"], check=True, capture_output=True, text=True).stderr.split(",")[0]
    rows = []
    for what, command, stdin, goal, at_least in (
        ("ssh ID true, without AWS", "true", None, 0.9, False),
        (f"{size // 2**20} MiB down", f"cat {data}", None, 1.2, True),
        (f"{size // 2**20} MiB up", "cat > /dev/null", data, 0.75, True),
    ):
        ours, theirs = both(command, stdin)
        mine, others = median(r.seconds for r in ours), median(r.seconds for r in theirs)
        if at_least:
            shown: Callable[[float], str] = lambda seconds: f"{size / 2**20 / seconds:.0f} MiB/s"  # noqa: E731
            rows.append(Row(what, shown(mine), version, shown(others), others / mine, goal, at_least=True))
            peak = max(r.peak_mb for r in ours)
            # The goal is in MB, not a ratio.
            rows.append(
                Row(
                    "- its peak memory, MB",
                    f"{peak:.0f}",
                    version,
                    f"{max(r.peak_mb for r in theirs):.0f}",
                    peak,
                    60,
                )
            )
        else:
            rows.append(Row(what, f"{mine * 1000:.0f} ms", version, f"{others * 1000:.0f} ms", mine / others, goal))
    return rows


def whole_command(server: Sshd, repeats: int) -> Row:
    """Measure `ssh ID true` with its calls to AWS, which answers at once and over TLS."""
    state = server.directory / "aws-state"
    state.mkdir(mode=0o700)
    id_ = ec2_instance_id(1)
    (state / "host_keys").write_text(f"{id_} {server.host_key}\n")
    with (
        surroundings() as environment,
        serving(3, {**environment, "SSH_PORT": str(server.port), "SSH_USER": server.user}) as aws,
    ):
        here = {**aws, "RACKCTL_STATE_DIR": str(state), "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required"}
        stored = subprocess.run(
            [PYTHON, "-m", "benchmarks.store_key"], cwd=ROOT, env=here, check=True, stdout=subprocess.PIPE, text=True
        )
        with (server.directory / "authorized_keys").open("a") as authorized:
            authorized.write(stored.stdout)
        argv = [RACKCTL, "instances", "ssh", id_, "true"]
        run(argv, here)
        turns = [(run(argv, here), run(server.ssh("true"), here)) for _ in range(repeats)]
    ours, theirs = (median(runs.seconds for runs in of) for of in zip(*turns, strict=True))
    version = subprocess.run(["ssh", "-V"], check=True, capture_output=True, text=True).stderr.split(",")[0]
    what = "ssh ID true, with AWS over TLS"
    return Row(what, f"{ours * 1000:.0f} ms", version, f"{theirs * 1000:.0f} ms", ours / theirs, 1.4)


def rows(repeats: int = 7, size: int = GIB) -> list[Row]:
    """Start an sshd, and measure."""
    if find_sshd() is None:
        sys.exit(f"sshd is not installed: {HOW_TO_INSTALL}")
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as server:
        return [whole_command(server, repeats), *measure(server, repeats, size)]


if __name__ == "__main__":
    show(rows())
