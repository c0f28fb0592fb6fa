"""`rackctl instances ssh-agent`: keys into a real agent, and out of it."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import RackctlError
from rackctl.ssh.openssh import Agent
from tests.ssh.agent import keys_in, running_agent
from tests.ssh.entry import KEY_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ssh.conftest import CommandLine

B = "i-0b0000000000000bb"


@pytest.fixture
def agent() -> Iterator[dict[str, str]]:
    with running_agent() as environment:
        yield environment


def fingerprint(cli: CommandLine) -> str:
    ran = subprocess.run(["ssh-keygen", "-lf", f"{cli.server.key}.pub"], capture_output=True, text=True, check=True)
    return ran.stdout.split()[1]


def test_add_loads_and_lists_the_instances_keys(cli: CommandLine, agent: dict[str, str]) -> None:
    ran = cli.run("ssh-agent", "add", instance={"others": {B: {}}}, environment=agent)

    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.decode() == f"added {KEY_NAME} {fingerprint(cli)} for 1h\n"
    assert keys_in(agent) == [fingerprint(cli)]


def test_a_key_leaves_the_agent_when_its_lifetime_ends(cli: CommandLine, agent: dict[str, str]) -> None:
    ran = cli.run("ssh-agent", "add", "--lifetime", "1s", environment=agent)

    assert ran.stdout.decode().endswith(" for 1s\n")
    # Time is the agent's own here: the test takes that second.
    while keys_in(agent):
        pass


def test_remove_takes_out_the_racks_keys_and_no_other(cli: CommandLine, agent: dict[str, str], tmp_path: Path) -> None:
    other = f"{tmp_path}/other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    subprocess.run(["ssh-add", "-q", other], env=agent, check=True)
    cli.run("ssh-agent", "add", environment=agent)

    first, again = (cli.run("ssh-agent", "remove", environment=agent) for _ in range(2))

    assert (first.returncode, first.stdout.decode()) == (0, f"removed {KEY_NAME}\n")
    assert (again.returncode, again.stdout.decode()) == (0, f"{KEY_NAME} is not in the agent\n")
    assert len(keys_in(agent)) == 1
    assert fingerprint(cli) not in keys_in(agent)


@pytest.mark.parametrize("word", ["add", "remove"])
def test_a_key_that_fails_does_not_hide_the_others(cli: CommandLine, agent: dict[str, str], word: str) -> None:
    ran = cli.run("ssh-agent", word, instance={"others": {B: {"key_name": "another"}}}, environment=agent)

    assert ran.returncode == 3
    assert ran.stderr.decode().startswith("rackctl: another: ")
    assert KEY_NAME in ran.stdout.decode()


@pytest.mark.parametrize(
    ("sock", "says"), [("", "SSH_AUTH_SOCK is not set"), ("/nowhere", "SSH_AUTH_SOCK is /nowhere: No such file")]
)
def test_a_missing_agent_is_reported_with_the_remedy(cli: CommandLine, sock: str, says: str) -> None:
    ran = cli.run("ssh-agent", "add", environment={"SSH_AUTH_SOCK": sock})

    assert (ran.returncode, ran.stdout) == (1, b"")
    assert f"rackctl: there is no ssh-agent: {says}" in ran.stderr.decode()
    assert 'eval "$(ssh-agent)"' in ran.stderr.decode()


@contextmanager
def at_socket(answer: bytes | None) -> Iterator[dict[str, str]]:
    """Listen where an agent would, and answer so, or not at all."""
    with tempfile.TemporaryDirectory(prefix="agent") as directory, socket.socket(socket.AF_UNIX) as listening:
        path = f"{directory}/socket"
        listening.bind(path)
        listening.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    other = listening.accept()[0]
                    kept.append(other)
                    other.recv(1000)
                    if answer is not None:
                        other.sendall(answer)
                        other.close()

        kept: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        yield {**os.environ, "SSH_AUTH_SOCK": path}
        listening.shutdown(socket.SHUT_RDWR)
        for other in kept:
            other.close()


def test_a_stale_agent_socket_is_reported(cli: CommandLine) -> None:
    with tempfile.TemporaryDirectory(prefix="agent") as directory, socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{directory}/socket")
        ran = cli.run("ssh-agent", "add", environment={"SSH_AUTH_SOCK": f"{directory}/socket"})

    assert ran.returncode == 1
    assert b"the agent may have ended" in ran.stderr


def test_a_socket_that_is_not_an_agent_gets_no_key(cli: CommandLine) -> None:
    with at_socket(b"HTTP/1.1 400 Bad Request\r\n\r\n") as environment:
        ran = cli.run("ssh-agent", "add", environment=environment)

    assert (ran.returncode, ran.stdout) == (1, b"")
    assert b"is not an agent" in ran.stderr


def test_an_agent_that_does_not_answer_times_out() -> None:
    with at_socket(None) as environment, pytest.raises(RackctlError, match=r"did not answer within 0\.3 s"):
        Agent(environment, timeout=0.3).require()


def test_another_users_agent_gets_no_key(agent: dict[str, str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a socket away")
    os.chown(agent["SSH_AUTH_SOCK"], 12345, -1)
    with pytest.raises(RackctlError, match=r"belongs to another user \(uid 12345\)"):
        Agent({**os.environ, **agent}).require()


def test_a_missing_ssh_add_is_reported_with_the_remedy(cli: CommandLine, agent: dict[str, str]) -> None:
    ran = cli.run("ssh-agent", "add", environment={**agent, "PATH": "/nowhere"})

    assert ran.returncode == 1
    assert b"cannot run `ssh-add`" in ran.stderr


@pytest.mark.parametrize("lifetime", ["0s", "600000h"])
def test_an_unlimited_lifetime_is_refused(cli: CommandLine, agent: dict[str, str], lifetime: str) -> None:
    ran = cli.run("ssh-agent", "add", "--lifetime", lifetime, environment=agent)

    assert ran.returncode == 2
    assert keys_in(agent) == []


def test_a_locked_agent_is_a_failure(cli: CommandLine, agent: dict[str, str], tmp_path: Path) -> None:
    # ssh-add asks for the password through SSH_ASKPASS where it has no terminal.
    password = tmp_path / "password"
    password.write_text("#!/bin/sh\necho secret\n")
    password.chmod(0o755)
    asked = {**os.environ, **agent, "SSH_ASKPASS": str(password), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", "-x"], env=asked, check=True, capture_output=True)

    ran = cli.run("ssh-agent", "add", environment=agent)

    assert ran.returncode == 1
    assert b"`ssh-add` failed" in ran.stderr
