"""`rackctl instances` and `terminate` as they are typed, on an AWS in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.errors import RackctlError
from rackctl.instances import Instances
from rackctl.rack import Rack
from rackctl.settings import Value
from tests.fakes.aws import FakeAws
from tests.fakes.clock import FakeClock
from tests.fakes.origin import GIVEN
from tests.test_instances import A, B, ec2, ecs, rack_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def run(aws: FakeAws, *args: str, clock: FakeClock | None = None, color: bool = False) -> Result:
    invocation = Invocation(environment={"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": "/nowhere"})
    invocation.clock = clock or FakeClock()
    rack = Rack(Value("prod", GIVEN), {"cluster": Value("prod", GIVEN)}, aws=aws)  # type: ignore[arg-type]
    invocation.rack = rack
    invocation.instances = Instances(rack, invocation.clock)
    return CliRunner().invoke(cli, args, obj=invocation, color=color)


@pytest.fixture
def aws() -> FakeAws:
    return rack_of(ec2(A), ec2(B), registered=[ecs(A, tasks=0), ecs(B, "DRAINING", tasks=0)])


def test_instances_and_instances_list_are_the_same(aws: FakeAws) -> None:
    assert run(aws, "instances").stdout == run(aws, "instances", "list").stdout
    assert run(aws, "instances", "-o", "id").stdout == f"{A}\n{B}\n"


@pytest.mark.parametrize(
    "words", [("-r", "prod", "instances"), ("instances", "-r", "prod"), ("instances", "list", "-r", "prod")]
)
def test_the_rack_may_stand_before_and_after_the_command_words(aws: FakeAws, words: tuple[str, ...]) -> None:
    assert run(aws, *words).exit_code == 0


def test_the_rack_named_last_is_the_one_that_counts() -> None:
    invocation = Invocation(environment={"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": "/nowhere"})

    CliRunner().invoke(cli, ["-r", "a", "racks", "-r", "b"], obj=invocation)

    assert invocation.options["rack"] == "b"


HOSTILE, SHOWN = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e", r"\x1b]0;title\x07\x1b[2J\x9b31m\u202e"


class Refusing(FakeAws):
    def container_instance_arns(self, cluster: str, *, filter: str = "") -> Iterator[list[str]]:  # noqa: A002
        raise RackctlError(f"AWS refused: {HOSTILE}", hint=f"ask\nabout\t{HOSTILE}")


def test_control_characters_from_aws_are_escaped_on_the_terminal() -> None:
    listed = run(rack_of(replace(ec2(A), key_name=HOSTILE)), "instances", "-o", "wide", color=True)
    assert SHOWN in listed.stdout

    told = run(Refusing(), "instances", color=True)
    assert told.stderr == f"rackctl: AWS refused: {SHOWN}\n  ask\nabout\t{SHOWN}\n"


def test_an_empty_list_prints_the_header_and_exits_with_zero() -> None:
    result = run(rack_of(), "instances")

    assert (result.exit_code, result.stdout) == (0, "ID  AGENT  STATUS  STARTED  PS  CPU  MEM\n")
    assert run(rack_of(), "instances", "-o", "id").stdout == ""


def test_the_list_filters_and_sorts(aws: FakeAws) -> None:
    assert run(aws, "instances", "-o", "id", "--filter", "status=draining").stdout == f"{B}\n"
    assert run(aws, "instances", "-o", "id", "--sort", "-id").stdout == f"{B}\n{A}\n"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--filter", "stauts=active"), 'there is no field "stauts"'),
        (("--filter", "status"), "is not FIELD=VALUE"),
        (("--sort", "ps"), 'there is no field "ps"'),
        (("--watch", "soon"), "is not a number of seconds"),
        (("--watch", "0"), "is not a number of seconds"),
        (("-o", "yaml"), "yaml"),
        (("terminte", A), "instances terminate`?"),
        (("-o", "json", "terminate", A), "--output is an option of the list"),
    ],
)
def test_invalid_options_exit_with_two_before_aws_is_called(args: tuple[str, ...], says: str) -> None:
    result = run(FakeAws(cluster_name="unasked"), "instances", *args)

    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


def test_an_error_prints_its_hint_on_stderr_and_sets_the_exit_status() -> None:
    result = run(FakeAws(cluster_name="other"), "instances")

    assert (result.exit_code, result.stdout) == (3, "")
    assert 'rackctl: there is no ECS cluster "prod"' in result.stderr


class Broken(FakeAws):
    def instances_tagged(self, tags: object) -> None:  # type: ignore[override]
        raise ZeroDivisionError("oh")


def test_an_internal_error_shows_a_traceback_only_with_debug() -> None:
    result = run(Broken(), "instances")

    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    assert "--debug" in result.stderr
    assert isinstance(run(Broken(), "--debug", "instances").exception, ZeroDivisionError)


class Stopping(FakeClock):
    """A clock that raises KeyboardInterrupt at the third refresh."""

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if len(self.slept) == 3:
            raise KeyboardInterrupt


def test_watch_repeats_the_list_until_interrupted(aws: FakeAws) -> None:
    clock = Stopping()

    result = run(aws, "instances", "--watch", "7", "-o", "id", clock=clock)

    assert result.stdout == "\n".join([f"{A}\n{B}\n"] * 3)
    assert clock.slept == [7, 7, 7]
    assert result.exit_code == 130


class Flickering(FakeAws):
    """AWS that fails the second time."""

    looks = 0

    def container_instance_arns(self, cluster: str, *, filter: str = "") -> object:  # type: ignore[override] # noqa: A002
        self.looks += 1
        if self.looks == 2:
            raise RackctlError("AWS cannot be reached")
        return super().container_instance_arns(cluster, filter=filter)


def test_watch_reports_a_failed_refresh_and_continues() -> None:
    aws = Flickering(instances={A: ec2(A)})

    result = run(aws, "instances", "-o", "id", "--watch", clock=Stopping())

    assert result.stdout == f"{A}\n\n{A}\n"
    assert "rackctl: AWS cannot be reached" in result.stderr
