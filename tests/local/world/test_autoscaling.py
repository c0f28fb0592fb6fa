from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from rackctl.local.world.base import Refused
from rackctl.local.world.groups import Hook
from tests.local.world.days import cluster_of, first, group_of, later, newcomer, registration, wait

if TYPE_CHECKING:
    from rackctl.local.world import World


def test_a_terminated_member_is_replaced_after_a_while_not_at_once(world: World) -> None:
    before = set(group_of(world).members)
    world.autoscaling.terminate(first(world), decrement=False)

    assert newcomer(world, before) is None
    wait(world, 15)
    assert newcomer(world, before) is not None
    assert group_of(world).desired == 3


def test_a_new_instance_is_pending_then_running_then_registered_then_connected(world: World) -> None:
    before = set(group_of(world).members)
    world.autoscaling.set_desired(group_of(world), 4)
    seen: list[str] = []
    for _ in later(world, 90):
        member = newcomer(world, before)
        if member is None:
            continue
        instance = world.ec2.instances[member.instance_id]
        found = world.ecs.registration_of(member.instance_id)
        agent = ("connected" if found[1].agent_connected else "registered") if found else "unknown"
        state = f"{instance.state} {member.lifecycle_state} {'ssh' if instance.ssh_up else 'closed'} {agent}"
        if state not in seen:
            seen.append(state)

    assert seen == [
        "pending Pending closed unknown",
        "running InService closed unknown",
        "running InService ssh unknown",
        "running InService ssh registered",
        "running InService ssh connected",
    ]


def test_a_replacement_launches_in_the_zone_with_the_fewest_members(world: World) -> None:
    gone = first(world)
    zone = group_of(world).members[gone].availability_zone
    before = set(group_of(world).members)
    world.autoscaling.terminate(gone, decrement=False)
    wait(world, 15)

    member = newcomer(world, before)
    assert member is not None
    assert member.availability_zone == zone


def test_terminating_with_decrement_brings_no_replacement(world: World) -> None:
    before = set(group_of(world).members)
    world.autoscaling.terminate(first(world), decrement=True)
    wait(world, 120)

    assert newcomer(world, before) is None
    assert len(group_of(world).members) == 2


def test_terminating_with_decrement_at_the_minimum_is_refused(world: World) -> None:
    group_of(world).min_size = 3
    with pytest.raises(Refused, match="min size constraint"):
        world.autoscaling.terminate(first(world), decrement=True)


def test_terminating_twice_is_refused_the_second_time(world: World) -> None:
    id_ = first(world)
    world.autoscaling.terminate(id_, decrement=False)
    with pytest.raises(Refused, match=id_):
        world.autoscaling.terminate(id_, decrement=False)


def test_scale_in_protection_does_not_hold_against_a_named_termination(world: World) -> None:
    id_ = first(world)
    group_of(world).members[id_].protected = True
    world.autoscaling.terminate(id_, decrement=False)
    assert group_of(world).members[id_].is_terminating


def test_scaling_in_leaves_protected_members_alone(world: World) -> None:
    for member in group_of(world).members.values():
        member.protected = True
    world.autoscaling.set_desired(group_of(world), 1)
    wait(world, 60)
    assert group_of(world).capacity == 3


@pytest.mark.parametrize("desired", [-1, 99])
def test_the_desired_capacity_stays_within_the_bounds(world: World, desired: int) -> None:
    with pytest.raises(Refused, match=r"min value|max value"):
        world.autoscaling.set_desired(group_of(world), desired)


def test_a_group_whose_launch_is_suspended_does_not_launch_until_it_is_resumed(world: World) -> None:
    group = group_of(world)
    before = set(group.members)
    group.suspended["Launch"] = "by a user"
    world.autoscaling.terminate(first(world), decrement=False)
    wait(world, 120)
    assert newcomer(world, before) is None

    del group.suspended["Launch"]
    wait(world, 15)
    assert newcomer(world, before) is not None


def test_a_failed_launch_is_in_the_activities_and_is_retried(world: World) -> None:
    group = group_of(world)
    before = set(group.members)
    world.set_condition("no-capacity")
    world.autoscaling.set_desired(group, 4)
    wait(world, 20)
    assert newcomer(world, before) is None
    assert group.activities[0].status == "Failed"
    assert "do not have sufficient t3.small capacity" in group.activities[0].status_message

    world.clear_condition("no-capacity")
    wait(world, 40)
    assert newcomer(world, before) is not None


@pytest.mark.parametrize(("version", "expected"), [("$Default", 1), ("$Latest", 2), ("1", 1), ("2", 2)])
def test_a_group_launches_the_version_it_names(world: World, version: str, expected: int) -> None:
    group = group_of(world)
    assert group.launch_template is not None
    template = world.ec2.find_template(group.launch_template["LaunchTemplateId"], None)
    world.ec2.add_version(template, {"InstanceType": "m5.large"}, source="1")
    before = set(group.members)
    group.launch_template = {**group.launch_template, "Version": version}
    world.autoscaling.set_desired(group, 4)
    wait(world, 15)

    member = newcomer(world, before)
    assert member is not None
    assert member.launch_template is not None
    assert member.launch_template[2] == expected
    assert member.instance_type == ("m5.large" if expected == 2 else "t3.small")


def test_an_update_without_the_mixed_instances_policy_keeps_it(world: World) -> None:
    group = group_of(world)
    policy = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": group.launch_template,
            "Overrides": [{"InstanceType": "m5.large"}],
        },
        "InstancesDistribution": {"OnDemandBaseCapacity": 1},
    }
    world.autoscaling.update(group, {"MixedInstancesPolicy": policy})
    world.autoscaling.update(group, {"MaxSize": 9})
    assert group.mixed_instances_policy == policy
    assert group.launch_template is None


def test_part_of_a_mixed_instances_policy_leaves_the_rest_of_it(world: World) -> None:
    group = group_of(world)
    overrides = [{"InstanceType": "m5.large"}]
    specification = dict(group.launch_template or {})
    world.autoscaling.update(
        group,
        {
            "MixedInstancesPolicy": {
                "LaunchTemplate": {"LaunchTemplateSpecification": specification, "Overrides": overrides}
            }
        },
    )
    changed = {**specification, "Version": "$Latest"}
    world.autoscaling.update(
        group, {"MixedInstancesPolicy": {"LaunchTemplate": {"LaunchTemplateSpecification": changed}}}
    )
    assert group.mixed_instances_policy == {
        "LaunchTemplate": {"LaunchTemplateSpecification": changed, "Overrides": overrides}
    }


def test_an_override_launches_its_own_template_and_instance_type(world: World) -> None:
    group = group_of(world)
    own = world.ec2.create_template("own", {"InstanceType": "c5.large", "UserData": ""}, {})
    specification = {"LaunchTemplateId": own.launch_template_id, "Version": "$Latest"}
    world.autoscaling.update(
        group,
        {
            "MixedInstancesPolicy": {
                "LaunchTemplate": {
                    "LaunchTemplateSpecification": group.launch_template,
                    "Overrides": [{"InstanceType": "m5.xlarge", "LaunchTemplateSpecification": specification}],
                }
            }
        },
    )
    before = set(group.members)
    world.autoscaling.set_desired(group, 4)
    wait(world, 15)
    member = newcomer(world, before)
    assert member is not None
    assert member.instance_type == "m5.xlarge"
    assert member.launch_template == (own.launch_template_id, "own", 1)


def _uneven(world: World) -> None:
    """Leave a group with two members in one zone and none in another."""
    group = group_of(world)
    members = list(group.members.values())
    zone = members[0].availability_zone
    group.members[members[1].instance_id].availability_zone = zone


def test_zones_that_differ_are_balanced_by_launching_first_and_terminating_in_the_fullest(world: World) -> None:
    _uneven(world)
    sizes = []
    for _ in later(world, 120):
        counting = [m for m in group_of(world).members.values() if m.in_capacity]
        sizes.append(len(counting))
    zones = Counter(m.availability_zone for m in group_of(world).members.values() if m.in_capacity)
    assert max(sizes) == 4
    assert min(sizes) == 3
    assert set(zones.values()) == {1}


def test_a_suspended_az_rebalance_leaves_zones_as_they_are(world: World) -> None:
    group_of(world).suspended["AZRebalance"] = "by a user"
    before = set(group_of(world).members)
    _uneven(world)
    wait(world, 120)
    assert set(group_of(world).members) == before


def test_an_instance_that_ec2_terminates_is_replaced_as_unhealthy(world: World) -> None:
    before = set(group_of(world).members)
    gone = first(world)
    world.befall("vanish", gone)
    wait(world, 60)
    assert gone not in group_of(world).members
    assert newcomer(world, before) is not None


def test_a_terminating_hook_holds_the_instance_until_it_is_completed(world: World) -> None:
    group, id_ = group_of(world), first(world)
    group.hooks["wait"] = Hook("wait", "autoscaling:EC2_INSTANCE_TERMINATING", 3600, "CONTINUE")
    world.autoscaling.terminate(id_, decrement=False)
    wait(world, 60)
    assert group.members[id_].lifecycle_state == "Terminating:Wait"
    assert world.ec2.instances[id_].state == "running"

    world.autoscaling.complete_hook(group, "wait", id_, "CONTINUE")
    wait(world, 60)
    assert id_ not in group.members


def test_a_launching_hook_that_is_abandoned_ends_the_instance(world: World) -> None:
    group = group_of(world)
    group.hooks["prepare"] = Hook("prepare", "autoscaling:EC2_INSTANCE_LAUNCHING", 3600, "ABANDON")
    before = set(group.members)
    world.autoscaling.set_desired(group, 4)
    wait(world, 40)
    member = newcomer(world, before)
    assert member is not None
    assert member.lifecycle_state == "Pending:Wait"
    world.autoscaling.complete_hook(group, "prepare", member.instance_id, "ABANDON")
    assert member.is_terminating


def test_a_member_on_standby_is_not_counted_and_comes_back(world: World) -> None:
    group, id_ = group_of(world), first(world)
    world.autoscaling.set_standby(group, id_, standby=True, decrement=True)
    wait(world, 60)
    assert (group.desired, group.capacity, len(group.members)) == (2, 2, 3)
    world.autoscaling.set_standby(group, id_, standby=False)
    wait(world, 60)
    assert (group.desired, group.capacity) == (3, 3)


def test_a_detached_instance_keeps_running_outside_the_group(world: World) -> None:
    group, id_ = group_of(world), first(world)
    world.autoscaling.detach(group, id_, decrement=True)
    wait(world, 60)
    assert id_ not in group.members
    assert world.ec2.instances[id_].state == "running"
    assert "aws:autoscaling:groupName" not in world.ec2.instances[id_].tags


def test_deleting_a_group_terminates_its_instances(world: World) -> None:
    group = group_of(world)
    with pytest.raises(Refused, match="while there are instances"):
        world.autoscaling.delete(group, force=False)
    world.autoscaling.delete(group, force=True)
    wait(world, 120)
    assert world.autoscaling.groups == {}
    assert not any(i.exists for i in world.ec2.instances.values())


def test_the_registration_of_an_ended_instance_loses_its_agent_and_goes_later(world: World) -> None:
    id_ = first(world)
    world.autoscaling.terminate(id_, decrement=False)
    assert not registration(world, id_).agent_connected
    wait(world, 45)
    assert world.ec2.instances[id_].state == "terminated"
    assert id_ in {r.instance_id for r in cluster_of(world).registrations.values()}
    wait(world, 60)
    assert id_ not in {r.instance_id for r in cluster_of(world).registrations.values()}


def test_groups_and_templates_may_belong_to_a_stack(world: World) -> None:
    world.set_condition("stack-owned", "prod")

    assert group_of(world).tag_values()["aws:cloudformation:stack-name"] == "prod"
    assert [t.tags for t in world.ec2.templates.values()] == [{"aws:cloudformation:stack-name": "prod"}]
    world.clear_condition("stack-owned")
    assert "aws:cloudformation:stack-name" not in group_of(world).tag_values()
