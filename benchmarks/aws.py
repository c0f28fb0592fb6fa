"""rackctl beside AWS's own tools, on the same server, in turns."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.request import urlopen

from benchmarks.server import CLUSTER, ec2_instance_id
from benchmarks.table import Row, Run, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
RACKCTL = str(Path(PYTHON).with_name("rackctl"))
AWS = str(Path(PYTHON).with_name("aws"))
DELAY = 0.03

Environment = dict[str, str]


def rows(repeats: int) -> list[Row]:
    """Measure everything that does not need an sshd."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            "HOME": home,
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "RACKCTL_RACK": CLUSTER,
        }
        return [*_starting(environment, repeats), *_listing(environment, repeats), _connecting(environment, repeats)]


def _starting(environment: Environment, repeats: int) -> list[Row]:
    (ours, theirs) = in_turns(
        [([RACKCTL, "--help"], environment), ([PYTHON, "-c", "import click"], environment)], repeats
    )
    rows = [_row("rackctl --help", 'python -c "import click"', _seconds(ours), _seconds(theirs), 1.5)]
    with serving(3, 0, environment) as here:
        commands = [RACKCTL, "instances"], [AWS, "ecs", "list-container-instances", "--cluster", CLUSTER]
        (ours, theirs) = in_turns([(command, here) for command in commands], repeats)
    against = "aws ecs list-container-instances"
    return [*rows, _row("rackctl instances, 3 instances", against, _seconds(ours), _seconds(theirs), 0.5)]


def _listing(environment: Environment, repeats: int) -> list[Row]:
    commands = [RACKCTL, "instances"], [PYTHON, str(ROOT / "benchmarks" / "plain_boto3.py")]
    with serving(1000, DELAY, environment) as at_1000, serving(5000, DELAY, environment) as at_5000:
        ours, theirs, ours_5000, theirs_5000 = in_turns(
            [(command, here) for here in (at_1000, at_5000) for command in commands], repeats
        )
        before = calls(at_5000)
        run(commands[0], at_5000)
        made = calls(at_5000) - before
    against = "plain boto3"
    further = [
        (_seconds(at_5000) - _seconds(at_1000)) / 4000
        for at_1000, at_5000 in ((ours, ours_5000), (theirs, theirs_5000))
    ]
    peaks = [median(run.peak_mb for run in runs) for runs in (ours_5000, theirs_5000)]
    allowed = 2 * ceil(5000 / 100) + ceil(5000 / 1000) + 2
    return [
        _row("the same, 1,000 instances, 30 ms a call", against, _seconds(ours), _seconds(theirs), 0.6),
        _row("the same, 5,000 instances, 30 ms a call", against, _seconds(ours_5000), _seconds(theirs_5000), 0.6),
        Row(
            "- each further instance, 1,000 to 5,000",
            *(f"{further[0] * 1000:.2f} ms", against, f"{further[1] * 1000:.2f} ms"),
            *(further[0] / further[1], 0.35),
        ),
        Row(
            "- peak memory at 5,000",
            *(f"{peaks[0]:.0f} MB", against, f"{peaks[1]:.0f} MB"),
            *(peaks[0] / peaks[1], 0.45),
        ),
        Row("- calls at 5,000", str(made), "2⌈N/100⌉ + ⌈N/1000⌉ + 2", str(allowed), made / allowed, 1),
    ]


def _connecting(environment: Environment, repeats: int) -> Row:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        with serving(3, 0, {**environment, "SSH_PORT": port}) as here:
            command = [RACKCTL, "instances", "ssh", ec2_instance_id(1), "true"]
            until_connected(listener, command, here)
            ours, theirs = [], []
            for _ in range(repeats):
                ours.append(until_connected(listener, command, here))
                theirs.append(run([PYTHON, "-c", "import boto3, paramiko"], environment).seconds)
    return _row(
        "ssh ID true, until it connects", 'python -c "import boto3, paramiko"', median(ours), median(theirs), 1.4
    )


def until_connected(listener: socket.socket, command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Tell how long a command takes to connect to a listener, which hangs up on it."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    connection, _ = listener.accept()
    seconds = time.perf_counter() - begun
    connection.close()
    process.wait()
    return seconds


def in_turns(commands: Sequence[tuple[Sequence[str], Environment]], repeats: int) -> list[list[Run]]:
    """Run each command once to warm up, then each after the other so many times, and give the runs of each."""
    for command, environment in commands:
        run(command, environment)
    rounds = [[run(command, environment) for command, environment in commands] for _ in range(repeats)]
    return [list(runs) for runs in zip(*rounds, strict=True)]


@contextmanager
def serving(instances: int, delay: float, environment: Environment) -> Iterator[Environment]:
    """Run a server, in a process of its own, and give the environment that leads to it."""
    argv = [PYTHON, "-m", "benchmarks.server", str(instances), str(delay)]
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield {**environment, "AWS_ENDPOINT_URL": server.stdout.readline().strip()}
        finally:
            server.terminate()


def calls(environment: Environment) -> int:
    """Ask a server how many calls it has answered."""
    with urlopen(environment["AWS_ENDPOINT_URL"] + "/calls", timeout=10) as answer:
        return sum(json.load(answer).values())


def _seconds(runs: Sequence[Run]) -> float:
    return median(run.seconds for run in runs)


def _row(what: str, against: str, ours: float, theirs: float, goal: float) -> Row:
    return Row(what, f"{ours * 1000:.0f} ms", against, f"{theirs * 1000:.0f} ms", ours / theirs, goal)
