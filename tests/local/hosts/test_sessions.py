"""Commands and shells on the local rack's instances: streams, signals, terminals."""

from __future__ import annotations

import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import paramiko
import pytest

from tests.local.hosts.machines import Rack, drained, openssh, run, until

# Commands


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_exit_status_reaches_the_client(channel: paramiko.Channel, status: int) -> None:
    assert run(channel, f"exit {status}")[0] == status


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_a_command_killed_by_a_signal_ends_with_that_signal(rack: Rack, signal: str) -> None:
    # OpenSSH says which signal it was; paramiko does not tell.
    command = [*openssh(rack), "-v", f"ec2-user@{rack.host.private_ip}", f"kill -{signal} $$"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30, check=False)

    assert done.returncode == 255
    assert "rtype exit-signal" in done.stderr


def test_stderr_is_separate_from_stdout(channel: paramiko.Channel) -> None:
    assert run(channel, "echo out; echo err >&2") == (0, b"out\n", b"err\n")


def test_megabytes_of_all_bytes_are_echoed_unchanged(channel: paramiko.Channel) -> None:
    sent = bytes(range(256)) * 12 * 1024  # 3 MiB
    channel.exec_command("cat")
    channel.settimeout(60)
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(channel.makefile("rb").read)
        channel.sendall(sent)
        channel.shutdown_write()

        assert received.result() == sent
    assert channel.recv_exit_status() == 0


def test_a_slow_reader_gets_megabytes_of_both_streams(channel: paramiko.Channel) -> None:
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


def test_a_session_waits_for_the_output_of_background_jobs(channel: paramiko.Channel) -> None:
    assert run(channel, "(sleep 0.3; echo late) & echo started") == (0, b"started\nlate\n", b"")


def test_a_status_comes_after_the_streams_were_closed(channel: paramiko.Channel) -> None:
    assert run(channel, "exec >&- 2>&-; sleep 0.2; exit 9") == (9, b"", b"")


def test_a_command_may_have_any_bytes_and_be_long(channel: paramiko.Channel) -> None:
    channel.exec_command(b"printf %s '\xff\n\xfe' | wc -c; : " + b"x" * 100_000)
    channel.shutdown_write()

    assert drained(channel) == (0, b"3\n", b"")


def test_a_client_that_stops_reading_ends_the_writer(transport: paramiko.Transport, channel: paramiko.Channel) -> None:
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


def test_a_command_gets_none_of_the_user_s_environment(channel: paramiko.Channel) -> None:
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


def test_a_resize_reaches_the_command(shell: paramiko.Channel) -> None:
    shell.resize_pty(133, 44)
    shell.sendall(b"stty size\r")

    assert "44 133" in until(shell, r"\d+ \d+\r\n")


def test_control_c_interrupts_the_command_and_not_the_shell(shell: paramiko.Channel) -> None:
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


def test_a_command_on_a_terminal_may_write_megabytes(channel: paramiko.Channel) -> None:
    channel.get_pty()
    status, out, err = run(channel, "stty -opost; head -c 2000000 /dev/zero; echo err >&2; exit 3")

    assert (status, len(out), err) == (3, 2_000_004, b"")


def test_a_terminal_has_the_client_s_modes(rack: Rack) -> None:
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
