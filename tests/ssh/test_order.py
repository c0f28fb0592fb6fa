"""stdout and stderr are written in the order in which they arrive."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.ssh.connect import Connection, connect
from rackctl.ssh.session import Session, to_descriptor
from tests.ssh.entry import ID
from tests.ssh.test_connect import Key, check_of, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ssh.conftest import CommandLine
    from tests.ssh.sshd import Sshd

STEPS = "for i in 1 2 3; do echo step $i; done; echo ERROR >&2; exit 1"
IN_ORDER = b"step 1\nstep 2\nstep 3\nERROR\n"


@contextmanager
def load() -> Iterator[None]:
    """Keep more processes busy than there are processors."""
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range((os.cpu_count() or 1) + 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.fixture
def connection(sshd: Sshd, tmp_path: Path) -> Iterator[Connection]:
    with connect(target_of(sshd), [Key(sshd.key.read_bytes())], check_of(sshd, tmp_path)) as made:
        yield made


def one_pipe(connection: Connection, command: str) -> bytes:
    """Run a command with both streams in one pipe, as ``2>&1`` has it."""
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor
        write = to_descriptor(writing)
        session = Session(connection, command.encode(), stdin=None, stdout=write, stderr=write, one_place=True)
        session.result.add_done_callback(lambda _: os.close(writing))
        return pipe.read()


def steps(connection: Connection, times: int) -> list[bytes]:
    """Run the steps so often; give what each run wrote, without what the login shell's own files may have."""
    return [b"step 1" + one_pipe(connection, STEPS).partition(b"step 1")[2] for _ in range(times)]


# Sixty login shells take some seconds.
def test_stderr_follows_the_stdout_before_it_40_times_of_40(connection: Connection) -> None:
    assert steps(connection, 40) == [IN_ORDER] * 40


def test_stderr_follows_the_stdout_before_it_20_times_of_20_under_load(connection: Connection) -> None:
    with load():
        assert steps(connection, 20) == [IN_ORDER] * 20


# Ten processes of each take some seconds.
def test_with_2_to_1_the_order_is_that_of_openssh(cli: CommandLine) -> None:
    def run(argv: list[str | bytes] | list[str]) -> bytes:
        both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        ran: subprocess.CompletedProcess[bytes] = subprocess.run(argv, env=cli.environment(), check=False, **both)
        return b"step 1" + ran.stdout.partition(b"step 1")[2]

    assert [run(cli.argv("ssh", ID, STEPS)) for _ in range(10)] == [IN_ORDER] * 10
    assert [run(cli.server.ssh(STEPS)) for _ in range(10)] == [IN_ORDER] * 10


def test_run_keeps_the_order_with_2_to_1(cli: CommandLine) -> None:
    argv = cli.argv("run", ID, "--", STEPS)
    ran = subprocess.run(argv, env=cli.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)

    lines = ran.stdout.splitlines()[:4]
    assert lines == [f"{ID}: ".encode() + line for line in IN_ORDER.splitlines()]


def test_large_outputs_on_both_streams_are_complete(connection: Connection) -> None:
    # Long enough for windows, packets and pipes to be full.
    letters = "head -c {} /dev/zero | tr '\\0' {}"
    both = f"{letters.format(3_000_000, 'a')}; {letters.format(1_000_000, 'b')} >&2"
    command = f"for i in 1 2 3 4; do {both}; done"
    got = one_pipe(connection, command)

    assert len(got) == 16_000_000
    assert (got.count(b"a"), got.count(b"b")) == (12_000_000, 4_000_000)


def test_an_unread_stdout_does_not_block_stderr(cli: CommandLine) -> None:
    process = cli.popen(
        "head -c 1000000 /dev/zero; echo error >&2",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr
    assert process.stdout
    with process.stderr as errors, process.stdout as output:
        assert errors.readline() == b"error\n"
        assert len(output.read()) == 1_000_000
    assert process.wait(30) == 0
