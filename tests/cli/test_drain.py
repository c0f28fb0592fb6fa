"""`rackctl instances drain` and `undrain` as they are typed, on an AWS in memory."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import SIGNALLED
from rackctl.model import Container, Failure
from tests.cli.test_instances import run
from tests.fakes.clock import FakeClock, Passing
from tests.test_drain import Cluster, task, with_tasks
from tests.test_drain import ecs as registered
from tests.test_instances import A, B, C, ec2, ecs, rack_of

if TYPE_CHECKING:
    from tests.fakes.aws import FakeAws


def two(**more: object) -> FakeAws:
    return rack_of(ec2(A), ec2(B, Name="web-b"), registered=[ecs(A, tasks=0), ecs(B, tasks=0)], **more)


def with_task(*, service: str = "web", on: str = A) -> Cluster:
    return with_tasks(task("arn:t", service, on=f"arn:{on}"), registered=[registered(A), registered(B)])


def statuses(aws: FakeAws) -> list[str]:
    return [found.status for found in aws.container_instances.values()]


# Drain


def test_drain_sets_all_instances_to_draining_at_once_and_does_not_wait_for_tasks() -> None:
    aws, clock = with_task(), FakeClock()

    result = run(aws, "instances", "drain", A, B, clock=clock)

    assert result.exit_code == 0, result.stderr
    assert result.stdout == f'Set instance "{A}" to DRAINING\nSet instance "{B}" to DRAINING\n'
    assert result.stderr == ""
    assert aws.calls == [f"DRAINING arn:{A} arn:{B}"]
    assert clock.slept == []


def test_drain_accepts_ids_addresses_and_names_and_drains_each_instance_once() -> None:
    aws = two()

    result = run(aws, "instances", "drain", A[:9], A, "web-b")

    assert result.exit_code == 0, result.stderr
    assert aws.calls == [f"DRAINING arn:{A} arn:{B}"]


@pytest.mark.parametrize("word", ["drain", "undrain"])
@pytest.mark.parametrize(
    ("names", "exit_code"), [((), 2), (("",), 2), ((A, " "), 2), (("i-0",), 2), ((A, C), 3), (("web-c",), 3)]
)
def test_a_name_that_is_empty_or_names_nothing_changes_nothing(
    word: str, names: tuple[str, ...], exit_code: int
) -> None:
    aws = two()

    assert run(aws, "instances", word, *names).exit_code == exit_code
    assert aws.calls == []


def test_drain_sets_every_living_registration_to_draining() -> None:
    """https://github.com/aws/amazon-ecs-agent/issues/782: one instance may be registered several times."""
    dead = ecs(A, arn="dead", agent=False, tasks=0)
    aws = rack_of(ec2(A), registered=[dead, ecs(A, arn="new"), ecs(A, "DRAINING", arn="old", age=9)])

    result = run(aws, "instances", "drain", A)

    assert result.exit_code == 0, result.stderr
    assert aws.calls == ["DRAINING new"]
    assert statuses(aws) == ["ACTIVE", "DRAINING", "DRAINING"]


def test_drain_of_an_instance_that_is_draining_changes_nothing_and_is_no_error() -> None:
    aws = rack_of(ec2(A), registered=[ecs(A, "DRAINING", tasks=0)])

    result = run(aws, "instances", "drain", A)

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"rackctl: {A} is DRAINING already\n"
    assert aws.calls == []
    assert run(aws, "instances", "drain", "--wait", A).stdout == f'Drained instance "{A}"\n'


def test_drain_returns_only_once_ecs_reports_the_instance_as_draining() -> None:
    aws = with_tasks()
    aws.stays = "ACTIVE"
    clock = Passing((9, lambda: setattr(aws, "stays", "")))

    result = run(aws, "instances", "drain", A, clock=clock)

    assert result.exit_code == 0, result.stderr
    assert clock.passed >= 9
    assert result.stderr == f"rackctl: waiting for ECS to report {A} as DRAINING\n"


@pytest.mark.parametrize(
    ("aws", "exit_code", "says"),
    [
        (rack_of(ec2(A), ec2(B), registered=[ecs(A)]), 1, f"{B} is not registered with cluster prod"),
        (
            rack_of(ec2(A), ec2(B), registered=[ecs(A), ecs(B, "REGISTRATION_FAILED")]),
            1,
            f"{B} is REGISTRATION_FAILED with cluster prod: ECS cannot drain it",
        ),
        (rack_of(ec2(A), ec2(B, "shutting-down"), registered=[ecs(A), ecs(B)]), 1, f"{B} is being terminated"),
        (rack_of(ec2(A), ec2(B, "terminated"), registered=[ecs(A)]), 3, f"{B} has been terminated"),
    ],
)
@pytest.mark.parametrize("words", [("drain",), ("drain", "--dry-run"), ("undrain",)])
def test_none_of_several_is_changed_if_one_cannot_be(
    aws: FakeAws, exit_code: int, says: str, words: tuple[str, ...]
) -> None:
    result = run(aws, "instances", *words, A, B)

    assert result.exit_code == exit_code
    assert says in result.stderr
    assert aws.calls == []


def test_drain_warns_of_an_agent_that_is_off() -> None:
    aws = rack_of(ec2(A), registered=[ecs(A, agent=False, tasks=0)])

    result = run(aws, "instances", "drain", A)

    assert result.exit_code == 0
    assert result.stderr == f"rackctl: the agent of {A} is off: ECS cannot move its tasks until it is on again\n"
    assert statuses(aws) == ["DRAINING"]


def test_tasks_on_a_dead_registration_are_reported_and_refuse_wait() -> None:
    aws = rack_of(ec2(A), registered=[ecs(A, tasks=0), ecs(A, arn="dead", agent=False, tasks=2)])

    refused = run(aws, "instances", "drain", "--wait", A)
    assert refused.exit_code == 1
    assert f"a dead registration of {A} still has 2 tasks, which ECS cannot move" in refused.stderr
    assert aws.calls == []

    assert "still has 2 tasks" in run(aws, "instances", "drain", A).stderr
    assert aws.calls == [f"DRAINING arn:{A}"]


def test_a_failure_that_ecs_reports_is_an_error_that_says_how_to_undo_the_others() -> None:
    aws = two(failures=[Failure(f"arn:{B}", "INACTIVE")])

    result = run(aws, "instances", "drain", A, B)

    assert (result.exit_code, result.stdout) == (1, "")
    assert f"ECS did not set {B} to DRAINING: INACTIVE" in result.stderr
    assert f"not drained: {A} and {B} (perhaps DRAINING)" in result.stderr
    assert f"rackctl instances undrain --rack prod {A} {B}" in result.stderr


# Wait


def test_drain_with_wait_shows_the_progress_of_each_until_all_are_drained() -> None:
    aws = with_task()
    clock = Passing((9, aws.becomes("arn:t", "STOPPED")))

    result = run(aws, "instances", "drain", "--wait", A, B, clock=clock)

    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f'Set instance "{A}" to DRAINING',
        f'Set instance "{B}" to DRAINING',
        f'Drained instance "{B}"',
        f'Drained instance "{A}"',
    ]
    assert result.stderr.splitlines() == [
        f"rackctl: {A}: 1 task left: (service web) is looking for room",
        f"rackctl: {B}: drained",
        f"rackctl: {A}: drained",
    ]  # fmt: skip
    assert clock.passed >= 9


def test_a_wait_that_times_out_leaves_the_instances_draining_and_says_how_to_undo_that() -> None:
    aws, clock = with_task(), FakeClock()

    result = run(aws, "instances", "drain", "--wait", "--timeout", "30s", A, B, clock=clock)

    assert result.exit_code == 5
    assert f"{A} still has 1 task after 30 s of draining: arn:t of web (RUNNING)" in result.stderr
    assert f"rackctl: stopped; drained: {B}; not drained: {A} (still DRAINING)\n" in result.stderr
    assert f"  set back to ACTIVE with `rackctl instances undrain --rack prod {A} {B}`\n" in result.stderr
    assert statuses(aws) == ["DRAINING", "DRAINING"]
    assert aws.calls == [f"DRAINING arn:{A} arn:{B}"]


class Signalled(FakeClock):
    """A clock during whose first sleep a signal arrives."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_wait_leaves_the_instances_draining_and_says_how_to_undo_that(number: int) -> None:
    aws = with_task()

    result = run(aws, "instances", "drain", "--wait", A, clock=Signalled(number))

    assert result.exit_code == SIGNALLED + number
    assert f"rackctl: stopped; not drained: {A} (still DRAINING)\n" in result.stderr
    assert f"rackctl instances undrain --rack prod {A}`" in result.stderr
    assert statuses(aws) == ["DRAINING", "ACTIVE"]


def test_instances_that_were_draining_before_are_not_in_the_command_that_undoes_the_drain() -> None:
    aws = with_task()
    aws.container_instances[f"arn:{A}"] = replace(aws.container_instances[f"arn:{A}"], status="DRAINING")

    result = run(aws, "instances", "drain", "--wait", A, B, clock=Signalled(signal.SIGINT))

    assert f"rackctl instances undrain --rack prod {B}`" in result.stderr


def test_a_drain_that_something_else_undoes_ends_the_wait_for_that_instance_alone() -> None:
    aws = with_task(on=B)
    active = aws.container_instances[f"arn:{A}"]
    clock = Passing(
        (0, lambda: aws.container_instances.update({f"arn:{A}": active})), (60, aws.becomes("arn:t", "STOPPED"))
    )
    aws.tasks["arn:u"] = replace(aws.tasks["arn:t"], task_arn="arn:u", container_instance_arn=f"arn:{A}")

    result = run(aws, "instances", "drain", "--wait", A, B, clock=clock)

    assert result.exit_code == 1
    assert f"another caller has set {A} to ACTIVE" in result.stderr
    assert f"rackctl: {B}: drained" in result.stderr
    assert clock.passed >= 60


def test_tasks_of_no_service_are_stopped_on_request_alone() -> None:
    aws = with_task(service="")
    assert run(aws, "instances", "drain", "--wait", "--timeout", "9s", A).exit_code == 5
    assert "stop arn:t" not in aws.calls

    clock = Passing((3, aws.becomes("arn:t", "STOPPED")))
    result = run(aws, "instances", "drain", "--wait", "--stop-standalone", A, clock=clock)

    assert result.exit_code == 0, result.stderr
    assert "stop arn:t" in aws.calls


def test_stop_standalone_without_wait_is_refused() -> None:
    aws = two()

    result = run(aws, "instances", "drain", "--stop-standalone", A)

    assert result.exit_code == 2
    assert "add --wait" in result.stderr
    assert aws.calls == []


def test_a_dry_run_shows_what_runs_there_and_changes_nothing() -> None:
    aws = with_task()
    aws.tasks["arn:t"] = replace(aws.tasks["arn:t"], containers=(Container("web", "example/web:42\x1b[2J"),))
    aws.container_instances[f"arn:{B}"] = ecs(B, "DRAINING", tasks=0)

    result = run(aws, "instances", "drain", "--dry-run", A, B)

    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        f"Would drain {A} (active)",
        r"  web: example/web:42\x1b[2J (RUNNING)",
        f"{B} is DRAINING already",
    ]
    assert aws.calls == []


# Undrain


def test_undrain_sets_draining_instances_to_active() -> None:
    aws = rack_of(ec2(A), ec2(B), registered=[ecs(A, "DRAINING"), ecs(A, "DRAINING", arn="second", age=9), ecs(B)])

    result = run(aws, "instances", "undrain", A, B)

    assert result.exit_code == 0, result.stderr
    assert result.stdout == f'Set instance "{A}" to ACTIVE\n'
    assert result.stderr == f"rackctl: {B} is ACTIVE already\n"
    assert aws.calls == [f"ACTIVE arn:{A} second"]


def test_a_dry_run_of_undrain_changes_nothing() -> None:
    aws = rack_of(ec2(A), registered=[ecs(A, "DRAINING")])

    assert run(aws, "instances", "undrain", "--dry-run", A).stdout == f"Would set {A} (draining) to ACTIVE\n"
    assert aws.calls == []


@pytest.mark.parametrize(
    ("word", "meant"), [("cordon", "drain"), ("uncordon", "undrain"), ("undrian", "undrain"), ("activate", "undrain")]
)
def test_the_words_of_kubectl_lead_to_those_of_rackctl(word: str, meant: str) -> None:
    assert f"instances {meant}`?" in run(two(), "instances", word, A).stderr
