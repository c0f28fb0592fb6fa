"""The plan shows a roll's actions, its cost and the services that dip, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rackctl.roll.simulate import BOOT, DRAIN, simulate
from rackctl.roll.view import Member, RollOptions, View
from tests.fakes.world import OLD_KEY, Scene
from tests.roll.acts import alone

if TYPE_CHECKING:
    from rackctl.roll.plan import Plan


def plan(scene: Scene, **options: object) -> Plan:
    made = scene.roll.plan(RollOptions(**options))  # type: ignore[arg-type]
    assert scene.aws.mutations == []
    return made


def test_the_plan_names_what_it_replaces_launches_and_grows_by() -> None:
    scene = Scene(6)

    made = plan(scene, batch=2)

    (group,) = made.groups
    assert sorted(group.replace) == sorted(scene.old)
    assert (group.surge, group.surge_reason) == (2, "new instances launch before old ones are terminated")
    assert [(t.version, t.version_number, t.key_name) for t in group.templates] == [("1", 1, OLD_KEY)]
    assert made.total == 6
    assert made.seconds == 3 * 270
    assert made.instance_hours == pytest.approx(2 * made.seconds / 3600)
    assert made.refusals == ()


def test_the_zones_take_turns() -> None:
    scene = Scene(6)

    (group,) = plan(scene).groups

    zones = [scene.world.ec2.instances[id_].subnet.availability_zone[-1] for id_ in group.replace]
    # The surge comes to a, where one is left over at the end.
    assert zones == ["b", "c", "a", "b", "c", "a"]


@pytest.mark.parametrize(("instances", "batch", "max_size"), [(3, 1, 5), (3, 1, 3), (5, 1, 7), (6, 2, 8), (12, 3, 14)])
def test_the_order_and_the_number_at_a_time_are_what_the_roll_then_does(
    instances: int, batch: int, max_size: int
) -> None:
    scene = Scene(instances, max_size=max_size)
    (group,) = plan(scene, batch=batch).groups
    most: list[int] = []
    scene.clock.watching.append(
        lambda: most.append(len([i for i in scene.draining if i in scene.old and scene.world.ec2.instances[i].exists]))
    )

    events = list(scene.roll.start(RollOptions(batch=batch)))

    drained = [e.ec2_instance_id for e in events if e.phase == "terminating"]
    rounds = [slice(n, n + group.at_once) for n in range(0, instances, group.at_once)]
    assert [set(drained[r]) for r in rounds] == [set(group.replace[r]) for r in rounds]
    assert max(most) <= group.at_once


def test_an_instance_that_is_not_registered_goes_first_in_the_plan_as_in_the_roll() -> None:
    scene = Scene(3)
    arn, registration = next(reversed(scene.seeded.registrations.items()))
    del scene.seeded.registrations[arn]
    options = RollOptions(include_unregistered=True)
    (group,) = scene.roll.plan(options).groups

    events = list(scene.roll.start(options))

    terminated = [e.ec2_instance_id for e in events if e.phase == "terminating" and e.ec2_instance_id in group.replace]
    assert terminated[0] == registration.instance_id
    assert list(group.replace) == terminated


@pytest.mark.parametrize(
    ("max_size", "options", "surge", "reason"),
    [
        (3, {}, 0, "the group is at its maximum size of 3, which is never raised"),
        (4, {"batch": 2}, 1, "the group's maximum size of 4 allows no more"),
        (9, {"surge": 0}, 0, "--no-surge"),
        (9, {"surge": 3}, 3, "new instances launch before old ones are terminated"),
        (9, {"surge": 9}, 3, "new instances launch before old ones are terminated"),
        (5, {"surge": 3}, 2, "the group's maximum size of 5 allows no more"),
    ],
)
def test_the_plan_says_why_there_is_no_more_of_a_surge(
    max_size: int, options: dict[str, object], surge: int, reason: str
) -> None:
    (group,) = plan(Scene(3, max_size=max_size), **options).groups

    assert (group.surge, group.surge_reason) == (surge, reason)


@pytest.mark.parametrize(
    ("batch", "surge", "seconds"),
    [
        # An instance that is added boots, and waits for its turn while another is drained: of as many as there are
        # extra instances, each takes a boot and a drain; of as many as the batch, each takes a drain.
        (1, 0, 12 * (DRAIN + BOOT)),
        (1, 1, 12 * (BOOT + DRAIN)),
        (1, 2, 6 * (BOOT + DRAIN) + DRAIN),
        (1, 3, BOOT + 12 * DRAIN),
        (1, 9, BOOT + 12 * DRAIN),
        (2, 2, 6 * (BOOT + DRAIN)),
        (2, 6, BOOT + 6 * DRAIN),
    ],
)
def test_with_more_surge_than_batch_the_next_ones_boot_while_these_drain(
    batch: int, surge: int, seconds: float
) -> None:
    members = tuple(Member(f"i-{n:02}", "ab"[n % 2]) for n in range(12))
    options = RollOptions(batch=batch, surge=surge)

    simulated = simulate(View("group", 12, 30, members=members, zones=("a", "b"), is_proven=True, options=options))

    assert simulated.seconds == seconds


def test_a_pause_between_batches_takes_its_time_unless_boots_take_longer() -> None:
    members = tuple(Member(f"i-{n:02}", "ab"[n % 2]) for n in range(12))
    view = View("group", 12, 30, members=members, zones=("a", "b"), is_proven=True)

    def seconds(surge: int, pause: float) -> float:
        return simulate(replace(view, options=RollOptions(batch=2, surge=surge, pause=pause))).seconds

    assert seconds(6, 120) == BOOT + 6 * DRAIN + 5 * 120
    # The replacements boot meanwhile, which takes longer than the pause.
    assert seconds(2, 120) == 6 * (BOOT + DRAIN)


def test_services_that_dip_and_those_whose_tasks_cannot_be_moved_are_told_apart() -> None:
    scene = Scene(3)
    seed = scene.world.seed_service
    seed(scene.seeded, "one", "i", "c", desired=1, minimum_percent=0)
    seed(scene.seeded, "half", "i", "c", desired=5, minimum_percent=50, maximum_percent=100)
    seed(scene.seeded, "rigid", "i", "c", desired=2, minimum_percent=100, maximum_percent=100)
    seed(scene.seeded, "none", "i", "c", desired=0, minimum_percent=0)

    dips = {dip.service_name: (dip.desired_count, dip.lowest_count, dip.stuck) for dip in plan(scene).dips}

    assert dips == {"one": (1, 0, False), "half": (5, 3, False), "rigid": (2, 2, True)}


def test_a_service_that_cannot_be_moved_is_as_stuck_as_the_plan_says() -> None:
    from rackctl.errors import RollIncomplete

    scene = Scene(2)
    scene.world.seed_service(scene.seeded, "rigid", "i", "c", desired=2, minimum_percent=100, maximum_percent=100)

    with pytest.raises(RollIncomplete, match="because of the service deployment configuration"):
        list(scene.roll.start(RollOptions(drain_timeout=200)))

    assert scene.broken_promises == []


def test_tasks_of_no_service_are_named_with_their_instance() -> None:
    scene = Scene(2)
    task = alone(scene)

    assert plan(scene).standalone_tasks == ((task.id, task.registration.instance_id),)


def test_what_is_left_alone_is_named_with_the_reason() -> None:
    scene = Scene(4)
    aside, detached, vanished, _ = scene.old
    scene.world.autoscaling.set_standby(scene.group, aside, standby=True, decrement=True)
    scene.world.autoscaling.detach(scene.group, detached, decrement=True)
    scene.world.befall("vanish", vanished)

    reasons = {left.ec2_instance_id: left.reason for left in plan(scene, force=True).left_alone}

    assert "on standby in its group (Standby)" in reasons[aside]
    assert "in no Auto Scaling group, so nothing would replace it" in reasons[detached]
    assert "being terminated" in reasons[vanished]


@pytest.mark.parametrize(("instances", "batch", "minded"), [(1, 1, True), (3, 3, True), (3, 2, False)])
def test_draining_all_at_once_with_nowhere_to_go_is_minded(instances: int, batch: int, minded: bool) -> None:
    warnings = plan(Scene(instances), surge=0, batch=batch).warnings

    assert any("would be drained at once" in warning for warning in warnings) == minded


def test_every_refusal_is_told_at_once() -> None:
    scene = Scene(2)
    scene.group.suspended.update(Launch="", Terminate="")
    scene.template.versions[1].data.pop("KeyName")
    scene.template.tags["aws:cloudformation:stack-name"] = "stack"
    scene.world.befall("agent-off", scene.old[0])

    refusals = plan(scene).refusals

    assert len(refusals) == 4
    assert all(refusal.remedy for refusal in refusals)


def test_instances_of_a_warm_pool_are_named_and_left_alone() -> None:
    scene = Scene(3)
    aside = scene.old[0]
    scene.group.members[aside].lifecycle_state = "Warmed:Stopped"

    plan = scene.roll.plan(RollOptions())

    assert aside not in plan.groups[0].replace
    assert (aside, "it is on standby in its group (Warmed:Stopped)") in [
        (left.ec2_instance_id, left.reason) for left in plan.left_alone
    ]


def test_the_plan_of_a_thousand_instances_is_extrapolated_from_its_first_batches() -> None:
    members = tuple(Member(f"i-{n:05}", "abc"[n % 3]) for n in range(1000))
    view = View("g", 1000, 1020, members=members, zones=("a", "b", "c"), options=RollOptions(batch=20))

    simulation = simulate(view)

    assert sorted(simulation.order) == [m.ec2_instance_id for m in members]
    assert simulation.at_once == 20
    # Fifty batches of a boot and a drain each, one after the other.
    assert simulation.seconds == pytest.approx(50 * (BOOT + DRAIN), rel=0.2)
