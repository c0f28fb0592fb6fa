"""Rolls for other reasons than a key: outdated or chosen instances are replaced, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rackctl.clock import LAG
from rackctl.errors import RollIncomplete
from rackctl.roll.roll import Roll
from rackctl.roll.view import RollOptions, Selection
from tests.fakes.world import Scene, add_group, mixed, name_version, outdate, replacing
from tests.roll.acts import DEFAULT, JOURNAL, assert_given_back, refused, start, texts

NEW_IMAGE = "ami-0123456789abcdef0"


def replaced(scene: Scene, selection: Selection, options: RollOptions = DEFAULT) -> set[str]:
    """Roll a selection, and return what was replaced."""
    before = {i.instance_id for i in scene.world.ec2.instances.values() if i.exists}
    scene.selection = selection
    start(scene, options)
    return before - {i.instance_id for i in scene.world.ec2.instances.values() if i.exists}


def test_outdated_instances_are_replaced_and_keep_their_key() -> None:
    scene = outdate(Scene(3))
    templates, keys = scene.templates, scene.key_names

    events = start(scene)

    assert scene.old == []
    assert {i.image_id for i in scene.world.ec2.instances.values() if i.exists} == {NEW_IMAGE}
    assert (scene.templates, scene.key_names) == (templates, keys)
    assert "replaced 3 instances" in texts(events)
    assert_given_back(scene, 3)


def test_only_what_is_outdated_is_replaced() -> None:
    scene = Scene(3)
    name_version(scene, "$Latest")
    scene.world.ec2.add_version(scene.template, {"ImageId": NEW_IMAGE}, source="1")
    scene.world.autoscaling.terminate(scene.first[0], decrement=False)
    scene.clock.sleep(400)
    scene.broken_promises.clear()
    outdated = set(scene.first[1:])

    assert replaced(scene, Selection("outdated")) == outdated
    assert_given_back(replacing(scene, "all"), 3)


def test_an_image_that_a_parameter_names_is_compared_by_its_id() -> None:
    """DescribeLaunchTemplateVersions, ResolveAlias, in EC2's model: "the AMI ID is displayed in the response"."""
    scene = Scene(2)
    scene.world.parameters.put("/ops/ami", "ami-0aaaaaaaaaaaaaaaa")
    scene.world.ec2.add_version(scene.template, {"ImageId": "resolve:ssm:/ops/ami"}, source="1")
    name_version(scene, "$Latest")
    assert len(replaced(scene, Selection("outdated"))) == 2
    assert replaced(scene, Selection("outdated")) == set()

    scene.world.parameters.put("/ops/ami", "ami-0bbbbbbbbbbbbbbbb")

    assert len(replaced(scene, Selection("outdated"))) == 2
    assert {i.image_id for i in scene.world.ec2.instances.values() if i.exists} == {"ami-0bbbbbbbbbbbbbbbb"}


def test_what_any_override_of_a_mixed_policy_launches_is_not_outdated() -> None:
    scene = Scene(2)
    mixed(scene)

    assert replaced(scene, Selection("outdated")) == set()


def test_what_was_launched_from_a_template_by_a_group_with_a_launch_configuration_is_outdated() -> None:
    scene = Scene(2)
    scene.world.autoscaling.launch_configurations["hosts"] = {**scene.template.versions[1].data}
    scene.group.launch_template, scene.group.launch_configuration = None, "hosts"

    assert len(replaced(scene, Selection("outdated"))) == 2
    assert replaced(scene, Selection("outdated")) == set()


def test_an_instance_of_which_nothing_says_what_it_was_launched_from_is_left_alone_and_named() -> None:
    scene = outdate(Scene(2))
    unclear = scene.first[0]
    scene.group.members[unclear].launch_template = None
    scene.world.ec2.instances[unclear].tags = {"Rack": "prod"}

    plan = scene.roll.plan(DEFAULT, scene.selection)

    assert [left.ec2_instance_id for left in plan.left_alone] == [unclear]
    assert "cannot tell what it was launched from" in plan.left_alone[0].reason
    assert replaced(scene, scene.selection) == {scene.first[1]}


def test_ids_are_replaced_and_no_other_instance_of_their_group() -> None:
    scene = Scene(3)

    assert replaced(scene, Selection("ids", ec2_instance_ids=(scene.first[1],))) == {scene.first[1]}
    assert_given_back(replacing(scene, "all"), 3)


def test_one_instance_of_three_is_replaced_without_a_surge_as_well() -> None:
    scene = Scene(3, max_size=3)

    assert replaced(scene, Selection("ids", ec2_instance_ids=(scene.first[1],))) == {scene.first[1]}


def test_an_id_that_is_no_member_of_a_group_of_the_rack_is_refused() -> None:
    scene = Scene(2)
    scene.selection = Selection("ids", ec2_instance_ids=("i-0f0f0f0f0f0f0f0f0",))

    assert "i-0f0f0f0f0f0f0f0f0 is not an instance of one of the groups" in refused(scene)


def test_an_id_on_standby_is_refused() -> None:
    scene = Scene(3)
    scene.group.members[scene.first[0]].lifecycle_state = "Standby"
    scene.group.desired -= 1
    scene.selection = Selection("ids", ec2_instance_ids=(scene.first[0],))

    assert "is on standby in group " in refused(scene)


def test_an_age_is_that_at_the_start_of_the_roll() -> None:
    scene = Scene(3)
    scene.world.autoscaling.terminate(scene.first[0], decrement=False)
    scene.clock.sleep(400)

    assert replaced(scene, Selection("age", older_than=1800)) == set(scene.first[1:])
    assert replaced(scene, Selection("age", older_than=1800)) == set()


def test_nothing_to_replace_takes_no_lock_and_says_so() -> None:
    scene = Scene(3)
    scene.selection = Selection("outdated")

    events = start(scene)

    assert [(event.kind, event.message) for event in events] == [
        ("finished", "nothing to replace: no instance is outdated")
    ]
    assert scene.aws.mutations == []


def test_one_group_alone_is_rolled() -> None:
    scene = Scene(2)
    other = add_group(scene)
    theirs = set(other.members)

    assert replaced(scene, Selection("all", groups=("prod-spot",))) == theirs


def test_a_group_that_the_rack_does_not_have_is_refused() -> None:
    scene = Scene(2)
    scene.selection = Selection("all", groups=("prod-instances", "typo"))

    assert 'rack "prod" has no Auto Scaling group typo' in refused(scene)


def test_an_instance_that_stays_and_cannot_take_tasks_is_refused_since_capacity_is_lacking_already() -> None:
    scene = Scene(3)
    scene.world.befall("agent-off", scene.first[0])
    scene.clock.sleep(60)
    scene.selection = Selection("ids", ec2_instance_ids=(scene.first[1],))

    assert f"{scene.first[0]} of group prod-instances is not to be replaced and cannot take tasks" in refused(scene)


def test_a_template_that_changes_during_the_roll_stops_it_and_abort_rolls_back() -> None:
    """Instances launched from then on are neither outdated nor new by the journal."""
    scene = outdate(Scene(3))

    def change() -> None:
        scene.world.ec2.add_version(scene.template, {"ImageId": "ami-0ccccccccccccccccc"}, source="2")

    scene.when(lambda: len(scene.new) == 1, change)
    with pytest.raises(RollIncomplete, match=r"launches from version 3 .* now, and not from version 2"):
        start(scene)
    scene.clock.sleep(LAG)

    list(scene.roll.abort())

    assert JOURNAL not in scene.aws.objects
    start(scene)
    assert {i.image_id for i in scene.world.ec2.instances.values() if i.exists} == {"ami-0ccccccccccccccccc"}


def test_the_launch_configuration_of_a_stack_is_no_obstacle() -> None:
    scene = Scene(2)
    scene.group.tags.append({"Key": "aws:cloudformation:stack-name", "Value": "hosts", "PropagateAtLaunch": True})

    assert len(replaced(scene, Selection("all"))) == 2


def test_a_keyroll_and_a_replacement_exclude_each_other() -> None:
    scene = outdate(Scene(3))
    events = scene.roll.start(DEFAULT, scene.selection)
    next(events)

    keyroll = replace(scene.selection, kind="key")
    plan = scene.roll.plan(DEFAULT, keyroll)

    assert "holds the replacement of rack" in plan.refusals[0].reason
    assert "`rackctl instances replace status --rack prod`" in plan.refusals[0].remedy
    assert isinstance(scene.roll, Roll)
