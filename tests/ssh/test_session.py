"""A command's streams and its exit status, over a real sshd: rows of the ssh contract, by their names."""

from __future__ import annotations

import fcntl
import os
import resource
import shlex
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.ssh.entry import ID

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ssh.conftest import CommandLine

EVERY_BYTE = bytes(range(256)) * 12_000


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_exit_status(cli: CommandLine, status: int) -> None:
    result = cli.ssh(f"exit {status}")

    assert (result.returncode, result.stdout, result.stderr) == (status, b"", b"")


@pytest.mark.parametrize(("name", "status"), [("TERM", 143), ("KILL", 137)])
def test_killed_by_signal(cli: CommandLine, name: str, status: int) -> None:
    result = cli.ssh(f"kill -{name} $$")

    assert (result.returncode, result.stderr) == (status, b"")


def test_no_status_when_the_server_is_killed(cli: CommandLine) -> None:
    pipe = subprocess.PIPE
    process = cli.popen("echo before; read line; kill -9 $PPID; sleep 60", stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdout
    assert process.stdout.readline() == b"before\n"

    out, said = process.communicate(b"now\n", timeout=60)

    assert (process.returncode, out) == (255, b"")
    assert said.startswith(f"rackctl: the connection to {ID} (127.0.0.1 port".encode())
    assert b"was lost" in said
    assert b"Traceback" not in said


def test_stderr_apart(cli: CommandLine) -> None:
    result = cli.ssh("echo out; echo err >&2")

    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")


def test_30_mb_of_stderr_before_any_stdout(cli: CommandLine) -> None:
    result = cli.ssh("head -c 30000000 /dev/zero >&2; echo out")

    assert (result.returncode, result.stdout, len(result.stderr)) == (0, b"out\n", 30_000_000)


def test_stdin_end_half_closes(cli: CommandLine) -> None:
    assert cli.ssh("wc -l; echo after", input=b"a\nb\n").stdout == b"2\nafter\n"


def test_binary_both_ways_3_mb_of_every_byte_value(cli: CommandLine) -> None:
    result = cli.ssh("cat", input=EVERY_BYTE)

    assert result.returncode == 0
    assert result.stdout == EVERY_BYTE


def test_filter_that_answers_200_times_its_input(cli: CommandLine) -> None:
    lines = b"0123456789\n" * 10_000

    result = cli.ssh("awk '{for (i = 0; i < 200; i++) print}'", input=lines)

    assert result.returncode == 0
    assert len(result.stdout) == 200 * len(lines)


def test_closed_stdin_with_sockets_opened_later(cli: CommandLine) -> None:
    script = shlex.join(map(str, cli.argv("ssh", ID, "cat; echo read nothing"))) + " <&-"

    result = subprocess.run(["bash", "-c", script], env=cli.environment(), capture_output=True, check=False, timeout=60)

    assert (result.returncode, result.stdout, result.stderr) == (0, b"read nothing\n", b"")


def test_all_three_streams_closed(cli: CommandLine, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script = shlex.join(map(str, cli.argv("ssh", ID, f"cat; echo out; echo err >&2; echo x > {seen}; exit 6")))

    result = subprocess.run(["bash", "-c", f"{script} <&- >&- 2>&-"], env=cli.environment(), check=False, timeout=60)

    assert result.returncode == 6
    assert seen.read_text() == "x\n"


def test_stdin_from_dev_null(cli: CommandLine) -> None:
    assert cli.ssh("cat; echo ended", stdin=subprocess.DEVNULL).stdout == b"ended\n"


def test_n_reads_no_stdin(cli: CommandLine) -> None:
    assert cli.ssh("cat; echo ended", options=["-n"], input=b"unread").stdout == b"ended\n"


def test_stdin_left_open_by_a_background_job(cli: CommandLine) -> None:
    reading, writing = os.pipe()
    try:
        assert cli.ssh("echo done", stdin=reading).stdout == b"done\n"
    finally:
        os.close(reading)
        os.close(writing)


def pipeline(cli: CommandLine, script: str) -> list[str]:
    """Run a script of bash in which $SSH is `rackctl instances ssh ID`; give its lines and then its PIPESTATUS."""
    ssh = shlex.join(map(str, cli.argv("ssh", ID)))
    result = subprocess.run(
        ["bash", "-c", f"{script.replace('$SSH', ssh)}; echo ${{PIPESTATUS[*]}}"],
        env=cli.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.stderr == ""
    return result.stdout.splitlines()


def test_local_reader_gone(cli: CommandLine) -> None:
    assert pipeline(cli, "$SSH yes </dev/null | head -1") == ["y", "141 0"]


def test_local_reader_gone_and_a_remote_that_ignores_sigpipe_keeps_its_own_status(cli: CommandLine) -> None:
    assert pipeline(cli, "$SSH 'trap \"\" PIPE; yes 2>/dev/null; exit 5' </dev/null | head -1") == ["y", "5 0"]


def test_remote_stops_reading(cli: CommandLine) -> None:
    assert pipeline(cli, "yes | $SSH head -1") == ["y", "141 0"]


def test_remote_stops_reading_while_more_is_written_to_it(cli: CommandLine) -> None:
    assert pipeline(cli, "yes | $SSH cat | head -1") == ["y", "141 141 0"]


def test_waits_for_the_streams_to_end(cli: CommandLine) -> None:
    result = cli.ssh("(sleep 1; echo late) & echo started")

    assert (result.returncode, result.stdout) == (0, b"started\nlate\n")


def test_stdout_closed_early_exit_9_later(cli: CommandLine) -> None:
    assert cli.ssh("exec >&- 2>&-; sleep 0.3; exit 9").returncode == 9


def test_argv_joined_by_spaces(cli: CommandLine) -> None:
    assert cli.ssh("echo", "a  b", "'c  d'", '"$((1 + 1))"').stdout == b"a b c  d 2\n"


@pytest.mark.parametrize(
    "word", [b"\xff\xfe", b"\xc3\xa9", b"it's", b'a "quoted" word', b"two\nlines", b"$HOME", b"x" * 120_000]
)
def test_argv_bytes_untouched(cli: CommandLine, word: bytes) -> None:
    quoted = b"'" + word.replace(b"'", b"'\\''") + b"'"

    result = cli.ssh("printf %s", quoted)

    assert (result.returncode, result.stdout, result.stderr) == (0, word, b"")


def test_options_after_the_id_are_the_commands(cli: CommandLine) -> None:
    assert cli.ssh("echo", "-t", "--help", "-r", "x", "--").stdout == b"-t --help -r x --\n"


def test_one_double_dash_after_the_id_is_dropped(cli: CommandLine) -> None:
    assert cli.ssh("--", "echo", "--", "a").stdout == b"-- a\n"


def test_an_empty_command_is_a_shell(cli: CommandLine) -> None:
    result = cli.ssh("", input=b"echo from the shell\n")

    assert result.stdout == b"from the shell\n"


# Opening so many takes the child process a moment.
def test_1100_inherited_descriptors(cli: CommandLine, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2048:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
    script = "import os, sys; [os.dup2(0, n) for n in range(3, 1103)]; os.execvp(sys.argv[1], sys.argv[1:])"

    result = subprocess.run(
        ["python3", "-c", script, *cli.argv("ssh", ID, "cat; exit 4")],
        env=cli.environment(),
        input=EVERY_BYTE,
        capture_output=True,
        check=False,
        close_fds=False,
        timeout=60,
    )

    assert (result.returncode, result.stderr) == (4, b"")
    assert result.stdout == EVERY_BYTE


def test_non_blocking_stdout_and_stdin(cli: CommandLine) -> None:
    reading, writing = os.pipe()
    out_reading, out_writing = os.pipe()
    for descriptor in (reading, out_writing):
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_NONBLOCK)
    process = cli.popen("head -c 3000000 /dev/zero; cat", stdin=reading, stdout=out_writing)
    os.close(out_writing)
    os.close(reading)
    with os.fdopen(writing, "wb") as into, os.fdopen(out_reading, "rb") as out:
        first = out.read(3_000_000)
        into.write(b"late input")
        into.close()
        rest = out.read()

    assert (process.wait(60), len(first), rest) == (0, 3_000_000, b"late input")


def test_a_full_disk_with_stderr_on_it(cli: CommandLine) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - an unbuffered descriptor is all that is wanted
        process = cli.popen("echo data", stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 255
    assert b"cannot write the output of i-" in said
    assert b"No space left" in said


def test_an_unwritable_stderr_does_not_change_the_status(cli: CommandLine) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - an unbuffered descriptor is all that is wanted
        process = cli.popen("true", stdin=subprocess.DEVNULL, stderr=full, instance={"state": "stopped"})

    assert process.wait(timeout=60) == 255


def test_a_full_disk_is_named_in_the_error_of_a_list(cli: CommandLine) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - an unbuffered descriptor is all that is wanted
        ran = subprocess.run(
            cli.argv(), env=cli.environment(), stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )

    assert (ran.returncode, ran.stderr) == (1, b"rackctl: cannot write the output: No space left on device\n")


def test_a_list_with_stdout_closed_is_no_error(cli: CommandLine) -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *cli.argv()]
    ran = subprocess.run(command, env=cli.environment(), stderr=subprocess.PIPE, check=False, timeout=60)

    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_without_a_terminal(cli: CommandLine, signum: signal.Signals) -> None:
    process = cli.popen("echo up; sleep 60", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"up\n"

    process.send_signal(signum)
    _, said = process.communicate(timeout=60)

    assert process.returncode in {128 + signum, -signum}
    assert said == b""


def test_rsync_works_with_it_as_remote_shell(cli: CommandLine, tmp_path: Path) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("`rsync` is not installed: `sudo apt-get install rsync` installs it")
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "data").write_bytes(EVERY_BYTE)
    shell = shlex.join(map(str, cli.argv("ssh")))
    argv = ["rsync", "-a", "-e", shell, f"{here}/", f"{cli.server.user}@{ID}:{there}/"]

    ran = subprocess.run(argv, env=cli.environment(), capture_output=True, check=False, timeout=60)

    assert (ran.returncode, ran.stderr) == (0, b"")
    assert (there / "data").read_bytes() == EVERY_BYTE
