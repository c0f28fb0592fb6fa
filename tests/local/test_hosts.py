"""The local rack's instances as an SSH client finds them: who gets in, and what is behind the door."""

from __future__ import annotations

import gc
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest

from rackctl.keys import SshKey, generate
from rackctl.local import network, processes
from rackctl.local.hosts import HostKeys, Hosts
from rackctl.local.state import StateDir
from rackctl.local.world import Host
from rackctl.local.world.world import Container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ID = "i-0123456789abcdef0"
KEY = generate("key", created=datetime.now(UTC))
SECRET = b"s" * 32
NOW = time.time()
WEB = Container("0123456789ab", "example/web:42", '"sh -c bin/web and more"', NOW - 7300, NOW - 7290, "80/tcp", "web-1")
AGENT = Container("abcdef012345", "amazon/amazon-ecs-agent:latest", '"/agent"', NOW - 7400, NOW - 7399, "", "ecs-agent")


class Rack:
    """Hosts that a test sets, and clients that log in to them."""

    def __init__(self, directory: Path, *, gateway: bool) -> None:
        self.state = StateDir(directory)
        self.state.make()
        self.network = network.claim()
        self.port = self.network.ssh_port
        self.hosts = Hosts(
            self.state, HostKeys(SECRET), port=self.port, gateway=gateway, containers=lambda _: [WEB, AGENT]
        )
        self.hosts.start()
        self.host = Host(ID, f"{self.network.prefix}.0.4", "ip-127-0-0-4", KEY.public_key)
        self.hosts.set([self.host])

    def close(self) -> None:
        self.hosts.close()
        if self.network.claim:
            self.network.claim.close()

    def connect(self, *, user: str = "ec2-user", key: SshKey = KEY) -> paramiko.Transport:
        transport = paramiko.Transport(socket.create_connection((self.host.private_ip, self.port), timeout=10))
        transport.start_client(timeout=10)
        try:
            transport.auth_publickey(user, paramiko.Ed25519Key.from_private_key(StringIO(key.private_key.decode())))
        except BaseException:
            transport.close()
            raise
        return transport


@pytest.fixture(scope="module")
def rack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    made = Rack(tmp_path_factory.mktemp("state"), gateway=False)
    yield made
    made.close()


@pytest.fixture
def own_rack(tmp_path: Path) -> Iterator[Rack]:
    made = Rack(tmp_path, gateway=False)
    yield made
    made.close()


@pytest.fixture(scope="module")
def transport(rack: Rack) -> Iterator[paramiko.Transport]:
    connected = rack.connect()
    yield connected
    connected.close()


@pytest.fixture
def channel(transport: paramiko.Transport) -> Iterator[paramiko.Channel]:
    opened = transport.open_session(timeout=10)
    opened.settimeout(20)
    yield opened
    opened.close()


def drained(channel: paramiko.Channel) -> tuple[int, bytes, bytes]:
    """Read a channel to its end and give the status, stdout and stderr."""
    out, err = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
    return channel.recv_exit_status(), out, err


def run(channel: paramiko.Channel, command: str) -> tuple[int, bytes, bytes]:
    channel.exec_command(command)
    channel.shutdown_write()
    return drained(channel)


def until(channel: paramiko.Channel, wanted: str) -> str:
    """Read from a terminal until something is there."""
    seen = ""
    while not re.search(wanted, seen):
        data = channel.recv(65536)
        assert data, f"the terminal ended before {wanted!r}: {seen!r}"
        seen += data.decode()
    return seen


# Who gets in


def test_only_the_instance_s_own_key_gets_in(rack: Rack) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        rack.connect(key=generate("other", created=datetime.now(UTC)))


@pytest.mark.parametrize("user", ["root", "ec2-user2", ""])
def test_only_ec2_user_gets_in(rack: Rack, user: str) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        rack.connect(user=user)


def test_nothing_but_a_key_gets_in(rack: Rack) -> None:
    transport = paramiko.Transport(socket.create_connection((rack.host.private_ip, rack.port)))
    transport.start_client(timeout=10)
    try:
        with pytest.raises(paramiko.BadAuthenticationType) as caught:
            transport.auth_none("ec2-user")
        assert caught.value.allowed_types == ["publickey"]
    finally:
        transport.close()


def test_an_instance_that_refuses_its_key_lets_nobody_in(own_rack: Rack) -> None:
    own_rack.hosts.set([replace(own_rack.host, authorized_key="")])

    with pytest.raises(paramiko.AuthenticationException):
        own_rack.connect()


def test_host_keys_are_the_instance_s_own_and_always_the_same(transport: paramiko.Transport) -> None:
    found = f"ssh-ed25519 {transport.get_remote_server_key().get_base64()}"

    assert found == HostKeys(SECRET).public(ID)
    assert HostKeys(SECRET).public("i-00000000000000000") != found
    assert HostKeys(b"t" * 32).public(ID) != found


def test_forwarding_is_refused(transport: paramiko.Transport, rack: Rack) -> None:
    with pytest.raises(paramiko.ChannelException):
        transport.open_channel("direct-tcpip", ("127.0.0.1", rack.port), ("127.0.0.1", 1), timeout=10)
    with pytest.raises(paramiko.SSHException):
        transport.request_port_forward("127.0.0.1", 0)


# Commands


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_an_exit_status_is_passed(channel: paramiko.Channel, status: int) -> None:
    assert run(channel, f"exit {status}")[0] == status


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_command_killed_by_a_signal_ends_with_that_signal(rack: Rack, signal: str) -> None:
    # OpenSSH says which signal it was; paramiko does not tell.
    command = [*openssh(rack), "-v", f"ec2-user@{rack.host.private_ip}", f"kill -{signal} $$"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, check=False)

    assert done.returncode == 255
    assert "rtype exit-signal" in done.stderr


def openssh(rack: Rack) -> list[str]:
    """Give the beginning of a command line of OpenSSH's client."""
    path = rack.state.root / "test-key"
    path.touch(mode=0o600)
    path.write_bytes(KEY.private_key)
    options = ("BatchMode=yes", "UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", f"IdentityFile={path}")
    return ["ssh", "-F", "none", "-p", str(rack.port), *(word for option in options for word in ("-o", option))]


def test_stderr_is_apart(channel: paramiko.Channel) -> None:
    assert run(channel, "echo out; echo err >&2") == (0, b"out\n", b"err\n")


def test_megabytes_of_every_byte_come_back_as_they_went(channel: paramiko.Channel) -> None:
    sent = bytes(range(256)) * 12 * 1024  # 3 MiB
    channel.exec_command("cat")
    channel.settimeout(60)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(channel.makefile("rb").read)
        channel.sendall(sent)
        channel.shutdown_write()

        assert received.result() == sent
    assert channel.recv_exit_status() == 0


def test_megabytes_on_both_streams_for_a_slow_reader_are_all_there(channel: paramiko.Channel) -> None:
    channel.exec_command("head -c 3000000 /dev/zero >&2 & head -c 3000000 /dev/zero; wait")
    channel.shutdown_write()
    time.sleep(0.3)  # the window, which both share, fills up meanwhile
    with ThreadPoolExecutor(1) as pool:
        err = pool.submit(channel.makefile_stderr("rb").read)
        out = channel.makefile("rb").read()

        assert (len(out), len(err.result())) == (3_000_000, 3_000_000)
    assert channel.recv_exit_status() == 0


def test_a_closed_stdin_is_the_end_of_input(channel: paramiko.Channel) -> None:
    channel.exec_command("wc -c")
    channel.sendall(b"12345")
    channel.shutdown_write()

    assert drained(channel) == (0, b"5\n", b"")


def test_a_background_job_s_output_is_waited_for(channel: paramiko.Channel) -> None:
    assert run(channel, "(sleep 0.3; echo late) & echo started") == (0, b"started\nlate\n", b"")


def test_a_status_comes_after_the_streams_were_closed(channel: paramiko.Channel) -> None:
    assert run(channel, "exec >&- 2>&-; sleep 0.2; exit 9") == (9, b"", b"")


def test_a_command_is_bytes_and_may_be_long(channel: paramiko.Channel) -> None:
    channel.exec_command(b"printf %s '\xff\n\xfe' | wc -c; : " + b"x" * 100_000)
    channel.shutdown_write()

    assert drained(channel) == (0, b"3\n", b"")


def test_a_client_that_reads_no_more_ends_the_writer(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
    channel.exec_command("trap '' PIPE; yes 2>/dev/null; echo ended >&2")
    channel.recv(10)
    message = paramiko.Message()
    message.add_byte(b"\x62")  # SSH_MSG_CHANNEL_REQUEST
    message.add_int(channel.remote_chanid)
    message.add_string("eow@openssh.com")
    message.add_boolean(False)
    transport._send_user_message(message)  # type: ignore[attr-defined] # missing in its stubs

    assert channel.makefile_stderr("rb").readline() == b"ended\n"


def test_signals_reach_the_command(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
    channel.exec_command("trap 'echo caught; exit 5' USR1; echo ready; while :; do sleep 0.05; done")
    until(channel, "ready")
    message = paramiko.Message()
    message.add_byte(b"\x62")
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string("USR1")
    transport._send_user_message(message)  # type: ignore[attr-defined] # missing in its stubs

    # The shell's children get it too, and say so.
    assert drained(channel)[:2] == (5, b"caught\n")


def test_nothing_of_the_user_s_environment_is_there(channel: paramiko.Channel) -> None:
    channel.set_environment_variable("LC_PAPER", "a4")
    channel.set_environment_variable("BASH_ENV", "/etc/passwd")

    _, out, _ = run(channel, "env")
    found = dict(line.split("=", 1) for line in out.decode().splitlines())

    assert found["LC_PAPER"] == "a4"
    assert found["USER"] == "ec2-user"
    assert "BASH_ENV" not in found
    assert found.keys() <= {
        "HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "LC_PAPER", "HOSTNAME", "SSH_CLIENT", "SSH_CONNECTION",
        "PWD", "OLDPWD", "SHLVL", "_",
    }  # fmt: skip


# Terminals


@pytest.fixture
def shell(channel: paramiko.Channel) -> paramiko.Channel:
    """A login shell on a terminal, at its prompt."""
    channel.get_pty("xterm", 91, 31)
    channel.invoke_shell()
    until(channel, r"\]\$ ")
    return channel


def test_a_shell_greets_and_prompts_as_an_instance_does(transport: paramiko.Transport) -> None:
    for _ in range(2):
        channel = transport.open_session()
        channel.settimeout(20)
        channel.get_pty()
        channel.invoke_shell()
        seen = until(channel, r"\]\$ ")
        channel.close()

    assert re.search(r"Last login: \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4} from 127\.\d+\.\d+\.\d+\r\n", seen)
    assert "ECS-optimized" in seen
    assert "runs on your own machine, as you" in seen
    assert seen.endswith("[ec2-user@ip-127-0-0-4 ~]$ ")


def test_a_shell_has_a_real_terminal(shell: paramiko.Channel) -> None:
    shell.sendall(b"tty; stty size; echo $TERM; ps -o tty= -p $$; cat /dev/null </dev/tty && echo controlled\r")

    seen = until(shell, r"controlled\r\n.*\$ ")

    assert re.search(r"/dev/(pts/|tty)", seen)
    assert "31 91\r\n" in seen
    assert "xterm\r\n" in seen


def test_a_resize_is_told(shell: paramiko.Channel) -> None:
    shell.resize_pty(133, 44)
    shell.sendall(b"stty size\r")

    assert "44 133" in until(shell, r"\d+ \d+\r\n")


def test_control_c_interrupts_and_the_shell_goes_on(shell: paramiko.Channel) -> None:
    shell.sendall(b"sleep 100\r")
    time.sleep(0.1)
    shell.sendall(b"\x03")
    until(shell, r"\^C[\s\S]*\$ ")
    shell.sendall(b"echo $?; exit 4\r")

    until(shell, "130")
    assert drained(shell)[0] == 4


def test_control_d_ends_the_shell_and_jobs_left_behind_do_not_hold_it(shell: paramiko.Channel) -> None:
    shell.sendall(b"sleep 100 &\r")
    until(shell, r"\[1\] \d+")
    shell.sendall(b"exit\r")
    if b"jobs" in shell.recv(65536):
        shell.sendall(b"exit\r")

    assert drained(shell)[0] == 0


def test_a_command_may_have_a_terminal_and_megabytes_to_show(channel: paramiko.Channel) -> None:
    channel.get_pty()
    status, out, err = run(channel, "stty -opost; head -c 2000000 /dev/zero; echo err >&2; exit 3")

    assert (status, len(out), err) == (3, 2_000_004, b"")


def test_a_terminal_s_modes_are_the_client_s(rack: Rack) -> None:
    transport = rack.connect()
    channel = transport.open_session()
    channel.settimeout(20)
    modes = b"".join(bytes([number]) + value.to_bytes(4, "big") for number, value in ((3, 8), (53, 0), (42, 1))) + b"\0"
    message = paramiko.Message()
    message.add_byte(b"\x62")
    message.add_int(channel.remote_chanid)
    message.add_string("pty-req")
    message.add_boolean(False)
    message.add_string("vt100")
    for size in (80, 24, 0, 0):
        message.add_int(size)
    message.add_string(modes)
    transport._send_user_message(message)  # type: ignore[attr-defined] # missing in its stubs

    _, out, _ = run(channel, "stty -a")
    transport.close()

    assert b"erase = ^H" in out
    assert b" -echo " in out
    assert b" iutf8" in out


# What is there


def test_docker_ps_shows_what_runs_there(channel: paramiko.Channel) -> None:
    status, out, err = run(channel, "docker ps")

    assert (status, err) == (0, b"")
    assert re.sub(" +$", "", out.decode(), flags=re.MULTILINE) == (
        "CONTAINER ID   IMAGE                            COMMAND                  CREATED       STATUS       "
        "PORTS     NAMES\n"
        '0123456789ab   example/web:42                   "sh -c bin/web and m…"   2 hours ago   Up 2 hours   '
        "80/tcp    web-1\n"
        'abcdef012345   amazon/amazon-ecs-agent:latest   "/agent"                 2 hours ago   Up 2 hours   '
        "          ecs-agent\n"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("ps -q", "0123456789ab\nabcdef012345\n"),
        ("ps -aq --no-trunc", "0123456789ab\nabcdef012345\n"),
        ("container ls -n1 --format '{{.ID}} {{ .Names }}'", "0123456789ab web-1\n"),
        ("ps -l --format 'table {{.Names}}\\t{{.Image}}'", "NAMES     IMAGE\nweb-1     example/web:42\n"),
        ("ps -qf name=agent", "abcdef012345\n"),
        ("ps -qf ancestor=example/web --filter status=running", "0123456789ab\n"),
    ],
)
def test_docker_ps_takes_the_options_that_scripts_use(channel: paramiko.Channel, arguments: str, expected: str) -> None:
    assert run(channel, f"docker {arguments}") == (0, expected.encode(), b"")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ("swarm", 1, "docker: 'swarm' is not a docker command."),
        ("exec -it x sh", 1, "its docker has only `ps`"),
        ("ps --size-of", 125, "unknown flag: --size-of"),
        ("ps x", 1, '"docker ps" accepts no arguments.'),
        ("ps -f nonsense=1", 1, "invalid filter 'nonsense'"),
        ("ps --format '{{.Nonsense}}'", 1, "can't evaluate field Nonsense"),
    ],
)
def test_docker_refuses_what_it_cannot_do(channel: paramiko.Channel, arguments: str, status: int, says: str) -> None:
    found, out, err = run(channel, f"docker {arguments}")

    assert (found, out) == (status, b"")
    assert says in err.decode()


def test_an_instance_knows_its_name(channel: paramiko.Channel) -> None:
    assert run(channel, "hostname; hostname -s; whoami; cd; basename $PWD")[1] == (
        b"ip-127-0-0-4.ec2.internal\nip-127-0-0-4\nec2-user\nhome\n"
    )


def test_sudo_gets_nobody_out_of_it(channel: paramiko.Channel) -> None:
    assert run(channel, "sudo -n docker ps -q") == (0, b"0123456789ab\nabcdef012345\n", b"")


def test_docker_and_the_prompt_are_there_in_a_login_shell_too(shell: paramiko.Channel) -> None:
    shell.sendall(b"docker ps -q; cd /; hostname -s\r")

    assert "0123456789ab" in until(shell, r"\[ec2-user@ip-127-0-0-4 /\]\$ ")


def test_files_can_be_copied_to_the_home_directory_and_back(rack: Rack) -> None:
    transport = rack.connect()
    sftp = paramiko.SFTPClient.from_transport(transport)
    assert sftp is not None
    with sftp.open("made-by-sftp", "wb") as file:
        file.write(b"here\n")
    channel = transport.open_session()

    assert run(channel, "cat ~/made-by-sftp") == (0, b"here\n", b"")
    assert sftp.normalize(".") == str(rack.state.hosts / ID / "home")
    transport.close()


# Coming and going


def test_hosts_come_and_go_as_they_are_set(own_rack: Rack) -> None:
    other = replace(own_rack.host, ec2_instance_id="i-0aaaaaaaaaaaaaaaa", private_ip=f"{own_rack.network.prefix}.0.5")
    own_rack.hosts.set([other])

    socket.create_connection((other.private_ip, own_rack.port), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        own_rack.connect()


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("end", ["instance", "daemon"])
def test_what_runs_on_an_instance_ends_with_it(tmp_path: Path, end: str) -> None:
    rack = Rack(tmp_path, gateway=False)
    channel = rack.connect().open_session()
    channel.settimeout(20)
    channel.exec_command("setsid sleep 300 >&- 2>&- <&- & echo $!; sleep 300 & echo $!; trap '' TERM HUP; sleep 300; :")
    lines = channel.makefile("r")
    pids = [int(lines.readline()), int(lines.readline())]
    assert all(map(is_running, pids))
    home = rack.state.hosts / ID
    assert home.exists()

    if end == "instance":
        rack.hosts.set([])
        wait_until(lambda: not home.exists())
    else:
        rack.hosts.close()

    wait_until(lambda: not any(map(is_running, pids)))
    assert channel.recv_exit_status() == -1  # the connection was lost
    if end == "instance":
        rack.close()
    elif rack.network.claim:
        rack.network.claim.close()


def test_what_a_killed_daemon_left_running_is_ended_by_the_next(own_rack: Rack) -> None:
    channel = own_rack.connect().open_session()
    channel.settimeout(20)
    channel.exec_command("trap '' HUP PIPE; sleep 300 >&- 2>&- & echo $!; wait")
    pid = int(channel.makefile("r").readline())
    if not Path("/proc/self/environ").exists():
        pytest.skip("only Linux shows whose home a process has")

    successor = Hosts(own_rack.state, HostKeys(SECRET), port=own_rack.port, gateway=True, containers=lambda _: [])
    successor.start()

    wait_until(lambda: not is_running(pid))
    successor.close()


def test_behind_a_gateway_a_proxy_command_leads_to_each_host(tmp_path: Path) -> None:
    rack = Rack(tmp_path, gateway=True)
    try:
        with pytest.raises(ConnectionRefusedError):
            rack.connect()
        command = rack.hosts.proxy_command.replace("%p", str(rack.port))
        assert command.startswith(sys.executable)
        options = ["-o", f"ProxyCommand={command}"]
        ssh = [*openssh(rack), *options, f"ec2-user@{rack.host.private_ip}", "echo $(cat); exit 6"]
        done = subprocess.run(ssh, input=b"here", capture_output=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (6, b"here\n")

        unknown = subprocess.run(
            command.replace("%h", "127.1.2.3").split(), input=b"", capture_output=True, check=False
        )
        assert unknown.stdout == b""
    finally:
        rack.close()


def test_a_thousand_hosts_are_up_at_once(tmp_path: Path) -> None:
    rack = Rack(tmp_path, gateway=False)
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    try:
        rack.hosts.set(
            [
                Host(f"i-{number:017x}", f"{rack.network.prefix}.{1 + number // 200}.{1 + number % 200}", "x", "")
                for number in range(1000)
            ]
        )
        for number in (0, 999):
            address = f"{rack.network.prefix}.{1 + number // 200}.{1 + number % 200}"
            with socket.create_connection((address, rack.port), timeout=5) as connection:
                assert connection.recv(4) == b"SSH-"
    finally:
        rack.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process's environment cannot be seen")
def test_a_session_that_has_taken_over_the_number_of_one_that_ended_is_left_alone(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path / "another"), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(["sleep", "300"], start_new_session=True, env=environment) as another:
        # An exec shows its environment a moment after it has happened.
        wait_until(lambda: b"HOME=" in Path(f"/proc/{another.pid}/environ").read_bytes())
        processes.end([tmp_path / "gone"], {another.pid})
        assert another.poll() is None
        processes.end([tmp_path / "another"])
        assert another.wait() == -signal.SIGKILL


def test_a_connection_that_comes_as_its_host_goes_is_closed(tmp_path: Path) -> None:
    # What stays open is a ResourceWarning when it is collected, and that an error. Which comes first is chance.
    for number in range(20):
        rack = Rack(tmp_path / str(number), gateway=False)
        socket.create_connection((rack.host.private_ip, rack.port), timeout=5).close()
        rack.close()
    gc.collect()
