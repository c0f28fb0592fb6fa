"""`rackctl instances ssh-config`: OpenSSH's own client through what it prints, to a real sshd."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.errors import UsageError
from rackctl.ssh.openssh import Host, host_entry
from tests.ssh.agent import need_openssh, running_agent
from tests.ssh.conftest import CommandLine
from tests.ssh.entry import GENERATION, ID, KEY_NAME
from tests.ssh.sshd import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.ssh.sshd import Sshd

B = "i-0b0000000000000bb"


@pytest.fixture(scope="module")
def agent(sshd: Sshd) -> Iterator[dict[str, str]]:
    """An agent with many keys, the instance's last: more than a server allows attempts."""
    with running_agent() as environment:
        directory = Path(environment["SSH_AUTH_SOCK"]).parent
        for number in range(8):
            other = directory / f"other{number}"
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
            subprocess.run(["ssh-add", "-q", other], env=environment, check=True)
        subprocess.run(["ssh-add", "-q", "-"], input=sshd.key.read_bytes(), env=environment, check=True)
        yield environment


class Client:
    """OpenSSH's programs, with the configuration that rackctl prints."""

    def __init__(self, cli: CommandLine, agent: dict[str, str], config: Path) -> None:
        self.cli = cli
        self.config = config
        self.environment = cli.environment() | agent

    def configure(self, *options: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        ran = self.cli.run("ssh-config", *options, **more)
        self.config.write_bytes(ran.stdout)
        return ran

    def __call__(self, program: str, *words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        more.setdefault("stdin", subprocess.DEVNULL) if "input" not in more else None
        environment = self.environment | more.pop("environment", {})
        # OpenSSH has the user's shell run the proxy.
        argv = [program, "-F", str(self.config), *words]
        return subprocess.run(argv, env=environment, capture_output=True, check=False, timeout=60, **more)


@pytest.fixture
def client(cli: CommandLine, agent: dict[str, str], tmp_path: Path) -> Client:
    made = Client(cli, agent, tmp_path / "config")
    assert made.configure().stderr == b""
    return made


def test_ssh_runs_a_command_and_passes_its_streams_and_status(client: Client) -> None:
    ran = client("ssh", ID, "cat; echo err >&2; exit 7", input=b"in\n")

    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"in\n", b"err\n")


def test_bytes_pass_unchanged_both_ways(client: Client) -> None:
    data = os.urandom(20_000_000)

    ran = client("ssh", ID, "cat", input=data)

    assert ran.stdout == data


@pytest.mark.parametrize("protocol", ["-s", "-O"])
def test_scp_copies_there_and_back(cli: CommandLine, client: Client, tmp_path: Path, protocol: str) -> None:
    here, there, back = (tmp_path / name for name in ("here", "there", "back"))
    here.write_bytes(os.urandom(3_000_000))
    with running(tmp_path, Subsystem="sftp internal-sftp") as server:
        client.cli = CommandLine(server, tmp_path / "other")
        client.environment |= client.cli.environment()
        client.configure()
        subprocess.run(["ssh-add", "-q", "-"], input=server.key.read_bytes(), env=client.environment, check=True)

        for source, target in ((str(here), f"{ID}:{there}"), (f"{ID}:{there}", str(back))):
            ran = client("scp", protocol, "-q", source, target)
            assert (ran.returncode, ran.stdout) == (0, b""), ran.stderr

    assert back.read_bytes() == here.read_bytes()


def test_the_proxy_ends_with_the_client(client: Client) -> None:
    ran = client("ssh", ID, "echo $SSH_CONNECTION")
    assert ran.returncode == 0

    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in listed.splitlines() if "ssh-proxy" in line and str(client.cli.state) in line]


def test_a_host_key_that_is_not_the_pinned_one_is_refused(client: Client, cli: CommandLine) -> None:
    other = (cli.server.directory / "key.pub").read_text().split()[1]
    (cli.state / "host_keys").write_text(f"{ID} ssh-ed25519 {other}\n")

    ran = client("ssh", ID, "true")

    assert ran.returncode == 255
    assert b"Host key verification failed" in ran.stderr


def test_on_the_first_connection_the_proxy_pins_the_key(
    cli: CommandLine, agent: dict[str, str], tmp_path: Path
) -> None:
    new = Client(CommandLine(cli.server, tmp_path / "new"), agent, tmp_path / "config")
    new.configure()

    first, second = new("ssh", ID, "echo in"), new("ssh", ID, "echo in")

    assert (first.stdout, second.stdout) == (b"in\n", b"in\n")
    assert b"trusting its host key" in first.stderr
    assert second.stderr == b""
    pins = tmp_path / "new" / "host_keys"
    assert pins.read_text().startswith(f"{ID} ")
    assert pins.stat().st_mode & 0o777 == 0o600


def test_strict_refuses_an_unconfirmed_key(cli: CommandLine, agent: dict[str, str], tmp_path: Path) -> None:
    new = Client(CommandLine(cli.server, tmp_path / "new"), agent, tmp_path / "config")
    new.configure("--host-key-check", "strict")

    ran = new("ssh", ID, "echo in")

    assert (ran.returncode, ran.stdout) == (255, b"")
    assert b"no host key of " in ran.stderr


def test_off_checks_and_pins_nothing(cli: CommandLine, agent: dict[str, str], tmp_path: Path) -> None:
    new = Client(CommandLine(cli.server, tmp_path / "new"), agent, tmp_path / "config")
    new.configure("--host-key-check", "off")

    assert new("ssh", ID, "echo in").stdout == b"in\n"
    assert not (tmp_path / "new" / "host_keys").exists()


def test_openssh_uses_the_racks_proxy_command(client: Client, cli: CommandLine) -> None:
    program = cli.state / "a way" / "there"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/bash\necho "$3" > "${0%/*}/seen"\nexec 3<>"/dev/tcp/$1/$2"; cat <&3 & cat >&3; kill $!\n'
    )
    program.chmod(0o755)
    # Of these OpenSSH and two shells would each like to make something else.
    client.configure("--proxy-command", f"{shlex.quote(str(program))} %h %p '100%% \"$HOME\" %i'")

    ran = client("ssh", ID, "echo in")

    assert ran.stdout == b"in\n", ran.stderr
    assert (program.parent / "seen").read_text() == f'100% "$HOME" {ID}\n'


def test_an_unreachable_instance_is_reported_by_rackctl(client: Client) -> None:
    ran = client("ssh", "-p", "1", ID, "true")

    assert ran.returncode == 255
    assert f"rackctl: {ID} (127.0.0.1 port 1) refused the connection".encode() in ran.stderr


def test_ssh_config_has_a_host_for_each_running_instance(cli: CommandLine) -> None:
    others = {B: {"key_name": "of-somebody-else"}, "i-0c0000000000000cc": {"state": "terminated"}}
    ran = cli.run("ssh-config", instance={"others": others})
    text = ran.stdout.decode()

    assert [line for line in text.splitlines() if line.startswith("Host ")] == [f"Host {ID}", f"Host {B}"]
    assert f"{B}: which key to offer is left to your own configuration" in ran.stderr.decode()
    assert text.count("IdentityFile") == 1
    identity = cli.state / "public_keys" / f"{KEY_NAME}.{GENERATION}.pub"
    assert f'IdentityFile "{identity}"' in text
    assert identity.read_text().split()[:2] == (cli.server.directory / "key.pub").read_text().split()[:2]
    assert identity.stat().st_mode & 0o777 == 0o600


def test_the_proxy_command_has_the_settings_and_no_secret(cli: CommandLine, tmp_path: Path) -> None:
    environment = {
        "AWS_PROFILE": "prod's own",
        "AWS_SECRET_ACCESS_KEY": "much-too-secret",
        "AWS_SESSION_TOKEN": "secret-too",
        "RACKCTL_JUMP": "bastion",
        "RACKCTL_STATE_DIR": "relative",
        "RACKCTL_SSH_USER": "somebody",
    }
    ran = cli.run("ssh-config", "--rack", "prod", "--region", "eu-west-1", environment=environment, cwd=tmp_path)
    text = ran.stdout.decode()
    line = next(line for line in text.splitlines() if "ProxyCommand" in line)
    words = shlex.split(line.strip().removeprefix("ProxyCommand "))

    assert words[0] == "env"
    assert {"AWS_PROFILE=prod's own", "RACKCTL_JUMP=bastion"} <= set(words)
    assert f"RACKCTL_STATE_DIR={tmp_path / 'relative'}" in words
    assert words[words.index("ssh-proxy") :][:3] == ["ssh-proxy", "--rack", "prod"]
    assert words[words.index("--region") + 1] == "eu-west-1"
    assert "secret" not in text
    assert "RACKCTL_SSH_USER" not in line


def entry(**changes: Any) -> str:
    host = {"ec2_instance_id": ID, "user": "u", "port": "22", "proxy": ["p", "%h"], "identity_files": []}
    return host_entry(Host(**host | changes), Path("/x/host_keys"), "strict")


@pytest.mark.parametrize("user", ["ec2-user", "ann.lee", "CORP+ann", "ann@corp.example"])
def test_openssh_reads_a_user_as_it_was_written(user: str, tmp_path: Path) -> None:
    need_openssh()
    config = tmp_path / "config"
    config.write_text(entry(user=user))

    read = subprocess.run(["ssh", "-G", "-F", config, ID], capture_output=True, text=True, check=True).stdout

    assert f"user {user}" in read.splitlines()


@pytest.mark.parametrize("user", ["a b", "ec2-user\\", 'a"b', "$(touch hit)", "u --proxy touch", "-u", "u\nHost *"])
def test_a_user_that_is_not_a_plain_word_is_refused(user: str) -> None:
    with pytest.raises(UsageError, match="ssh_user"):
        entry(user=user)


@pytest.mark.parametrize("port", ["२२", "22 ", "0", "22\nHost *"])
def test_a_port_that_is_no_ascii_number_is_refused(port: str) -> None:
    with pytest.raises(UsageError, match="ssh_port"):
        entry(port=port)


# OpenSSH before 9.6 lets any user through (CVE-2023-51385); the tag is of the kind that a repository's URL could hold.
def test_openssh_passes_no_user_to_the_shell_of_the_proxy(client: Client, tmp_path: Path) -> None:
    client("ssh", "-l", f"$(touch {tmp_path}/hit)", ID, "true")

    assert not (tmp_path / "hit").exists()
    assert b"%r" not in client.config.read_bytes()


def test_the_agent_is_that_of_the_environment_even_if_host_star_names_another(client: Client) -> None:
    with client.config.open("a") as config:
        config.write("Host *\n  IdentityAgent /nowhere\n")

    assert client("ssh", ID, "echo in").stdout == b"in\n"


@pytest.mark.parametrize(
    "options",
    [
        {"Ciphers": "chacha20-poly1305@openssh.com"},
        {"Ciphers": "aes128-ctr", "MACs": "umac-64@openssh.com"},
        {"KexAlgorithms": "sntrup761x25519-sha512@openssh.com"},
    ],
    ids=["chacha20", "umac", "sntrup761"],
)
def test_openssh_connects_if_rackctl_has_no_common_algorithm(
    cli: CommandLine, agent: dict[str, str], tmp_path: Path, options: dict[str, str]
) -> None:
    with running(cli.server.directory, **options) as server:
        new = Client(CommandLine(server, tmp_path / "new"), agent, tmp_path / "config")
        new.configure()

        assert new("ssh", ID, "echo in").stdout == b"in\n"


def test_a_pinned_key_is_not_replaced_by_one_of_ssh_keyscan(
    cli: CommandLine, agent: dict[str, str], tmp_path: Path
) -> None:
    with running(cli.server.directory, KexAlgorithms="sntrup761x25519-sha512@openssh.com") as server:
        other = (cli.server.directory / "key.pub").read_text().split()[1]
        (cli.state / "host_keys").write_text(f"{ID} ssh-ed25519 {other}\n")
        new = Client(cli.at(server), agent, tmp_path / "config")
        new.configure()

        ran = new("ssh", ID, "true")

    assert ran.returncode == 255
    assert b"Host key verification failed" in ran.stderr


def test_strict_refuses_an_unconfirmed_key_of_ssh_keyscan(
    cli: CommandLine, agent: dict[str, str], tmp_path: Path
) -> None:
    with running(cli.server.directory, KexAlgorithms="sntrup761x25519-sha512@openssh.com") as server:
        new = Client(CommandLine(server, tmp_path / "new"), agent, tmp_path / "config")
        new.configure("--host-key-check", "strict")

        ran = new("ssh", ID, "true")

    assert ran.returncode == 255
    assert b"no host key of" in ran.stderr


def test_values_that_ssh_config_cannot_express_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot express"):
        entry(proxy=["a\nProxyCommand evil"])
    with pytest.raises(UsageError, match="is a variable there"):
        entry(identity_files=[Path("/${HOME}/key")])
