"""Instance refreshes of groups whose key pairs are renewed under their names: their launch does not change.

The quotations are from Auto Scaling's model in botocore. What the local rack's refreshes do is tested against it in
tests/local/api/test_instance_refreshes.py and test_refresh_preferences.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackctl.errors import RackctlError, RollIncomplete
from rackctl.roll.view import RollOptions
from tests.fakes.world import Login, Scene, add_group, drained, name_version
from tests.roll.acts import (
    JOURNAL,
    REFRESH,
    assert_given_back,
    refresh_of,
    run_until_killed,
    start,
    stopped,
    texts,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.model import Instance
    from rackctl.roll.report import Event


def ops(instances: int = 3, launches: str = "1") -> Scene:
    """Make a rack behind managed draining whose key pair has a name that rackctl did not give."""
    scene = drained(Scene(instances, key_name="ops"))
    if launches == "launch configuration":
        scene.world.autoscaling.launch_configurations["old-style"] = dict(scene.template.versions[1].data)
        scene.group.launch_template, scene.group.launch_configuration = None, "old-style"
        scene.world.ec2.templates.clear()
    else:
        name_version(scene, launches)
    return scene


def pair(scene: Scene) -> Any:
    return scene.world.ec2.key_pairs["ops"]


def half_done(scene: Scene) -> Iterator[Event]:
    """Begin a roll of four and give the rest of it from when Auto Scaling has replaced half of them."""
    events = scene.roll.start(REFRESH, scene.selection)
    for event in events:
        if "50 % complete" in event.message:
            return events
    raise AssertionError("the refresh never came so far")


@pytest.mark.parametrize("launches", ["1", "$Latest", "$Default", "launch configuration"])
def test_all_are_replaced_though_what_they_launch_from_is_the_same(launches: str) -> None:
    """SkipMatching: it skips "instances that have the same launch template": with this one that would be all."""
    scene = ops(launches=launches)
    before, first, old = scene.templates, set(scene.old), pair(scene).public_key

    start(scene, REFRESH)

    assert refresh_of(scene).preferences["SkipMatching"] is False
    assert refresh_of(scene).desired_configuration is None
    assert scene.templates == before
    assert not first & scene.public_keys.keys()
    assert set(scene.public_keys.values()) == {pair(scene).public_key} != {old}
    assert_given_back(scene, 3)


def test_each_group_is_refreshed_in_the_way_of_its_key() -> None:
    scene = Scene(2)
    scene.world.ec2.import_key_pair("ops", scene.old_public_key.encode(), {})
    template = scene.world.ec2.create_template("theirs", {**scene.template.versions[1].data, "KeyName": "ops"}, {})
    specification = {"LaunchTemplateId": template.launch_template_id, "LaunchTemplateName": "theirs", "Version": "1"}
    kept = add_group(scene, instances=2, specification=specification)
    drained(scene)

    plan = scene.roll.plan(REFRESH)
    start(scene, REFRESH)

    of_new, of_kept = refresh_of(scene), scene.world.refreshes.of(kept.name)[0]
    assert (of_new.preferences["SkipMatching"], of_kept.preferences["SkipMatching"]) == (True, False)
    assert of_new.desired_configuration
    assert of_kept.desired_configuration is None
    warnings = [warning for warning in plan.warnings if "cannot roll" in warning]
    assert [kept.name in warning for warning in warnings] == [True]
    assert len([name for name in scene.key_names if name == "ops"]) == 2
    assert scene.old_public_key not in scene.public_keys.values()


@pytest.mark.parametrize("launches", ["1", "$Latest", "launch configuration"])
def test_the_plan_says_that_all_are_replaced_and_that_nothing_is_rolled_back(launches: str) -> None:
    """RollbackInstanceRefresh: not supported if "there is no desired configuration specified"."""
    plan = ops(launches=launches).roll.plan(REFRESH)

    assert not plan.refusals
    [warning] = [warning for warning in plan.warnings if "roll" in warning]
    assert "launches as before, with a key pair that keeps its name" in warning
    assert "replaces all of its instances, and Auto Scaling cannot roll it back. An abort cancels it" in warning


def test_auto_scaling_is_not_asked_to_roll_back_for_an_alarm() -> None:
    """AutoRollback: not supported if "there is no desired configuration specified for the instance refresh"."""
    scene = ops(4)
    scene.world.alarms = {"errors": ("OK", "")}
    scene.when(lambda: len(scene.new) == 2, lambda: scene.world.alarms.update(errors=("ALARM", "too many")))

    with pytest.raises(RollIncomplete, match="failed: CloudWatch alarm errors is in state ALARM"):
        start(scene, RollOptions(engine="refresh", alarms=("errors",)))

    assert refresh_of(scene).preferences["AutoRollback"] is False
    scene.world.alarms["errors"] = ("OK", "")
    list(scene.roll.abort())
    assert pair(scene).public_key == scene.old_public_key
    assert_given_back(scene, 4)


def test_a_refused_proof_cancels_it_and_brings_the_old_key_back() -> None:
    scene = ops(3)

    def login(_: Instance) -> Login:
        return Login("refused", "no such key")

    scene.login = login

    with pytest.raises(RackctlError, match="refused the new key"):
        start(scene, REFRESH)

    assert refresh_of(scene).status == "Cancelled"
    assert "rollback_instance_refresh" not in scene.aws.mutations
    assert JOURNAL not in scene.aws.objects
    assert pair(scene).public_key == scene.old_public_key
    assert list(scene.public_keys.values()).count(scene.old_public_key) >= 2
    assert_given_back(scene, 3)


def test_abort_cancels_it_and_what_was_replaced_stays() -> None:
    scene = ops(4)
    stopped(scene, half_done(scene))

    last = list(scene.roll.abort())[-1]

    assert "rollback_instance_refresh" not in scene.aws.mutations
    assert refresh_of(scene).status == "Cancelled"
    said = "except for 3 of 4 instances, which have been replaced (1 of them still terminating)"
    assert said in last.message
    assert pair(scene).public_key == scene.old_public_key
    assert_given_back(scene, 4)
    assert len(scene.old) == 1


@pytest.mark.parametrize("engine", ["refresh", "rackctl"])
def test_another_refresh_replaces_all_again_and_rackctl_only_the_rest(engine: str) -> None:
    scene = ops(4)
    events = half_done(scene)
    scene.world.refreshes.cancel(scene.group)
    with pytest.raises(RollIncomplete, match="cancelled, and not by this roll"):
        list(events)
    scene.clock.sleep(400)
    replaced, left = set(scene.new), set(scene.old)
    assert replaced
    assert left

    list(scene.roll.resume() if engine == "refresh" else scene.roll.resume(engine="rackctl"))

    assert_given_back(scene, 4)
    stay = replaced & scene.public_keys.keys()
    assert stay == (set() if engine == "refresh" else replaced)
    assert not left & scene.public_keys.keys()


def test_a_roll_that_was_killed_before_launch_was_resumed_is_resumed_with_it() -> None:
    """ScalingProcessQuery's Launch, suspended: a refresh could not launch anything, and would wait for that."""
    scene = ops(2)
    number = _number_of(scene, "resume_processes")

    assert run_until_killed(scene, lambda: start(scene, REFRESH), number, "before")
    assert "Launch" in scene.group.suspended
    scene.clock.sleep(400)
    said = texts(list(scene.roll.resume()))

    assert "started instance refresh" in said
    assert scene.old == []
    assert_given_back(scene, 2)


def _number_of(scene: Scene, call: str) -> int:
    """Return the number of a call in a roll of a scene like this one."""
    another = ops(len(scene.old))
    start(another, REFRESH)
    return another.aws.mutations.index(call)
