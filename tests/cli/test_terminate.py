"""`rackctl instances terminate` as it is typed, on an AWS in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import AwsError
from rackctl.model import Container, Task
from tests.cli.test_instances import run
from tests.fakes.aws import FakeAws
from tests.fakes.clock import FakeClock
from tests.test_instances import NEW, A, B, C, ec2, ecs, group, member, rack_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from click.testing import Result

    from rackctl.model import ContainerInstance


@pytest.fixture
def aws() -> FakeAws:
    return rack_of(ec2(A), ec2(B), registered=[ecs(A, tasks=0), ecs(B, "DRAINING", tasks=0)])


def test_terminate_says_what_the_document_says(aws: FakeAws) -> None:
    result = run(aws, "instances", "terminate", A)

    assert result.stdout == f'Successfully sent terminate to instance "{A}"\n'
    assert result.stderr == ""
    assert aws.calls == [f"terminate {A} decrement=False"]


@pytest.mark.parametrize("words", [(), ("",), (" ",), ("i-0a0",), (A[:-1],), (A, B[:-1]), (A, "")])
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

    assert result.exit_code == 1
    assert f"{A} belongs to no Auto Scaling group and would not be replaced; it was not terminated" in result.stderr
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


def test_terminate_with_wait_of_an_instance_that_is_terminating_waits_for_what_its_group_lacks() -> None:
    clock = Replacing()
    clock.aws = rack_of(ec2(A, "shutting-down"), ec2(B))
    pending = group(member(A, "Terminating"), member(B, "Pending"))
    clock.aws.groups_by_name["group"] = replace(pending, desired_capacity=1)

    result = run(clock.aws, "instances", "terminate", "--wait", A, clock=clock)

    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[-1] == f"rackctl: replacement: {B}: in service, registered, agent connected"
    assert clock.aws.calls == []


def test_terminate_with_wait_of_an_instance_that_has_been_replaced_does_not_wait() -> None:
    aws, clock = rack_of(ec2(A, "shutting-down"), ec2(B)), FakeClock()
    aws.groups_by_name["group"] = replace(group(member(A, "Terminating"), member(B)), desired_capacity=1)

    assert run(aws, "instances", "terminate", "--wait", A, clock=clock).exit_code == 0
    assert clock.slept == []


class Contended(FakeAws):
    """A group with a scaling activity under way, which refuses the first two terminations."""

    refusals = 2

    def terminate_instance(self, ec2_instance_id: str, *, decrement_desired_capacity: bool) -> None:
        if self.refusals:
            self.refusals -= 1
            raise AwsError("busy", code="ScalingActivityInProgress", refused=True)
        super().terminate_instance(ec2_instance_id, decrement_desired_capacity=decrement_desired_capacity)


def test_a_wait_for_a_scaling_activity_is_reported_once() -> None:
    aws = rack_of(ec2(A))
    contended = Contended(**{name: getattr(aws, name) for name in aws.__dataclass_fields__})

    result = run(contended, "instances", "terminate", A)

    assert result.exit_code == 0, result.stderr
    assert result.stderr == "rackctl: waiting for the scaling activity in progress in group group to end\n"


# Several


class Rolling(FakeClock):
    """A clock on which a replacement of each terminated instance arrives ten seconds later, ``at_most`` so many."""

    def __init__(self, aws: FakeAws, at_most: int = 9) -> None:
        super().__init__()
        self.aws, self.at_most, self.new = aws, at_most, [NEW, NEW[:-1] + "e", NEW[:-1] + "f"]

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        gone = [call.split()[1] for call in self.aws.calls if call.startswith("terminate")]
        if sum(self.slept) >= 10 * len(gone) and len(gone) <= self.at_most:
            arrived = self.new[: len(gone)]
            left = [i for i in (A, B, C) if i not in gone]
            self.aws.groups_by_name["group"] = group(*map(member, [*left, *arrived]))
            self.aws.container_instances |= {f"arn:{i}": ecs(i) for i in arrived}


def three() -> FakeAws:
    return rack_of(*map(ec2, (A, B, C)), registered=[ecs(i, tasks=0) for i in (A, B, C)])


def test_several_instances_are_terminated_each_after_the_replacement_of_the_one_before() -> None:
    aws = three()
    clock = Rolling(aws)

    result = run(aws, "instances", "terminate", A, B, A, clock=clock)

    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [f'Successfully sent terminate to instance "{i}"' for i in (A, B)]
    assert aws.calls == [f"terminate {i} decrement=False" for i in (A, B)]
    ready = f"{NEW}: in service, registered, agent connected"
    assert result.output.index(ready) < result.output.index(f'instance "{B}"')
    assert result.stderr.splitlines()[-1].endswith(": in service, registered, agent connected")


def test_with_drain_each_is_drained_when_its_turn_comes() -> None:
    aws = three()

    result = run(aws, "instances", "terminate", "--drain", A, B, clock=Rolling(aws))

    assert result.exit_code == 0, result.stderr
    assert aws.calls == [
        f"DRAINING arn:{A}", f"terminate {A} decrement=False", f"DRAINING arn:{B}", f"terminate {B} decrement=False"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "exit_code", "says"),
    [
        ((A, "i-0123456789abcdef0"), 3, "there is no instance i-0123456789abcdef0"),
        (("--drain", A, B), 1, f"the agent of {B} is off"),
        ((A, C), 3, f"{C} has been terminated already"),
        (("--no-replacement", A, B), 2, "give one ID"),
    ],
)
def test_none_of_several_is_terminated_if_one_cannot_be(words: Sequence[str], exit_code: int, says: str) -> None:
    aws = rack_of(ec2(A), ec2(B), ec2(C, "terminated"), registered=[ecs(A, tasks=0), ecs(B, agent=False)])

    result = run(aws, "instances", "terminate", *words)

    assert result.exit_code == exit_code
    assert says in result.stderr
    assert aws.calls == []


def test_a_replacement_that_does_not_come_ends_the_rest_and_says_what_is_done_and_left() -> None:
    aws = three()

    result = run(aws, "instances", "terminate", "--drain", A, B, C, clock=Rolling(aws, at_most=1))

    assert result.exit_code == 5
    assert aws.calls[-1] == f"terminate {B} decrement=False"
    said = result.stderr.splitlines()
    assert f"rackctl: stopped; terminated: {A}; terminated, replacement not ready: {B}; not terminated: {C}" in said
    assert f"  continue with `rackctl instances terminate --drain {C}`, once {B} is replaced" in said


class Interrupted(Rolling):
    def sleep(self, seconds: float) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_between_several_says_what_is_done_and_left() -> None:
    aws = three()

    result = run(aws, "instances", "terminate", A, B, clock=Interrupted(aws))

    assert result.exit_code == 130
    assert f"stopped; terminated, replacement not ready: {A}; not terminated: {B}" in result.stderr
    assert f"continue with `rackctl instances terminate {B}`, once {A} is replaced" in result.stderr


def test_an_instance_that_changes_while_it_waits_for_its_turn_is_checked_again() -> None:
    aws = three()

    class Vanishing(Rolling):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            self.aws.instances[B] = ec2(B, "terminated")

    result = run(aws, "instances", "terminate", A, B, C, clock=Vanishing(aws))

    assert result.exit_code == 3
    assert f"{B} has been terminated already" in result.stderr
    assert f"stopped; terminated: {A}; not terminated: {B} and {C}" in result.stderr
    assert aws.calls == [f"terminate {A} decrement=False"]


# The dry run


def test_a_dry_run_shows_what_would_be_done_and_what_runs_there_and_changes_nothing() -> None:
    aws = rack_of(ec2(A), ec2(B), registered=[ecs(A)])
    hostile = Container("web", "example/web:42\x1b[2J")
    web = Task("arn:t", "RUNNING", "RUNNING", "service:web", f"arn:{A}", containers=(hostile,))
    aws.tasks = {"arn:t": web, "arn:u": replace(web, task_arn="arn:u", group="family:job", containers=())}

    result = run(aws, "instances", "terminate", "--dry-run", A, B)

    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"Would terminate {A} (active); group group launches a replacement",
        "  no service: arn:u (RUNNING)",
        r"  web: example/web:42\x1b[2J (RUNNING)",
        f"Would terminate {B} (unregistered); group group launches a replacement",
        "  not registered with cluster prod: what runs on it is not known",
    ]
    assert aws.calls == []


def test_a_dry_run_of_a_drain_says_so_and_is_refused_as_the_drain_would_be() -> None:
    aws = rack_of(ec2(A), ec2(B), registered=[ecs(A), ecs(B, agent=False)])

    assert "Would drain and terminate" in run(aws, "instances", "terminate", "--drain", "--dry-run", A).stdout
    refused = run(aws, "instances", "terminate", "--drain", "--dry-run", B)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"the agent of {B} is off" in refused.stderr


def test_a_dry_run_says_that_nothing_replaces_an_instance() -> None:
    result, aws = without_launch("--dry-run", "--no-replacement")

    assert f"Would terminate {A} (unregistered); nothing replaces it" in result.stdout
    assert aws.calls == []
    assert without_launch("--dry-run")[0].exit_code == 1
    assert run(rack_of(ec2(A), groups_by_name={}), "instances", "terminate", "--dry-run", A).exit_code == 1
