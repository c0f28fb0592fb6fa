"""A person at a real terminal, over a real sshd: rows of the ssh contract, by their names."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from rackctl.ssh.terminal import QUIT, Escapes
from tests.ssh.entry import ID
from tests.ssh.person import Person
from tests.ssh.sshd import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.ssh.conftest import CommandLine
    from tests.ssh.sshd import Sshd

TTY = "test -t 0 && echo in; test -t 1 && echo out; echo ."

# It says so when it is the terminal's foreground job, and would get what is typed.
SLEEP = "sh -c 'echo as\"\"leep; exec sleep 60'"


def at_terminal(cli: CommandLine, *words: str, **more: object) -> Person:
    return Person(cli.argv("ssh", *words), cli.environment(), **more)  # type: ignore[arg-type]


@pytest.fixture
def shell(cli: CommandLine) -> Iterator[Person]:
    """A person in a shell on the instance, whose prompt is READY."""
    with at_terminal(cli, ID) as person:
        person.until(lambda: person.is_raw)
        person.type("exec env PS1='REA''DY ' bash --norc --noprofile --noediting\r")
        person.expect("READY ")
        yield person


def test_no_pty_for_a_command(cli: CommandLine) -> None:
    with at_terminal(cli, ID, TTY) as person:
        assert person.wait() == 0
        assert person.seen == b".\r\n"
        assert not person.is_raw


def test_pty_for_a_shell_on_a_terminal(shell: Person) -> None:
    shell.type(f"{TTY}\r")
    shell.expect("in\r\nout\r\n.\r\n")


def test_t_requests_a_pty_for_a_command(cli: CommandLine) -> None:
    with at_terminal(cli, "-t", ID, TTY) as person:
        assert person.wait() == 0
        assert person.seen.startswith(b"in\r\nout\r\n.\r\n")


def test_capital_t_requests_no_pty(cli: CommandLine) -> None:
    with at_terminal(cli, "-T", ID) as person:
        person.type(f"{TTY}\nexit 4\n")
        person.expect(r"\n\.\r\n")
        assert person.wait() == 4
        assert b"\nin\r\n" not in person.seen


def test_stdout_alone_a_terminal_gives_no_pty(cli: CommandLine) -> None:
    with at_terminal(cli, ID, stdin=subprocess.PIPE) as person:
        assert person.process.stdin
        person.process.stdin.write(f"{TTY}\nexit 4\n".encode())
        person.process.stdin.close()
        assert person.wait() == 4
        assert b"Pseudo-terminal will not be allocated because stdin is not a terminal." in person.seen
        assert b"\nin\r\n" not in person.seen


def test_stdin_alone_a_terminal_gives_a_pty(cli: CommandLine) -> None:
    with at_terminal(cli, "-t", ID, TTY, stdout=subprocess.PIPE) as person:
        assert person.process.stdout
        with person.process.stdout:
            assert person.process.stdout.read() == b"in\r\nout\r\n.\r\n"
        assert person.wait() == 0
        assert not person.is_raw


def test_tt_gives_a_pty_without_a_terminal(cli: CommandLine) -> None:
    assert cli.ssh(TTY, options=["-tt"]).stdout == b"in\r\nout\r\n.\r\n"
    assert cli.ssh(TTY, options=["-t"]).stdout == b".\n"


def test_pty_modes_and_term_are_sent(cli: CommandLine) -> None:
    def odd(terminal: int) -> None:
        modes = termios.tcgetattr(terminal)
        modes[0] |= 0x4000
        modes[3] &= ~termios.ECHOE
        modes[6][termios.VERASE] = b"\x08"
        modes[6][termios.VQUIT] = b"\x00"
        termios.tcsetattr(terminal, termios.TCSANOW, modes)

    with Person(
        cli.argv("ssh", "-t", ID, "stty -a; echo TERM=$TERM"),
        cli.environment() | {"TEST_TERM": "screen-256color"},
        prepare=odd,
    ) as person:
        assert person.wait() == 0
        for expected in (b" iutf8", b"erase = ^H", b"quit = <undef>", b"-echoe ", b"\nisig ", b"TERM=screen-256color"):
            assert expected in person.seen


def test_the_size_is_sent(cli: CommandLine) -> None:
    with at_terminal(cli, "-t", ID, "stty size", size=(123, 45)) as person:
        assert person.wait() == 0
        assert person.seen.startswith(b"45 123\r\n")


def test_term_unset(cli: CommandLine) -> None:
    with Person(["env", "-u", "TERM", *cli.argv("ssh", "-t", ID, "echo TERM=$TERM")], cli.environment()) as person:
        assert person.wait() == 0
        assert person.seen.startswith(b"TERM=dumb\r\n")


def test_term_is_sent_as_the_bytes_it_is(cli: CommandLine) -> None:
    environment = {**cli.environment(), "TEST_TERM": "xt\udcffrm"}
    with Person(cli.argv("ssh", "-t", ID, "printf %s $TERM | od -An -tx1"), environment) as person:
        assert person.wait() == 0
        assert person.seen.startswith(b" 78 74 ff 72 6d\r\n")


def test_a_refused_pty_continues_without_one(sshd: Sshd, cli: CommandLine) -> None:
    with running(sshd.directory, PermitTTY="no") as server:
        ours, theirs = cli.at(server), Person(server.ssh(), dict(os.environ))
        with at_terminal(ours, ID) as person, theirs as openssh:
            for one in (person, openssh):
                one.type("test -t 0 || echo none; exit 3\r")
                assert one.wait() == 3
                assert b"none\r\n" in one.seen
            assert b"refused a terminal" in person.seen
            assert not person.is_raw


def test_a_refused_pty_with_tt_is_an_error(sshd: Sshd, cli: CommandLine) -> None:
    with running(sshd.directory, PermitTTY="no") as server:
        ours = cli.at(server).ssh("exit 3", options=["-tt"])
        theirs = subprocess.run(server.ssh("-tt", "exit 3"), capture_output=True, check=False)

    assert (ours.returncode, theirs.returncode) == (255, 255)
    assert b"refused a terminal" in ours.stderr


def test_interrupt_inside(shell: Person) -> None:
    shell.type(f"{SLEEP}\r")
    shell.expect("asleep\r\n")
    shell.type(b"\x03")
    shell.expect("READY ")
    shell.type("echo $?\r")
    shell.expect("130\r\n")
    assert shell.process.poll() is None


def test_end_of_file_inside(shell: Person) -> None:
    shell.type("cat; echo after cat\r")
    shell.expect("after cat\r\n")
    shell.type(b"\x04")
    shell.expect("after cat\r\n")
    shell.type("(exit 7)\r")
    shell.expect("READY ")
    shell.type(b"\x04")
    assert shell.wait() == 7


def test_suspend_inside(shell: Person) -> None:
    shell.type(f"{SLEEP}\r")
    shell.expect("asleep\r\n")
    shell.type(b"\x1a")
    shell.expect("Stopped")
    shell.expect("READY ")
    shell.type("kill %1; echo here\r")
    shell.expect("\nhere\r\n")


def test_typed_ahead(cli: CommandLine) -> None:
    with at_terminal(cli, ID) as person:
        person.type("echo typed a''head; exit 3\n")
        person.expect("typed ahead\r\n")
        assert person.wait() == 3


def test_background_job_then_exit(shell: Person) -> None:
    shell.type("sleep 60 & exit 5\r")
    assert shell.wait() == 5


def test_only_the_closing_message_is_left_on_the_terminal(cli: CommandLine) -> None:
    with at_terminal(cli, "-t", ID, "exit 2") as person:
        assert person.wait() == 2
        assert person.seen == f"rackctl: the connection to {ID} is closed\r\n".encode()


def test_3000_resizes(shell: Person) -> None:
    for step in range(3000):
        shell.resize(80 + step % 60, 24)
        shell.signal(signal.SIGWINCH)
    shell.resize(111, 37)
    shell.signal(signal.SIGWINCH)

    shell.type("while [ \"$(stty size)\" != '37 111' ]; do sleep 0.1; done; echo the right s''ize\r")
    shell.expect("the right size\r\n")
    shell.type("exit\r")
    assert shell.wait() == 0


@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGQUIT, 131)],
    ids=str,
)
def test_signals_while_raw_restore_the_terminal(shell: Person, signum: signal.Signals, status: int) -> None:
    shell.signal(signum)

    assert shell.wait() == status
    assert not shell.is_raw


def test_lost_connection_while_raw_restores_the_terminal(shell: Person) -> None:
    shell.type("kill -9 $PPID\r")

    assert shell.wait() == 255
    assert b"was lost" in shell.seen
    assert not shell.is_raw


def test_a_terminal_that_hangs_up_ends_it(cli: CommandLine) -> None:
    person = at_terminal(cli, ID)
    person.until(lambda: person.is_raw)
    os.close(person.terminal)
    os.close(person.inner)

    # The kernel sends SIGHUP to the session of a terminal that has gone.
    assert person.process.wait(60) in {129, -signal.SIGHUP}


@pytest.fixture
def local_shell(cli: CommandLine) -> Iterator[Person]:
    """A person in a local shell with job control, that has opened a shell on the instance from there."""
    argv = ["env", "PS1=LOC''AL ", "bash", "--norc", "--noprofile", "--noediting", "-i"]
    with Person(argv, {**cli.environment(), "PS1": "LOCAL "}) as person:
        person.type(f"PS1='LOC''AL '; {shlex.join(map(str, cli.argv('ssh', ID)))}\n")
        person.until(lambda: person.is_raw and b"LOCAL" not in person.seen[-40:])
        person.type("exec env PS1='REA''DY ' bash --norc --noprofile --noediting\r")
        person.expect("READY ")
        yield person


def rackctl_of(person: Person) -> int:
    listed = subprocess.run(
        ["pgrep", "-P", str(person.process.pid), "-f", "tests.ssh.entry"], capture_output=True, text=True, check=True
    )
    return int(listed.stdout.split()[0])


@pytest.mark.parametrize("signum", [signal.SIGSTOP, signal.SIGTSTP], ids=["SIGSTOP", "SIGTSTP"])
def test_stopped_then_fg(local_shell: Person, signum: signal.Signals) -> None:
    pid = rackctl_of(local_shell)
    os.kill(pid, signum)
    local_shell.expect("Stopped")
    local_shell.expect("LOCAL ")
    # A line that the local shell edits proves the terminal is its own again.
    local_shell.type("echo lo''cal\n")
    local_shell.expect("\nlocal\r\n")

    local_shell.type("fg\n")
    local_shell.until(lambda: local_shell.is_raw and os.tcgetpgrp(local_shell.terminal) == os.getpgid(pid))
    local_shell.type(f"{SLEEP}\r")
    local_shell.expect("asleep\r\n")
    # Raw again: the interrupt goes to the instance and not to rackctl.
    local_shell.type(b"\x03")
    local_shell.expect("READY ")
    local_shell.type("exit 6\r")
    local_shell.expect("LOCAL ")
    local_shell.type("echo $?\n")
    local_shell.expect("\n6\r\n")


def test_continued_in_the_background_leaves_the_terminal_alone(local_shell: Person) -> None:
    pid = rackctl_of(local_shell)
    os.kill(pid, signal.SIGSTOP)
    local_shell.expect("Stopped")
    local_shell.expect("LOCAL ")
    local_shell.type("bg; stty icanon echo; sleep 0.3; stty -a | grep -o ' icanon'\n")
    local_shell.expect("\n icanon\r\n")


def test_escapes_end_and_suspend_the_session(local_shell: Person) -> None:
    local_shell.type("\r~?")
    local_shell.expect("end the session")
    local_shell.type("\r~\x1a")
    local_shell.expect("Stopped")
    local_shell.expect("LOCAL ")
    local_shell.type("fg\n")
    local_shell.until(lambda: local_shell.is_raw)
    local_shell.type("\r")
    local_shell.expect("READY ")
    local_shell.type("\r~.")
    local_shell.expect("was ended by ~.\r\n")
    local_shell.expect("LOCAL ")
    local_shell.type("echo $?\n")
    local_shell.expect("255\r\n")


@pytest.mark.parametrize(
    ("typed", "passed", "told"),
    [
        (b"ls ~/x\r", b"ls ~/x\r", []),
        (b"~~.\r", b"~.\r", []),
        (b"~x", b"~x", []),
        (b"a\r~.", b"a\r", [QUIT]),
        (b"\x1b~.", b"\x1b~.", []),
        (b"~\r~\x1a~", b"~\r", [signal.SIGTSTP]),
    ],
)
def test_escapes_count_at_the_start_of_a_line_only(typed: bytes, passed: bytes, told: list[int]) -> None:
    for size in (1, len(typed)):
        heard: list[int] = []
        escapes = Escapes(lambda _: None)
        escapes.listen(heard.append)

        assert b"".join(escapes(typed[at : at + size]) for at in range(0, len(typed), size)) == passed
        assert heard == told


def test_interrupt_under_a_yes_flood(shell: Person) -> None:
    shell.type("yes\r")
    shell.expect("y\r\ny\r\ny\r\n")
    before = len(shell.seen)
    shell.type(b"\x03")
    shell.expect("READY ")
    # The output after the interrupt was in transit: at most the window, the kernel's buffers, and the PTY's.
    assert len(shell.seen) - before < 4_000_000


def test_a_command_that_reads_a_password_sees_a_terminal(cli: CommandLine) -> None:
    with at_terminal(cli, "-t", ID, "read -s -p 'pass: ' p; echo; echo got $p") as person:
        person.expect("pass: ")
        person.type("secret\r")
        person.expect("got secret\r\n")
        assert person.seen.count(b"secret") == 1


# Over two seconds: what is shown is shown only after two.
def test_a_login_that_takes_its_time_is_named_on_a_terminal(cli: CommandLine, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    slow = f"until [ -e {seen} ]; do sleep 0.1; done; exec {sys.executable} -m tests.ssh.relay %h %p"
    command = f"sh -c {shlex.quote(slow)}"

    with Person(cli.argv("ssh", "--proxy-command", command, ID, "echo done"), cli.environment()) as person:
        person.expect(f"rackctl: waiting for the login to {ID}\r\n")
        seen.touch()
        person.expect("done")
        assert person.wait() == 0
