"""Rolls with descriptions of AWS that lag behind changes, and with lost or wrong answers.

DescribeAutoScalingGroups and the others are eventually consistent; here they are some seconds late in everything.
"""

from __future__ import annotations

import contextlib

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import RollIncomplete
from rackctl.local.world.groups import Hook
from rackctl.roll.view import RollOptions
from tests.fakes.late import late_groups, late_registrations, slow_calls
from tests.fakes.world import OLD_KEY, Killed, Scene
from tests.roll.acts import assert_given_back, fail_from, run_until_killed, start, stopped, until


def late_scene(instances: int = 3, *, groups: float = 5, max_size: int | None = None) -> Scene:
    scene = Scene(instances, max_size=max_size)
    slow_calls(scene)
    late_groups(scene, groups)
    return scene


@pytest.mark.parametrize("batch", [1, 2])
def test_a_roll_comes_through_as_ever(batch: int) -> None:
    scene = late_scene(4)

    start(scene, RollOptions(batch=batch))

    assert OLD_KEY not in scene.key_names
    assert_given_back(scene, 4)


@pytest.mark.parametrize("number", range(4, 40, 3))
@pytest.mark.parametrize("way", ["resume", "abort"])
def test_a_roll_that_is_killed_and_taken_over_at_once_comes_through_or_is_given_back(way: str, number: int) -> None:
    scene = late_scene()
    run_until_killed(scene, lambda: start(scene), number, "after")
    scene.roll.unlock(force=True)

    list(getattr(scene.roll, way)())

    assert_given_back(scene, 3)


def test_a_surge_is_asked_for_once() -> None:
    scene = late_scene(max_size=9)
    events = until(scene, "surge")
    before = len(scene.aws.mutations)

    list(events)

    assert "set_desired_capacity" not in scene.aws.mutations[before:]
    assert_given_back(scene, 3)


def test_what_managed_scaling_sets_right_after_the_surge_is_kept() -> None:
    scene = late_scene(groups=3, max_size=9)
    events = until(scene, "surge")
    scene.later(1.5, lambda: scene.world.autoscaling.set_desired(scene.group, 6))

    list(events)

    assert scene.desired == 5


@pytest.mark.parametrize("batch", [1, 2])
def test_an_abort_right_after_the_surge_takes_all_of_it_back(batch: int) -> None:
    scene = late_scene(5)
    events = scene.roll.start(RollOptions(batch=batch))
    next(event for event in events if event.kind == "surge")
    stopped(scene, events)

    list(scene.roll.abort())

    assert_given_back(scene, 5)


def test_an_abort_while_the_surge_comes_ends_no_old_instance() -> None:
    scene = late_scene()
    scene.world.set_condition("no-capacity")
    events = until(scene, "surge")
    scene.later(20, lambda: setattr(scene.stop, "signal", 15))
    with pytest.raises(RollIncomplete):
        list(events)
    scene.stop.signal = 0
    old = set(scene.old)
    scene.world.clear_condition("no-capacity")
    while not scene.new:
        scene.clock.sleep(0.5)

    list(scene.roll.abort())

    assert set(scene.old) == old
    assert_given_back(scene, 3)


def test_an_instance_that_is_told_to_go_gets_no_tasks_any_more() -> None:
    scene = late_scene(groups=4)
    scene.group.hooks["bye"] = Hook("bye", "autoscaling:EC2_INSTANCE_TERMINATING", 120, "CONTINUE")
    fail_from(scene, "terminate_instance", Killed(), times=1, when="after")
    with pytest.raises(Killed):
        start(scene)
    scene.roll.unlock(force=True)

    list(scene.roll.abort())

    scene.clock.sleep(300)
    assert scene.broken_promises == []


def test_a_terminate_whose_answer_was_lost_is_found_to_have_worked() -> None:
    scene = late_scene(groups=4)
    fail_from(
        scene, "terminate_instance", AwsError("Instance Id not found", code="ValidationError"), times=1, when="after"
    )

    start(scene)

    assert_given_back(scene, 3)


def test_a_roll_right_after_another_suspends_rebalancing_too() -> None:
    scene = late_scene()
    start(scene)
    seen: set[str] = set()
    scene.clock.watching.append(lambda: seen.update(scene.group.suspended))

    start(scene)

    assert "AZRebalance" in seen
    assert_given_back(scene, 3)


def test_a_stop_right_after_a_drain_began_leaves_nothing_draining() -> None:
    scene = Scene(3)
    slow_calls(scene)
    late_registrations(scene, 2)
    scene.when(lambda: bool(scene.draining), lambda: setattr(scene.stop, "signal", 15))
    with pytest.raises(RollIncomplete):
        start(scene)
    scene.stop.signal = 0

    assert scene.draining == []
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_what_was_drained_before_a_stop_is_drained_again_after_it() -> None:
    scene = Scene(3)
    slow_calls(scene)
    late_registrations(scene, 3)
    scene.when(lambda: bool(scene.draining), lambda: scene.later(4, lambda: setattr(scene.stop, "signal", 15)))
    with pytest.raises(RollIncomplete):
        start(scene)
    scene.stop.signal = 0

    list(scene.roll.resume(drain_timeout=300.0))

    assert_given_back(scene, 3)


@pytest.mark.parametrize(("groups", "registrations"), [(2, 2), (2, 5), (5, 2)])
def test_zones_are_as_even_after_a_roll_as_they_were_before_it(groups: float, registrations: float) -> None:
    scene = Scene(3, max_size=5)
    slow_calls(scene)
    late_groups(scene, groups)
    late_registrations(scene, registrations)

    start(scene, RollOptions(batch=2))

    # Auto Scaling evens them, undrained, when it may again.
    scene.clock.sleep(300)
    assert_given_back(scene, 3)


@pytest.mark.parametrize(("call", "when"), [("suspend_processes", "after"), ("resume_processes", "before")])
def test_a_call_that_fails_once_does_not_leave_launch_suspended(call: str, when: str) -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity")
    with pytest.raises(RollIncomplete):
        start(scene, RollOptions(boot_timeout=60))
    failed = fail_from(scene, call, AwsError("AWS does not answer", code=""), times=1, when=when)

    with contextlib.suppress(RollIncomplete):
        list(scene.roll.abort())

    assert failed
    assert "Launch" not in scene.group.suspended
