"""Servers with only one algorithm of a kind: rackctl connects as OpenSSH does, or names what is missing."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from rackctl.ssh.connect import connect, pin_host_key
from rackctl.ssh.paramiko_patches import ProtocolError, Transport, paramiko
from tests.ssh.sshd import running
from tests.ssh.test_connect import Key, check_of, run, target_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ssh.conftest import CommandLine
    from tests.ssh.sshd import Sshd

SPOKEN = [
    {"KexAlgorithms": "curve25519-sha256"},
    {"KexAlgorithms": "curve25519-sha256@libssh.org"},
    {"KexAlgorithms": "diffie-hellman-group-exchange-sha256"},
    {"KexAlgorithms": "diffie-hellman-group16-sha512"},
    {"KexAlgorithms": "diffie-hellman-group14-sha256"},
    {"KexAlgorithms": "ecdh-sha2-nistp256"},
    {"KexAlgorithms": "ecdh-sha2-nistp521"},
    {"Ciphers": "aes256-gcm@openssh.com"},
    {"Ciphers": "aes192-ctr"},
    {"Ciphers": "aes256-ctr", "MACs": "hmac-sha2-512-etm@openssh.com"},
    {"Ciphers": "aes256-ctr", "MACs": "hmac-sha2-512"},
    {"Ciphers": "aes256-ctr", "MACs": "hmac-sha1"},
]
# Algorithms that only OpenSSH has; docs/ssh.md lists them.
NOT_SPOKEN = [
    ({"KexAlgorithms": "sntrup761x25519-sha512@openssh.com"}, "no key exchange in common"),
    ({"Ciphers": "chacha20-poly1305@openssh.com"}, "no cipher in common"),
    ({"Ciphers": "aes256-ctr", "MACs": "umac-128-etm@openssh.com"}, "no MAC in common"),
]


def name(options: dict[str, str]) -> str:
    return list(options.values())[-1]


@pytest.mark.parametrize("options", SPOKEN, ids=name)
def test_connects_to_a_server_with_this_algorithm_alone(sshd: Sshd, tmp_path: Path, options: dict[str, str]) -> None:
    with running(sshd.directory, **options) as server:
        openssh = subprocess.run(server.ssh("echo in; exit 3"), capture_output=True, check=False)
        with connect(target_of(server), [Key(server.key.read_bytes())], check_of(server, tmp_path)) as made:
            ran = run(made, "echo in; exit 3")

    assert (ran.status, ran.out) == (openssh.returncode, openssh.stdout) == (3, b"in\n")


@pytest.mark.parametrize(("options", "says"), NOT_SPOKEN, ids=[name(options) for options, _ in NOT_SPOKEN])
def test_no_common_algorithm_is_reported_with_the_servers_offer(
    cli: CommandLine, options: dict[str, str], says: str
) -> None:
    with running(cli.server.directory, **options) as server:
        assert subprocess.run(server.ssh("exit 3"), capture_output=True, check=False).returncode == 3
        ran = cli.at(server).ssh("exit 3")

    assert (ran.returncode, ran.stdout) == (255, b"")
    assert says in ran.stderr.decode()
    assert name(options) in ran.stderr.decode()
    assert b"ssh-config" in ran.stderr


@pytest.mark.parametrize("options", [options for options, _ in NOT_SPOKEN[1:]], ids=name)
def test_pinning_a_host_key_needs_a_key_exchange_only(sshd: Sshd, tmp_path: Path, options: dict[str, str]) -> None:
    check = check_of(sshd, tmp_path)
    with running(sshd.directory, **options) as server:
        pin_host_key(target_of(server), check)


def test_group_exchange_refuses_small_and_negative_groups() -> None:
    exchange = Transport._kex_info["diffie-hellman-group-exchange-sha256"]
    for group in (1 << 1023, 0, -(1 << 3071)):
        message = paramiko.Message()
        message.add_mpint(group)
        message.add_mpint(2)
        message.rewind()
        with pytest.raises(ProtocolError, match="for the key exchange"):
            exchange(None)._parse_kexdh_gex_group(message)
