"""The time limit until the login, and the messages at its end."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import paramiko
import pytest

from rackctl.errors import SshError
from rackctl.ssh.connect import connect, pin_host_key
from rackctl.ssh.deadline import CONNECT_TIMEOUT, LOGIN_TIMEOUT, Deadline
from rackctl.ssh.login import deadline_for
from rackctl.ssh.reach import Proxy, Target
from tests.ssh.servers import Host, hosting, in_front_of, sending
from tests.ssh.test_connect import Key, check_of, run, target_of
from tests.ssh.test_reach import rack

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from tests.ssh.conftest import CommandLine
    from tests.ssh.sshd import Sshd

VERSION = b"SSH-2.0-OpenSSH_9.9\r\n"


class Hand:
    """A clock that is moved by hand."""

    seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds


def test_the_deadline_is_30_s_to_the_first_byte_then_120_s_to_the_login() -> None:
    # sshd_config(5): "LoginGraceTime … The default is 120 seconds."
    clock = Hand()
    deadline = Deadline(clock=clock)  # type: ignore[arg-type]
    assert deadline.left == CONNECT_TIMEOUT == 30
    clock.seconds = 29
    deadline.received()
    assert deadline.left == LOGIN_TIMEOUT == 120
    clock.seconds = 100
    deadline.received()
    assert deadline.left == 49
    deadline.finish()
    assert deadline.left > 1e9


def test_a_total_limits_first_byte_and_login_together() -> None:
    clock = Hand()
    deadline = Deadline(30, 120, total=60, clock=clock)  # type: ignore[arg-type]
    clock.seconds = 29
    deadline.received()
    assert deadline.left == 31
    assert Deadline(30, 120, total=5, clock=clock).left == 5  # type: ignore[arg-type]


def test_through_a_command_the_first_byte_may_take_120_s_unless_set() -> None:
    direct = Target("i-1", "h", 22, "u")
    through = Target("i-1", "h", 22, "u", Proxy(("x",), "x"))

    assert deadline_for(rack(), direct).first_byte == 30
    assert deadline_for(rack(), through).first_byte == 120
    assert deadline_for(rack(connect_timeout="5"), direct).first_byte == 5
    assert deadline_for(rack(connect_timeout="5"), through).first_byte == 5


def test_a_silent_server_times_out_after_connect_timeout(cli: CommandLine) -> None:
    with sending(then_close=False) as port:
        ran = cli.ssh("true", options=["--connect-timeout", "1"], instance={"port": port})

    assert (ran.returncode, ran.stdout) == (255, b"")
    assert b"accepted the connection, but sent nothing within 1 s" in ran.stderr
    assert b"--connect-timeout" in ran.stderr


@pytest.mark.parametrize(
    ("pieces", "stage"),
    [((b"Welcome\r\n",), "version exchange"), ((VERSION,), "key exchange"), ((VERSION, b"\0\0\0"), "key exchange")],
)
def test_a_server_that_falls_silent_times_out_with_the_stage(
    sshd: Sshd, tmp_path: Path, pieces: tuple[bytes, ...], stage: str
) -> None:
    with sending(*pieces, then_close=False) as port:
        for go in (connect_to, pin_host_key):
            with pytest.raises(SshError, match=rf"did not finish the {stage} within 0\.3 s"):
                go(target_of(sshd, port=port), check_of(sshd, tmp_path), deadline=Deadline(30, 0.3))


def connect_to(target: Target, check: object, *, deadline: Deadline) -> None:
    connect(target, [Key(KEY)], check, deadline=deadline).close()  # type: ignore[arg-type]


KEY = b""


@pytest.fixture(autouse=True)
def key(sshd: Sshd) -> None:
    global KEY  # noqa: PLW0603 - the one key of the one server
    KEY = sshd.key.read_bytes()


def test_a_server_that_sends_a_byte_at_a_time_times_out(sshd: Sshd, tmp_path: Path) -> None:
    def drip(sock: socket.socket) -> None:
        for byte in VERSION * 100:
            sock.sendall(bytes([byte]))
            time.sleep(0.05)

    with (
        in_front_of(sshd, greet=drip) as server,
        pytest.raises(SshError, match=r"did not finish the version exchange within 0\.3 s"),
    ):
        connect_to(target_of(server), check_of(sshd, tmp_path), deadline=Deadline(30, 0.3))


class Slow(Host):
    """Takes its time for a login, as one that asks a directory or PAM."""

    seconds = 60.0

    def login(self) -> int:
        time.sleep(self.seconds)
        return super().login()


def test_a_login_without_an_answer_times_out_and_is_not_refused(sshd: Sshd, tmp_path: Path) -> None:
    with (
        hosting(sshd, Slow) as server,
        pytest.raises(SshError, match=r"did not finish the login within 0\.5 s") as caught,
    ):
        connect_to(target_of(server), check_of(sshd, tmp_path), deadline=Deadline(30, 0.5))
    assert type(caught.value) is SshError


def test_a_login_may_take_longer_than_connect_timeout(sshd: Sshd, tmp_path: Path) -> None:
    class Slower(Slow):
        seconds = 0.6

    with hosting(sshd, Slower) as server:
        connect_to(target_of(server), check_of(sshd, tmp_path), deadline=Deadline(0.5, 30))


class SlowToRefuse(Host):
    """Refuses the first key at once, and does not answer to the second."""

    refused = False

    def login(self) -> int:
        if self.refused:
            time.sleep(60)
        self.refused = True
        return paramiko.common.AUTH_FAILED


def test_the_deadline_is_one_for_all_keys_that_are_tried(sshd: Sshd, tmp_path: Path) -> None:
    key = Key(sshd.key.read_bytes())
    with (
        hosting(sshd, SlowToRefuse) as server,
        pytest.raises(SshError, match=r"did not finish the login within 1 s"),
    ):
        connect(target_of(server), [key, key], check_of(sshd, tmp_path), deadline=Deadline(30, 1))


def test_version_and_key_exchange_may_be_slow(sshd: Sshd, tmp_path: Path) -> None:
    def late(data: bytes) -> bytes:
        time.sleep(0.1)
        return data

    with in_front_of(sshd, greet=lambda _: time.sleep(0.2), shape=late) as server:
        subprocess.run(server.ssh("exit 0"), check=True)
        key_ = Key(sshd.key.read_bytes())
        with connect(target_of(server), [key_], check_of(sshd, tmp_path), deadline=Deadline(20, 20)) as made:
            assert run(made, "exit 4").status == 4


def greeting(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


@pytest.mark.parametrize(
    "lines",
    [
        greeting(b"Authorized users only"),
        greeting("Zugriff nur für Befugte".encode("latin-1")),
        greeting(*(b"line %d of a legal notice" % n for n in range(900))),
        greeting(b"x" * 8000),
        b"no carriage return\n",
    ],
    ids=["one", "latin-1", "900", "8,000 bytes", "bare newline"],
)
def test_lines_before_the_version_are_skipped(sshd: Sshd, tmp_path: Path, lines: bytes) -> None:
    # RFC 4253, 4.2: "The server MAY send other lines of data before sending the version string."
    with in_front_of(sshd, greet=lambda sock: sock.sendall(lines)) as server:
        subprocess.run(server.ssh("exit 0"), check=True)
        connect_to(target_of(server), check_of(sshd, tmp_path), deadline=Deadline(20, 20))


# The pause has to be longer than the two seconds that paramiko gives each further line.
def test_via_ssm_the_version_may_come_seconds_after_the_plugins_greeting(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import sys

    script = (
        "#!/bin/sh\nprintf '\\nStarting session with SessionId: me-0123456789abcdef0\\n'\nsleep 2.5\n"
        f"exec {sys.executable} -m tests.ssh.relay 127.0.0.1 {cli.server.port}\n"
    )
    for program, text in (("aws", script), ("session-manager-plugin", "#!/bin/sh\n")):
        (tmp_path / program).write_text(text)
        (tmp_path / program).chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    ran = cli.ssh("echo hi; exit 3", options=["--via", "ssm"], environment=path)

    assert (ran.returncode, ran.stdout, ran.stderr) == (3, b"hi\n", b"")
    openssh = cli.server.ssh("echo hi; exit 3")
    openssh[1:1] = ["-o", f"ProxyCommand={tmp_path}/aws"]
    assert subprocess.run(openssh, env=cli.environment() | path, capture_output=True, check=False).returncode == 3
