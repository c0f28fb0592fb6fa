"""Refusals before anything is changed, each with the option that lifts it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rackctl.errors import RackctlError
from rackctl.roll.view import RollOptions
from tests.fakes.world import Scene, add_group, mixed
from tests.fakes.world_aws import RACK
from tests.roll.acts import (
    DEFAULT,
    JOURNAL,
    NEW_KEY,
    assert_given_back,
    refused,
    run_until_killed,
    start,
)


@pytest.mark.parametrize("process", ["Launch", "Terminate"])
def test_a_suspended_process_blocks_the_roll_and_is_named(process: str) -> None:
    scene = Scene(2)
    scene.group.suspended[process] = "User suspended at …"

    said = refused(scene)

    assert f"the {process} process of group prod-instances is suspended" in said
    assert f"--scaling-processes {process}" in said


def test_an_instance_refresh_in_progress_blocks_the_roll_until_it_is_over() -> None:
    scene = Scene(2)
    scene.world.refreshes.start(scene.group, {"MinHealthyPercentage": 50})

    assert "cancel-instance-refresh" in refused(scene)
    scene.clock.sleep(400)
    scene.broken_promises.clear()  # the refresh's
    start(scene)
    assert_given_back(scene, 2)


def test_a_launch_configuration_without_a_key_blocks_the_roll_and_the_way_to_a_template_is_named() -> None:
    scene = Scene(2)
    scene.group.launch_template, scene.group.launch_configuration = None, "old-style"

    assert "launches without a key from launch configuration old-style" in (said := refused(scene))
    assert "migrate-to-launch-templates" in said


def test_a_group_that_counts_in_weights_blocks_the_roll() -> None:
    scene = Scene(2)
    mixed(scene)["LaunchTemplate"]["Overrides"][0]["WeightedCapacity"] = "2"

    assert "counts its capacity in weights" in refused(scene)


@pytest.mark.parametrize("where", ["template", "group"])
def test_what_a_stack_launches_without_a_key_blocks_the_roll_unless_out_of_band(where: str) -> None:
    scene = Scene(2)
    scene.template.versions[1].data.pop("KeyName")
    if where == "template":
        scene.template.tags["aws:cloudformation:stack-name"] = "prod-stack"
    else:
        scene.group.tags.append({"Key": "aws:cloudformation:stack-name", "Value": "prod-stack"})

    assert "CloudFormation, stack prod-stack: KeyName: NAME; or use --out-of-band" in refused(scene)
    start(scene, RollOptions(out_of_band=True))
    assert set(scene.key_names) == {NEW_KEY}


def test_a_template_whose_latest_version_another_racks_group_launches_blocks_the_roll() -> None:
    scene = Scene(2)
    add_group(scene, "staging", Rack="staging").launch_template["Version"] = "$Latest"

    assert "group staging, which is not this rack's, launches from $Latest" in refused(scene)


def test_an_old_instance_whose_agent_is_off_blocks_the_roll_and_force_lifts_that() -> None:
    scene = Scene(3)
    off = scene.old[0]
    scene.world.befall("agent-off", off)

    assert "--force" in refused(scene)
    start(scene, RollOptions(force=True))
    assert set(scene.key_names) == {NEW_KEY}


@pytest.mark.parametrize("setting", ["bucket", "kms_key"])
def test_a_missing_setting_blocks_the_roll_and_is_named(setting: str) -> None:
    scene = Scene(2)
    del scene.rack._given[setting]  # type: ignore[attr-defined]

    assert setting in refused(scene)


def test_a_rack_without_groups_blocks_the_roll() -> None:
    scene = Scene(2)
    scene.world.autoscaling.groups.clear()

    assert "has no Auto Scaling group" in refused(scene)


def test_a_roll_of_another_region_is_neither_resumed_nor_overwritten() -> None:
    scene = Scene(2)
    run_until_killed(scene, lambda: start(scene), 8, "after")
    scene.clock.sleep(400)
    body = scene.aws.objects[JOURNAL].body
    elsewhere = Scene(2)
    elsewhere.group.arn = elsewhere.group.arn.replace("us-east-1", "eu-west-1")
    elsewhere.aws.region = "eu-west-1"
    elsewhere.world.ecs.clusters[RACK].arn = elsewhere.seeded.arn.replace("us-east-1", "eu-west-1")
    del elsewhere.rack.ecs_cluster  # it was read when the scene was set
    elsewhere.aws.objects[JOURNAL] = replace(scene.aws.objects[JOURNAL], age=400)

    for act in (elsewhere.roll.resume, elsewhere.roll.abort, lambda: [elsewhere.roll.status()]):
        with pytest.raises(RackctlError, match="in region us-east-1 and account 123456789012") as caught:
            list(act())
        assert "--region us-east-1" in caught.value.hint
    assert 'an unfinished roll of rack "prod" (arn:aws:ecs:us-east-1' in refused(elsewhere)

    assert elsewhere.aws.objects[JOURNAL].body == body


def test_an_instance_whose_own_tag_names_another_rack_refuses_the_roll_of_its_group() -> None:
    scene = Scene(3)
    instance = scene.world.ec2.instances[scene.old[0]]
    instance.tags["Rack"] = "staging"

    assert f"{instance.instance_id} of group prod-instances is tagged Rack=staging" in refused(scene)


def test_the_key_of_an_instance_that_is_terminating_is_not_missed_in_the_store() -> None:
    scene = Scene(3)
    lost = scene.world.ec2.instances[scene.old[0]]
    lost.key_name, lost.state = "prod-keypair-20240101T000000Z", "shutting-down"

    assert not any("is not stored" in warning for warning in scene.roll.plan(DEFAULT).warnings)
