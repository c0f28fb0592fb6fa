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
from tests.test_instances import A, B, ec2, ecs, group, member, rack_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.model import ContainerInstance


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
        (("terminte", A), 'Did you mean "terminate"?'),
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
    """A clock on which somebody presses Ctrl-C at the third look."""

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


# Terminate


def test_terminate_says_what_the_document_says(aws: FakeAws) -> None:
    result = run(aws, "instances", "terminate", A)

    assert result.stdout == f'Successfully sent terminate to instance "{A}"\n'
    assert result.stderr == ""
    assert aws.calls == [f"terminate {A} decrement=False"]


@pytest.mark.parametrize("words", [(), ("",), (" ",), ("i-0a0",), (A[:-1],), (A, B)])
def test_terminate_without_one_whole_id_terminates_nothing(aws: FakeAws, words: tuple[str, ...]) -> None:
    result = run(aws, "instances", "terminate", *words)

    assert result.exit_code == 2
    assert aws.calls == []


def test_terminate_of_an_instance_that_is_terminating_is_not_an_error(aws: FakeAws) -> None:
    run(aws, "instances", "terminate", A)
    result = run(aws, "instances", "terminate", A)

    assert (result.exit_code, result.stdout) == (0, "")
    assert "is being terminated already" in result.stderr
    assert len(aws.calls) == 1


def test_terminate_of_an_instance_that_has_terminated_is_not_found() -> None:
    result = run(rack_of(ec2(A, "terminated")), "instances", "terminate", A)

    assert result.exit_code == 3
    assert "has been terminated already" in result.stderr


def test_terminate_of_an_instance_of_another_rack_terminates_nothing() -> None:
    aws = rack_of(replace(ec2(A), tags={"Rack": "staging"}))

    result = run(aws, "instances", "terminate", A)

    assert result.exit_code == 3
    assert aws.calls == []


# Terminate after a drain


def test_terminate_with_drain_drains_first(aws: FakeAws) -> None:
    result = run(aws, "instances", "terminate", "--drain", A)

    assert aws.calls == [f"DRAINING arn:{A}", f"terminate {A} decrement=False"]
    assert f"rackctl: {A}: drained" in result.stderr


def test_terminate_with_drain_drains_every_living_registration() -> None:
    """https://github.com/aws/amazon-ecs-agent/issues/782: one instance may be registered several times."""
    aws = rack_of(ec2(A), registered=[ecs(A, arn="new", tasks=0), ecs(A, arn="old", tasks=0, age=9)])

    result = run(aws, "instances", "terminate", "--drain", A)

    assert result.exit_code == 0
    assert aws.calls == ["DRAINING new old", f"terminate {A} decrement=False"]


def test_terminate_with_drain_leaves_an_instance_alone_whose_drain_takes_too_long() -> None:
    aws = rack_of(ec2(A), registered=[ecs(A, tasks=1)])

    result = run(aws, "instances", "terminate", "--drain", "--drain-timeout", "30s", A)

    assert result.exit_code == 5
    assert f"{A} still has 1 task after 30 s of draining" in result.stderr
    assert aws.calls == [f"DRAINING arn:{A}", f"ACTIVE arn:{A}"]


@pytest.mark.parametrize(
    ("registered", "says"),
    [
        ([], f"{A} is not registered with cluster prod: what runs on it is not known"),
        ([ecs(A, "REGISTRATION_FAILED")], f"{A} is REGISTRATION_FAILED with cluster prod"),
        ([ecs(A, agent=False)], f"the agent of {A} is off, so ECS cannot move its tasks"),
        (
            [ecs(A, tasks=0), ecs(A, arn="dead", agent=False, tasks=2)],
            f"a dead registration of {A} still has 2 tasks, which ECS cannot move",
        ),
    ],
)
def test_terminate_with_drain_refuses_an_instance_that_ecs_cannot_drain(
    registered: Sequence[ContainerInstance], says: str
) -> None:
    aws = rack_of(ec2(A), registered=registered)

    result = run(aws, "instances", "terminate", "--drain", A)

    assert result.exit_code == 1
    assert says in result.stderr
    assert "leave out --drain" in result.stderr
    assert aws.calls == []
    assert run(aws, "instances", "terminate", A).exit_code == 0


# The replacement


def without_launch(*words: str) -> tuple[Result, FakeAws]:
    aws = rack_of(ec2(A), groups_by_name={"group": group(member(A), suspended_processes=frozenset({"Launch"}))})
    return run(aws, "instances", "terminate", *words, A), aws


@pytest.mark.parametrize("words", [(), ("--wait",), ("--drain",)])
def test_terminate_refuses_if_the_group_cannot_launch_a_replacement(words: tuple[str, ...]) -> None:
    result, aws = without_launch(*words)

    assert result.exit_code == 1
    assert f"the Launch process of group group is suspended: {A} would not be replaced" in result.stderr
    assert "resume-processes --auto-scaling-group-name group --scaling-processes Launch" in result.stderr
    assert "--no-replacement" in result.stderr
    assert aws.calls == []


def test_terminate_with_no_replacement_terminates_although_the_group_cannot_launch() -> None:
    result, aws = without_launch("--no-replacement")

    assert result.exit_code == 0
    assert aws.calls == [f"terminate {A} decrement=False"]


def test_wait_and_no_replacement_contradict_each_other() -> None:
    result, aws = without_launch("--no-replacement", "--wait")

    assert result.exit_code == 2
    assert "leave one of them out" in result.stderr
    assert aws.calls == []


@pytest.mark.parametrize("state", ["Standby", "EnteringStandby", "Warmed:Stopped"])
def test_terminate_with_wait_does_not_wait_for_the_replacement_of_an_instance_on_standby(state: str) -> None:
    """EnterStandby, in botocore's Auto Scaling model: "If you choose not to decrement the desired capacity of the Auto
    Scaling group, the Auto Scaling group launches new instances to replace the instances on standby." It counts them no
    more, so their termination launches nothing.
    """
    aws, clock = rack_of(ec2(A), groups_by_name={"group": group(member(A, state), member(B))}), FakeClock()

    result = run(aws, "instances", "terminate", "--wait", A, clock=clock)

    assert result.exit_code == 0
    assert f"{A} is on standby ({state}): group group does not count it and will not replace it" in result.stderr
    assert aws.calls == [f"terminate {A} decrement=False"]
    assert clock.slept == []


def test_terminate_with_wait_of_an_instance_of_no_group_terminates_nothing() -> None:
    aws = rack_of(ec2(A), groups_by_name={})

    result = run(aws, "instances", "terminate", "--wait", A)

    assert result.exit_code == 2
    assert "belongs to no Auto Scaling group, so nothing replaces it" in result.stderr
    assert aws.calls == []


class Replacing(FakeClock):
    """A clock on which a replacement arrives ten seconds after the termination."""

    aws: FakeAws

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if sum(self.slept) >= 10:
            self.aws.groups_by_name["group"] = group(member(B))
            self.aws.container_instances["new"] = ecs(B)


def test_terminate_with_wait_shows_the_progress_of_the_replacement() -> None:
    clock = Replacing()
    clock.aws = rack_of(ec2(A))

    result = run(clock.aws, "instances", "terminate", "--wait", A, clock=clock)

    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "rackctl: replacement: not launched yet",
        f"rackctl: replacement: {B}: in service, registered, agent connected",
    ]


def test_terminate_with_wait_that_times_out_exits_with_five() -> None:
    clock = FakeClock()

    result = run(rack_of(ec2(A)), "instances", "terminate", "--wait", "--wait-timeout", "1m30s", A, clock=clock)

    assert result.exit_code == 5
    assert sum(clock.slept) >= 90
    assert "gave up after 90 s waiting for the replacement in group group: not launched yet" in result.stderr
