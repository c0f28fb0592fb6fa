"""The desired capacity: the surge, changes by other callers, and failed launches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import RackctlError, RollIncomplete
from rackctl.roll.hold import RollStopped
from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, Killed, Login, Scene
from tests.roll.acts import (
    DEFAULT,
    JOURNAL,
    NEW_KEY,
    assert_given_back,
    collect,
    run_until_killed,
    start,
    stopped_with_two_new_ones,
    texts,
    until,
)

if TYPE_CHECKING:
    from rackctl.roll.report import Event


def test_a_full_group_is_rolled_without_a_surge_and_its_maximum_is_never_raised() -> None:
    scene = Scene(3, max_size=3)

    start(scene)

    assert scene.group.max_size == 3
    assert "set_desired_capacity" not in scene.aws.mutations
    assert_given_back(scene, 3)


def test_without_a_surge_the_key_is_proven_before_a_second_instance_is_drained() -> None:
    scene = Scene(3)
    scene.login = lambda _: Login("refused", "Permission denied")

    with pytest.raises(RollIncomplete, match="refused the new key"):
        start(scene, RollOptions(surge=0, batch=2))

    assert scene.group.desired == 3
    assert len(scene.old) == 2
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_a_group_with_little_room_grows_by_that_much() -> None:
    scene = Scene(6, max_size=7)
    most: list[int] = []
    scene.clock.watching.append(lambda: most.append(scene.group.desired))

    start(scene, RollOptions(batch=3))

    assert max(most) == 7
    assert_given_back(scene, 6)


@pytest.mark.parametrize("change", [2, -1])
def test_a_capacity_that_managed_scaling_sets_during_the_roll_is_kept(change: int) -> None:
    scene = Scene(4, max_size=9)
    scene.when(
        lambda: len(scene.old) == 2,
        lambda: scene.world.autoscaling.set_desired(scene.group, scene.group.desired + change),
    )

    start(scene)

    assert set(scene.key_names) == {NEW_KEY}
    assert scene.group.desired == (4 + change if change > 0 else 4)
    scene.clock.sleep(300)
    assert len(scene.key_names) == scene.group.desired


def test_no_capacity_stops_the_roll_with_nothing_drained_and_says_what_ec2_said() -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity")
    events: list[Event] = []

    with pytest.raises(RollIncomplete, match=r"do not have sufficient t3.small capacity"):
        collect(scene.roll.start(DEFAULT), events)

    assert "do not have sufficient t3.small capacity" in texts(events)
    assert len(scene.old) == 3
    assert scene.draining == []
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_a_roll_continues_when_ec2_has_capacity_again() -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity")
    scene.later(40, lambda: scene.world.clear_condition("no-capacity"))

    start(scene)

    assert_given_back(scene, 3)


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("never-register", r"gave up after 300 s waiting for i-\w+: InService, not registered"),
        ("register-agent-off", r"gave up after 300 s waiting for i-\w+: InService, ACTIVE, agent off"),
        ("registration-failed", r"REGISTRATION_FAILED\): out of tokens"),
    ],
)
def test_a_new_instance_that_cannot_take_tasks_stops_the_roll_with_nothing_drained(condition: str, says: str) -> None:
    scene = Scene(3)
    scene.world.set_condition(condition, "out of tokens" if condition == "registration-failed" else "")

    with pytest.raises(RollIncomplete, match=says):
        start(scene, RollOptions(boot_timeout=300))

    assert len(scene.old) == 3
    assert scene.draining == []
    scene.world.clear_condition(condition)
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_abort_lowers_the_capacity_of_a_surge_that_never_came_and_terminates_nothing() -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity")
    with pytest.raises(RollIncomplete):
        start(scene)
    old = set(scene.old)

    list(scene.roll.abort())

    assert set(scene.old) == old
    assert_given_back(scene, 3)


def test_a_roll_that_was_killed_with_launch_suspended_does_not_leave_it_suspended() -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity")
    with pytest.raises(RollIncomplete):
        start(scene)
    scene.world.clear_condition("no-capacity")

    def kill(_: int, name: str, moment: str) -> None:
        if name == "set_desired_capacity" and moment == "after":
            raise Killed

    scene.aws.interfering.append(kill)
    scene.world.set_condition("no-capacity")
    with pytest.raises(Killed):
        list(scene.roll.abort())
    scene.aws.interfering.clear()
    scene.world.clear_condition("no-capacity")
    scene.clock.sleep(400)
    assert "Launch" in scene.group.suspended

    list(scene.roll.abort())

    assert_given_back(scene, 3)


def test_a_surge_that_is_lowered_by_another_during_an_abort_leaves_nothing_draining() -> None:
    scene = stopped_with_two_new_ones()
    scene.when(
        lambda: bool(scene.draining), lambda: scene.world.autoscaling.set_desired(scene.group, scene.group.desired - 1)
    )

    list(scene.roll.abort())

    scene.clock.sleep(120)
    assert scene.draining == []
    assert scene.group.desired == 3
    assert JOURNAL not in scene.aws.objects


def test_resume_without_a_surge_takes_back_the_surge_that_never_came() -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity")
    with pytest.raises(RollIncomplete, match="sufficient") as caught:
        start(scene)
    assert "--no-surge" in caught.value.hint
    scene.when(lambda: scene.group.desired == 3, lambda: scene.world.clear_condition("no-capacity"))

    list(scene.roll.resume(surge=0))

    assert OLD_KEY not in scene.key_names
    assert_given_back(scene, 3)


def test_an_instance_that_never_registers_is_not_waited_for_twice() -> None:
    scene = Scene(3)
    scene.world.set_condition("never-register")
    with pytest.raises(RollIncomplete, match="not registered") as caught:
        start(scene, RollOptions(boot_timeout=300))
    [corpse] = scene.new
    assert f"rackctl instances terminate {corpse}" in caught.value.hint
    scene.world.clear_condition("never-register")

    # The hint's remedy works.
    scene.world.autoscaling.terminate(corpse, decrement=False)
    list(scene.roll.resume())

    assert_given_back(scene, 3)


def test_new_instances_that_a_hook_abandons_one_after_the_other_stop_the_roll_with_nothing_drained() -> None:
    from rackctl.local.world.groups import Hook

    scene = Scene(2)
    scene.group.hooks["up"] = Hook("up", "autoscaling:EC2_INSTANCE_LAUNCHING", 60, "ABANDON")

    with pytest.raises(RollIncomplete, match="3 new instances in a row of group prod-instances have terminated"):
        start(scene)

    assert len(scene.old) == 2
    assert scene.draining == []
    scene.group.hooks.clear()
    list(scene.roll.resume())
    assert_given_back(scene, 2)


def test_a_desired_capacity_lowered_before_the_surge_came_does_not_leave_the_roll_waiting_for_it() -> None:
    scene = Scene(3)
    scene.group.min_size = 1
    events = until(scene, "surge")
    scene.world.autoscaling.set_desired(scene.group, 2)
    scene.clock.sleep(60)
    scene.broken_promises.clear()  # another caller had Auto Scaling terminate one

    list(events)

    assert scene.key_names == [NEW_KEY] * 2
    assert_given_back(scene, 2)


def test_a_minimum_size_raised_over_the_surge_is_kept() -> None:
    scene = Scene(3)
    events = until(scene, "surge")
    scene.group.min_size = 4

    list(events)

    assert scene.key_names == [NEW_KEY] * 4
    assert_given_back(scene, 4)


def test_an_error_while_the_capacity_is_lowered_does_not_leave_launch_suspended() -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity", "")
    events = until(scene, "surge")
    scene.stop.signal = 2
    with pytest.raises(RollStopped):
        list(events)
    scene.stop.signal = 0

    def fail(_: int, call: str, when: str) -> None:
        if (call, when) == ("set_desired_capacity", "before"):
            raise AwsError("AWS refused", code="ValidationError")

    scene.aws.interfering.append(fail)
    with pytest.raises(RollIncomplete):
        list(scene.roll.abort())

    assert "Launch" not in scene.group.suspended
    scene.aws.interfering.remove(fail)
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_a_surge_that_is_taken_back_again_and_again_stops_the_roll() -> None:
    scene = Scene(3)

    def scaler() -> None:
        if scene.group.desired > 3 and int(scene.clock.at) % 40 == 0:
            scene.world.autoscaling.set_desired(scene.group, 3)

    scene.clock.watching.append(scaler)

    with pytest.raises(RackctlError, match="after each of the last 3 surges") as caught:
        start(scene)

    assert "--no-surge" in caught.value.hint


def test_a_capacity_that_is_raised_while_the_roll_is_dead_is_kept() -> None:
    whole = Scene(3, max_size=9)
    start(whole)
    last = max(n for n, call in enumerate(whole.aws.mutations) if call == "terminate_instance")
    scene = Scene(3, max_size=9)
    run_until_killed(scene, lambda: start(scene), last, "after")
    scene.clock.sleep(400)
    scene.world.autoscaling.set_desired(scene.group, 5)

    list(scene.roll.resume())

    assert scene.desired == 5


def test_a_launch_process_that_the_operator_has_suspended_stays_suspended_through_an_abort() -> None:
    scene = Scene(3)
    events = until(scene, "surge")
    scene.group.suspended["Launch"] = "by the operator"
    with pytest.raises(RollIncomplete, match="the Launch process of group"):
        list(events)

    list(scene.roll.abort())

    assert scene.group.suspended == {"Launch": "by the operator"}
    assert scene.desired == 3


def test_a_surplus_that_may_not_be_terminated_stops_an_abort_with_the_remedy() -> None:
    scene = stopped_with_two_new_ones()
    scene.group.suspended["Terminate"] = "by the operator"

    with pytest.raises(RollIncomplete, match="the Terminate process of group") as caught:
        list(scene.roll.abort())

    assert "--scaling-processes Terminate" in caught.value.hint
    del scene.group.suspended["Terminate"]
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_a_zone_whose_instances_are_all_on_standby_does_not_hold_the_surplus() -> None:
    scene = Scene(9, max_size=20)
    zones = {id_: scene.world.ec2.instances[id_].subnet for id_ in scene.old}
    aside = next(iter(zones.values()))
    for id_ in [id_ for id_, subnet in zones.items() if subnet is aside]:
        scene.world.autoscaling.set_standby(scene.group, id_, standby=True, decrement=True)
    scene.group.subnets.remove(aside.subnet_id)
    scene.clock.sleep(60)
    scene.world.autoscaling.set_desired(scene.group, 2)
    scene.clock.sleep(200)
    scene.broken_promises.clear()

    start(scene)

    assert scene.desired == 2
    assert JOURNAL not in scene.aws.objects


def test_an_instance_refresh_that_starts_during_the_roll_stops_it() -> None:
    scene = Scene(4)
    events = until(scene, "instance", "terminating")
    scene.world.refreshes.start(scene.group, {"MinHealthyPercentage": 90})

    with pytest.raises(RollIncomplete, match=r"instance refresh .* is in progress"):
        list(events)

    assert scene.draining == [] or not set(scene.draining) & set(scene.old)
    with pytest.raises(RollIncomplete, match="instance refresh"):
        list(scene.roll.resume())
    scene.world.refreshes.cancel(scene.group)
    scene.clock.sleep(30)
    list(scene.roll.resume())
    scene.clock.sleep(120)
    assert set(scene.key_names) == set(scene.keys.names()) == scene.key_pairs
    assert scene.desired == 4


def test_a_process_that_is_suspended_during_the_roll_stops_it() -> None:
    scene = Scene(3)
    scene.when(lambda: len(scene.new) == 1, lambda: scene.group.suspended.update(Launch="by hand"))

    with pytest.raises(RollIncomplete, match="the Launch process of group"):
        start(scene)
