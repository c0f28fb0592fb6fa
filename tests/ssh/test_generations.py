"""The generations of a key that a login tries, on a real sshd."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from rackctl.keys import OneGeneration
from rackctl.ssh.login import prove
from tests.ssh.agent import running_agent
from tests.ssh.conftest import CommandLine
from tests.ssh.entry import ID, KEY_NAME, invocation
from tests.ssh.sshd import running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ssh.sshd import Sshd

# The instance was launched on the third of January.
FIRST, SECOND, THIRD, FOURTH = (f"2026010{day}T000000Z" for day in range(1, 5))
LOGIN = {"MaxAuthTries": "4", "LogLevel": "VERBOSE"}


def failures(server: Sshd) -> int:
    return (server.directory / "sshd.log").read_text().count("Failed publickey")


@pytest.fixture
def keys(sshd: Sshd, tmp_path: Path) -> dict[str, str]:
    """The paths of private keys: the one that is let in, and two others."""
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    return {"right": str(sshd.key), "wrong": str(sshd.directory / "host_ed25519"), "other": str(other)}


@pytest.mark.parametrize(
    ("stored", "refused"),
    [
        ({FIRST: "wrong", THIRD: "right", FOURTH: "other"}, 0),
        ({SECOND: "right", THIRD: "wrong", FOURTH: "other"}, 1),
        ({SECOND: "wrong", THIRD: "other", FOURTH: "right"}, 2),
        ({FOURTH: "right"}, 0),
    ],
    ids=["expected", "before", "after", "only-later"],
)
def test_the_neighbours_of_the_expected_generation_are_tried(
    sshd: Sshd, tmp_path: Path, keys: dict[str, str], stored: dict[str, str], refused: int
) -> None:
    """LaunchTime is that of the last start, and clocks differ (DescribeInstances, LaunchTime)."""
    with running(sshd.directory, **LOGIN) as server:
        before = failures(server)
        ran = CommandLine(server, tmp_path).ssh(
            "echo in", instance={"generations": {time: keys[which] for time, which in stored.items()}}
        )
        tried = failures(server) - before

    assert (ran.returncode, ran.stdout) == (0, b"in\n")
    assert tried == refused


def test_no_more_than_the_neighbours_are_tried(sshd: Sshd, tmp_path: Path, keys: dict[str, str]) -> None:
    stored = {FIRST: "right", SECOND: "wrong", THIRD: "other"}
    with running(sshd.directory, **LOGIN) as server:
        ran = CommandLine(server, tmp_path).ssh(
            "true", instance={"generations": {time: keys[which] for time, which in stored.items()}}
        )

    assert ran.returncode == 255
    assert f"refused 2 generations of key {KEY_NAME}" in ran.stderr.decode()


def test_a_proof_with_one_generation_tries_no_neighbour(sshd: Sshd, tmp_path: Path, keys: dict[str, str]) -> None:
    """An instance that was launched with the old key of this name must not pass for one that has the new one."""
    stored = {SECOND: keys["right"], THIRD: keys["wrong"]}
    made = invocation({"key": keys["right"], "generations": stored, "port": sshd.port, "user": sshd.user})
    instance = next(made.rack.aws.ec2.instances_by_id([ID]))

    proofs = [
        prove(made.rack, OneGeneration(made.keys, generation), instance, state_directory=tmp_path).outcome
        for generation in (datetime(2026, 1, day, tzinfo=UTC) for day in (2, 3))
    ]

    assert proofs == ["accepted", "refused"]


def test_openssh_tries_the_same_generations_by_the_configuration(
    sshd: Sshd, tmp_path: Path, keys: dict[str, str]
) -> None:
    stored = {"generations": {SECOND: keys["right"], THIRD: keys["wrong"], FOURTH: keys["other"]}}
    cli = CommandLine(sshd, tmp_path / "state")
    with running_agent() as surroundings:
        environment = cli.environment(**stored) | surroundings
        ran = cli.run("ssh-agent", "add", environment=environment)
        assert ran.stdout.count(b"added ") == 3
        config = tmp_path / "config"
        config.write_bytes(cli.run("ssh-config", environment=environment).stdout)
        assert config.read_text().count("  IdentityFile ") == 3

        seen = subprocess.run(
            ["ssh", "-F", config, "-o", "BatchMode=yes", ID, "echo in"],
            env=environment,
            capture_output=True,
            check=False,
        )

        assert (seen.returncode, seen.stdout) == (0, b"in\n"), seen.stderr
        removed = cli.run("ssh-agent", "remove", environment=environment)
        assert removed.stdout.decode() == f"removed {KEY_NAME}\n"
        listed = subprocess.run(["ssh-add", "-l"], env=environment, capture_output=True, text=True, check=False)
        assert "no identities" in listed.stdout
