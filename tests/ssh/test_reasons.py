"""A server's banners, reasons of disconnecting and refusals, compared with OpenSSH's client."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from rackctl.ssh.paramiko_patches import paramiko
from tests.ssh.servers import Host, hosting, sending
from tests.ssh.sshd import running

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.ssh.conftest import CommandLine
    from tests.ssh.sshd import Sshd


def both(cli: CommandLine, server: Sshd, command: str) -> tuple[subprocess.CompletedProcess[bytes], ...]:
    """Run a command by rackctl, and by OpenSSH's client."""
    openssh = [word.replace("LogLevel=ERROR", "LogLevel=INFO") for word in server.ssh(command)]
    return cli.at(server).ssh(command), subprocess.run(
        openssh, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60
    )


class Disconnecting(Host):
    """Sends a reason in place of the answer to a login."""

    def __init__(self, reason: str | bytes) -> None:
        self.reason = reason

    def login(self) -> int:
        self.disconnect(self.reason)
        return 2


def test_a_disconnect_during_the_login_shows_its_reason(cli: CommandLine) -> None:
    with hosting(cli.server, lambda: Disconnecting("host is being decommissioned, use i-0b")) as server:
        ours, theirs = both(cli, server, "true")

    assert (ours.returncode, theirs.returncode) == (255, 255)
    for ran in (ours, theirs):
        assert b"host is being decommissioned, use i-0b" in ran.stderr
    assert b"closed the connection during the login" in ours.stderr
    assert b"refused key" not in ours.stderr


def test_a_disconnect_reason_in_latin_1_is_shown(cli: CommandLine) -> None:
    with hosting(cli.server, lambda: Disconnecting("Wartung für heute".encode("latin-1"))) as server:
        ran = cli.at(server).ssh("true")

    assert ran.returncode == 255
    assert "closed the connection during the login: Wartung für heute" in ran.stderr.decode()


def test_a_disconnect_reason_cannot_send_terminal_escapes(cli: CommandLine) -> None:
    with hosting(cli.server, lambda: Disconnecting(b"\x1b]0;owned\x07\x1b[31m" + b"x" * 5000)) as server:
        ran = cli.at(server).ssh("true")

    assert b"\x1b" not in ran.stderr
    assert len(ran.stderr) < 1000


class Idle(Host):
    """Ends a session with a reason, and no exit status."""

    def session(self, channel: paramiko.Channel) -> None:
        channel.sendall(b"hi\n")
        self.disconnect("idle timeout, session closed by policy")


def test_a_disconnect_during_a_session_shows_its_reason(cli: CommandLine) -> None:
    with hosting(cli.server, Idle) as server:
        ours, theirs = both(cli, server, "true")

    for ran in (ours, theirs):
        assert ran.returncode == 255
        assert b"idle timeout, session closed by policy" in ran.stderr
    # OpenSSH may leave without having written it.
    assert ours.stdout == b"hi\n"


class Announcing(Host):
    """Says two things before the login, and waits for a person to have read them."""

    read = threading.Event()

    def login(self) -> int:
        self.banner("To go on, approve this login at https://login.example/abc\n")
        self.banner("Quota: 90 %\n")
        assert self.read.wait(30)
        return super().login()


def test_each_banner_is_shown_at_once(cli: CommandLine) -> None:
    with hosting(cli.server, Announcing) as server:
        process = cli.at(server).popen("true", stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr
        with process.stderr as said:
            assert said.readline() == b"To go on, approve this login at https://login.example/abc\n"
            assert said.readline() == b"Quota: 90 %\n"
            assert process.poll() is None
            Announcing.read.set()
            assert (process.wait(30), said.read()) == (0, b"")


def test_a_refused_session_shows_its_reason(cli: CommandLine) -> None:
    with running(cli.server.directory, MaxSessions="0") as server:
        ours, theirs = both(cli, server, "true")

    for ran in (ours, theirs):
        assert ran.returncode == 255
        assert b"open failed" in ran.stderr
    assert b"refused a session: " in ours.stderr


class Full(Host):
    def check_channel_request(self, kind: str, chanid: int) -> int:
        # paramiko would send no text, and what it sends after this comes too late.
        text = "no more than 3 sessions für Dich".encode("latin-1")
        self.send(paramiko.common.MSG_CHANNEL_OPEN_FAILURE, 0, 4, text, "")
        return super().check_channel_request(kind, chanid)


def test_a_refused_session_shows_the_servers_text(cli: CommandLine) -> None:
    with hosting(cli.server, Full) as server:
        ran = cli.at(server).ssh("true")

    assert ran.returncode == 255
    assert "refused a session: Resource shortage: no more than 3 sessions für Dich" in ran.stderr.decode()


class NoCommands(Host):
    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        return False


def test_a_refused_command_is_reported(cli: CommandLine) -> None:
    with hosting(cli.server, NoCommands) as server:
        ours, theirs = both(cli, server, "true")

    assert (ours.returncode, theirs.returncode) == (255, 255)
    assert b"refused to run the command" in ours.stderr
    assert b"exec request failed" in theirs.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"Exceeded MaxStartups\r\n", "its message: Exceeded MaxStartups"),
        (b"Not allowed at this time\r\n", "its message: Not allowed at this time"),
        (b"", "closed the connection during the version exchange\n"),
    ],
)
def test_closed_before_the_version_shows_the_servers_text(cli: CommandLine, text: bytes, says: str) -> None:
    with sending(text) as port:
        ran = cli.ssh("true", instance={"port": port})

    assert (ran.returncode, ran.stdout) == (255, b"")
    assert says in ran.stderr.decode()


def ending(*requests: tuple[str | int | bytes | bool, ...]) -> Callable[[], Host]:
    """Make a host whose command ends with these requests, and the channel's end."""

    class Ending(Host):
        def session(self, channel: paramiko.Channel) -> None:
            for kind, *fields in requests:
                self.request(channel, str(kind), *fields)

    return Ending


@pytest.mark.parametrize(
    ("requests", "status", "says"),
    [
        ([("exit-signal", "SEGV", True, "core dumped", "")], 139, ""),
        ([("exit-signal", "_DFL", False, "", "")], 255, "signal _DFL, which this system does not have"),
        ([("exit-signal", "_IGN", False, "", "")], 255, "signal _IGN"),
        ([("exit-signal", b"\xff\xfe", False, "", "")], 255, "signal ÿþ"),
        ([("exit-signal", "\x1b]0;x\x07", False, "", "")], 255, r"signal \x1b]0;x\x07"),
        ([("exit-status", 256)], 0, ""),
        ([("exit-status", 0xFFFFFFFF)], 255, ""),
        ([], 255, "ended the command without an exit status"),
    ],
)
def test_odd_exit_statuses_and_signals(
    cli: CommandLine, requests: list[tuple[str | int | bytes | bool, ...]], status: int, says: str
) -> None:
    with hosting(cli.server, ending(*requests)) as server:
        ran = cli.at(server).ssh("true")

    assert ran.returncode == status
    assert says in ran.stderr.decode()
    assert b"\x1b" not in ran.stderr


def test_locale_is_sent_as_debians_ssh_does_and_a_setting_turns_it_off(cli: CommandLine) -> None:
    told = {"LANG": "de_DE.UTF-8", "LC_TIME": "C", "OTHER": "x"}
    command = "echo $LANG,$LC_TIME,$OTHER"
    with running(cli.server.directory, AcceptEnv="LANG LC_* OTHER") as server:
        ours = cli.at(server).ssh(command, environment=told)
        openssh = server.ssh(command)
        openssh[1:1] = ["-o", "SendEnv=LANG LC_*"]
        theirs = subprocess.run(openssh, env={**os.environ, **told}, capture_output=True, check=False)
        off = cli.at(server).ssh(command, environment=told, instance={"settings": {"send_locale": "no"}})
    refused = cli.ssh("echo in", environment=told)

    assert ours.stdout == theirs.stdout == b"de_DE.UTF-8,C,\n"
    assert b"de_DE" not in off.stdout
    assert (refused.returncode, refused.stdout, refused.stderr) == (0, b"in\n", b"")
