"""Instances and groups that leave during a roll: detached, on standby, terminated, deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import RollIncomplete
from rackctl.roll.hold import RollStopped
from tests.fakes.world import OLD_KEY, Killed, Scene, add_group
from tests.roll.acts import (
    DEFAULT,
    JOURNAL,
    NEW_KEY,
    draining_one,
    fail_from,
    killed,
    run_until_killed,
    start,
    statuses,
    stopped,
    stopped_with_two_new_ones,
    texts,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("when", ["before the first drain", "while it drains", "last"])
def test_an_old_instance_that_vanishes_needs_no_replacement_any_more(when: str) -> None:
    scene = Scene(4)
    due: Callable[[], bool] = {
        "before the first drain": lambda: len(scene.new) == 1,
        "while it drains": lambda: bool(set(scene.draining) & set(scene.old)),
        "last": lambda: len(scene.old) == 1,
    }[when]
    scene.when(due, lambda: scene.world.befall("vanish", (set(scene.draining) or set(scene.old)).pop()))

    start(scene)

    assert set(scene.key_names) == {NEW_KEY}
    assert scene.group.desired == 4
    assert JOURNAL not in scene.aws.objects


def test_a_new_instance_that_vanishes_is_waited_for_again() -> None:
    scene = Scene(3)
    scene.when(lambda: len(scene.new) == 2, lambda: scene.world.befall("vanish", scene.new[0]))

    start(scene)

    assert set(scene.key_names) == {NEW_KEY}
    assert scene.group.desired == 3


def test_standby_instances_are_left_alone_and_their_key_is_kept() -> None:
    scene = Scene(3)
    aside = scene.old[0]
    scene.world.autoscaling.set_standby(scene.group, aside, standby=True, decrement=True)

    events = start(scene)

    assert scene.old == [aside]
    assert f"kept key {OLD_KEY}: {aside} has it" in texts(events)


@pytest.mark.parametrize("dead", [False, True], ids=["during the roll", "while it is stopped"])
def test_an_instance_that_is_detached_while_it_is_drained_takes_tasks_again(dead: bool) -> None:
    scene = Scene(3)
    events = until(scene, "instance", "draining")
    [id_] = scene.draining
    if dead:
        run_until_killed(scene, lambda: list(events), 0, "before")
        scene.clock.sleep(400)
    scene.group.members.pop(id_)
    scene.group.desired -= 1

    list(scene.roll.resume() if dead else events)

    assert id_ not in scene.draining
    assert scene.key_names.count(OLD_KEY) == 1
    assert scene.key_pairs == set(scene.keys.names()) == {OLD_KEY, NEW_KEY}
    # It was taken out with a decrement: the group is smaller by that, and the surge is taken back as well.
    assert scene.desired == 2


def test_an_instance_that_is_put_on_standby_while_it_is_drained_is_left_alone() -> None:
    scene = Scene(3)
    events = until(scene, "instance", "draining")
    [id_] = scene.draining
    scene.group.members[id_].lifecycle_state = "Standby"
    scene.group.desired -= 1

    list(events)

    assert id_ not in scene.draining
    assert scene.old == [id_]
    assert scene.key_pairs == {OLD_KEY, NEW_KEY}
    # It was taken out with a decrement: the group is smaller by that, and the surge is taken back as well.
    assert scene.desired == 2


@pytest.mark.parametrize("killed", [False, True], ids=["in a group that was done", "while the roll was dead"])
def test_an_old_instance_that_comes_back_from_standby_is_replaced_before_the_roll_ends(killed: bool) -> None:
    scene = Scene(3)
    id_ = scene.old[0]
    autoscaling = scene.world.autoscaling
    autoscaling.set_standby(scene.group, id_, standby=True, decrement=True)
    if not killed:
        add_group(scene, "prod-zzz")

    def back() -> None:
        autoscaling.set_standby(scene.group, id_, standby=False, decrement=True)

    if killed:

        def kill(_: int, call: str, when: str) -> None:
            if (call, when) == ("resume_processes", "before"):
                raise Killed(call)

        scene.aws.interfering.append(kill)
        with pytest.raises(Killed):
            start(scene)
        scene.aws.interfering.remove(kill)
        scene.clock.sleep(400)
        back()
        list(scene.roll.resume())
    else:
        events = scene.roll.start(DEFAULT)
        next(event for event in events if event.kind == "surge" and "prod-zzz" in event.message)
        back()
        list(events)

    assert OLD_KEY not in scene.key_names
    assert JOURNAL not in scene.aws.objects
    assert scene.key_pairs == set(scene.keys.names()) == set(scene.key_names)


@pytest.mark.parametrize("way", ["resume", "abort"])
@pytest.mark.parametrize("end", ["a kill", "a signal"])
@pytest.mark.parametrize("how", ["detached", "on standby"])
def test_what_leaves_its_group_while_a_drain_is_interrupted_takes_tasks_again(how: str, end: str, way: str) -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)
    if end == "a kill":
        killed(scene, events)
    if how == "detached":
        scene.world.autoscaling.detach(scene.group, id_, decrement=True)
    else:
        scene.world.autoscaling.set_standby(scene.group, id_, standby=True, decrement=True)
    if end == "a signal":
        stopped(scene, events)
        assert statuses(scene, id_) == ["ACTIVE"]

    list(getattr(scene.roll, way)())

    assert statuses(scene, id_) == ["ACTIVE"]


def test_what_is_detached_and_attached_and_detached_again_takes_tasks_again_each_time() -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)
    member = scene.group.members[id_]

    def detach() -> None:
        scene.world.autoscaling.detach(scene.group, id_, decrement=True)

    def attach() -> None:
        member.lifecycle_state, scene.group.members[id_] = "InService", member
        scene.group.desired += 1
        scene.when(lambda: id_ in scene.draining, detach)

    detach()
    scene.when(lambda: id_ not in scene.draining, lambda: scene.later(20, attach))

    list(events)

    assert statuses(scene, id_) == ["ACTIVE"]


def test_what_is_put_on_standby_right_before_its_termination_is_left_alone() -> None:
    scene = Scene(3)
    events = scene.roll.start(DEFAULT)
    next(event for event in events if event.phase == "drained")
    [id_] = scene.draining
    scene.world.autoscaling.set_standby(scene.group, id_, standby=True, decrement=True)

    list(events)

    assert scene.old == [id_]
    assert statuses(scene, id_) == ["ACTIVE"]


def test_instances_that_leave_their_group_do_not_count_as_replaced() -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)
    scene.world.autoscaling.detach(scene.group, id_, decrement=True)
    scene.stop.signal = 15

    with pytest.raises(RollStopped, match="Replaced 0 of 2 instances, 2 are left"):
        list(events)


def test_an_instance_that_comes_back_from_standby_finds_its_zone_as_it_left_it() -> None:
    scene = Scene(3)
    id_ = scene.old[0]
    scene.world.autoscaling.set_standby(scene.group, id_, standby=True, decrement=True)
    start(scene)
    scene.clock.sleep(200)

    scene.world.autoscaling.set_standby(scene.group, id_, standby=False)
    scene.clock.sleep(300)

    # Auto Scaling had nothing to balance, which it does without draining.
    assert scene.broken_promises == []


def test_what_leaves_its_group_is_counted_out_once_though_it_cannot_be_set_to_active_at_first() -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)
    scene.world.autoscaling.detach(scene.group, id_, decrement=True)
    fail_from(scene, "set_container_instances_state", AwsError("no", code="no", refused=True), times=1)
    with pytest.raises(RollIncomplete):
        list(events)
    scene.aws.interfering.clear()
    scene.clock.sleep(400)

    last = list(scene.roll.resume())[-1]

    assert (last.done, last.total) == (2, 2)
    assert statuses(scene, id_) == ["ACTIVE"]


@pytest.mark.parametrize("way", ["go on", "resume", "abort"])
def test_a_group_that_is_deleted_during_the_roll_does_not_stop_the_others(way: str) -> None:
    scene = Scene(2)
    other = add_group(scene)
    groups = scene.world.autoscaling.groups
    scene.when(lambda: scene.group.desired == 3, lambda: groups.pop(scene.group.name))
    events = scene.roll.start(DEFAULT)
    if way == "go on":
        said = list(events)
    else:
        next(event for event in events if event.kind == "problem")
        scene.stop.signal = 2
        with pytest.raises(RollStopped, match="Replaced 0 of 2 instances, 2 are left"):
            list(events)
        scene.stop.signal = 0
        said = list(getattr(scene.roll, way)())

    assert (said[-1].done, said[-1].total) == ((0, 2) if way == "abort" else (2, 2))
    assert (other.desired, other.suspended) == (2, {})
    scene.clock.sleep(60)
    keys = {scene.world.ec2.instances[id_].key_name for id_ in other.members}
    assert (OLD_KEY in keys) == (way == "abort")
    assert JOURNAL not in scene.aws.objects


def test_instances_that_a_deleted_group_leaves_draining_take_tasks_again() -> None:
    scene = Scene(2)
    add_group(scene)
    events = scene.roll.start(DEFAULT)
    next(event for event in events if event.phase == "draining")
    [id_] = scene.draining
    scene.world.autoscaling.groups.pop(scene.group.name)

    said = texts(list(events))

    assert f"{id_}: its group has been deleted; set to ACTIVE and left alone" in said
    assert "group prod-instances has been deleted; continuing without it" in said
    scene.clock.sleep(120)
    assert scene.draining == []
    assert OLD_KEY in scene.key_pairs
    assert JOURNAL not in scene.aws.objects


def test_a_group_that_was_created_again_under_its_old_name_is_not_the_rolls() -> None:
    scene = Scene(2)
    add_group(scene)
    events = until(scene, "surge")
    scene.group.arn += "-anew"
    scene.group.desired = 2

    said = texts(list(events))

    assert "group prod-instances has been deleted" in said
    assert scene.group.desired == 2
    assert OLD_KEY in scene.key_pairs


def test_what_was_ready_before_a_roll_is_resumed_is_not_reported_as_new_again() -> None:
    scene = stopped_with_two_new_ones()
    ready = {
        r.instance_id for r in scene.seeded.registrations.values() if r.agent_connected and r.instance_id in scene.new
    }

    said = texts(list(scene.roll.resume()))

    assert ready
    assert not any(f"{id_}: new, in service" in said for id_ in ready)
