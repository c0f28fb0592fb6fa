"""`-i FILE`: a login without the store, on a real sshd."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.ssh.agent import running_agent
from tests.ssh.entry import ID
from tests.ssh.person import Person
from tests.ssh.sshd import running

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ssh.conftest import CommandLine
    from tests.ssh.sshd import Sshd

# A cluster that is no rack yet: neither bucket nor KMS key, and nothing stored.
NO_STORE: dict[str, Any] = {"generations": {}, "settings": {"bucket": "", "kms_key": ""}, "key_name": "ops"}


def locked(sshd: Sshd, directory: Path) -> Path:
    """Copy the key that the server accepts, with a passphrase."""
    path = directory / "locked"
    path.touch(0o600)
    path.write_bytes(sshd.key.read_bytes())
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "pass phrase", "-f", path], check=True)
    return path


@pytest.mark.parametrize("flag", ["-i", "--identity"])
def test_a_file_logs_in_without_a_store(cli: CommandLine, flag: str) -> None:
    ran = cli.ssh("echo in; exit 7", options=[flag, str(cli.server.key)], instance=NO_STORE)

    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"in\n", b"")


def test_without_it_the_store_is_needed(cli: CommandLine) -> None:
    ran = cli.ssh("true", instance=NO_STORE)

    assert ran.returncode == 3
    assert b"has no bucket" in ran.stderr


@pytest.mark.parametrize(("options", "form"), [(("-t", "rsa", "-b", "2048"), "PEM"), (("-t", "ecdsa"), "RFC4716")])
def test_other_types_of_keys_log_in(cli: CommandLine, options: tuple[str, ...], form: str, tmp_path: Path) -> None:
    path = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", *options, "-m", form, "-N", "", "-f", path], check=True)

    with running(cli.server.directory, AuthorizedKeysFile=f"{path}.pub") as server:
        ran = cli.at(server).ssh("echo in", options=["-i", str(path)], instance=NO_STORE)

    assert (ran.returncode, ran.stdout) == (0, b"in\n")


def test_no_stored_key_is_tried_beside_the_file(cli: CommandLine) -> None:
    other = str(cli.server.directory / "host_ed25519")

    ran = cli.ssh("true", options=["-i", other])

    assert ran.returncode == 255
    assert f"refused key {other}".encode() in ran.stderr


def test_run_logs_in_with_the_file_everywhere(cli: CommandLine) -> None:
    ran = cli.run("run", "-i", str(cli.server.key), "--all", "--", "echo in", instance=NO_STORE)

    assert (ran.returncode, ran.stdout) == (0, f"{ID}: in\n".encode())


def test_the_terminal_prompts_for_a_passphrase_without_echo(cli: CommandLine, tmp_path: Path) -> None:
    path = locked(cli.server, tmp_path)
    environment = cli.environment(**NO_STORE)

    # Standard input and output are the command's.
    with Person(cli.argv("ssh", "-i", str(path), ID, "cat"), environment, stdin=subprocess.PIPE) as person:
        person.expect(f"Passphrase of {path}: ")
        person.type("pass phrase\n")
        assert person.process.stdin
        person.process.stdin.write(b"through\n")
        person.process.stdin.close()
        person.expect("through")
        assert person.wait() == 0
        assert b"pass phrase" not in person.seen


def test_without_a_terminal_an_encrypted_key_is_an_error(cli: CommandLine, tmp_path: Path) -> None:
    ran = cli.ssh("true", options=["-i", str(locked(cli.server, tmp_path))], instance=NO_STORE, start_new_session=True)

    assert ran.returncode == 2
    assert b"there is no terminal to ask on" in ran.stderr


def test_a_file_that_others_can_read_is_not_used(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.write_bytes(cli.server.key.read_bytes())
    path.chmod(0o644)

    ran = cli.ssh("true", options=["-i", str(path)], instance=NO_STORE)

    assert ran.returncode == 2
    assert f"chmod 600 {path}".encode() in ran.stderr


def test_the_agent_gets_and_loses_the_key_of_a_file(cli: CommandLine, tmp_path: Path) -> None:
    path = locked(cli.server, tmp_path)
    with running_agent() as surroundings:
        environment = cli.environment(**NO_STORE) | surroundings
        for command, said in (("add", f"added {path} for 1h"), ("remove", f"removed {path}")):
            with Person(cli.argv("ssh-agent", command, "-i", str(path)), environment) as person:
                person.expect("Passphrase")
                person.type("pass phrase\n")
                person.expect(said)
                assert person.wait() == 0
            listed = subprocess.run(["ssh-add", "-L"], env=environment, capture_output=True, text=True, check=False)
            has = " ".join((cli.server.directory / "key.pub").read_text().split()[:2]) in listed.stdout
            assert has == (command == "add")
