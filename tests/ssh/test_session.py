"""A command's streams and exit status, over a real sshd: the rows of the ssh contract, by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.ssh.conftest import CommandLine


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_exit_status(cli: CommandLine, status: int) -> None:
    result = cli.ssh(f"exit {status}")

    assert (result.returncode, result.stdout, result.stderr) == (status, b"", b"")


@pytest.mark.parametrize(("name", "status"), [("TERM", 143), ("KILL", 137)])
def test_killed_by_signal(cli: CommandLine, name: str, status: int) -> None:
    assert cli.ssh(f"kill -{name} $$").returncode == status


def test_stderr_apart(cli: CommandLine) -> None:
    result = cli.ssh("echo out; echo err >&2")

    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


def test_stdin_end_half_closes(cli: CommandLine) -> None:
    assert cli.ssh("wc -l; echo after", input=b"a\nb\n").stdout == b"2\nafter\n"
