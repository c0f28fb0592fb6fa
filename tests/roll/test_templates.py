"""Launch templates: a group names its versions as before, and an abort restores them, even after changes by others."""

from __future__ import annotations

import pytest

from rackctl.errors import RackctlError, RollIncomplete
from tests.fakes.world import OLD_KEY, Login, Scene, add_group, mixed, name_version
from tests.roll.acts import (
    JOURNAL,
    NEW_KEY,
    assert_given_back,
    start,
    stopped,
    texts,
    until,
)


def test_a_group_that_names_a_number_names_another_number() -> None:
    scene = Scene(2)
    start(scene)
    assert scene.group.launch_template
    assert scene.group.launch_template["Version"] == "2"
    assert (scene.template.default_version, scene.template.latest_version) == (1, 2)


def test_a_group_that_names_default_still_names_default() -> None:
    scene = Scene(2)
    name_version(scene, "$Default")
    scene.world.ec2.add_version(scene.template, {"ImageId": "ami-newer"}, source="1")

    start(scene)

    assert scene.group.launch_template == {**(scene.group.launch_template or {}), "Version": "$Default"}
    assert scene.template.default_version == 3
    assert scene.template.versions[3].data == {**scene.template.versions[1].data, "KeyName": NEW_KEY}


def test_a_group_that_names_latest_still_names_latest() -> None:
    scene = Scene(2)
    name_version(scene, "$Latest")
    scene.world.ec2.add_version(scene.template, {"ImageId": "ami-newer"}, source="1")

    start(scene)

    assert scene.template.default_version == 1
    assert scene.template_in_use.number == 3
    assert scene.template_in_use.data == {**scene.template.versions[2].data, "KeyName": NEW_KEY}


def test_groups_that_name_one_template_in_different_ways_each_keep_their_own() -> None:
    scene = Scene(2)
    scene.world.ec2.add_version(scene.template, {"ImageId": "ami-newer"}, source="1")
    name_version(scene, "$Latest")
    other = add_group(scene)
    other.launch_template["Version"] = "$Default"

    start(scene)

    resolve = scene.template.resolve
    (key,) = set(scene.key_names)
    assert key != OLD_KEY
    assert resolve("$Latest").data == {**resolve("2").data, "KeyName": key}
    assert resolve("$Default").data == {**resolve("1").data, "KeyName": key}


def test_every_place_of_a_mixed_instances_policy_that_names_a_template_names_the_new_version() -> None:
    scene = Scene(2)
    mixed(scene)

    start(scene)

    policy = scene.group.mixed_instances_policy
    assert policy
    template = policy["LaunchTemplate"]
    assert template["LaunchTemplateSpecification"]["Version"] == "2"
    assert [o.get("InstanceType") for o in template["Overrides"]] == ["t3.medium", "m5.large"]
    assert template["Overrides"][1]["LaunchTemplateSpecification"]["Version"] == "2"
    assert policy["InstancesDistribution"] == {"OnDemandBaseCapacity": 1}
    assert set(scene.key_names) == {NEW_KEY}


@pytest.mark.parametrize("version", ["1", "$Default", "$Latest", "mixed"])
def test_abort_restores_every_kind_of_reference(version: str) -> None:
    scene = Scene(2)
    if version == "mixed":
        mixed(scene)
    else:
        name_version(scene, version)
    in_use, default = scene.template_in_use, scene.template.default_version
    scene.login = lambda _: Login("refused", "no")

    with pytest.raises(RackctlError, match="refused the new key"):
        start(scene)

    assert scene.template_in_use == in_use
    assert scene.template.default_version == default
    assert [len(t.versions) for t in scene.world.ec2.templates.values()] == [1] * len(scene.world.ec2.templates)
    assert_given_back(scene, 2)


@pytest.mark.parametrize("version", ["1", "$Default", "$Latest"])
@pytest.mark.parametrize("moment", ["surge", "replacing"])
def test_a_template_that_is_changed_back_stops_the_roll_and_resume_gives_it_the_new_key_again(
    version: str, moment: str
) -> None:
    scene = Scene(3)
    name_version(scene, version)
    events = until(scene, "surge") if moment == "surge" else until(scene, "instance", "terminating")
    if version == "1":
        name_version(scene, "1")
    elif version == "$Default":
        scene.template.default_version = 1
    else:
        scene.world.ec2.add_version(scene.template, {}, source="1")

    with pytest.raises(RollIncomplete, match=f"launches with key {OLD_KEY} again|with the old key"):
        list(events)

    assert not any(m.lifecycle_state == "InService" for i, m in scene.group.members.items() if i in scene.draining)
    list(scene.roll.resume())
    assert scene.key_names == [scene.keys.names()[0]] * 3
    assert_given_back(scene, 3)


@pytest.mark.parametrize("version", ["1", "$Latest"])
@pytest.mark.parametrize("way", ["resume", "abort"])
def test_a_version_of_the_roll_that_was_deleted_is_created_again_or_not_needed(version: str, way: str) -> None:
    scene = Scene(3)
    name_version(scene, version)
    stopped(scene, until(scene, "surge"))
    del scene.template.versions[2]

    list(getattr(scene.roll, way)())

    assert scene.key_names == [OLD_KEY if way == "abort" else scene.keys.names()[0]] * 3
    assert_given_back(scene, 3)


@pytest.mark.parametrize("version", ["3", "$Default", "$Latest"])
def test_abort_keeps_a_version_made_from_the_rolls_own_and_gives_it_the_old_key(version: str) -> None:
    scene = Scene(3)
    name_version(scene, {"3": "1"}.get(version, version))
    stopped(scene, until(scene, "surge"))
    theirs = scene.world.ec2.add_version(scene.template, {"ImageId": "ami-theirs"}, source="2")
    if version == "$Default":
        scene.template.default_version = theirs.number
    name_version(scene, version)

    said = texts(list(scene.roll.abort()))

    assert "version 3 with the old key" in said
    assert scene.group.launch_template
    assert scene.group.launch_template["Version"] == ("4" if version == "3" else version)
    assert scene.template_in_use.data == {**scene.template.versions[1].data, "ImageId": "ami-theirs"}
    assert_given_back(scene, 3)


def test_abort_says_what_keeps_the_new_key_because_there_was_none_before() -> None:
    scene = Scene(2)
    name_version(scene, "$Latest")
    del scene.template_in_use.data["KeyName"]
    stopped(scene, until(scene, "surge"))
    scene.world.ec2.add_version(scene.template, {"ImageId": "ami-theirs"}, source="2")

    said = texts(list(scene.roll.abort()))

    assert f"version 3, created during the roll, keeps key {NEW_KEY}" in said
    assert f"kept key {NEW_KEY}: group prod-instances has it" in said
    assert_given_back(scene, 2)


def test_a_group_that_is_moved_to_a_launch_configuration_stops_the_roll() -> None:
    scene = Scene(3)
    events = until(scene, "instance", "terminating")
    scene.world.autoscaling.launch_configurations["old-style"] = dict(scene.template.versions[1].data)
    scene.group.launch_template, scene.group.launch_configuration = None, "old-style"

    with pytest.raises(RollIncomplete, match="uses a launch configuration now"):
        list(events)

    assert len(scene.old) <= 3
    scene.clock.sleep(120)
    assert scene.draining == []


def test_a_template_that_was_deleted_with_its_group_does_not_keep_the_others_from_being_restored() -> None:
    scene = Scene(2)
    own = scene.world.ec2.create_template("other", dict(scene.template.versions[1].data), {})
    add_group(scene, "prod-zzz").launch_template = {
        "LaunchTemplateId": own.launch_template_id, "LaunchTemplateName": "other", "Version": "1",
    }  # fmt: skip
    stopped(scene, until(scene, "instance", "draining"))
    del scene.world.autoscaling.groups["prod-zzz"], scene.world.ec2.templates[own.launch_template_id]

    list(scene.roll.abort())

    assert (scene.group.desired, scene.group.suspended) == (2, {})


def test_a_default_version_is_restored_though_the_group_that_named_it_is_gone() -> None:
    scene = Scene(2)
    name_version(scene, "$Default")
    add_group(scene)
    stopped(scene, until(scene, "surge"))
    scene.world.autoscaling.groups.pop(scene.group.name)

    list(scene.roll.abort())

    assert scene.template.default_version == 1
    assert list(scene.template.versions) == [1]


def test_a_default_version_that_was_moved_during_the_roll_is_restored_to_where_it_was_moved() -> None:
    scene = Scene(3)
    name_version(scene, "$Default")
    stopped(scene, until(scene, "instance", "draining"))
    theirs = scene.world.ec2.add_version(scene.template, {"ImageId": "ami-theirs"}, source="1")
    scene.template.default_version = theirs.number
    events = scene.roll.resume()
    next(event for event in events if event.phase == "draining")
    stopped(scene, events)

    list(scene.roll.abort())

    assert scene.template.default_version == theirs.number
    assert {v.data["KeyName"] for v in scene.template.versions.values()} == {OLD_KEY}
    assert_given_back(scene, 3)


def test_another_group_that_names_a_version_which_does_not_exist_does_not_keep_a_roll_from_its_end() -> None:
    scene = Scene(2)
    add_group(scene, "theirs", 0, Rack="another").launch_template["Version"] = "77"

    start(scene)

    assert OLD_KEY not in scene.key_names
    assert scene.key_pairs == set(scene.key_names)
    assert JOURNAL not in scene.aws.objects
