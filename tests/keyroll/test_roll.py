"""What a roll does on a rack that behaves, and on one that does not: each row of what goes wrong in practice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import AccessDenied, NotFound, RackctlError, RollIncomplete
from rackctl.keyroll.journal import JournalLost, JournalStore, Owner, RollOptions
from rackctl.keyroll.plan import PlanRefused
from rackctl.keyroll.run import Event, RollStopped
from rackctl.keys import generate
from tests.fakes.world import OLD_KEY, START, Killed, Login, Scene, add_group, mixed, name_version
from tests.keyroll.acts import (
    DEFAULT,
    JOURNAL,
    NEW_KEY,
    alone,
    assert_given_back,
    collect,
    fail_from,
    refused,
    run_until_killed,
    start,
    stopped_with_two_new_ones,
    texts,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable


# A rack that behaves


def test_every_instance_is_replaced_and_everything_else_is_as_before() -> None:
    scene = Scene(3)
    version = scene.template_in_use

    events = start(scene)

    assert scene.key_names == [NEW_KEY] * 3
    assert_given_back(scene, 3)
    made = scene.template_in_use
    assert made.data == {**version.data, "KeyName": NEW_KEY}
    assert events[-1].message == f"every instance has the key {NEW_KEY}"
    assert (events[-1].done, events[-1].total) == (3, 3)


@pytest.mark.parametrize("batch", [1, 3])
def test_capacity_never_falls_below_what_it_was(batch: int) -> None:
    scene = Scene(7)
    lowest: list[int] = []

    def watch() -> None:
        usable = [r for r in scene.seeded.registrations.values() if r.status == "ACTIVE" and r.agent_connected]
        lowest.append(len(usable))

    scene.clock.watching.append(watch)

    start(scene, RollOptions(batch=batch))

    assert min(lowest) == 7
    assert max(m.instance_id in scene.new for m in scene.group.members.values())


def test_instances_are_replaced_in_their_own_zones() -> None:
    scene = Scene(6)

    def zones() -> list[str]:
        return sorted(i.subnet.availability_zone for i in scene.world.ec2.instances.values() if i.exists)

    before = zones()
    start(scene)

    assert zones() == before


def test_no_more_than_the_batch_is_on_its_way_out_at_once() -> None:
    scene = Scene(9, max_size=20)
    scene.seeded.services["web"].desired = 18
    scene.clock.sleep(60)
    most: list[int] = []
    scene.clock.watching.append(lambda: most.append(len([i for i in scene.draining if i in scene.old])))

    start(scene, RollOptions(batch=3))

    assert max(most) == 3


def test_the_key_is_stored_and_named_before_anything_names_it() -> None:
    scene = Scene(3)

    start(scene, RollOptions(reason="a laptop was lost", keep_old_keys=True))

    calls = scene.aws.mutations
    stored, imported = calls.index("create", 1), calls.index("import_key_pair")
    assert stored < imported < calls.index("create_launch_template_version")
    assert scene.world.ec2.key_pairs[NEW_KEY].tags["rackctl:reason"] == "a laptop was lost"
    assert scene.keys.fetch(NEW_KEY).reason == "a laptop was lost"
    assert scene.key_pairs == {OLD_KEY, NEW_KEY}


def test_an_rsa_key_when_asked() -> None:
    scene = Scene(1)

    start(scene, RollOptions(key_type="rsa"))

    assert scene.world.ec2.key_pairs[NEW_KEY].key_type == "rsa"


def test_a_roll_in_the_same_second_as_the_last_key_makes_another_key() -> None:
    scene = Scene(2)
    taken = generate(NEW_KEY, created=START)
    scene.keys.store(taken)
    scene.world.ec2.import_key_pair(NEW_KEY, taken.public_key.encode(), {})

    start(scene)

    assert scene.key_names == ["prod-keypair-20260102T030436Z"] * 2


def test_both_keys_open_their_instances_in_the_middle_of_a_roll() -> None:
    scene = Scene(3)
    missing: list[str] = []
    scene.clock.watching.append(lambda: missing.extend(k for k in scene.key_names if k not in scene.keys.names()))

    start(scene)

    assert missing == []


def test_a_rack_without_a_key_gets_its_first() -> None:
    scene = Scene(3)
    del scene.template_in_use.data["KeyName"]

    start(scene)

    assert scene.key_names == [NEW_KEY] * 3
    assert scene.key_pairs == {NEW_KEY}


def test_a_rack_of_no_instances_gets_a_new_key_all_the_same() -> None:
    scene = Scene(0)

    start(scene)

    assert scene.template_in_use.data["KeyName"] == NEW_KEY


# Groups and templates


def test_a_group_that_names_a_number_names_another_number() -> None:
    scene = Scene(2)
    start(scene)
    assert scene.group.launch_template
    assert scene.group.launch_template["Version"] == "2"
    assert (scene.template.default_version, scene.template.latest_version) == (1, 2)


def test_a_group_that_names_the_default_goes_on_naming_it() -> None:
    scene = Scene(2)
    name_version(scene, "$Default")
    scene.world.ec2.add_version(scene.template, {"ImageId": "ami-newer"}, source="1")

    start(scene)

    assert scene.group.launch_template == {**(scene.group.launch_template or {}), "Version": "$Default"}
    assert scene.template.default_version == 3
    assert scene.template.versions[3].data == {**scene.template.versions[1].data, "KeyName": NEW_KEY}


def test_a_group_that_names_the_latest_goes_on_naming_it() -> None:
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
def test_abort_gives_every_kind_of_reference_back(version: str) -> None:
    scene = Scene(2)
    if version == "mixed":
        mixed(scene)
    else:
        name_version(scene, version)
    in_use, default = scene.template_in_use, scene.template.default_version
    scene.login = lambda _: Login("refused", "no")

    with pytest.raises(RackctlError, match="refuses the new key"):
        start(scene)

    assert scene.template_in_use == in_use
    assert scene.template.default_version == default
    assert [len(t.versions) for t in scene.world.ec2.templates.values()] == [1] * len(scene.world.ec2.templates)
    assert_given_back(scene, 2)


def test_several_groups_are_rolled_one_after_the_other() -> None:
    scene = Scene(3)
    other = add_group(scene)
    growing: list[int] = []
    scene.clock.watching.append(lambda: growing.append((scene.group.desired > 3) + (other.desired > 2)))

    start(scene)

    assert scene.old == []
    assert (scene.group.desired, other.desired) == (3, 2)
    assert max(growing) == 1
    # The first new instance of each group has proven the key: they may have different images.
    assert len(scene.logins) == 2


@pytest.mark.parametrize("way", ["go on", "resume", "abort"])
def test_a_group_that_is_deleted_in_the_middle_does_not_keep_the_others(way: str) -> None:
    scene = Scene(2)
    other = add_group(scene)
    groups = scene.world.autoscaling.groups
    scene.when(lambda: scene.group.desired == 3, lambda: groups.pop(scene.group.name))
    events = scene.roll.start(DEFAULT)
    if way == "go on":
        said = list(events)
    else:
        next(event for event in events if event.kind == "problem")
        scene.stop.signal = 2
        with pytest.raises(RollStopped, match="0 of 2 instances have been replaced, 2 are left"):
            list(events)
        scene.stop.signal = 0
        said = list(getattr(scene.roll, way)())

    assert (said[-1].done, said[-1].total) == ((0, 2) if way == "abort" else (2, 2))
    assert (other.desired, other.suspended) == (2, {})
    scene.clock.sleep(60)
    keys = {scene.world.ec2.instances[id_].key_name for id_ in other.members}
    assert (OLD_KEY in keys) == (way == "abort")
    assert JOURNAL not in scene.aws.objects


def test_what_a_group_leaves_behind_that_is_deleted_while_it_is_drained_takes_tasks_again() -> None:
    scene = Scene(2)
    add_group(scene)
    events = scene.roll.start(DEFAULT)
    next(event for event in events if event.phase == "draining")
    [id_] = scene.draining
    scene.world.autoscaling.groups.pop(scene.group.name)

    said = texts(list(events))

    assert f"{id_}: its group has been deleted; ACTIVE again, and left alone" in said
    assert "group prod-instances has been deleted; the roll goes on without it" in said
    scene.clock.sleep(120)
    assert scene.draining == []
    assert OLD_KEY in scene.key_pairs
    assert JOURNAL not in scene.aws.objects


def test_a_group_that_has_been_made_anew_under_its_old_name_is_not_the_rolls() -> None:
    scene = Scene(2)
    add_group(scene)
    events = until(scene, "surge")
    scene.group.arn += "-anew"
    scene.group.desired = 2

    said = texts(list(events))

    assert "group prod-instances has been deleted" in said
    assert scene.group.desired == 2
    assert OLD_KEY in scene.key_pairs


def test_a_roll_of_another_region_is_neither_gone_on_with_nor_overwritten() -> None:
    scene = Scene(2)
    run_until_killed(scene, lambda: start(scene), 8, "after")
    scene.clock.sleep(400)
    body = scene.aws.objects[JOURNAL].body
    elsewhere = Scene(2)
    elsewhere.group.arn = elsewhere.group.arn.replace("us-east-1", "eu-west-1")
    elsewhere.aws.region = "eu-west-1"
    elsewhere.aws.objects[JOURNAL] = replace(scene.aws.objects[JOURNAL], age=400)

    for act in (elsewhere.roll.resume, elsewhere.roll.abort, lambda: [elsewhere.roll.status()]):
        with pytest.raises(RackctlError, match="it is one of region us-east-1 and account 123456789012") as caught:
            list(act())
        assert "--region us-east-1" in caught.value.hint
    assert "of the same name in us-east-1" in refused(elsewhere)

    assert elsewhere.aws.objects[JOURNAL].body == body


def test_the_groups_of_other_racks_and_of_builds_are_left_alone() -> None:
    scene = Scene(2)
    foreign, build = add_group(scene, "staging", Rack="staging"), add_group(scene, "build", Purpose="Build")

    start(scene)

    for group in (foreign, build):
        keys = {scene.world.ec2.instances[id_].key_name for id_ in group.members}
        assert keys == {OLD_KEY}
    assert len(scene.key_pairs) == 2


# Refused before anything changes


@pytest.mark.parametrize("process", ["Launch", "Terminate"])
def test_a_suspended_process_refuses_the_roll_and_is_named(process: str) -> None:
    scene = Scene(2)
    scene.group.suspended[process] = "User suspended at …"

    said = refused(scene)

    assert f"the {process} process of group prod-instances is suspended" in said
    assert f"--scaling-processes {process}" in said


def test_an_instance_refresh_under_way_refuses_the_roll_until_it_is_over() -> None:
    scene = Scene(2)
    scene.world.refreshes.start(scene.group, {"MinHealthyPercentage": 50})

    assert "cancel-instance-refresh" in refused(scene)
    scene.clock.sleep(400)
    scene.broken_promises.clear()  # the refresh's
    start(scene)
    assert_given_back(scene, 2)


def test_a_launch_configuration_refuses_the_roll_and_says_how_to_migrate() -> None:
    scene = Scene(2)
    scene.group.launch_template, scene.group.launch_configuration = None, "old-style"

    assert "launch configuration old-style" in refused(scene)


def test_a_group_that_counts_in_weights_refuses_the_roll() -> None:
    scene = Scene(2)
    mixed(scene)["LaunchTemplate"]["Overrides"][0]["WeightedCapacity"] = "2"

    assert "counts its capacity in weights" in refused(scene)


@pytest.mark.parametrize("where", ["template", "group"])
def test_what_belongs_to_a_stack_refuses_the_roll_unless_told(where: str) -> None:
    scene = Scene(2)
    if where == "template":
        scene.template.tags["aws:cloudformation:stack-name"] = "prod-stack"
    else:
        scene.group.tags.append({"Key": "aws:cloudformation:stack-name", "Value": "prod-stack"})

    assert "--out-of-band" in refused(scene)
    start(scene, RollOptions(out_of_band=True))
    assert set(scene.key_names) == {NEW_KEY}


def test_a_template_whose_latest_version_another_racks_group_launches_refuses_the_roll() -> None:
    scene = Scene(2)
    add_group(scene, "staging", Rack="staging").launch_template["Version"] = "$Latest"

    assert "group staging launches from, as $Latest" in refused(scene)


def test_an_old_host_whose_agent_is_off_refuses_the_roll_and_force_lifts_that() -> None:
    scene = Scene(3)
    off = scene.old[0]
    scene.world.befall("agent-off", off)

    assert "--force" in refused(scene)
    start(scene, RollOptions(force=True))
    assert set(scene.key_names) == {NEW_KEY}


@pytest.mark.parametrize("setting", ["bucket", "kms_key"])
def test_a_missing_setting_refuses_the_roll_and_is_named(setting: str) -> None:
    scene = Scene(2)
    del scene.rack._given[setting]  # type: ignore[attr-defined]

    assert setting in refused(scene)


def test_a_rack_without_groups_refuses_the_roll() -> None:
    scene = Scene(2)
    scene.world.autoscaling.groups.clear()

    assert "has no Auto Scaling group" in refused(scene)


# One roll at a time


def test_of_two_rolls_begun_in_the_same_second_one_goes_on_and_the_other_says_who_holds_it() -> None:
    scene = Scene(2)
    first, second = scene.roll.start(DEFAULT), scene.roll.start(DEFAULT)
    next(first)

    with pytest.raises(PlanRefused, match=r"holds the keyroll of rack \"prod\", begun at 2026-01-02T03:04:35Z"):
        next(second)

    list(first)
    assert_given_back(scene, 2)


def test_of_two_that_both_saw_no_journal_only_one_writes_it() -> None:
    scene = Scene(2)
    real, winner = scene.aws.create, scene.roll.start(DEFAULT)

    def create(bucket: str, key: str, body: bytes) -> str | None:
        # The other one gets in between the look and the write.
        scene.aws.create = real  # type: ignore[method-assign]
        next(winner)
        return real(bucket, key, body)  # type: ignore[no-any-return]

    scene.aws.create = create  # type: ignore[method-assign]

    with pytest.raises(PlanRefused, match="holds the keyroll"):
        start(scene)

    list(winner)


def test_a_dead_roll_is_taken_over_by_resume_only() -> None:
    scene = Scene(2)
    run_until_killed(scene, lambda: start(scene), 8, "after")

    with pytest.raises(RackctlError, match=r"holds the keyroll .* last heard of 0 s ago"):
        list(scene.roll.resume())
    scene.clock.sleep(301)
    with pytest.raises(PlanRefused, match="has not been finished") as caught:
        start(scene)

    assert "keyroll resume" in caught.value.hint
    list(scene.roll.resume())
    assert_given_back(scene, 2)


def test_a_holder_that_its_machine_knows_to_be_dead_need_not_be_waited_for() -> None:
    scene = Scene(2)
    run_until_killed(scene, lambda: start(scene), 8, "after")
    store = JournalStore(scene.rack, scene.clock)
    found = store.read()
    assert found
    assert found.journal.owner
    dead = replace(found.journal.owner, pid=2**22 + 1)  # beyond any pid_max

    if dead.machine:
        assert dead.is_dead
    assert not replace(dead, machine="another").is_dead
    assert not Owner.this_process().is_dead


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells")
def test_a_holder_whose_number_another_process_has_got_or_that_nobody_has_buried_is_dead_too() -> None:
    me = Owner.this_process()
    assert replace(me, began=f"{int(me.began) - 1}").is_dead
    with subprocess.Popen(["true"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert replace(me, pid=zombie.pid).is_dead


def test_a_holder_of_which_the_system_does_not_tell_is_not_taken_for_dead() -> None:
    unknown = replace(Owner.this_process(), machine="")
    assert not unknown.is_dead


def test_a_roll_that_has_lost_its_journal_does_nothing_more() -> None:
    scene = Scene(2)
    events = scene.roll.start(DEFAULT)
    for event in events:
        if event.kind == "surge":
            break
    scene.roll.unlock(force=True)
    before = list(scene.aws.mutations)

    with pytest.raises(JournalLost, match="somebody has unlocked it"):
        list(events)

    assert set(scene.aws.mutations[len(before) :]) <= {"replace"}
    list(scene.roll.resume())
    assert_given_back(scene, 2)


def test_unlock_leaves_a_live_roll_alone_unless_forced() -> None:
    scene = Scene(2)
    with pytest.raises(NotFound):
        scene.roll.unlock()
    next(scene.roll.start(DEFAULT))

    with pytest.raises(RackctlError, match="last heard of"):
        scene.roll.unlock()
    scene.roll.unlock(force=True)

    assert scene.roll.status().journal.owner is None  # type: ignore[union-attr]


def test_a_heartbeat_shows_that_a_waiting_roll_lives() -> None:
    scene = Scene(2)
    silent: list[float] = []

    def watch() -> None:
        if JOURNAL in scene.aws.objects:
            found = JournalStore(scene.rack, scene.clock).read()
            assert found
            silent.append(found.silent_for)

    scene.clock.watching.append(watch)
    scene.world.set_condition("slow-boot", "5")

    start(scene)

    assert max(silent) < 40


# Stops, and goes on


def test_a_stop_leaves_everything_running_and_names_the_way_on() -> None:
    scene = Scene(3)
    scene.when(lambda: bool(scene.draining), lambda: setattr(scene.stop, "signal", 15))

    with pytest.raises(RollStopped, match=r"stopped by SIGTERM. 0 of 3 instances have been replaced") as caught:
        start(scene)

    assert caught.value.exit_code == 143
    assert "keyroll resume --rack prod" in caught.value.hint
    assert scene.draining == []
    assert scene.roll.status().journal.owner is None  # type: ignore[union-attr]
    scene.stop.signal = 0
    list(scene.roll.resume())
    assert_given_back(scene, 3)


def test_a_stop_before_the_roll_has_begun_changes_nothing() -> None:
    scene = Scene(2)
    scene.stop.signal = 2

    with pytest.raises(RollStopped, match="before anything was changed"):
        start(scene)

    assert scene.aws.mutations == []


def test_resume_takes_other_options() -> None:
    scene = Scene(3)
    scene.world.set_condition("stuck-drain")
    with pytest.raises(RollIncomplete):
        start(scene, RollOptions(drain_timeout=60))

    list(scene.roll.resume(force=True, drain_timeout=30.0))

    assert set(scene.key_names) == {NEW_KEY}
    assert scene.group.desired == 3


def test_a_roll_that_is_being_aborted_cannot_go_forwards() -> None:
    scene = Scene(3)
    run_until_killed(scene, lambda: start(scene), 20, "before")
    scene.clock.sleep(400)
    assert run_until_killed(scene, lambda: list(scene.roll.abort()), 2, "after")
    scene.clock.sleep(400)

    with pytest.raises(RackctlError, match="being aborted"):
        list(scene.roll.resume())
    assert scene.roll.status().journal.phase == "aborting"  # type: ignore[union-attr]
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_resume_abort_and_unlock_say_when_there_is_nothing_to_do() -> None:
    scene = Scene(1)

    for act in (scene.roll.resume, scene.roll.abort):
        with pytest.raises(NotFound, match="no keyroll is under way"):
            list(act())
    assert scene.roll.status() is None


def test_a_key_that_instances_have_already_outlives_an_abort() -> None:
    scene = stopped_with_two_new_ones()

    events = list(scene.roll.abort())

    assert sorted(set(scene.key_names)) == [OLD_KEY, NEW_KEY]
    assert f"key {NEW_KEY} is kept" in texts(events)
    assert scene.template_in_use.data["KeyName"] == OLD_KEY
    assert_given_back(scene, 3)


def test_credentials_that_expire_in_the_middle_stop_the_roll_and_resume_goes_on() -> None:
    scene = Scene(3)
    expired = AccessDenied("the AWS credentials have expired", hint="log in again")
    scene.when(lambda: bool(scene.draining), lambda: fail_from(scene, "groups", expired))

    with pytest.raises(RollIncomplete, match=r"expired. 0 of 3 .* 3 are left") as caught:
        start(scene)

    assert "log in again\n" in caught.value.hint
    assert "keyroll resume" in caught.value.hint
    scene.aws.interfering.clear()
    scene.clock.sleep(400)
    list(scene.roll.resume())
    assert_given_back(scene, 3)


def test_aws_failing_to_answer_for_a_minute_does_not_stop_a_roll() -> None:
    scene = Scene(3)
    throttled = AwsError("AWS kept throttling autoscaling:DescribeAutoScalingGroups", code="Throttling")
    scene.when(lambda: len(scene.new) == 1, lambda: fail_from(scene, "groups", throttled, times=10))

    start(scene)

    assert_given_back(scene, 3)


def test_aws_failing_to_answer_for_long_does() -> None:
    scene = Scene(3)
    throttled = AwsError("AWS kept throttling autoscaling:DescribeAutoScalingGroups", code="Throttling")
    scene.when(lambda: len(scene.new) == 1, lambda: fail_from(scene, "groups", throttled))

    with pytest.raises(RollIncomplete, match="kept throttling"):
        start(scene)


@pytest.mark.parametrize("call", ["import_key_pair", "create_launch_template_version", "suspend_processes"])
def test_what_fails_before_any_instance_is_touched_leaves_the_rack_as_it_was(call: str) -> None:
    scene = Scene(2)
    version = scene.template_in_use
    fail_from(scene, call, AccessDenied(f"AWS denied {call}"), times=1)

    with pytest.raises(RackctlError, match="the rack is as it was") as caught:
        start(scene)

    assert caught.value.exit_code == AccessDenied.exit_code
    assert scene.template_in_use == version
    assert scene.key_pairs == {OLD_KEY}
    assert_given_back(scene, 2)


def test_an_error_of_our_own_leaves_everything_running_too() -> None:
    scene = Scene(3)

    def broken(_: object) -> Login:
        raise ZeroDivisionError

    scene.login = broken
    with pytest.raises(ZeroDivisionError):
        start(scene)

    assert scene.roll.status().journal.owner is None  # type: ignore[union-attr]


# What goes wrong in practice


def test_a_drain_that_never_ends_is_given_up_and_says_what_blocks() -> None:
    scene = Scene(3)
    scene.world.set_condition("stuck-drain")

    with pytest.raises(RollIncomplete, match=r"still has 1 task after 120 s of draining: .* of w(eb|orker)"):
        start(scene, RollOptions(drain_timeout=120))

    assert scene.draining == []
    scene.world.clear_condition("stuck-drain")
    list(scene.roll.resume())
    assert_given_back(scene, 3)


def test_a_stuck_drain_shows_the_newest_event_of_its_service() -> None:
    scene = Scene(1, max_size=1)
    events: list[Event] = []

    with pytest.raises(RollIncomplete, match="unable to place a task"):
        collect(scene.roll.start(RollOptions(drain_timeout=300)), events)

    assert any("unable to place a task" in event.service_event for event in events)
    assert scene.broken_promises == []


def test_force_goes_past_a_drain_that_never_ends() -> None:
    scene = Scene(3)
    scene.world.set_condition("stuck-drain")

    events = start(scene, RollOptions(drain_timeout=60, force=True))

    assert set(scene.key_names) == {NEW_KEY}
    assert "going on, as --force says" in texts(events)


def test_a_task_of_no_service_is_waited_for() -> None:
    scene = Scene(3)
    task = alone(scene)
    scene.later(600, lambda: scene.world.ecs.stop_task(scene.seeded, task, "done"))

    start(scene)

    assert task.stopped_reason == "done"
    assert_given_back(scene, 3)


def test_a_task_of_no_service_is_stopped_when_told() -> None:
    scene = Scene(3)
    task = alone(scene)

    start(scene, RollOptions(stop_standalone=True))

    assert "drained" in task.stopped_reason
    assert_given_back(scene, 3)


def test_a_full_group_is_rolled_without_a_surge_and_its_maximum_is_never_raised() -> None:
    scene = Scene(3, max_size=3)

    start(scene)

    assert scene.group.max_size == 3
    assert "set_desired_capacity" not in scene.aws.mutations
    assert_given_back(scene, 3)


def test_no_surge_when_told_and_the_key_is_proven_before_a_second_one_goes() -> None:
    scene = Scene(3)
    scene.login = lambda _: Login("refused", "Permission denied")

    with pytest.raises(RollIncomplete, match="refuses the new key"):
        start(scene, RollOptions(surge=False, batch=2))

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


def test_zone_rebalancing_is_off_during_the_roll_and_only_ours_is_switched_on_again() -> None:
    scene = Scene(3)
    seen: set[str] = set()
    scene.clock.watching.append(lambda: seen.update(scene.group.suspended))

    start(scene)

    assert seen == {"AZRebalance"}
    assert scene.group.suspended == {}


def test_what_the_operator_has_suspended_stays_so() -> None:
    scene = Scene(3)
    scene.group.suspended.update(AZRebalance="by hand", AlarmNotification="by hand")

    start(scene)

    assert scene.group.suspended == {"AZRebalance": "by hand", "AlarmNotification": "by hand"}


def test_scale_in_protection_does_not_keep_an_old_instance() -> None:
    scene = Scene(3)
    for member in scene.group.members.values():
        member.protected = True

    start(scene)

    assert set(scene.key_names) == {NEW_KEY}


@pytest.mark.parametrize("change", [2, -1])
def test_managed_scaling_in_the_middle_is_kept(change: int) -> None:
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


def test_a_scaling_activity_in_progress_is_waited_out() -> None:
    scene = Scene(3)
    busy = AwsError("busy", code="ScalingActivityInProgress")
    fail_from(scene, "terminate_instance", busy, times=5)
    fail_from(scene, "set_desired_capacity", busy, times=3)

    start(scene)

    assert_given_back(scene, 3)


def test_a_scaling_activity_that_never_ends_stops_the_roll() -> None:
    scene = Scene(3)
    fail_from(scene, "terminate_instance", AwsError("busy", code="ScalingActivityInProgress"))

    with pytest.raises(RollIncomplete, match="busy"):
        start(scene)

    assert scene.draining == []


def test_a_terminate_whose_answer_was_lost_is_no_failure() -> None:
    scene = Scene(3)

    def lose(_: int, name: str, moment: str) -> None:
        if name == "terminate_instance" and moment == "after":
            raise AwsError("Instance Id not found", code="ValidationError")

    scene.aws.interfering.append(lose)

    start(scene)

    assert_given_back(scene, 3)


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


def test_capacity_that_comes_back_lets_the_roll_go_on() -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity")
    scene.later(40, lambda: scene.world.clear_condition("no-capacity"))

    start(scene)

    assert_given_back(scene, 3)


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("never-register", r"gave up after 300 s waiting for i-\w+, which is InService, not registered"),
        ("register-agent-off", r"gave up after 300 s waiting for i-\w+, which is InService, ACTIVE, agent off"),
        ("registration-failed", r"REGISTRATION_FAILED\): out of tokens"),
    ],
)
def test_a_new_instance_that_does_not_come_to_count_stops_the_roll_with_nothing_drained(
    condition: str, says: str
) -> None:
    scene = Scene(3)
    scene.world.set_condition(condition, "out of tokens" if condition == "registration-failed" else "")

    with pytest.raises(RollIncomplete, match=says):
        start(scene, RollOptions(boot_timeout=300))

    assert len(scene.old) == 3
    assert scene.draining == []
    scene.world.clear_condition(condition)
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_a_new_instance_that_refuses_the_new_key_gives_the_rack_back_with_nothing_drained() -> None:
    scene = Scene(3)
    version = scene.template_in_use
    scene.login = lambda _: Login("refused", "Permission denied (publickey)")
    drained: list[str] = []
    scene.clock.watching.append(lambda: drained.extend(set(scene.draining) & set(scene.old)))

    with pytest.raises(RackctlError, match=r"refuses the new key: Permission denied .* the rack is as it was"):
        start(scene)

    assert drained == []
    assert scene.template_in_use == version
    assert scene.key_names == [OLD_KEY] * 3
    assert_given_back(scene, 3)


def test_a_login_that_works_only_after_a_while_is_enough() -> None:
    scene = Scene(2)
    answers = [Login("unreachable", "timed out"), Login("refused", "not yet"), Login()]
    scene.login = lambda _: answers.pop(0) if len(answers) > 1 else answers[0]

    start(scene)

    assert_given_back(scene, 2)


def test_an_instance_that_cannot_be_reached_from_here_is_said_and_gone_past() -> None:
    scene = Scene(2)
    scene.login = lambda _: Login("unreachable", "no route to host")

    events = start(scene)

    assert "cannot be reached from here (no route to host)" in texts(events)
    assert_given_back(scene, 2)


def test_unless_it_must_be_reached() -> None:
    scene = Scene(2)
    scene.login = lambda _: Login("unreachable", "no route to host")

    with pytest.raises(RackctlError, match=r"cannot be reached: no route to host.* the rack is as it was"):
        start(scene, RollOptions(require_ssh=True))

    assert_given_back(scene, 2)


@pytest.mark.parametrize("when", ["before the first drain", "while it drains", "last"])
def test_an_old_instance_that_vanishes_is_done(when: str) -> None:
    scene = Scene(4)
    due: Callable[[], bool] = {
        "before the first drain": lambda: len(scene.new) == 1,
        "while it drains": lambda: bool(set(scene.draining) & set(scene.old)),
        "last": lambda: len(scene.old) == 1,
    }[when]
    scene.when(due, lambda: scene.world.befall("vanish", (set(scene.draining) or set(scene.old)).pop()))

    start(scene)

    assert set(scene.key_names) == {NEW_KEY}
    assert scene.group.desired == 4
    assert JOURNAL not in scene.aws.objects


def test_a_new_instance_that_vanishes_is_waited_for_again() -> None:
    scene = Scene(3)
    scene.when(lambda: len(scene.new) == 2, lambda: scene.world.befall("vanish", scene.new[0]))

    start(scene)

    assert set(scene.key_names) == {NEW_KEY}
    assert scene.group.desired == 3


def test_standby_instances_are_left_alone_and_their_key_is_kept() -> None:
    scene = Scene(3)
    aside = scene.old[0]
    scene.world.autoscaling.set_standby(scene.group, aside, standby=True, decrement=True)

    events = start(scene)

    assert scene.old == [aside]
    assert f"key {OLD_KEY} is kept: {aside} has it" in texts(events)


def test_an_agent_that_goes_off_for_good_in_the_middle_stops_the_roll() -> None:
    scene = Scene(3)
    scene.when(lambda: len(scene.new) == 1, lambda: scene.world.befall("agent-off", scene.old[-1]))

    with pytest.raises(RollIncomplete, match=r"the agent of i-.* is off"):
        start(scene)

    assert scene.draining == []


def test_an_instance_refresh_that_somebody_starts_in_the_middle_stops_the_roll() -> None:
    scene = Scene(4)
    events = until(scene, "instance", "terminating")
    scene.world.refreshes.start(scene.group, {"MinHealthyPercentage": 90})

    with pytest.raises(RollIncomplete, match="somebody has started the instance refresh"):
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


def test_a_process_suspended_in_the_middle_stops_the_roll() -> None:
    scene = Scene(3)
    scene.when(lambda: len(scene.new) == 1, lambda: scene.group.suspended.update(Launch="by hand"))

    with pytest.raises(RollIncomplete, match="somebody has suspended the Launch process"):
        start(scene)


def test_termination_hooks_are_waited_for_before_the_old_key_goes() -> None:
    from rackctl.local.world.groups import Hook

    scene = Scene(2)
    scene.group.hooks["bye"] = Hook("bye", "autoscaling:EC2_INSTANCE_TERMINATING", 60, "CONTINUE")

    start(scene)

    assert_given_back(scene, 2)


def test_abort_lowers_the_capacity_when_the_surge_never_came_without_ending_anything() -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity")
    with pytest.raises(RollIncomplete):
        start(scene)
    old = set(scene.old)

    list(scene.roll.abort())

    assert set(scene.old) == old
    assert_given_back(scene, 3)


def test_a_roll_killed_with_launch_suspended_does_not_leave_it_so() -> None:
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


def test_two_hundred_instances_in_batches_of_ten_stay_clear_of_awss_rate_limits() -> None:
    # Over two seconds: it is a roll of 200 instances.
    scene = Scene(200)
    began = scene.clock.at

    start(scene, RollOptions(batch=10))

    seconds = scene.clock.at - began
    calls = len(scene.aws.reads) + len(scene.aws.mutations)
    assert calls / seconds < 6
    assert len(scene.aws.mutations) < 6 * 200
    assert_given_back(scene, 200)


def test_descriptions_that_lag_behind_a_termination_are_no_matter() -> None:
    scene = Scene(3)
    seen: list[tuple[float, Any]] = []
    real = scene.aws.groups

    def groups(names: Any) -> Any:
        """Answer as it was ten seconds ago, but for the desired capacity, which the roll reads before it writes."""
        latest = real(names)
        seen.append((scene.clock.at, latest))
        old = next(groups for at, groups in reversed(seen) if at <= scene.clock.at - 10 or (at, groups) == seen[0])
        return [replace(then, desired_capacity=now.desired_capacity) for then, now in zip(old, latest, strict=True)]

    scene.aws.groups = groups  # type: ignore[method-assign]

    start(scene)

    assert_given_back(scene, 3)


def test_a_surge_that_somebody_else_takes_back_during_an_abort_leaves_nothing_draining() -> None:
    scene = stopped_with_two_new_ones()
    scene.when(
        lambda: bool(scene.draining), lambda: scene.world.autoscaling.set_desired(scene.group, scene.group.desired - 1)
    )

    list(scene.roll.abort())

    scene.clock.sleep(120)
    assert scene.draining == []
    assert scene.group.desired == 3
    assert JOURNAL not in scene.aws.objects


def test_s3_failing_for_a_minute_does_not_stop_a_roll_that_waits() -> None:
    scene = Scene(3)
    down = AwsError("s3 cannot be reached", code="503")
    scene.when(lambda: len(scene.new) == 1, lambda: fail_from(scene, "replace", down, times=15))

    start(scene)

    assert_given_back(scene, 3)


def test_s3_failing_for_long_stops_it() -> None:
    scene = Scene(3)
    scene.when(lambda: len(scene.new) == 1, lambda: fail_from(scene, "replace", AwsError("s3 is down", code="503")))

    with pytest.raises(RollIncomplete, match="s3 is down"):
        start(scene)

    assert scene.draining == []


def test_a_roll_that_waits_for_long_says_so_every_minute() -> None:
    scene = Scene(3)
    scene.world.set_condition("stuck-drain")
    events: list[Event] = []

    with pytest.raises(RollIncomplete):
        collect(scene.roll.start(RollOptions(drain_timeout=400)), events)

    waiting = [event.message for event in events if event.kind == "waiting"]
    assert len(waiting) >= 4
    assert re.fullmatch(r"still waiting: i-\w+: draining, 1 task left.*", waiting[-1])


def test_resuming_without_a_surge_gives_back_the_one_that_never_came() -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity")
    with pytest.raises(RollIncomplete, match="sufficient") as caught:
        start(scene)
    assert "--no-surge" in caught.value.hint
    scene.when(lambda: scene.group.desired == 3, lambda: scene.world.clear_condition("no-capacity"))

    list(scene.roll.resume(surge=False))

    assert OLD_KEY not in scene.key_names
    assert_given_back(scene, 3)


def test_each_login_that_fails_is_told_before_it_is_given_up() -> None:
    scene = Scene(2)
    scene.login = lambda _: Login("refused", "Permission denied")
    events: list[Event] = []

    with pytest.raises(RackctlError):
        collect(scene.roll.start(DEFAULT), events)

    told = [event.message for event in events if "login with the new key refused" in event.message]
    assert told[0].endswith("(Permission denied), attempt 1 of 6")
    assert len(told) == 5


def test_a_stop_says_what_of_the_rack_is_changed_meanwhile() -> None:
    scene = Scene(3)
    scene.when(lambda: bool(scene.draining), lambda: setattr(scene.stop, "signal", 2))

    with pytest.raises(RollStopped, match=r"stopped by SIGINT \(Ctrl-C\)") as caught:
        start(scene)

    assert (
        "until then group prod-instances has a desired capacity raised by 1 from 3, AZRebalance suspended, the new key "
        "in its launch template"
    ) in caught.value.hint


def test_what_is_not_waited_for_twice_is_an_instance_that_never_registers() -> None:
    scene = Scene(3)
    scene.world.set_condition("never-register")
    with pytest.raises(RollIncomplete, match="not registered") as caught:
        start(scene, RollOptions(boot_timeout=300))
    [corpse] = scene.new
    assert f"rackctl instances terminate {corpse}" in caught.value.hint
    scene.world.clear_condition("never-register")

    # What the hint says is what helps.
    scene.world.autoscaling.terminate(corpse, decrement=False)
    list(scene.roll.resume())

    assert_given_back(scene, 3)


def test_a_roll_that_is_unlocked_says_by_whom() -> None:
    scene = Scene(2)
    next(scene.roll.start(DEFAULT))

    found = scene.roll.unlock(force=True)

    assert found.journal.owner
    status = scene.roll.status()
    assert status
    assert status.journal.problem.startswith("it was unlocked by ")
