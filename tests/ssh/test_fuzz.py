"""A sample of `tests.ssh.fuzz`; ``make fuzz`` tries some thousand inputs."""

from __future__ import annotations

import os
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.ssh.fuzz import Fuzz
from tests.ssh.servers import serving
from tests.ssh.test_bounds import peak_of

if TYPE_CHECKING:
    import socket

    from tests.ssh.conftest import CommandLine

SEED = int(os.environ.get("RACKCTL_FUZZ_SEED", "20261126"))


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    return Fuzz(tmp_path_factory.mktemp("fuzz"))


# Some inputs are servers that fall silent, and take until the deadline.
@pytest.mark.parametrize("block", range(4))
def test_a_broken_handshake_ends_in_an_ssh_error_in_time(fuzz: Fuzz, block: int) -> None:
    outcomes = {seed: fuzz.try_(seed) for seed in range(SEED + block * 25, SEED + block * 25 + 25)}

    assert {seed: outcome.wrong for seed, outcome in outcomes.items() if outcome.wrong} == {}


# Each is a process of its own.
@pytest.mark.parametrize("number", range(5))
def test_a_broken_handshake_exits_with_255_without_a_traceback(cli: CommandLine, fuzz: Fuzz, number: int) -> None:
    chance = random.Random(SEED + number)

    def serve(sock: socket.socket) -> None:
        fuzz.raw(sock, chance)

    with serving(serve) as port:
        options = ("--host-key-check", "off", "--connect-timeout", "2")
        process = cli.popen(
            "true", options=options, instance={"port": port}, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert process.stderr
        peak = peak_of(process)
        with process.stderr as said:
            told = said.read()

    assert process.returncode == 255
    assert told.startswith(b"rackctl: ")
    assert b"Traceback" not in told
    assert peak < 100
