"""Rolls that Auto Scaling's instance refresh carries out, on the local rack's model of it.

What that model does is tested against Auto Scaling's own words in tests/local/api/test_instance_refreshes.py and
test_refresh_preferences.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import RackctlError, RollIncomplete, UsageError
from rackctl.roll.hold import RollStopped
from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, Login, Scene, add_group, drained, mixed, name_version, replacing
from tests.roll.acts import (
    JOURNAL,
    NEW_KEY,
    REFRESH,
    assert_given_back,
    collect,
    fail_from,
    refresh_of,
    start,
    stopped,
    texts,
    with_managed_draining,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.model import Instance
    from rackctl.roll.report import Event


def until_event(scene: Scene, saying: str) -> Iterator[Event]:
    """Begin a roll and give the rest of it from the first event that says so."""
    events = scene.roll.start(REFRESH, scene.selection)
    for event in events:
        if saying in event.message:
            return events
    raise AssertionError(f"no event said {saying}")


def refuse_login(scene: Scene) -> None:
    def login(_: Instance) -> Login:
        return Login("refused", "no such key")

    scene.login = login


# The whole roll


def test_auto_scaling_gives_every_instance_a_new_key_and_no_service_notices() -> None:
    scene = with_managed_draining(3)

    events = start(scene, REFRESH)

    assert set(scene.key_names) == {NEW_KEY}
    assert refresh_of(scene).status == "Successful"
    assert scene.template_in_use.data["KeyName"] == NEW_KEY
    assert {"set_desired_capacity", "terminate_instance", "drain", "set_launch_template_versions"}.isdisjoint(
        scene.aws.mutations
    )
    assert "accepts the new key" in texts(events)
    assert events[-1].done == events[-1].total == 3
    assert_given_back(scene, 3)


def test_the_refresh_launches_first_pauses_for_the_proof_and_replaces_what_is_protected() -> None:
    """The preferences that the issue asks for, as RefreshPreferences of Auto Scaling's model names them."""
    scene = with_managed_draining(3)
    for member in scene.group.members.values():
        member.protected = True

    start(scene, REFRESH)

    assert refresh_of(scene).preferences == {
        "MinHealthyPercentage": 100,
        "MaxHealthyPercentage": 100,
        "SkipMatching": True,
        "ScaleInProtectedInstances": "Refresh",
        "StandbyInstances": "Ignore",
        "InstanceWarmup": 60,
        "CheckpointPercentages": [1, 100],
        "CheckpointDelay": 300,
    }
    assert_given_back(scene, 3)


def test_a_larger_batch_lets_the_group_grow_by_as_many() -> None:
    scene, most = with_managed_draining(5), []
    scene.clock.watching.append(lambda: most.append(scene.group.capacity))

    start(scene, RollOptions(engine="refresh", batch=2))

    assert (max(most), scene.desired) == (7, 5)
    assert_given_back(scene, 5)


def test_a_group_s_own_warmup_is_kept() -> None:
    """InstanceWarmup in Auto Scaling's model: "Only specify this property if you must override"."""
    scene = with_managed_draining(2)
    scene.group.settings["DefaultInstanceWarmup"] = 90

    start(scene, REFRESH)

    assert "InstanceWarmup" not in refresh_of(scene).preferences


@pytest.mark.parametrize("version", ["$Latest", "$Default"])
def test_a_group_that_names_no_number_gets_its_version_from_the_roll(version: str) -> None:
    """DesiredConfiguration would be rolled back for numbers alone, and would name a number from then on."""
    scene = with_managed_draining(2)
    name_version(scene, version)

    start(scene, REFRESH)

    assert refresh_of(scene).desired_configuration is None
    assert scene.group.launch_template
    assert scene.group.launch_template["Version"] == version
    assert set(scene.key_names) == {NEW_KEY}
    assert_given_back(scene, 2)


def test_a_mixed_policy_is_configured_as_a_whole() -> None:
    scene = with_managed_draining(2)
    mixed(scene)

    start(scene, REFRESH)

    wanted = refresh_of(scene).desired_configuration
    assert wanted
    assert wanted["MixedInstancesPolicy"]["InstancesDistribution"] == {"OnDemandBaseCapacity": 1}
    assert scene.keys_in_templates == {NEW_KEY}
    assert set(scene.key_names) == {NEW_KEY}


def test_two_groups_are_refreshed_at_the_same_time() -> None:
    scene = with_managed_draining(2)
    other = add_group(scene)
    drained(scene)

    start(scene, REFRESH)

    assert {r.status for name in (scene.group.name, other.name) for r in scene.world.refreshes.of(name)} == {
        "Successful"
    }
    assert OLD_KEY not in scene.key_names
    assert len(scene.logins) == 2
    assert_given_back(scene, 4)


def test_standby_instances_stay() -> None:
    scene = with_managed_draining(3)
    [aside, *_] = scene.group.members
    scene.world.autoscaling.set_standby(scene.group, aside, standby=True, decrement=True)

    start(scene, REFRESH)

    assert scene.old == [aside]


def test_outdated_instances_are_replaced_and_what_is_not_stays() -> None:
    scene = with_managed_draining(3)
    name_version(scene, "$Latest")
    scene.world.ec2.add_version(scene.template, {"ImageId": "ami-0123456789abcdef0"}, source="1")
    scene.world.autoscaling.terminate(next(iter(scene.group.members)), decrement=False)
    scene.clock.sleep(400)
    scene.broken_promises.clear()
    replacing(scene, "outdated")
    kept = max(scene.group.members.values(), key=lambda m: m.joined).instance_id

    start(scene, REFRESH)

    assert refresh_of(scene).preferences["SkipMatching"] is True
    assert kept in scene.group.members
    assert {m.launch_template[2] for m in scene.group.members.values() if m.launch_template} == {2}
    assert_given_back(scene, 3)


def test_all_instances_are_replaced_whatever_they_match() -> None:
    scene = replacing(with_managed_draining(2), "all")
    before = set(scene.group.members)

    start(scene, REFRESH)

    assert refresh_of(scene).preferences["SkipMatching"] is False
    assert not before & set(scene.group.members)
    assert_given_back(scene, 2)


# Proofs


def test_a_refused_proof_has_auto_scaling_roll_back() -> None:
    scene = with_managed_draining(3)
    refuse_login(scene)
    events: list[Event] = []

    with pytest.raises(RackctlError, match=r"refused the new key.*rolled back; nothing is changed"):
        collect(scene.roll.start(REFRESH), events)

    assert refresh_of(scene).status == "RollbackSuccessful"
    assert set(scene.key_names) == {OLD_KEY}
    assert scene.template_in_use.number == 1
    assert_given_back(scene, 3)


def test_a_refused_proof_cancels_what_auto_scaling_cannot_roll_back() -> None:
    scene = with_managed_draining(3)
    name_version(scene, "$Latest")
    refuse_login(scene)

    with pytest.raises(RackctlError, match=r"refused the new key"):
        start(scene, REFRESH)

    assert refresh_of(scene).status == "Cancelled"
    assert JOURNAL not in scene.aws.objects
    assert scene.keys_in_templates == {OLD_KEY}
    assert scene.key_names.count(NEW_KEY) <= 1
    assert scene.broken_promises == []


def test_new_instances_that_never_register_are_rolled_back_before_the_checkpoint_ends() -> None:
    """InService is not registered: Auto Scaling does not ask ECS, and would go on without a watcher."""
    scene = with_managed_draining(3)
    scene.world.set_condition("never-register")

    with pytest.raises(RackctlError, match=r"gave up after 120 s waiting for i-.*rolled back") as caught:
        start(scene, RollOptions(engine="refresh", boot_timeout=120.0))

    assert "get-console-output" in caught.value.hint  # the instance is gone: no login would help
    scene.clock.sleep(120)
    assert set(scene.key_names) == {OLD_KEY}
    assert scene.broken_promises == []


def test_new_instances_that_stop_coming_up_later_stop_the_refresh() -> None:
    scene = with_managed_draining(4)
    scene.when(lambda: len(scene.new) == 2, lambda: scene.world.set_condition("never-register"))

    with pytest.raises(RollIncomplete, match="gave up after 200 s waiting for") as caught:
        start(scene, RollOptions(engine="refresh", boot_timeout=200.0))

    assert refresh_of(scene).status == "Cancelled"
    assert "resume" in caught.value.hint
    scene.world.clear_condition("never-register")
    for id_ in scene.new:
        if not scene.world.ecs.registration_of(id_):
            scene.world.autoscaling.terminate(id_, decrement=False)
    scene.clock.sleep(400)
    list(scene.roll.resume())
    assert set(scene.key_names) == {NEW_KEY}


# Leaving, and coming back


def test_ctrl_c_leaves_the_instance_refresh_running() -> None:
    scene = with_managed_draining(3)
    events = until_event(scene, "accepts the new key")
    scene.stop.signal = 2

    with pytest.raises(RollStopped) as caught:
        list(events)

    scene.stop.signal = 0
    id_ = refresh_of(scene).refresh_id
    assert f"Auto Scaling goes on with instance refresh {id_}" in str(caught.value)
    assert all(word in caught.value.hint for word in ("status", "resume", "abort"))
    scene.clock.sleep(2000)
    assert refresh_of(scene).status == "Successful"
    assert set(scene.key_names) == {NEW_KEY}
    assert OLD_KEY in scene.key_pairs
    status = scene.roll.status()
    assert status
    assert (status.old, status.is_refreshing) == (0, False)
    list(scene.roll.resume())
    assert_given_back(scene, 3)


def test_a_detached_roll_returns_and_resume_finishes_it() -> None:
    scene = with_managed_draining(3)

    events = list(scene.roll.start(REFRESH, detach=True))

    assert "detached: Auto Scaling goes on" in events[-1].message
    status = scene.roll.status()
    assert status
    assert (status.found.is_live, status.is_refreshing, scene.logins) == (False, True, [])
    scene.clock.sleep(30)
    assert "detached" in list(scene.roll.resume(detach=True))[-1].message
    list(scene.roll.resume())
    assert scene.logins
    assert_given_back(scene, 3)


def test_only_a_refresh_can_be_detached() -> None:
    with pytest.raises(UsageError, match="--detach needs --engine refresh"):
        list(with_managed_draining(2).roll.start(RollOptions(), detach=True))


def test_abort_rolls_back_what_auto_scaling_has_replaced() -> None:
    scene = with_managed_draining(3)
    events = until_event(scene, "66 % complete")
    stopped(scene, events)

    list(scene.roll.abort())

    assert refresh_of(scene).status == "RollbackSuccessful"
    assert set(scene.key_names) == {OLD_KEY}
    assert_given_back(scene, 3)


def test_abort_cancels_a_refresh_that_auto_scaling_cannot_roll_back_and_keeps_replaced_instances() -> None:
    scene = with_managed_draining(4)
    name_version(scene, "$Default")
    events = until_event(scene, "50 % complete")
    stopped(scene, events)

    last = list(scene.roll.abort())[-1]

    assert refresh_of(scene).status == "Cancelled"
    assert scene.template_in_use.data["KeyName"] == OLD_KEY
    assert "except for 2 of 4 instances" in last.message
    scene.clock.sleep(120)
    assert {OLD_KEY, NEW_KEY} == set(scene.key_names)
    assert_given_back(scene, 4)


def test_abort_finishes_a_roll_whose_refreshes_have_replaced_everything() -> None:
    scene = with_managed_draining(2)
    list(scene.roll.start(REFRESH, detach=True))
    scene.clock.sleep(2000)

    events = list(scene.roll.abort())

    assert "every instance has been replaced already" in texts(events)
    assert set(scene.key_names) == {NEW_KEY}
    assert_given_back(scene, 2)


@pytest.mark.parametrize("way", ["resume", "rackctl", "abort"])
def test_what_somebody_else_has_cancelled_is_incomplete_and_can_be_continued(way: str) -> None:
    scene = with_managed_draining(3)
    scene.when(lambda: len(scene.new) == 2, lambda: scene.world.refreshes.cancel(scene.group))

    with pytest.raises(RollIncomplete, match=r"(is being|was) cancelled, and not by this roll") as caught:
        start(scene, REFRESH)

    assert "resume" in caught.value.hint
    scene.clock.sleep(400)
    ways = {
        "resume": scene.roll.resume,
        "rackctl": lambda: scene.roll.resume(engine="rackctl"),
        "abort": scene.roll.abort,
    }
    list(ways[way]())
    assert (OLD_KEY in scene.key_names) is (way == "abort")
    assert len(scene.world.refreshes.of(scene.group.name)) == (2 if way == "resume" else 1)
    assert_given_back(scene, 3)


def test_rackctl_does_not_go_on_beside_auto_scaling() -> None:
    scene = with_managed_draining(3)
    list(scene.roll.start(REFRESH, detach=True))
    scene.clock.sleep(60)

    with pytest.raises(RackctlError, match=r"instance refresh .* is in progress \(InProgress\)"):
        list(scene.roll.resume(engine="rackctl"))

    list(scene.roll.resume())
    assert_given_back(scene, 3)


def test_an_instance_refresh_does_not_take_over_from_rackctl() -> None:
    scene = with_managed_draining(3)
    events = scene.roll.start(RollOptions())
    next(events)
    stopped(scene, events)

    with pytest.raises(RackctlError, match="an instance refresh cannot continue it"):
        list(scene.roll.resume(engine="refresh"))

    list(scene.roll.resume())
    assert_given_back(scene, 3)


def test_a_refresh_that_fails_says_why_and_is_not_rolled_back_by_itself() -> None:
    """The guide: a refresh that cannot launch "will eventually fail": after an hour."""
    scene = with_managed_draining(3)
    scene.when(lambda: len(scene.new) == 1, lambda: scene.world.set_condition("no-capacity"))

    with pytest.raises(RollIncomplete, match=r"failed: Waiting for remaining instances.*Replaced 1 of 3 instances"):
        start(scene, REFRESH)

    scene.world.clear_condition("no-capacity")
    scene.clock.sleep(400)
    list(scene.roll.resume())
    assert_given_back(scene, 3)


# Answers that get lost


def test_a_start_whose_answer_was_lost_is_found_again_by_what_was_asked_for() -> None:
    scene = with_managed_draining(2)
    fail_from(scene, "start_instance_refresh", AwsError("no answer", code="", refused=False), times=1, when="after")

    start(scene, REFRESH)

    assert len(scene.world.refreshes.of(scene.group.name)) == 1
    assert_given_back(scene, 2)


def test_a_start_that_was_not_carried_out_is_tried_again() -> None:
    scene = with_managed_draining(2)
    fail_from(scene, "start_instance_refresh", AwsError("no answer", code="", refused=False), times=2)

    start(scene, REFRESH)

    assert len(scene.world.refreshes.of(scene.group.name)) == 1
    assert_given_back(scene, 2)


def test_another_s_refresh_is_not_taken_for_the_roll_s() -> None:
    scene = with_managed_draining(2)

    def another(_: int, name: str, moment: str) -> None:
        if (name, moment) == ("start_instance_refresh", "before") and not scene.world.refreshes.of(scene.group.name):
            scene.world.refreshes.start(scene.group, {"MinHealthyPercentage": 0})

    scene.aws.interfering.append(another)

    with pytest.raises(RackctlError, match="another instance refresh of group prod-instances is in progress"):
        start(scene, REFRESH)

    assert refresh_of(scene).status == "InProgress"
    assert JOURNAL not in scene.aws.objects


def test_a_denied_start_rolls_back_what_was_prepared() -> None:
    scene = with_managed_draining(2)
    fail_from(scene, "start_instance_refresh", AwsError("AWS denied it", code="AccessDenied", refused=True))

    with pytest.raises(RackctlError, match=r"AWS denied it\. Nothing was drained; rolled back; nothing is changed"):
        start(scene, REFRESH)

    assert_given_back(scene, 2)


def test_a_group_that_is_deleted_meanwhile_is_left_out() -> None:
    scene = with_managed_draining(2)
    other = add_group(scene)
    drained(scene)
    scene.when(
        lambda: bool(scene.world.refreshes.of(other.name)),
        lambda: scene.world.autoscaling.delete(other, force=True),
    )

    events = start(scene, REFRESH)

    assert "has been deleted; continuing without it" in texts(events)
    assert JOURNAL not in scene.aws.objects
