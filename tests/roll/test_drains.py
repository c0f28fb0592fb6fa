"""Drains in a roll: the tasks that it waits for, blocked drains, and that no instance is left draining."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import AccessDenied, RollIncomplete
from rackctl.roll.hold import RollStopped
from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, Scene
from tests.roll.acts import (
    JOURNAL,
    NEW_KEY,
    alone,
    assert_given_back,
    collect,
    draining_one,
    fail_from,
    start,
    texts,
)

if TYPE_CHECKING:
    from rackctl.roll.report import Event


def test_a_drain_that_never_ends_times_out_and_names_what_blocks_it() -> None:
    scene = Scene(3)
    scene.world.set_condition("stuck-drain")

    with pytest.raises(RollIncomplete, match=r"still has 1 task after 120 s of draining: .* of w(eb|orker)"):
        start(scene, RollOptions(drain_timeout=120))

    assert scene.draining == []
    scene.world.clear_condition("stuck-drain")
    list(scene.roll.resume())
    assert_given_back(scene, 3)


def test_a_stuck_drain_shows_the_newest_event_of_its_service() -> None:
    scene = Scene(1, max_size=1)
    events: list[Event] = []

    with pytest.raises(RollIncomplete, match="unable to place a task"):
        collect(scene.roll.start(RollOptions(drain_timeout=300)), events)

    assert any("unable to place a task" in event.service_event for event in events)
    assert scene.broken_promises == []


def test_force_terminates_after_a_drain_that_timed_out() -> None:
    scene = Scene(3)
    scene.world.set_condition("stuck-drain")

    events = start(scene, RollOptions(drain_timeout=60, force=True))

    assert set(scene.key_names) == {NEW_KEY}
    assert "with whatever runs on it (--force)" in texts(events)


def test_a_task_of_no_service_is_waited_for() -> None:
    scene = Scene(3)
    task = alone(scene)
    scene.later(600, lambda: scene.world.ecs.stop_task(scene.seeded, task, "done"))

    start(scene)

    assert task.stopped_reason == "done"
    assert_given_back(scene, 3)


def test_a_task_of_no_service_is_stopped_on_request() -> None:
    scene = Scene(3)
    task = alone(scene)

    start(scene, RollOptions(stop_standalone=True))

    assert "drained" in task.stopped_reason
    assert_given_back(scene, 3)


def test_an_agent_that_stays_off_stops_the_roll() -> None:
    scene = Scene(3)
    scene.when(lambda: len(scene.new) == 1, lambda: scene.world.befall("agent-off", scene.old[-1]))

    with pytest.raises(RollIncomplete, match=r"the agent of i-.* is off"):
        start(scene)

    assert scene.draining == []


def test_a_drained_instance_that_is_deregistered_does_not_stop_the_roll() -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)
    registration = next(r for r in scene.seeded.registrations.values() if r.instance_id == id_)
    scene.world.ecs.deregister(scene.seeded, registration, force=True)
    scene.broken_promises.clear()

    list(events)

    assert set(scene.key_names) == {NEW_KEY}
    assert JOURNAL not in scene.aws.objects


def test_drains_that_can_no_longer_be_followed_stop_the_roll_though_the_rest_of_aws_answers() -> None:
    scene = Scene(3)
    _, events = draining_one(scene)
    fail_from(scene, "describe_tasks", AwsError("AWS kept throttling ecs:DescribeTasks", code="ThrottlingException"))

    with pytest.raises(RollIncomplete, match="kept throttling ecs:DescribeTasks"):
        list(events)

    assert scene.draining == []


def test_what_could_not_be_set_to_active_is_named_as_draining_until_resume() -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)

    def expired(_: int, __: str, ___: str) -> None:
        raise AccessDenied("the AWS credentials have expired")

    scene.aws.interfering.append(expired)
    with pytest.raises(RollIncomplete, match=f"{id_} may still be DRAINING"):
        list(events)
    scene.aws.interfering.clear()
    scene.clock.sleep(400)

    list(scene.roll.resume())

    assert_given_back(scene, 3)


def test_a_stop_while_a_termination_is_refused_as_busy_leaves_nothing_draining() -> None:
    scene = Scene(3)
    fail_from(scene, "terminate_instance", AwsError("busy", code="ScalingActivityInProgress"))
    scene.when(
        lambda: "terminate_instance" in scene.aws.mutations,
        lambda: scene.later(4, lambda: setattr(scene.stop, "signal", 15)),
    )

    with pytest.raises(RollStopped, match="nothing is left draining"):
        start(scene)

    assert scene.draining == []


def test_termination_hooks_are_waited_for_before_the_old_key_is_deleted() -> None:
    from rackctl.local.world.groups import Hook

    scene = Scene(2)
    scene.group.hooks["bye"] = Hook("bye", "autoscaling:EC2_INSTANCE_TERMINATING", 60, "CONTINUE")

    start(scene)

    assert_given_back(scene, 2)


def test_an_abort_that_times_out_names_only_what_is_still_changed() -> None:
    scene = Scene(3)
    scene.world.set_condition("stuck-drain")
    with pytest.raises(RollIncomplete):
        start(scene, RollOptions(drain_timeout=60))

    with pytest.raises(RollIncomplete, match="The rollback is not finished") as caught:
        list(scene.roll.abort())

    assert scene.keys_in_templates == {OLD_KEY}
    assert "keeps desired capacity 4 (was 3)" in caught.value.hint
    assert "the new key in its launch template" not in caught.value.hint
    assert "resume" not in caught.value.hint
