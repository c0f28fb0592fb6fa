"""A key pair is renewed under the name that it has: nothing that launches instances is changed, and launches go on.

What EC2 does is from botocore's model and https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/create-key-pairs.html,
as the world does it by tests/local/api/test_key_pairs.py.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.errors import AccessDenied, RackctlError
from rackctl.keys import generate
from rackctl.roll.view import RollOptions
from rackctl.settings import Origin, Source, Value
from tests.fakes.world import START, Scene, add_group
from tests.roll.acts import JOURNAL, NEW_KEY, assert_given_back, killed, start, texts, until

if TYPE_CHECKING:
    from collections.abc import Callable


THEIRS = generate("theirs", created=START).public_key


def ops(instances: int = 3, **options: Any) -> Scene:
    """Make a rack whose key pair has a name that rackctl did not give."""
    return Scene(instances, key_name="ops", **options)


def pair(scene: Scene) -> Any:
    return scene.world.ec2.key_pairs["ops"]


def made(scene: Scene) -> Any:
    """Return the whole launch templates, launch configurations and groups, to compare them."""
    configurations = scene.world.autoscaling.launch_configurations
    groups = [
        (g.name, g.launch_configuration, sorted(map(str, g.tags))) for g in scene.world.autoscaling.groups.values()
    ]
    return json.dumps([repr(scene.templates), repr(configurations), repr(groups)])


def journal(scene: Scene) -> Any:
    return json.loads(scene.aws.objects[JOURNAL].body)["journal"]


def at(scene: Scene, call: str, do: Callable[[], object], moment: str = "before") -> None:
    """Do something the first time that a call is made."""

    def interfere(_: int, name: str, when: str) -> None:
        if (name, when) == (call, moment) and interfere in scene.aws.interfering:
            scene.aws.interfering.remove(interfere)
            do()

    scene.aws.interfering.append(interfere)


# Forwards


def test_every_instance_gets_the_new_key_of_the_name_and_nothing_that_launches_it_is_changed() -> None:
    scene = ops()
    before, first = made(scene), pair(scene)

    events = start(scene)

    assert made(scene) == before
    assert pair(scene).key_pair_id != first.key_pair_id
    assert set(scene.public_keys.values()) == {pair(scene).public_key} != {first.public_key}
    assert set(scene.key_names) == {"ops"}
    assert pair(scene).tags == {"team": "ops"}
    assert "the new key of key pair ops" in events[-1].message
    assert_given_back(scene, 3)


@pytest.mark.parametrize("owned", ["template", "group", "launch configuration", "own name in a stack"])
def test_what_a_stack_owns_is_rolled_without_touching_it(owned: str) -> None:
    scene = Scene(2) if owned == "own name in a stack" else ops(2)
    stack = {"Key": "aws:cloudformation:stack-name", "Value": "shop"}
    if owned == "launch configuration":
        scene.world.autoscaling.launch_configurations["old-style"] = dict(scene.template.versions[1].data)
        scene.group.launch_template, scene.group.launch_configuration = None, "old-style"
        scene.world.ec2.templates.clear()
    elif owned == "template":
        scene.template.tags[stack["Key"]] = stack["Value"]
    else:
        scene.group.tags.append(stack)
    before = made(scene)

    start(scene)

    assert made(scene) == before
    assert scene.old == []
    assert scene.key_pairs == {scene.key_name}
    assert_given_back(scene, 2)


def test_one_roll_gives_each_group_its_key_in_its_own_way() -> None:
    scene = Scene(2)
    scene.world.ec2.import_key_pair("ops", THEIRS.encode(), {})
    template = scene.world.ec2.create_template("theirs", {**scene.template.versions[1].data, "KeyName": "ops"}, {})
    specification = {"LaunchTemplateId": template.launch_template_id, "LaunchTemplateName": "theirs", "Version": "1"}
    add_group(scene, instances=1, specification=specification)

    groups = {group.auto_scaling_group_name: group.key for group in scene.roll.plan(RollOptions()).groups}
    start(scene)

    assert {name: key.way for name, key in groups.items() if key} == {"prod-instances": "new", "prod-spot": "keep"}
    assert sorted(set(scene.key_names)) == ["ops", "prod-keypair-20260102T030635Z"]
    assert THEIRS not in scene.public_keys.values()
    assert list(template.versions) == [1]


def test_both_public_keys_are_in_the_journal_before_the_first_is_deleted() -> None:
    scene = ops(1)
    seen: list[Any] = []
    at(scene, "delete_key_pair", lambda: seen.append(journal(scene)["key_pairs"]["ops"]))

    start(scene)

    (record,) = seen
    assert record["old_public_key"] == scene.old_public_key
    assert record["new_public_key"] == pair(scene).public_key
    assert (record["state"], record["tags"]) == ("changing", {"team": "ops"})


def test_no_group_of_the_pair_launches_from_before_the_deletion_until_the_new_pair_is_seen_steadily() -> None:
    scene = ops()
    scene.world.set_condition("key-pairs-late", "15")
    suspended: list[tuple[str, bool]] = []
    resumed: list[float] = []
    imported: list[float] = []
    for call in ("delete_key_pair", "import_key_pair"):
        at(scene, call, lambda call=call: suspended.append((call, "Launch" in scene.group.suspended)))  # type: ignore[misc]
    at(scene, "import_key_pair", lambda: imported.append(scene.clock.at), "after")
    at(scene, "resume_processes", lambda: resumed.append(scene.clock.at))

    start(scene)

    assert suspended == [("delete_key_pair", True), ("import_key_pair", True)]
    # It is shown now and then for 15 s, and counts from the last time that it was not.
    assert resumed[0] - imported[0] > 30
    assert set(scene.public_keys.values()) == {pair(scene).public_key}
    assert not any("does not exist" in a.status_message for a in scene.group.activities)


def test_a_launch_that_is_under_way_is_waited_for() -> None:
    scene = ops(max_size=5)
    scene.world.autoscaling.set_desired(scene.group, 4)
    scene.clock.sleep(5)
    pending: list[int] = []
    states = scene.group.members.values
    at(scene, "delete_key_pair", lambda: pending.append(sum(m.lifecycle_state == "Pending" for m in states())))

    start(scene)

    assert pending == [0]
    assert_given_back(scene, 4)


def test_a_launch_that_does_not_end_stops_the_roll_with_the_pair_as_it_was() -> None:
    scene = ops(max_size=5)
    scene.world.set_condition("slow-boot", "1000")
    scene.world.autoscaling.set_desired(scene.group, 4)
    scene.clock.sleep(5)

    with pytest.raises(RackctlError, match=r"waiting for i-.* to launch"):
        start(scene, RollOptions(boot_timeout=60))

    assert pair(scene) is scene.old_pair
    assert "Launch" not in scene.group.suspended


def test_an_old_instance_that_is_stopped_and_started_again_stays_old() -> None:
    """Its LaunchTime is then later than the new pair's CreateTime, and its key is the old one."""
    scene = ops()
    standing_by = scene.old[0]
    scene.world.autoscaling.set_standby(scene.group, standing_by, standby=True, decrement=True)
    instance = scene.world.ec2.instances[standing_by]

    def restart() -> None:
        scene.world.ec2.stop(instance)
        scene.clock.sleep(60)
        scene.world.ec2.start(instance)
        scene.clock.sleep(90)
        scene.world.autoscaling.set_standby(scene.group, standing_by, standby=False)

    events = until(scene, "proof")
    restart()
    list(events)

    assert not instance.exists
    assert_given_back(scene, 3)


def test_what_something_else_launches_at_that_time_may_have_either_key_and_keeps_both_stored() -> None:
    scene = ops(2)
    launched: list[Any] = []

    def launch() -> None:
        launched.append(scene.world.ec2.launch({"KeyName": "ops"}, tags={"Rack": "prod"}))

    at(scene, "import_key_pair", lambda: scene.later(3, launch), "after")

    events = start(scene)

    (instance,) = launched
    assert f"{instance.instance_id}: launched by something else while key pair ops was changed" in texts(events)
    assert f"kept the old key of key pair ops in the store: {instance.instance_id}" in texts(events)
    stored = set(scene.keys.public_keys("ops").values())
    assert stored == {scene.old_public_key, pair(scene).public_key}


def test_the_old_key_stays_stored_while_an_instance_that_was_left_alone_has_it() -> None:
    scene = ops(2)
    alone = scene.world.ec2.launch({"KeyName": "ops"}, tags={"Rack": "prod"})
    scene.clock.sleep(60)

    events = start(scene)

    assert f"kept the old key of key pair ops in the store: {alone.instance_id}" in texts(events)
    assert set(scene.keys.public_keys("ops").values()) == {scene.old_public_key, pair(scene).public_key}
    key = scene.keys.fetch("ops", scene.aws._instance(alone).first_launch_time)
    assert key.public_key == alone.authorized_key


def test_a_key_pair_can_be_renewed_under_its_name_several_times() -> None:
    scene = ops(2)
    keys = set()
    for _ in range(3):
        start(scene)
        keys.add(pair(scene).public_key)
        assert_given_back(scene, 2)

    assert len(keys) == 3


def test_the_generation_is_named_by_the_time_at_which_ec2_has_imported_it() -> None:
    scene = ops(1)
    # This machine's clock is an hour fast; EC2's is right.
    scene.clock.now = lambda real=scene.clock.now: real().replace(hour=9)  # type: ignore[method-assign,misc]

    start(scene)

    (generation,) = scene.keys.generations("ops")
    assert generation.timestamp() == pair(scene).created


# Refusals


def foreign_group(scene: Scene) -> None:
    add_group(scene, "staging", Rack="staging")


def template(scene: Scene) -> None:
    scene.world.ec2.create_template("jump-hosts", {"KeyName": "ops"}, {})


def configuration(scene: Scene) -> None:
    scene.world.autoscaling.launch_configurations["builds"] = {"KeyName": "ops"}


def instance(scene: Scene) -> None:
    scene.world.ec2.launch({"KeyName": "ops"}, tags={"Rack": "staging"})


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (foreign_group, "group staging"),
        (template, "launch template jump-hosts"),
        (configuration, "launch configuration builds"),
        (instance, 'of rack "staging"'),
    ],
)
def test_other_users_of_the_pair_are_named_and_shared_key_pair_lifts_that(
    add: Callable[[Scene], None], says: str
) -> None:
    scene = ops(2)
    add(scene)

    (refusal,) = scene.roll.plan(RollOptions()).refusals
    assert refusal.reason.startswith("key pair ops has other users: ")
    assert says in refusal.reason
    assert "--shared-key-pair" in refusal.remedy
    assert scene.roll.plan(RollOptions(shared_key_pair=True)).refusals == ()


def test_a_version_of_its_own_template_and_an_instance_of_its_own_are_no_other_users() -> None:
    scene = ops(2)
    scene.world.ec2.add_version(scene.template, {}, source="1")
    scene.world.ec2.launch({"KeyName": "ops"}, tags={"Rack": "prod"})

    assert scene.roll.plan(RollOptions()).refusals == ()


def test_a_group_of_this_rack_that_is_not_rolled_is_another_user() -> None:
    scene = ops(2)
    add_group(scene)
    selection = scene.selection.__class__(groups=("prod-spot",))

    (refusal,) = scene.roll.plan(RollOptions(), selection).refusals

    assert "group prod-instances" in refusal.reason


def test_a_pair_whose_public_key_ec2_does_not_tell_is_refused() -> None:
    scene = ops(2)
    pair(scene).public_key = ""

    (refusal,) = scene.roll.plan(RollOptions()).refusals

    assert "does not show the public key of key pair ops" in refusal.reason
    assert "--key-name new" in refusal.remedy


def test_a_group_whose_key_pair_does_not_exist_is_refused() -> None:
    scene = ops(2)
    scene.world.ec2.key_pairs.change("ops", None)

    (refusal,) = scene.roll.plan(RollOptions()).refusals

    assert "which does not exist in EC2" in refusal.reason


def test_a_pair_that_a_stack_owns_is_told_and_loses_the_tags_that_only_aws_can_give() -> None:
    scene = ops(1)
    pair(scene).tags["aws:cloudformation:stack-name"] = "shop"

    assert any("key pair ops belongs to stack shop" in w for w in scene.roll.plan(RollOptions()).warnings)
    start(scene)

    assert pair(scene).tags == {"team": "ops"}


def test_a_missing_permission_to_delete_or_import_the_pair_is_found_before_anything_is_changed() -> None:
    scene = ops(2)

    def refuse(*_: object) -> None:
        raise AccessDenied("AWS denied ec2:ImportKeyPair on key pair ops")

    scene.aws.require_key_pair_permissions = refuse  # type: ignore[method-assign]

    with pytest.raises(RackctlError, match="rolled back; nothing is changed") as caught:
        start(scene)

    assert caught.value.exit_code == AccessDenied.exit_code
    assert pair(scene) is scene.old_pair
    assert "suspend_processes" not in scene.aws.mutations
    assert_given_back(scene, 2)


# Messages


def test_the_line_for_terraform_is_in_the_plan_and_in_an_event_at_the_end() -> None:
    scene = ops(1)
    scene.rack._given["key_name"] = Value("new", Origin(Source.TAG, "rackctl:key-name"))  # type: ignore[index]

    (group,) = scene.roll.plan(RollOptions()).groups
    events = start(scene)

    assert group.key
    assert group.key.reason == "key_name is new (tag rackctl:key-name)"
    assert group.key.lines == ('Terraform: key_name = "prod-keypair-<time>"',)
    assert f'to keep the new key, set in Terraform: key_name = "{NEW_KEY}"' in texts(events)
    assert set(scene.key_names) == {NEW_KEY}
    # It is not rackctl's, and only goes out of use.
    assert "ops" in scene.key_pairs


def test_status_says_that_a_key_pair_may_be_missing_while_it_is_changed() -> None:
    scene = ops(1)
    killed(scene, until(scene, "key", "deleted key pair ops"))

    status = scene.roll.status()

    assert status
    assert status.journal.key_pairs["ops"].state == "changing"
    assert (status.groups[0].old, status.groups[0].new) == (1, 0)
