"""The local rack's instances through an SSH client: logins, home directory, commands."""

from __future__ import annotations

import gc
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest

from rackctl.keys import generate
from rackctl.local import processes
from rackctl.local.hosts import HostKeys, Hosts
from rackctl.local.world import Host
from tests.local.hosts.machines import ID, SECRET, Rack, openssh, run, until

if TYPE_CHECKING:
    from collections.abc import Callable

# Logins


def test_only_the_instance_s_own_key_is_accepted(rack: Rack) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        rack.connect(key=generate("other", created=datetime.now(UTC)))


@pytest.mark.parametrize("user", ["root", "ec2-user2", ""])
def test_only_ec2_user_may_log_in(rack: Rack, user: str) -> None:
    with pytest.raises(paramiko.AuthenticationException):
        rack.connect(user=user)


def test_only_a_login_by_key_is_accepted(rack: Rack) -> None:
    transport = paramiko.Transport(socket.create_connection((rack.host.private_ip, rack.port)))
    transport.start_client(timeout=10)
    try:
        with pytest.raises(paramiko.BadAuthenticationType) as caught:
            transport.auth_none("ec2-user")
        assert caught.value.allowed_types == ["publickey"]
    finally:
        transport.close()


def test_an_instance_that_refuses_its_key_accepts_no_login(own_rack: Rack) -> None:
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


# Home directory and commands


def test_docker_ps_shows_the_containers_of_the_instance(channel: paramiko.Channel) -> None:
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
def test_docker_refuses_unsupported_commands(channel: paramiko.Channel, arguments: str, status: int, says: str) -> None:
    found, out, err = run(channel, f"docker {arguments}")

    assert (found, out) == (status, b"")
    assert says in err.decode()


def test_hostname_prints_the_instance_s_names(channel: paramiko.Channel) -> None:
    assert run(channel, "hostname; hostname -s; whoami; cd; basename $PWD")[1] == (
        b"ip-127-0-0-4.ec2.internal\nip-127-0-0-4\nec2-user\nhome\n"
    )


def test_sudo_runs_the_command_as_the_same_user(channel: paramiko.Channel) -> None:
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


def test_hosts_are_started_and_stopped_as_they_are_set(own_rack: Rack) -> None:
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
def test_the_processes_of_an_instance_end_with_it(tmp_path: Path, end: str) -> None:
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


def test_processes_that_a_killed_daemon_left_are_ended_by_the_next(own_rack: Rack) -> None:
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
def test_a_session_with_the_reused_number_of_an_ended_one_is_not_killed(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path / "another"), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(["sleep", "300"], start_new_session=True, env=environment) as another:
        # An exec shows its environment a moment after it has happened.
        wait_until(lambda: b"HOME=" in Path(f"/proc/{another.pid}/environ").read_bytes())
        processes.end([tmp_path / "gone"], {another.pid})
        assert another.poll() is None
        processes.end([tmp_path / "another"])
        assert another.wait() == -signal.SIGKILL


def test_a_connection_to_a_host_that_is_stopping_is_closed(tmp_path: Path) -> None:
    # An open socket is a ResourceWarning, and so an error, when it is collected; the order is random.
    for number in range(20):
        rack = Rack(tmp_path / str(number), gateway=False)
        socket.create_connection((rack.host.private_ip, rack.port), timeout=5).close()
        rack.close()
    gc.collect()
