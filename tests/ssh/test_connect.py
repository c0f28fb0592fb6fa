"""Connections to a real sshd, and to servers that fail."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from rackctl.errors import RackctlError, SshError
from rackctl.ssh.connect import Connection, Keepalive, connect
from rackctl.ssh.deadline import Deadline
from rackctl.ssh.dial import Link, dial
from rackctl.ssh.failures import during_login
from rackctl.ssh.host_keys import HostKey, HostKeyCheck, HostKeyFile
from rackctl.ssh.paramiko_patches import Transport
from rackctl.ssh.reach import Proxy, Target
from rackctl.ssh.session import Session
from tests.ssh.conftest import ROOT, CommandLine
from tests.ssh.entry import ID, KEY_NAME
from tests.ssh.sshd import Sshd, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


@dataclass
class Key:
    private_key: bytes = field(repr=False)
    key_name: str = "some-key"


def target_of(server: Sshd, **more: object) -> Target:
    return Target(**{"ec2_instance_id": ID, "host": "127.0.0.1", "port": server.port, "user": server.user, **more})  # type: ignore[arg-type]


def check_of(server: Sshd, directory: Path, *pinned: str) -> HostKeyCheck:
    file = HostKeyFile(directory)
    file.pin(ID, [HostKey(*(line or server.host_key).split()) for line in pinned or ("",)])
    return HostKeyCheck(ID, file, "strict", console_output=str)


@pytest.fixture
def connection(sshd: Sshd, tmp_path: Path) -> Iterator[Connection]:
    with connect(target_of(sshd), [Key(sshd.key.read_bytes())], check_of(sshd, tmp_path)) as made:
        yield made


@dataclass
class Ran:
    status: int
    out: bytes
    err: bytes


def ignore(_: bytes) -> None:
    return


def run(connection: Connection, command: str, stdin: int | None = None) -> Ran:
    out, err = bytearray(), bytearray()
    status = Session(connection, command.encode(), stdin=stdin, stdout=out.extend, stderr=err.extend).wait()
    return Ran(status, bytes(out), bytes(err))


def test_several_sessions_on_one_connection_leave_no_descriptor_behind(connection: Connection) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    for number in range(5):
        assert run(connection, f"echo {number}; exit {number}") == Ran(number, b"%d\n" % number, b"")
    assert len(list(Path("/dev/fd").iterdir())) == before


# Each failure of the table: 255, a message on stderr, nothing on stdout.


def fails(result: subprocess.CompletedProcess[bytes], *says: str) -> None:
    assert (result.returncode, result.stdout) == (255, b"")
    said = result.stderr.decode()
    assert said.startswith("rackctl: ")
    assert "Traceback" not in said
    for text in says:
        assert text in said


def test_connect_refused(cli: CommandLine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        fails(cli.ssh("true", instance={"port": port}), f"127.0.0.1 port {port}", "refused the connection")


def test_connect_timed_out() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        # If its queue is full, the kernel does not answer a connection.
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        with pytest.raises(SshError, match=r"did not answer within 0\.2 s") as caught:
            dial(Target(ID, "127.0.0.1", full.getsockname()[1], "ec2-user"), Deadline(0.2))
        for one in waiting:
            one.close()
    assert "security group" in caught.value.hint
    assert caught.value.exit_code == 255


def test_a_name_that_does_not_resolve(cli: CommandLine) -> None:
    fails(cli.ssh("true", instance={"public_ip": "no.such.host.invalid"}), "no.such.host.invalid", "cannot be reached")


def test_an_ipv6_only_instance_is_reached_at_its_ipv6_address(cli: CommandLine) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        if probe.connect_ex(("::1", 1)) == errno.EADDRNOTAVAIL:
            pytest.skip("this machine has no IPv6")
    with running(cli.server.directory, host="::1") as server:
        at_ipv6 = {"public_ip": "", "ipv6_address": "::1", "port": server.port}
        ran = cli.ssh("echo $SSH_CONNECTION", instance=at_ipv6)

    assert (ran.returncode, ran.stdout.split()[2]) == (0, b"::1")


def test_login_refused(cli: CommandLine, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)

    fails(cli.ssh("true", instance={"key": str(other)}), f"for user {cli.server.user}", KEY_NAME)


def test_host_key_wrong(cli: CommandLine, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    (cli.state / "host_keys").write_text(f"{ID} {other.with_suffix('.pub').read_text()}")

    fails(cli.ssh("true"), "host key mismatch for", "SHA256:", f"rackctl instances forget-host-key {ID}")
    assert cli.run("forget-host-key", ID).returncode == 0
    again = cli.ssh("exit 3")
    assert again.returncode == 3
    assert b"trusting its host key" in again.stderr
    assert cli.ssh("exit 4").stderr == b""


def test_not_an_ssh_server(cli: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            other, _ = server.accept()
            with other:
                other.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        fails(
            cli.ssh("true", instance={"port": server.getsockname()[1]}),
            "closed the connection during the version exchange; its message: HTTP/1.1 400 Bad Request",
        )


def test_closed_before_the_login(sshd: Sshd, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            other, _ = server.accept()
            with other:
                other.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
                other.recv(10)

        threading.Thread(target=answer, daemon=True).start()
        target = target_of(sshd, port=server.getsockname()[1])
        with pytest.raises(SshError, match="closed the connection during the key exchange"):
            connect(target, [Key(sshd.key.read_bytes())], check_of(sshd, tmp_path))


def test_cbc_is_not_offered(sshd: Sshd, tmp_path: Path) -> None:
    with (
        running(sshd.directory, Ciphers="aes128-cbc") as server,
        pytest.raises(SshError, match="no cipher in common; the server offers aes128-cbc"),
    ):
        connect(target_of(server), [Key(server.key.read_bytes())], check_of(server, tmp_path))


def test_the_host_key_is_checked_before_the_user_name_is_sent(sshd: Sshd, tmp_path: Path) -> None:
    with running(sshd.directory, LogLevel="DEBUG1") as server:
        log = server.directory / "sshd.log"
        begins = log.stat().st_size
        with pytest.raises(SshError):
            connect(
                target_of(server, user="somebody"),
                [Key(server.key.read_bytes())],
                check_of(server, tmp_path, "ssh-ed25519 AAAA"),
            )
    assert b"somebody" not in log.read_bytes()[begins:]


def test_no_other_key_is_offered(cli: CommandLine, tmp_path: Path) -> None:
    # An agent and a key file that would be let in, while the instance's own key would not.
    other = tmp_path / "home" / ".ssh" / "id_ed25519"
    other.parent.mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    with running(cli.server.directory, LogLevel="VERBOSE", AuthorizedKeysFile=f"{other}.pub") as server:
        log = server.directory / "sshd.log"
        begins = log.stat().st_size
        script = f"eval $(ssh-agent) >/dev/null; ssh-add -q {other}; {shlex.join(map(str, cli.argv('ssh', ID)))}; s=$?"
        environment = CommandLine(server, cli.state).environment() | {"HOME": str(other.parents[1])}
        result = subprocess.run(
            ["bash", "-c", f"{script}; ssh-agent -k >/dev/null; exit $s"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    assert result.returncode == 255
    said = log.read_bytes()[begins:]
    assert said.count(b"Failed publickey") == 1
    assert b"password" not in said


def test_a_login_that_requires_a_second_method(sshd: Sshd, tmp_path: Path) -> None:
    more = {"AuthenticationMethods": "publickey,password", "PasswordAuthentication": "yes"}
    with running(sshd.directory, **more) as server, pytest.raises(SshError, match="requires another method too: "):
        connect(target_of(server), [Key(server.key.read_bytes())], check_of(server, tmp_path))


def test_an_rsa_key_logs_in(sshd: Sshd, tmp_path: Path) -> None:
    private = rsa.generate_private_key(65537, 2048)
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (tmp_path / "authorized").write_bytes(public + b"\n")
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    with (
        running(sshd.directory, AuthorizedKeysFile=str(tmp_path / "authorized")) as server,
        connect(target_of(server), [Key(pem)], check_of(server, tmp_path)) as made,
    ):
        assert run(made, "echo in").out == b"in\n"


def test_the_type_of_the_pinned_key_is_preferred(sshd: Sshd, tmp_path: Path) -> None:
    ecdsa = " ".join((sshd.directory / "host_ecdsa.pub").read_text().split()[:2])

    with connect(target_of(sshd), [Key(sshd.key.read_bytes())], check_of(sshd, tmp_path, ecdsa)) as made:
        assert run(made, "exit 5").status == 5


def test_an_error_with_the_ssh_key_is_raised(sshd: Sshd, tmp_path: Path) -> None:
    def missing() -> Iterator[Key]:
        yield from ()
        raise RackctlError("no key")

    with pytest.raises(RackctlError, match="no key"):
        connect(target_of(sshd), missing(), check_of(sshd, tmp_path))
    with pytest.raises(SshError, match="the SSH key some-key cannot be used"):
        connect(target_of(sshd), [Key(b"not a key")], check_of(sshd, tmp_path))


def test_the_servers_banner_is_shown_on_stderr(sshd: Sshd, cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "banner").write_text("Authorized use \x1b]0;only\x07\r\n")
    with running(sshd.directory, Banner=str(tmp_path / "banner")) as server:
        result = CommandLine(server, cli.state).ssh("echo out")

    assert (result.stdout, result.stderr) == (b"out\n", b"Authorized use \\x1b]0;only\\x07\n")


# A silent peer.


def test_peer_frozen(sshd: Sshd, tmp_path: Path) -> None:
    # Three questions, 0.2 s apart, have to go without an answer.
    with running(sshd.directory) as server:
        key = Key(server.key.read_bytes())
        made = connect(target_of(server), [key], check_of(server, tmp_path), keepalive=Keepalive(0.2, 3))
        session = Session(made, b"sleep 60", stdin=None, stdout=ignore, stderr=ignore)
        server.signal_children(signal.SIGSTOP)
        with pytest.raises(SshError, match="was lost: the server does not answer keepalives"):
            session.wait()
        made.close()


def test_connection_lost_before_the_command_begins(sshd: Sshd, tmp_path: Path) -> None:
    with (
        running(sshd.directory) as server,
        connect(target_of(server), [Key(server.key.read_bytes())], check_of(server, tmp_path)) as made,
    ):
        server.signal_children(signal.SIGKILL)
        with pytest.raises(SshError, match="was lost"):
            run(made, "true")


def test_peer_frozen_under_an_upload(sshd: Sshd, tmp_path: Path) -> None:
    with running(sshd.directory) as server, open("/dev/zero", "rb") as zeros:  # noqa: PTH123 - only its descriptor
        key = Key(server.key.read_bytes())
        made = connect(target_of(server), [key], check_of(server, tmp_path), keepalive=Keepalive(0.2, 3))
        begun = threading.Event()
        session = Session(
            made,
            b"head -c 5000000 >/dev/null; echo begun; cat >/dev/null",
            stdin=zeros.fileno(),
            stdout=lambda _: begun.set(),
            stderr=ignore,
        )
        assert begun.wait(30)
        server.signal_children(signal.SIGSTOP)
        with pytest.raises(SshError, match="was lost: the server does not answer keepalives"):
            session.wait()
        made.close()


def test_a_silent_command_is_not_a_frozen_peer(sshd: Sshd, tmp_path: Path) -> None:
    key = Key(sshd.key.read_bytes())
    with connect(target_of(sshd), [key], check_of(sshd, tmp_path), keepalive=Keepalive(0.05, 3)) as made:
        assert run(made, "sleep 1; exit 6").status == 6


# New keys under way.


@pytest.fixture
def rekeying(sshd: Sshd, tmp_path: Path) -> Iterator[AbstractContextManager[Connection]]:
    with running(sshd.directory, RekeyLimit="8M") as server:
        yield connect(target_of(server), [Key(server.key.read_bytes())], check_of(server, tmp_path))


def test_rekey_limit_of_8_mb_downloading(rekeying: Connection) -> None:
    with rekeying as made:
        for size in (8 << 20, 64 << 20, (8 << 20) - 1, (16 << 20) + 1):
            received = 0

            def count(data: bytes) -> None:
                nonlocal received
                received += len(data)

            session = Session(made, f"head -c {size} /dev/zero".encode(), stdin=None, stdout=count, stderr=ignore)
            assert (session.wait(), received) == (0, size)


def test_rekey_limit_of_8_mb_uploading_and_downloading_at_once(rekeying: Connection, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(os.urandom(1 << 20) * 40)
    received = bytearray()
    with rekeying as made, data.open("rb") as source:
        session = Session(made, b"cat", stdin=source.fileno(), stdout=received.extend, stderr=ignore)
        assert session.wait() == 0
    assert received == data.read_bytes()


# 512 MiB take some seconds; paramiko would ask for new keys just when the channel closes, and deadlock (#822).
def test_exactly_512_mib_downloaded_repeatedly(cli: CommandLine) -> None:
    for _ in range(2):
        process = cli.popen("head -c 536870912 /dev/zero", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert process.stdout
        received = 0
        with process.stdout as stream:
            while data := os.read(stream.fileno(), 1 << 20):
                received += len(data)
        assert (process.wait(60), received) == (0, 536_870_912)


def test_memory_stays_flat_with_a_slow_reader_and_with_a_fast_writer(cli: CommandLine) -> None:
    def peak(process: subprocess.Popen[bytes]) -> int:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024

    if not Path("/proc/self/status").exists():
        pytest.skip("only Linux tells a process's peak memory while it runs")
    reader = cli.popen("head -c 200000000 /dev/zero", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with open("/dev/zero", "rb") as zeros:  # noqa: PTH123 - only its descriptor
        writer = cli.popen(
            "sleep 1; head -c 100000000 >/dev/null; echo so far; sleep 60", stdin=zeros, stdout=subprocess.PIPE
        )
    assert reader.stdout
    assert writer.stdout
    with reader.stdout as stream:
        # The window has long been filled when the writer's 100 MB are through.
        with writer.stdout as done:
            assert done.readline() == b"so far\n"
        assert peak(reader) < 80
        assert peak(writer) < 80
        while os.read(stream.fileno(), 1 << 20):
            pass
    assert reader.wait(60) == 0
    writer.kill()
    writer.wait()


# Proxies.


def relay(*where: object) -> str:
    return shlex.join([sys.executable, "-m", "tests.ssh.relay", *map(str, where)])


@pytest.fixture
def through(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Target:
    """The server, through a proxy command."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = relay("127.0.0.1", sshd.port)
    return target_of(sshd, proxy=Proxy(("/bin/sh", "-c", f"exec {command}"), command))


def test_a_proxy_command_connects_and_is_waited_for(through: Target, sshd: Sshd, tmp_path: Path) -> None:
    with connect(through, [Key(sshd.key.read_bytes())], check_of(sshd, tmp_path)) as made:
        proxy = made.link.proxy
        assert proxy
        assert run(made, "echo through; exit 3") == Ran(3, b"through\n", b"")
        assert proxy.returncode is None
    assert proxy.returncode is not None


def test_a_proxy_command_from_the_command_line(cli: CommandLine) -> None:
    options = ["--proxy-command", relay("%h", "%p")]

    result = cli.ssh("cat", options=options, instance={"private_ip": "127.0.0.1"}, input=bytes(3_000_000))

    assert (result.returncode, result.stdout, result.stderr) == (0, bytes(3_000_000), b"")


def test_a_proxy_command_that_fails_is_reported_with_its_status_and_stderr(cli: CommandLine) -> None:
    result = cli.ssh("true", options=["--proxy-command", "sh -c 'echo no way there >&2; exit 3'"])

    assert (result.returncode, result.stdout) == (255, b"")
    assert b"no way there\n" in result.stderr
    assert b"cannot be reached: the command exited with status 3" in result.stderr


def test_a_proxy_command_that_ends_early_loses_the_connection(through: Target, sshd: Sshd, tmp_path: Path) -> None:
    with connect(through, [Key(sshd.key.read_bytes())], check_of(sshd, tmp_path)) as made:
        session = Session(made, b"sleep 60", stdin=None, stdout=ignore, stderr=ignore)
        assert made.link.proxy
        made.link.proxy.kill()
        with pytest.raises(SshError, match="was lost"):
            session.wait()


def test_a_jump_host_connects(cli: CommandLine, sshd: Sshd, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"Host bastion\n HostName 127.0.0.1\n Port {sshd.port}\n User {sshd.user}\n IdentityFile {sshd.key}\n"
        " StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n"
    )
    # OpenSSH finds its configuration by the user database and not by HOME.
    wrapper = tmp_path / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(_which("ssh"))} -F {config} "$@"\n')
    wrapper.chmod(0o755)

    result = cli.ssh(
        "echo through",
        options=["--jump", "bastion"],
        instance={"private_ip": "127.0.0.1"},
        environment={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )

    assert (result.returncode, result.stdout, result.stderr) == (0, b"through\n", b"")


def _which(program: str) -> str:
    return subprocess.run(["which", program], check=True, capture_output=True, text=True).stdout.strip()


def exceptions_of_paramiko() -> list[Exception]:
    known = vars(paramiko.ssh_exception).values()
    classes = [one for one in known if isinstance(one, type) and issubclass(one, Exception)]
    key = paramiko.ECDSAKey.generate()
    arguments: dict[str, tuple[object, ...]] = {
        "BadAuthenticationType": ("why", ["password"]),
        "BadHostKeyException": ("host", key, key),
        "ChannelException": (1, "why"),
        "NoValidConnectionsError": ({("host", 22): OSError("why")},),
        "PartialAuthentication": (["password"],),
        "ProxyCommandFailure": ("command", "why"),
    }
    return [one(*arguments.get(one.__name__, ("why",))) for one in classes]


@pytest.mark.parametrize(
    "error",
    [*exceptions_of_paramiko(), EOFError(), ConnectionResetError("why"), TimeoutError()],
    ids=lambda error: type(error).__name__,
)
def test_every_exception_of_paramiko_becomes_an_ssh_error(error: Exception) -> None:
    ours, theirs = socket.socketpair()
    with closing(theirs), closing(Link(ours)) as link:
        transport, deadline = Transport(ours), Deadline()
        with pytest.raises(SshError, match=ID), during_login(Target(ID, "h", 22, "u"), link, transport, deadline):
            raise error
