"""rackctl beside AWS's own tools, on the same server, in turns."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from urllib.request import urlopen

from benchmarks.server import CLUSTER
from benchmarks.table import Row, Run, run
from benchmarks.tls import bundle, issue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
RACKCTL = str(Path(PYTHON).with_name("rackctl"))
AWS = str(Path(PYTHON).with_name("aws"))
# The latency of AWS from another city: seconds for each answer, and for each connection before its handshake.
DELAY = 0.03
CONNECT_DELAY = 0.06

Environment = dict[str, str]


def rows(repeats: int) -> list[Row]:
    """Measure everything that does not need an sshd."""
    with surroundings() as environment:
        return [*_starting(environment, repeats), *_listing(environment, repeats)]


@contextmanager
def surroundings() -> Iterator[Environment]:
    """Return an environment with credentials for the server, and with its authority in the usual bundle."""
    with tempfile.TemporaryDirectory() as home:
        issue(Path(home))
        yield {
            "HOME": home,
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CA_BUNDLE": str(bundle(Path(home))),
            "RACKCTL_RACK": CLUSTER,
        }


def _starting(environment: Environment, repeats: int) -> list[Row]:
    (ours, theirs) = in_turns(
        [([RACKCTL, "--help"], environment), ([PYTHON, "-c", "import click"], environment)], repeats
    )
    return [_row("rackctl --help", 'python -c "import click"', _seconds(ours), _seconds(theirs), 1.2)]


def _listing(environment: Environment, repeats: int) -> list[Row]:
    rackctl, boto3 = [RACKCTL, "instances"], [PYTHON, str(ROOT / "benchmarks" / "plain_boto3.py")]
    aws = [AWS, "ecs", "list-container-instances", "--cluster", CLUSTER]
    with (
        serving(3, environment) as near,
        serving(3, environment, DELAY, CONNECT_DELAY) as far,
        serving(1000, environment, DELAY, CONNECT_DELAY) as at_1000,
        serving(5000, environment, DELAY, CONNECT_DELAY) as at_5000,
    ):
        few = in_turns([(command, where) for where in (near, far) for command in (rackctl, aws)], repeats)
        many = in_turns([(command, where) for where in (at_1000, at_5000) for command in (rackctl, boto3)], repeats)
        before = calls(at_5000)
        run(rackctl, at_5000)
        made = calls(at_5000) - before
    ours, theirs, ours_5000, theirs_5000 = many
    further = [(_seconds(more) - _seconds(less)) / 4000 for less, more in ((ours, ours_5000), (theirs, theirs_5000))]
    peaks = [median(run.peak_mb for run in runs) for runs in (ours_5000, theirs_5000)]
    allowed = 2 * ceil(5000 / 100) + ceil(5000 / 1000) + 2
    cli, sdk = "aws ecs list-container-instances", "plain boto3"
    return [
        _row("rackctl instances, 3 instances", cli, _seconds(few[0]), _seconds(few[1]), 0.36),
        _row("the same, from far away", cli, _seconds(few[2]), _seconds(few[3]), 0.52),
        _row("1,000 instances, from far away", sdk, _seconds(ours), _seconds(theirs), 0.5),
        _row("5,000 instances, from far away", sdk, _seconds(ours_5000), _seconds(theirs_5000), 0.5),
        Row(
            "- each further instance, 1,000 to 5,000",
            *(f"{further[0] * 1000:.2f} ms", sdk, f"{further[1] * 1000:.2f} ms"),
            *(further[0] / further[1], 0.4),
        ),
        Row("- peak memory at 5,000", f"{peaks[0]:.0f} MB", sdk, f"{peaks[1]:.0f} MB", peaks[0] / peaks[1], 0.8),
        Row("- calls at 5,000", str(made), "2⌈N/100⌉ + ⌈N/1000⌉ + 2", str(allowed), made / allowed, 1),
    ]


def in_turns(commands: Sequence[tuple[Sequence[str], Environment]], repeats: int) -> list[list[Run]]:
    """Run each command once to warm up, then all in turns, a number of times; return the runs of each."""
    for command, environment in commands:
        run(command, environment)
    rounds = [[run(command, environment) for command, environment in commands] for _ in range(repeats)]
    return [list(runs) for runs in zip(*rounds, strict=True)]


@contextmanager
def serving(
    instances: int, environment: Environment, delay: float = 0.0, connect_delay: float = 0.0
) -> Iterator[Environment]:
    """Run a server as a process; yield the environment of its clients."""
    argv = [PYTHON, "-m", "benchmarks.server", str(instances), str(delay), str(connect_delay), environment["HOME"]]
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        try:
            yield {**environment, "AWS_ENDPOINT_URL": server.stdout.readline().strip()}
        finally:
            server.terminate()


def calls(environment: Environment) -> int:
    """Return the number of calls that a server has answered."""
    trusting = ssl.create_default_context(cafile=environment["AWS_CA_BUNDLE"])
    with urlopen(environment["AWS_ENDPOINT_URL"] + "/calls", timeout=10, context=trusting) as answer:
        return sum(json.load(answer).values())


def _seconds(runs: Sequence[Run]) -> float:
    return median(run.seconds for run in runs)


def _row(what: str, against: str, ours: float, theirs: float, goal: float) -> Row:
    return Row(what, f"{ours * 1000:.0f} ms", against, f"{theirs * 1000:.0f} ms", ours / theirs, goal)
