"""A roll without faults: every instance is replaced, and everything else is as before."""

from __future__ import annotations

import pytest

from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, Scene, add_group
from tests.roll.acts import (
    NEW_KEY,
    assert_given_back,
    start,
    until,
)


def test_every_instance_is_replaced_and_everything_else_is_as_before() -> None:
    scene = Scene(3)
    version = scene.template_in_use

    events = start(scene)

    assert scene.key_names == [NEW_KEY] * 3
    assert_given_back(scene, 3)
    made = scene.template_in_use
    assert made.data == {**version.data, "KeyName": NEW_KEY}
    assert events[-1].message == f"every instance has key {NEW_KEY}"
    assert (events[-1].done, events[-1].total) == (3, 3)


@pytest.mark.parametrize("batch", [1, 3])
def test_capacity_never_falls_below_what_it_was(batch: int) -> None:
    scene = Scene(7)
    lowest: list[int] = []

    def watch() -> None:
        usable = [r for r in scene.seeded.registrations.values() if r.status == "ACTIVE" and r.agent_connected]
        lowest.append(len(usable))

    scene.clock.watching.append(watch)

    start(scene, RollOptions(batch=batch))

    assert min(lowest) == 7
    assert max(m.instance_id in scene.new for m in scene.group.members.values())


def test_instances_are_replaced_in_their_own_zones() -> None:
    scene = Scene(6)

    def zones() -> list[str]:
        return sorted(i.subnet.availability_zone for i in scene.world.ec2.instances.values() if i.exists)

    before = zones()
    start(scene)

    assert zones() == before


def test_no_more_than_the_batch_is_drained_or_terminated_at_once() -> None:
    scene = Scene(9, max_size=20)
    scene.seeded.services["web"].desired = 18
    scene.clock.sleep(60)
    most: list[int] = []
    scene.clock.watching.append(lambda: most.append(len([i for i in scene.draining if i in scene.old])))

    start(scene, RollOptions(batch=3))

    assert max(most) == 3


def test_a_rack_without_instances_gets_a_new_key_as_well() -> None:
    scene = Scene(0)

    start(scene)

    assert scene.template_in_use.data["KeyName"] == NEW_KEY


def test_several_groups_are_rolled_one_after_the_other() -> None:
    scene = Scene(3)
    other = add_group(scene)
    growing: list[int] = []
    scene.clock.watching.append(lambda: growing.append((scene.group.desired > 3) + (other.desired > 2)))

    start(scene)

    assert scene.old == []
    assert (scene.group.desired, other.desired) == (3, 2)
    assert max(growing) == 1
    # The first new instance of each group has proven the key: they may have different images.
    assert len(scene.logins) == 2


def test_the_groups_of_other_racks_and_of_builds_are_left_alone() -> None:
    scene = Scene(2)
    foreign, build = add_group(scene, "staging", Rack="staging"), add_group(scene, "build", Purpose="Build")

    start(scene)

    for group in (foreign, build):
        keys = {scene.world.ec2.instances[id_].key_name for id_ in group.members}
        assert keys == {OLD_KEY}
    assert len(scene.key_pairs) == 2


def test_az_rebalance_is_suspended_during_the_roll_and_resumed_only_if_the_roll_suspended_it() -> None:
    scene = Scene(3)
    seen: set[str] = set()
    scene.clock.watching.append(lambda: seen.update(scene.group.suspended))

    start(scene)

    assert seen == {"AZRebalance"}
    assert scene.group.suspended == {}


def test_a_process_that_the_operator_has_suspended_stays_suspended() -> None:
    scene = Scene(3)
    scene.group.suspended.update(AZRebalance="by hand", AlarmNotification="by hand")

    start(scene)

    assert scene.group.suspended == {"AZRebalance": "by hand", "AlarmNotification": "by hand"}


def test_scale_in_protection_does_not_keep_an_old_instance() -> None:
    scene = Scene(3)
    for member in scene.group.members.values():
        member.protected = True

    start(scene)

    assert set(scene.key_names) == {NEW_KEY}


def test_two_hundred_instances_in_batches_of_ten_stay_below_awss_rate_limits() -> None:
    # Over two seconds: it is a roll of 200 instances.
    scene = Scene(200)
    began = scene.clock.at

    start(scene, RollOptions(batch=10))

    seconds = scene.clock.at - began
    calls = len(scene.aws.reads) + len(scene.aws.mutations)
    assert calls / seconds < 6
    assert len(scene.aws.mutations) < 6 * 200
    assert_given_back(scene, 200)


def test_instances_of_a_group_that_is_created_during_the_roll_are_named_at_the_end() -> None:
    scene = Scene(2)
    events = until(scene, "instance", "terminating")
    add_group(scene, version="1")

    last = list(events)[-1].message

    assert last.startswith(f"every instance has key {NEW_KEY}, except i-")
    assert all(id_ in last for id_ in scene.old)
