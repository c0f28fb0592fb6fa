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
    with connect(target_of(sshd), lambda: Key(sshd.key.read_bytes()), check_of(sshd, tmp_path)) as made:
        yield made


def one_pipe(connection: Connection, command: str) -> bytes:
    """Run a command with both streams in one pipe, as ``2>&1`` has it."""
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor
        write = to_descriptor(writing)
        session = Session(connection, command.encode(), stdin=None, stdout=write, stderr=write, one_place=True)
        session.result.add_done_callback(lambda _: os.close(writing))
        return pipe.read()


# Sixty login shells take some seconds.
def test_an_error_comes_after_the_steps_before_it_40_times_of_40(connection: Connection) -> None:
    assert [one_pipe(connection, STEPS) for _ in range(40)] == [IN_ORDER] * 40


def test_an_error_comes_after_the_steps_before_it_20_times_of_20_under_load(connection: Connection) -> None:
    with load():
        assert [one_pipe(connection, STEPS) for _ in range(20)] == [IN_ORDER] * 20


# Ten processes of each take some seconds.
def test_the_command_line_writes_in_order_where_both_lead_to_one_place_as_openssh_does(cli: CommandLine) -> None:
    def run(argv: list[str | bytes] | list[str]) -> bytes:
        both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL}
        ran: subprocess.CompletedProcess[bytes] = subprocess.run(argv, env=cli.environment(), check=False, **both)
        return ran.stdout

    assert [run(cli.argv("ssh", ID, STEPS)) for _ in range(10)] == [IN_ORDER] * 10
    assert [run(cli.server.ssh(STEPS)) for _ in range(10)] == [IN_ORDER] * 10


def test_run_writes_in_order_where_both_lead_to_one_place(cli: CommandLine) -> None:
    argv = cli.argv("run", ID, "--", STEPS)
    ran = subprocess.run(argv, env=cli.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)

    lines = ran.stdout.splitlines()[:4]
    assert lines == [f"{ID}: ".encode() + line for line in IN_ORDER.splitlines()]


def test_both_streams_of_any_size_are_whole_and_in_order(connection: Connection) -> None:
    # Long enough for windows, packets and pipes to be full.
    letters = "head -c {} /dev/zero | tr '\\0' {}"
    steps = f"{letters.format(3_000_000, 'a')}; {letters.format(1_000_000, 'b')} >&2"
    command = f"for i in 1 2 3 4; do {steps}; done"
    got = one_pipe(connection, command)

    assert len(got) == 16_000_000
    assert (got.count(b"a"), got.count(b"b")) == (12_000_000, 4_000_000)


def test_a_stdout_that_nobody_reads_does_not_hold_up_stderr(cli: CommandLine) -> None:
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
