"""Plans and refusals of a roll by an instance refresh."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.local.world.groups import Hook
from rackctl.roll.view import RollOptions, Selection
from tests.fakes.world import Scene, name_version, replacing
from tests.roll.acts import REFRESH, refresh_of, refused, start, with_managed_draining

if TYPE_CHECKING:
    from rackctl.roll.view import Kind


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("no provider", "is behind no capacity provider of cluster prod"),
        ("off", "managed draining of capacity provider prod-instances-provider is off"),
        ("no hook", "lacks the lifecycle hook of managed draining"),
        ("suspended", "the InstanceRefresh process of group prod-instances is suspended"),
    ],
)
def test_a_group_whose_instances_nothing_drains_is_refused(spoil: str, reason: str) -> None:
    """https://docs.aws.amazon.com/AmazonECS/latest/developerguide/managed-instance-draining.html"""
    scene = with_managed_draining(2)
    provider = scene.world.ecs.capacity_providers[f"{scene.group.name}-provider"]
    match spoil:
        case "no provider":
            scene.world.clear_condition("managed-draining")
        case "off":
            provider.switches["managedDraining"] = "DISABLED"
        case "no hook":
            scene.group.hooks.clear()
        case _:
            scene.group.suspended["InstanceRefresh"] = "User suspended"

    said = refused(scene, REFRESH)

    assert reason in said
    assert [p.reason for p in scene.roll.plan(REFRESH).refusals] == [said.partition(": ")[2].partition("\n")[0]]


def test_a_terminating_hook_that_the_operator_vouches_for_will_do() -> None:
    scene = Scene(2)
    scene.group.hooks["DrainHook"] = Hook("DrainHook", "autoscaling:EC2_INSTANCE_TERMINATING", 300, "CONTINUE")
    assert "has no terminating lifecycle hook Other" in refused(
        scene, RollOptions(engine="refresh", drain_hook="Other")
    )

    assert not scene.roll.plan(RollOptions(engine="refresh", drain_hook="DrainHook")).refusals


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"force": True}, "--force"),
        ({"stop_standalone": True}, "--stop-standalone"),
        ({"drain_timeout": 60.0}, "--drain-timeout"),
        ({"pause": 60.0}, "--pause: it does not replace in batches"),
        ({"surge": 0}, "--no-surge"),
    ],
)
def test_options_that_a_refresh_cannot_carry_out_are_refused(options: dict[str, float], named: str) -> None:
    said = refused(with_managed_draining(2), RollOptions(engine="refresh", **options))  # type: ignore[arg-type]
    assert named in said
    assert "--engine rackctl" in said


def test_a_refresh_that_has_nothing_to_replace_needs_no_surge() -> None:
    scene = replacing(with_managed_draining(2), "outdated")
    (group,) = scene.roll.plan(REFRESH, scene.selection).groups

    assert (group.replace, group.surge, group.seconds) == ((), 0, 0)
    assert group.surge_reason == "nothing is to be replaced"


@pytest.mark.parametrize("kind", ["ids", "age"])
def test_what_a_refresh_cannot_tell_apart_is_refused(kind: Kind) -> None:
    assert "replaces all instances of a group, or all of another launch template version" in refused(
        replacing(with_managed_draining(2), kind),
        REFRESH,
    )


def test_instances_that_only_have_another_image_are_refused_unless_all_have() -> None:
    """SkipMatching: "instances that have the same launch template and instance types"; of images it says nothing."""
    scene = with_managed_draining(2)
    scene.world.parameters.put("/ops/ami", "ami-0aaaaaaaaaaaaaaaa")
    scene.world.ec2.add_version(scene.template, {"ImageId": "resolve:ssm:/ops/ami"}, source="1")
    name_version(scene, "$Latest")
    scene.selection = Selection("outdated")
    start(scene, REFRESH)
    scene.world.parameters.put("/ops/ami", "ami-0bbbbbbbbbbbbbbbb")
    scene.world.autoscaling.terminate(next(iter(scene.group.members)), decrement=False)
    scene.clock.sleep(400)
    assert "launch template version with another image" in refused(scene, REFRESH)

    for member in list(scene.group.members):
        scene.world.ec2.instances[member].image_id = "ami-0aaaaaaaaaaaaaaaa"
    scene.broken_promises.clear()
    start(scene, REFRESH)

    assert refresh_of(scene).preferences["SkipMatching"] is False
    assert {i.image_id for i in scene.world.ec2.instances.values() if i.exists} == {"ami-0bbbbbbbbbbbbbbbb"}


def test_another_instance_refresh_in_progress_refuses_a_roll_by_instance_refresh() -> None:
    scene = with_managed_draining(2)
    scene.world.refreshes.start(scene.group, {"MinHealthyPercentage": 100, "MaxHealthyPercentage": 100})

    assert "is in progress and replaces the same instances" in refused(scene, REFRESH)


def test_the_plan_says_what_carries_it_out_and_for_how_long() -> None:
    scene = with_managed_draining(10)
    one, two = (scene.roll.plan(RollOptions(engine="refresh", batch=n)) for n in (1, 2))

    assert (one.groups[0].surge, two.groups[0].surge) == (1, 2)
    assert one.seconds == 10 * 180 + 300 + 90
    assert two.seconds < one.seconds
    assert "AWS does not say" not in str(one.warnings)
    full = with_managed_draining(3, max_size=3).roll.plan(REFRESH)
    assert "is at its maximum size of 3: AWS does not say" in str(full.warnings)
    assert not full.refusals


def test_a_plan_warns_of_a_group_that_auto_scaling_cannot_roll_back() -> None:
    scene = with_managed_draining(2)
    assert "cannot roll back" not in str(scene.roll.plan(REFRESH).warnings)
    name_version(scene, "$Latest")
    assert "Auto Scaling cannot roll back an instance refresh" in str(scene.roll.plan(REFRESH).warnings)
