"""AWS that fails, refuses, or answers too late to be relied on."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import AccessDenied, RackctlError, RollIncomplete
from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, Scene
from tests.roll.acts import (
    NEW_KEY,
    assert_given_back,
    collect,
    fail_from,
    start,
    texts,
    until,
)

if TYPE_CHECKING:
    from rackctl.roll.report import Event


def test_credentials_that_expire_stop_the_roll_and_resume_continues_it() -> None:
    scene = Scene(3)
    expired = AccessDenied("the AWS credentials have expired", hint="log in again")
    scene.when(lambda: bool(scene.draining), lambda: fail_from(scene, "groups", expired))

    with pytest.raises(RollIncomplete, match=r"expired. Replaced 0 of 3 .* 3 are left") as caught:
        start(scene)

    assert "log in again\n" in caught.value.hint
    assert "keyroll resume" in caught.value.hint
    scene.aws.interfering.clear()
    scene.clock.sleep(400)
    list(scene.roll.resume())
    assert_given_back(scene, 3)


DOWN = [
    ("groups", AwsError("AWS kept throttling autoscaling:DescribeAutoScalingGroups", code="Throttling"), 10),
    ("replace", AwsError("s3 cannot be reached", code="503"), 15),
]


@pytest.mark.parametrize(("call", "error", "times"), DOWN)
def test_a_minute_without_an_answer_does_not_stop_a_roll_that_waits(call: str, error: AwsError, times: int) -> None:
    scene = Scene(3)
    scene.when(lambda: len(scene.new) == 1, lambda: fail_from(scene, call, error, times=times))

    start(scene)

    assert_given_back(scene, 3)


@pytest.mark.parametrize(("call", "error", "times"), DOWN)
def test_no_answer_for_several_minutes_stops_a_roll(call: str, error: AwsError, times: int) -> None:
    scene = Scene(3)
    scene.when(lambda: len(scene.new) == 1, lambda: fail_from(scene, call, error, times=100 * times))

    with pytest.raises(RollIncomplete, match=str(error)):
        start(scene)

    assert scene.draining == []


@pytest.mark.parametrize("call", ["import_key_pair", "create_launch_template_version", "suspend_processes"])
def test_a_failure_before_any_instance_is_touched_rolls_back(call: str) -> None:
    scene = Scene(2)
    version = scene.template_in_use
    fail_from(scene, call, AccessDenied(f"AWS denied {call}"), times=1)

    with pytest.raises(RackctlError, match="rolled back; nothing is changed") as caught:
        start(scene)

    assert caught.value.exit_code == AccessDenied.exit_code
    assert scene.template_in_use == version
    assert scene.key_pairs == {OLD_KEY}
    assert_given_back(scene, 2)


def test_a_rollback_does_not_say_that_it_resumed_a_process_whose_suspension_was_denied() -> None:
    scene, said = Scene(2), list["Event"]()
    fail_from(scene, "suspend_processes", AccessDenied("AWS denied autoscaling:SuspendProcesses"))

    with pytest.raises(RackctlError, match="rolled back; nothing is changed"):
        collect(scene.roll.start(RollOptions()), said)

    assert "resumed" not in texts(said)
    assert_given_back(scene, 2)


def test_a_rollback_does_not_say_that_it_deleted_a_key_that_was_never_stored() -> None:
    scene, said = Scene(2), list["Event"]()
    created: list[str] = []

    def deny_the_second(_: int, name: str, moment: str) -> None:
        """Of the objects that a roll creates, the journal is the first, and the key the second."""
        if (name, moment) == ("create", "before"):
            created.append(name)
            if len(created) == 2:
                raise AccessDenied("AWS denied s3:PutObject")

    scene.aws.interfering.append(deny_the_second)

    with pytest.raises(RackctlError, match="rolled back; nothing is changed"):
        collect(scene.roll.start(RollOptions()), said)

    assert len(created) == 2
    assert "deleted" not in texts(said)
    assert_given_back(scene, 2)


def test_a_roll_that_waits_for_long_says_so_every_minute() -> None:
    scene = Scene(3)
    scene.world.set_condition("stuck-drain")
    events: list[Event] = []

    with pytest.raises(RollIncomplete):
        collect(scene.roll.start(RollOptions(drain_timeout=400)), events)

    waiting = [event.message for event in events if event.kind == "waiting"]
    assert len(waiting) >= 4
    assert re.fullmatch(r"waiting for i-\w+ to drain \(1 task left\).*", waiting[-1])


def test_a_terminate_whose_answer_was_lost_is_not_an_error() -> None:
    scene = Scene(3)

    def lose(_: int, name: str, moment: str) -> None:
        if name == "terminate_instance" and moment == "after":
            raise AwsError("Instance Id not found", code="ValidationError")

    scene.aws.interfering.append(lose)

    start(scene)

    assert_given_back(scene, 3)


def test_a_roll_comes_through_though_descriptions_lag_behind_a_termination() -> None:
    scene = Scene(3)
    seen: list[tuple[float, Any]] = []
    real = scene.aws.groups

    def groups(names: Any) -> Any:
        """Answer as it was ten seconds ago, but for the desired capacity, which the roll reads before it writes."""
        latest = real(names)
        seen.append((scene.clock.at, latest))
        old = next(groups for at, groups in reversed(seen) if at <= scene.clock.at - 10 or (at, groups) == seen[0])
        return [replace(then, desired_capacity=now.desired_capacity) for then, now in zip(old, latest, strict=True)]

    scene.aws.groups = groups  # type: ignore[method-assign]

    start(scene)

    assert_given_back(scene, 3)


def test_a_group_that_one_answer_leaves_out_is_not_taken_for_deleted() -> None:
    scene = Scene(3)
    events = until(scene, "instance", "draining")
    real = scene.aws.groups

    def groups(names: object) -> list[object]:
        scene.aws.groups = real  # type: ignore[method-assign]
        return []

    scene.aws.groups = groups  # type: ignore[method-assign]

    said = texts(list(events))

    assert "has been deleted" not in said
    assert set(scene.key_names) == {NEW_KEY}
    assert_given_back(scene, 3)


def test_a_surge_that_is_denied_rolls_back() -> None:
    scene = Scene(3)
    fail_from(scene, "set_desired_capacity", AccessDenied("AWS denied autoscaling:SetDesiredCapacity"))

    with pytest.raises(RackctlError, match="rolled back; nothing is changed") as caught:
        start(scene)

    assert caught.value.exit_code == AccessDenied.exit_code
    assert_given_back(scene, 3)


def test_a_scaling_activity_in_progress_is_waited_out() -> None:
    scene = Scene(3)
    busy = AwsError("busy", code="ScalingActivityInProgress")
    fail_from(scene, "terminate_instance", busy, times=5)
    fail_from(scene, "set_desired_capacity", busy, times=3)

    start(scene)

    assert_given_back(scene, 3)


def test_a_scaling_activity_that_never_ends_stops_the_roll() -> None:
    scene = Scene(3)
    fail_from(scene, "terminate_instance", AwsError("busy", code="ScalingActivityInProgress"))

    with pytest.raises(RollIncomplete, match="busy"):
        start(scene)

    assert scene.draining == []
