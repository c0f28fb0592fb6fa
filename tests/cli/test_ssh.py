"""`rackctl instances ssh` as it is typed, without a server; tests/ssh/ has the tests with a server."""

from __future__ import annotations

import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from rackctl.cli.main import cli
from rackctl.ssh.host_keys import HostKey, HostKeyFile
from tests.ssh.entry import ID, invocation

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


@pytest.fixture
def port() -> int:
    """A port where nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        free: int = sock.getsockname()[1]
        return free


class Typing:
    """The command line, on a rack of one instance whose SSH server is not up."""

    def __init__(self, key: Path, port: int, state: Path) -> None:
        self._description = {"key": str(key), "port": port, "user": "somebody"}
        self._state = state

    def __call__(self, *words: str, **instance: Any) -> Result:
        made = invocation({**self._description, **instance})
        made.environment = {"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": str(self._state)}
        return CliRunner().invoke(cli, ["instances", *words], obj=made)


@pytest.fixture
def rackctl(key: Path, port: int, tmp_path: Path) -> Typing:
    return Typing(key, port, tmp_path / "state")


def test_a_server_that_is_not_up_exits_with_255_and_a_remedy(rackctl: Typing, port: int) -> None:
    result = rackctl("ssh", ID, "true")

    assert (result.exit_code, result.stdout) == (255, "")
    assert f"{ID} (127.0.0.1 port {port}) refused the connection" in result.stderr
    assert "--port" in result.stderr


def test_the_start_of_an_id_is_enough(rackctl: Typing) -> None:
    assert f"{ID} (" in rackctl("ssh", "i-0a00", "true").stderr


@pytest.mark.parametrize(
    ("words", "exit_code", "says"),
    [
        (("ssh",), 2, "missing argument '[USER@]ID'"),
        (("ssh", ""), 2, "the instance id is empty"),
        (("ssh", "i-0a"), 2, "is too short for an instance id"),
        (("ssh", "web-1"), 3, "no instance has web-1 as its address, DNS name or Name tag"),
        (("ssh", "i-0b00"), 3, "no instance's id starts with i-0b00"),
        (("ssh", "i-0b0000000000000bb"), 3, "there is no instance i-0b0000000000000bb"),
        (("ssh", "--nope", ID), 2, "no such option"),
        (("forget-host-key", ""), 2, "the instance id is empty"),
        (("forget-host-key", "i-0a00"), 2, "is not an instance id"),
    ],
)
def test_bad_input_is_refused_before_any_call(
    rackctl: Typing, words: tuple[str, ...], exit_code: int, says: str
) -> None:
    result = rackctl(*words)

    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert says in result.stderr


def test_a_dry_run_of_forget_host_key_shows_the_pinned_key_and_keeps_it(rackctl: Typing, tmp_path: Path) -> None:
    key = HostKey("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5AAAAIHk=")
    pins = HostKeyFile(tmp_path / "state")
    pins.pin(ID, [key])

    shown = rackctl("forget-host-key", "--dry-run", ID)
    assert (shown.exit_code, shown.stderr) == (0, f"rackctl: would forget {key.fingerprint} (ssh-ed25519)\n")
    assert pins.pinned(ID) == [key]
    assert "forgot" in rackctl("forget-host-key", ID).stderr
    assert pins.pinned(ID) == []


@pytest.mark.parametrize("state", ["pending", "stopped", "terminated"])
def test_an_instance_that_does_not_run(rackctl: Typing, state: str) -> None:
    result = rackctl("ssh", ID, state=state)

    assert result.exit_code == 255
    assert f"{ID} is {state}" in result.stderr


def test_no_key_in_the_store(rackctl: Typing) -> None:
    result = rackctl("ssh", ID, "true", key_name="prod-keypair-20250101T000000Z")

    assert result.exit_code == 3
    assert "no instance key found. Did you forget to run `rackctl instances keyroll`?" in result.stderr


def test_an_instance_that_was_launched_without_a_key(rackctl: Typing) -> None:
    assert "launched without an SSH key" in rackctl("ssh", ID, key_name="").stderr


@pytest.mark.parametrize(
    "words",
    [("ssh", "-r", "prod", "--port", "{other}", ID), ("-r", "prod", "ssh", "--port", "{other}", ID, "--port", "1")],
)
def test_options_count_before_the_id_only(rackctl: Typing, port: int, words: tuple[str, ...]) -> None:
    other = port + 1 if port < 65535 else 1024

    result = rackctl(*(word.format(other=other) for word in words))

    assert f"127.0.0.1 port {other}" in result.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--address", "private"), "has no private address"),
        (("--proxy-command", "echo %z"), "unknown token %z"),
        (("--jump", "a:b:c"), "[user@]host[:port]"),
        (("--jump", "a", "--via", "ssm"), "two connection methods"),
    ],
)
def test_the_ways_of_reaching_an_instance_are_options(rackctl: Typing, options: tuple[str, ...], says: str) -> None:
    result = rackctl("ssh", *options, ID, "true")

    assert result.exit_code in {2, 255}
    assert says in result.stderr


def test_the_help_says_what_the_exit_status_means(rackctl: Typing) -> None:
    result = rackctl("ssh", "--help")

    assert result.exit_code == 0
    assert "255 if the connection or the login failed" in " ".join(result.stdout.split())


def test_forgetting_an_instance_without_a_pinned_key_is_no_failure(rackctl: Typing) -> None:
    result = rackctl("forget-host-key", ID)

    assert (result.exit_code, result.stdout) == (0, "")
    assert f"no host key is pinned for {ID}" in result.stderr


@pytest.mark.parametrize(
    "words", [("-l", "ann", ID), (f"ann@{ID}",), ("-l", "ann", f"bob@{ID}"), ("--user", "ann", "-p", "{port}", ID)]
)
def test_the_user_is_given_as_for_ssh(rackctl: Typing, port: int, words: tuple[str, ...]) -> None:
    command = ["--proxy-command", "echo %r >&2; false"]
    result = rackctl("ssh", *command, *(word.format(port=port) for word in words), "true", private_ip="127.0.0.1")

    assert result.exit_code == 255
    assert "`echo ann >&2; false`" in result.stderr


@pytest.mark.parametrize("words", [(f"a b@{ID}",), (f"$(id)@{ID}",), ("-l", "-x", ID), ("-l", "ü", ID)])
def test_a_user_that_is_no_plain_word_is_refused(rackctl: Typing, words: tuple[str, ...]) -> None:
    result = rackctl("ssh", *words, "true")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "it must have ASCII letters" in result.stderr


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("-L", "8080:localhost:80"), "ssh -F ~/.ssh/rackctl -L 8080:localhost:80 ID"),
        (("-R", "9000:localhost:9000"), "-R 9000:localhost:9000 ID"),
        (("-D", "1080"), "-D 1080 ID"),
        (("-A",), "ssh -F ~/.ssh/rackctl -A ID"),
        (("-N",), "-N ID"),
        (("-fN",), "ID"),
    ],
)
def test_options_of_openssh_show_the_command_of_openssh(rackctl: Typing, words: tuple[str, ...], shown: str) -> None:
    result = rackctl("ssh", *words, ID)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "rackctl instances ssh-config" in result.stderr
    assert "ssh-agent add" in result.stderr
    assert shown in " ".join(result.stderr.split())
