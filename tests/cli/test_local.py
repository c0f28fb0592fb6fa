"""`rackctl local` as it is typed."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.local import control
from rackctl.local.faults import KINDS
from rackctl.local.world.conditions import CONDITIONS, INCIDENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Typist:
    """Types commands, where there is nothing but a state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            "RACKCTL_STATE_DIR": str(directory),
            "RACKCTL_CONFIG": str(directory / "config.toml"),
            "TERM": "dumb",
        }

    def __call__(self, *words: str, **environment: str) -> Result:
        invocation = Invocation(environment={**self.environment, **environment})
        return CliRunner().invoke(cli, words, obj=invocation)

    def good(self, *words: str, **environment: str) -> str:
        result = self(*words, **environment)
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typist]:
    """Where a rack is up, which tests leave as it is."""
    typed = Typist(tmp_path_factory.mktemp("state"))
    typed.good("local", "up", "--no-key", "--speed", "50")
    yield typed
    control.down(typed.directory)


@pytest.fixture
def down(tmp_path: Path) -> Iterator[Typist]:
    """Where no rack is up yet."""
    yield Typist(tmp_path)
    control.down(tmp_path)


def test_up_prints_commands_to_try_and_down_removes_the_rack(down: Typist) -> None:
    result = down("local", "up", "--instances", "2", "--name", "mine", "--no-key")

    assert result.exit_code == 0
    assert result.stdout.startswith(
        'The local rack "mine" is up: 2 instances; time runs 10 times as fast as AWS\'s. Commands to try:\n\n'
    )
    assert "rackctl: starting the local rack: seeding 2 instances" in result.stderr
    commands = re.findall(r"^  (.*?) +# ", result.stdout, re.MULTILINE)
    assert commands[0] == "rackctl instances"
    ids = down.good("instances", "-o", "id").split()
    assert commands[1] == f"rackctl instances ssh {ids[0]}"
    assert commands[-1] == "rackctl local down"

    assert down.good("local", "down") == "Stopped and removed the local rack\n"

    assert list(down.directory.iterdir()) == []
    again = down("local", "down")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "rackctl: there is no local rack to remove\n")


def test_a_second_up_reports_that_the_rack_is_up_and_refuses_other_options(up: Typist) -> None:
    same = up("local", "up")
    other = up("local", "up", "--instances", "5", "--speed", "50")

    assert 'The local rack "local" is already up: 3 instances; time runs 50 times' in same.stdout
    assert same.stderr == ""
    assert other.exit_code == 2
    assert other.stdout == ""
    assert 'rackctl: the local rack "local" is already up with another --instances; it was not changed' in other.stderr
    assert "`rackctl local down`" in other.stderr


def test_up_names_the_rack_where_another_is_current(up: Typist) -> None:
    (up.directory / "config.toml").write_text('default_rack = "prod"\n[racks.prod]\n')
    try:
        assert "  rackctl -r local instances ssh i-" in up.good("local", "up")
    finally:
        (up.directory / "config.toml").unlink()


def test_a_state_directory_may_be_named_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed = Typist(tmp_path)
    try:
        typed.good("local", "up", "--no-key", "--instances", "0", RACKCTL_STATE_DIR="here")

        assert "Instances: none" in typed.good("local", "status", RACKCTL_STATE_DIR="here")
    finally:
        typed.good("local", "down", RACKCTL_STATE_DIR="here")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_rack_named_before_the_words_does_not_disturb(up: Typist) -> None:
    assert up.good("-r", "prod", "local", "status") == up.good("local", "status")


@pytest.mark.parametrize(
    "words",
    [("--instances", "-1"), ("--instances", "many"), ("--speed", "0"), ("--name", "Not A Name"), ("--name", "")],
)
def test_up_with_invalid_options_starts_nothing(down: Typist, words: tuple[str, ...]) -> None:
    assert down("local", "up", *words).exit_code == 2
    assert list(down.directory.iterdir()) == []


def test_a_daemon_that_dies_shows_the_end_of_its_log(down: Typist) -> None:
    (down.directory / "local" / "docker.sock").mkdir(parents=True)

    result = down("local", "up", "--no-key")

    assert result.exit_code == 1
    assert "rackctl: the local rack did not start (its daemon ended with status 1)" in result.stderr
    assert "IsADirectoryError" in result.stderr or "PermissionError" in result.stderr
    assert result.stdout == ""


def test_missing_packages_are_named_with_the_command_that_installs_them(tmp_path: Path) -> None:
    # A process that cannot find asyncssh: a finder before all others denies that it is there.
    script = (
        "import sys, importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'asyncssh' else found(name, *a)\n"
        "sys.argv = ['rackctl', 'local', 'up']\n"
        "from rackctl.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "RACKCTL_STATE_DIR": str(tmp_path), "RACKCTL_CONFIG": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == (
        "rackctl: the local rack needs packages that are not installed: asyncssh\n"
        "  install them: `pipx install --force '.[local]'` in a clone of rackctl\n"
    )


def test_status_describes_a_rack_that_is_up(up: Typist) -> None:
    text = up.good("local", "status")
    described = json.loads(up.good("local", "status", "-o", "json"))

    assert re.search(r"^Rack: +local\n", text)
    assert re.search(r"^Instances: +3 running; 127\.\d+\.0\.0/16, SSH on port \d+\n", text, re.MULTILINE)
    assert re.search(r"^Speed: +50 times AWS's\n", text, re.MULTILINE)
    assert re.search(r"^Faults: +none\n", text, re.MULTILINE)
    assert described["up"] is True
    assert described["instances"] == {"running": 3}
    assert described["state_directory"] == str(up.directory / "local")
    assert "secret" not in json.dumps(described)


def test_status_of_none_exits_with_three(down: Typist) -> None:
    text, described = down("local", "status"), down("local", "status", "-o", "json")

    assert (text.exit_code, text.stdout) == (3, "The local rack is down.\n")
    assert (described.exit_code, json.loads(described.stdout)) == (3, {"up": False})


def test_env_lets_a_shell_s_other_aws_clients_use_it(up: Typist) -> None:
    exports = up.good("local", "env")
    script = (
        "import boto3; e = boto3.client('ecs'); print(e.list_clusters()['clusterArns'][0]);"
        "import os; print(os.environ['RACKCTL_RACK'], 'AWS_PROFILE' in os.environ, 'AWS_SESSION_TOKEN' in os.environ)"
    )
    done = subprocess.run(
        ["bash", "-c", f'eval "$1"; exec {shlex.quote(sys.executable)} -c "$2"', "-", exports, script],
        env={"PATH": os.environ["PATH"], "AWS_PROFILE": "nonesuch", "AWS_SESSION_TOKEN": "old"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout == "arn:aws:ecs:us-east-1:123456789012:cluster/local\nlocal False False\n"


@pytest.mark.parametrize("words", [("env",), ("faults", "list"), ("faults", "clear"), ("faults", "add", "stuck-drain")])
def test_commands_that_need_a_rack_name_the_command_that_starts_one(down: Typist, words: tuple[str, ...]) -> None:
    result = down("local", *words)

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "rackctl: the local rack is down\n  start it with `rackctl local up`\n"


def test_faults_are_added_listed_and_cleared(up: Typist) -> None:
    number = re.search(
        r"fault (\d+): throttle ecs:\*", up("local", "faults", "add", "throttle", "ecs:*", "--count", "2").stderr
    )
    assert number
    up.good("local", "faults", "add", "error", "s3:PutObject", "--code", "SlowDown", "--status", "503", "--mutating")
    up.good("local", "faults", "add", "no-capacity", "us-east-1a")

    rows = [re.split(r"  +", line) for line in up.good("local", "faults", "list").splitlines()]
    assert rows[0] == ["CLEAR BY", "FAULT", "TARGET", "DETAILS"]
    assert rows[1][1:] == ["throttle", "ecs:*", "2 more times"]
    assert rows[2][1:] == ["error", "s3:PutObject", "SlowDown (503), only calls that change something"]
    assert rows[3] == ["no-capacity", "no-capacity", "us-east-1a"]
    assert "no-capacity us-east-1a, 2 of the API" in up.good("local", "status")
    assert json.loads(up.good("local", "faults", "list", "-o", "json"))["conditions"] == {"no-capacity": "us-east-1a"}

    up.good("local", "faults", "clear", number[1], "no-capacity")
    assert len(up.good("local", "faults", "list").splitlines()) == 2
    up.good("local", "faults", "clear")
    assert up.good("local", "faults", "list").splitlines() == ["CLEAR BY  FAULT  TARGET  DETAILS"]


def test_a_fault_shows_in_the_commands_that_meet_it(up: Typist) -> None:
    up.good("local", "faults", "add", "throttle", "ecs:ListContainerInstances", "--count", "1")

    result = up("instances")

    assert result.exit_code == 0
    assert "ThrottlingException; retrying" in result.stderr


def test_an_incident_affects_its_instance(up: Typist) -> None:
    id_ = up.good("instances", "-o", "id").split()[0]

    up.good("local", "faults", "add", "agent-off", id_)

    assert up.good("instances", "-o", "id", "--filter", "agent_connected=false") == f"{id_}\n"
    up.good("local", "faults", "add", "agent-on", id_)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("trhottle", "ecs:*"), 'there is no fault "trhottle"'),
        (("throttle",), "throttle needs a target"),
        (("throttle", "ecs:DescribeContainerInstance"), "ecs:DescribeContainerInstances"),
        (("throttle", "foo:*"), 'has no call "foo:*"'),
        (("no-capacity", "us-east-1z"), "the local rack has no zone or instance type us-east-1z"),
        (("slow-boot", "very"), "slow-boot takes a number"),
        (("slow-stop", "very"), "slow-stop takes a number of seconds"),
        (("throttle", "ecs"), '"ecs" is not SERVICE:ACTION'),
        (("no-capacity", "--count", "3"), "--count is for faults of the API"),
        (("stuck-drain", "i-0123456789abcdef0"), "stuck-drain takes no target"),
        (("vanish",), "vanish needs an instance's id"),
        (("vanish", "i-00000000"), "does not exist"),
        (("error", "ecs:*", "--status", "200"), "200 is not in the range"),
    ],
)
def test_an_invalid_fault_is_refused(up: Typist, words: tuple[str, ...], says: str) -> None:
    result = up("local", "faults", "add", *words)

    assert result.exit_code == 2
    assert says in result.stderr
    assert len(up.good("local", "faults", "list").splitlines()) == 1


def test_clearing_an_unknown_fault_exits_with_3(up: Typist) -> None:
    assert up("local", "faults", "clear", "99").exit_code == 3
    assert up("local", "faults", "clear", "nonsense").exit_code == 3


def test_the_help_lists_every_fault(down: Typist) -> None:
    text = down.good("local", "faults", "add", "--help")

    for name in (*KINDS, *CONDITIONS, *INCIDENTS):
        assert re.search(rf"^  {name}\b", text, re.MULTILINE)
