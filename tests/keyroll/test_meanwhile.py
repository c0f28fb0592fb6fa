"""What a roll does about what somebody else does meanwhile: people, managed scaling, Auto Scaling itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import AwsError
from rackctl.aws.s3 import StoredObject
from rackctl.errors import AccessDenied, RackctlError, RollIncomplete
from rackctl.keyroll.journal import JournalLost, RollOptions
from rackctl.keyroll.run import RollStopped
from rackctl.keys import generate
from tests.fakes.world import OLD_KEY, START, Killed, Login, Scene, add_group, name_version
from tests.keyroll.acts import (
    DEFAULT,
    JOURNAL,
    NEW_KEY,
    assert_given_back,
    fail_from,
    run_until_killed,
    start,
    stopped,
    stopped_with_two_new_ones,
    texts,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.keyroll.run import Event
    from rackctl.model import Instance


@pytest.mark.parametrize("version", ["1", "$Default", "$Latest"])
@pytest.mark.parametrize("moment", ["surge", "replacing"])
def test_a_template_that_somebody_changes_back_stops_the_roll_and_resume_gives_it_the_new_key_again(
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

    with pytest.raises(RollIncomplete, match=f"launches with {OLD_KEY} again"):
        list(events)

    assert not any(m.lifecycle_state == "InService" for i, m in scene.group.members.items() if i in scene.draining)
    list(scene.roll.resume())
    assert scene.key_names == [scene.keys.names()[0]] * 3
    assert_given_back(scene, 3)


@pytest.mark.parametrize("version", ["1", "$Latest"])
@pytest.mark.parametrize("way", ["resume", "abort"])
def test_a_version_of_the_rolls_that_somebody_deletes_is_made_again_or_not_missed(version: str, way: str) -> None:
    scene = Scene(3)
    name_version(scene, version)
    stopped(scene, until(scene, "surge"))
    del scene.template.versions[2]

    list(getattr(scene.roll, way)())

    assert scene.key_names == [OLD_KEY if way == "abort" else scene.keys.names()[0]] * 3
    assert_given_back(scene, 3)


@pytest.mark.parametrize("version", ["3", "$Default", "$Latest"])
def test_abort_keeps_what_somebody_has_made_of_the_rolls_version_and_gives_it_the_old_key(version: str) -> None:
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

    assert f"version 3, which somebody has made meanwhile, keeps key {NEW_KEY}" in said
    assert f"key {NEW_KEY} is kept: group prod-instances has it" in said
    assert_given_back(scene, 2)


def test_a_desired_capacity_lowered_before_the_surge_came_does_not_leave_the_roll_waiting_for_it() -> None:
    scene = Scene(3)
    scene.group.min_size = 1
    events = until(scene, "surge")
    scene.world.autoscaling.set_desired(scene.group, 2)
    scene.clock.sleep(60)
    scene.broken_promises.clear()  # Auto Scaling has ended one as it was told to, by somebody else

    list(events)

    assert scene.key_names == [NEW_KEY] * 2
    assert_given_back(scene, 2)


def test_a_minimum_size_raised_over_the_surge_is_kept() -> None:
    scene = Scene(3)
    events = until(scene, "surge")
    scene.group.min_size = 4

    list(events)

    assert scene.key_names == [NEW_KEY] * 4
    assert_given_back(scene, 4)


def test_an_error_while_the_capacity_is_lowered_does_not_leave_launch_suspended() -> None:
    scene = Scene(3)
    scene.world.set_condition("no-capacity", "")
    events = until(scene, "surge")
    scene.stop.signal = 2
    with pytest.raises(RollStopped):
        list(events)
    scene.stop.signal = 0

    def fail(_: int, call: str, when: str) -> None:
        if (call, when) == ("set_desired_capacity", "before"):
            raise AwsError("AWS refused", code="ValidationError")

    scene.aws.interfering.append(fail)
    with pytest.raises(RollIncomplete):
        list(scene.roll.abort())

    assert "Launch" not in scene.group.suspended
    scene.aws.interfering.remove(fail)
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_a_stop_of_a_process_that_has_lost_the_roll_leaves_what_the_new_holder_drains() -> None:
    scene = Scene(3)
    lost = until(scene, "instance", "draining")
    scene.roll.unlock(force=True)
    holder = scene.roll.resume()
    next(event for event in holder if "draining" in event.message)
    drained = scene.draining
    assert drained

    scene.stop.signal = 2
    with pytest.raises(JournalLost, match="was taken from this process"):
        list(lost)
    scene.stop.signal = 0

    assert scene.draining == drained
    list(holder)
    assert_given_back(scene, 3)


def test_a_key_pair_of_somebody_elses_by_the_new_keys_name_is_not_deleted() -> None:
    scene = Scene(2)
    theirs = generate("theirs", created=START).public_key

    def meanwhile(_: int, call: str, when: str) -> None:
        if (call, when) == ("import_key_pair", "before"):
            scene.world.ec2.import_key_pair(NEW_KEY, theirs.encode(), {})

    scene.aws.interfering.append(meanwhile)
    with pytest.raises(RackctlError, match="already exists"):
        start(scene)

    assert scene.world.ec2.key_pairs[NEW_KEY].public_key == theirs
    assert scene.keys.names() == [OLD_KEY]


def test_a_stored_key_without_a_key_pair_in_this_region_is_kept() -> None:
    scene = Scene(2)
    of_another_region = generate("prod-keypair-20200101T000000Z", created=START)
    scene.keys.store(of_another_region)

    said = [event.message for event in start(scene)]

    assert scene.keys.names() == [of_another_region.key_name, NEW_KEY]
    assert any("no key pair by that name in this region" in message for message in said)


def test_a_new_key_that_is_deleted_from_the_store_is_not_made_again_under_its_name() -> None:
    scene = Scene(3)
    events = until(scene, "instance", "terminating")
    scene.stop.signal = 2
    with pytest.raises(RollStopped):
        list(events)
    scene.stop.signal = 0
    scene.keys.delete(NEW_KEY)

    with pytest.raises(RollIncomplete, match="has been deleted from the store") as caught:
        list(scene.roll.resume())

    assert "abort this roll and begin another" in caught.value.hint
    assert scene.keys.names() == [OLD_KEY]
    list(scene.roll.abort())
    start(scene)
    assert NEW_KEY not in scene.key_names
    assert_given_back(scene, 3)


def test_a_group_of_others_that_names_no_version_that_exists_does_not_keep_a_roll_from_its_end() -> None:
    scene = Scene(2)
    add_group(scene, "theirs", 0, Rack="another").launch_template["Version"] = "77"

    start(scene)

    assert OLD_KEY not in scene.key_names
    assert scene.key_pairs == set(scene.key_names)
    assert JOURNAL not in scene.aws.objects


@pytest.mark.parametrize("dead", [False, True], ids=["during the roll", "while it is stopped"])
def test_an_instance_that_somebody_detaches_while_it_is_drained_takes_tasks_again(dead: bool) -> None:
    scene = Scene(3)
    events = until(scene, "instance", "draining")
    [id_] = scene.draining
    if dead:
        run_until_killed(scene, lambda: list(events), 0, "before")
        scene.clock.sleep(400)
    scene.group.members.pop(id_)
    scene.group.desired -= 1

    list(scene.roll.resume() if dead else events)

    assert id_ not in scene.draining
    assert scene.key_names.count(OLD_KEY) == 1
    assert scene.key_pairs == set(scene.keys.names()) == {OLD_KEY, NEW_KEY}
    # Nobody can tell whose share has gone; then the larger capacity stays.
    assert scene.desired == 3


def test_an_instance_that_somebody_sets_on_standby_while_it_is_drained_is_left_alone() -> None:
    scene = Scene(3)
    events = until(scene, "instance", "draining")
    [id_] = scene.draining
    scene.group.members[id_].lifecycle_state = "Standby"
    scene.group.desired -= 1

    list(events)

    assert id_ not in scene.draining
    assert scene.old == [id_]
    assert scene.key_pairs == {OLD_KEY, NEW_KEY}
    # Nobody can tell whose share has gone; then the larger capacity stays.
    assert scene.desired == 3


def test_new_instances_that_a_hook_abandons_one_after_the_other_stop_the_roll_with_nothing_drained() -> None:
    from rackctl.local.world.groups import Hook

    scene = Scene(2)
    scene.group.hooks["up"] = Hook("up", "autoscaling:EC2_INSTANCE_LAUNCHING", 60, "ABANDON")

    with pytest.raises(RollIncomplete, match="3 new instances in a row of group prod-instances have gone"):
        start(scene)

    assert len(scene.old) == 2
    assert scene.draining == []
    scene.group.hooks.clear()
    list(scene.roll.resume())
    assert_given_back(scene, 2)


@pytest.mark.parametrize("killed", [False, True], ids=["in a group that was done", "while the roll was dead"])
def test_an_old_instance_that_comes_back_from_standby_is_replaced_before_the_roll_ends(killed: bool) -> None:
    scene = Scene(3)
    id_ = scene.old[0]
    autoscaling = scene.world.autoscaling
    autoscaling.set_standby(scene.group, id_, standby=True, decrement=True)
    if not killed:
        add_group(scene, "prod-zzz")

    def back() -> None:
        autoscaling.set_standby(scene.group, id_, standby=False, decrement=True)

    if killed:

        def kill(_: int, call: str, when: str) -> None:
            if (call, when) == ("resume_processes", "before"):
                raise Killed(call)

        scene.aws.interfering.append(kill)
        with pytest.raises(Killed):
            start(scene)
        scene.aws.interfering.remove(kill)
        scene.clock.sleep(400)
        back()
        list(scene.roll.resume())
    else:
        events = scene.roll.start(DEFAULT)
        next(event for event in events if event.kind == "surge" and "prod-zzz" in event.message)
        back()
        list(events)

    assert OLD_KEY not in scene.key_names
    assert JOURNAL not in scene.aws.objects
    assert scene.key_pairs == set(scene.keys.names()) == set(scene.key_names)


# Both at once: what somebody does, and an interruption


def draining_one(scene: Scene) -> tuple[str, Iterator[Event]]:
    """Begin a roll, and give what it drains first and the rest of it."""
    events = until(scene, "instance", "draining")
    [id_] = scene.draining
    return id_, events


def killed(scene: Scene, events: Iterator[Event]) -> None:
    run_until_killed(scene, lambda: list(events), 0, "before")
    scene.clock.sleep(400)


def statuses(scene: Scene, id_: str) -> list[str]:
    return [r.status for r in scene.seeded.registrations.values() if r.instance_id == id_]


@pytest.mark.parametrize("way", ["resume", "abort"])
@pytest.mark.parametrize("end", ["a kill", "a signal"])
@pytest.mark.parametrize("how", ["detached", "on standby"])
def test_what_is_taken_out_of_its_group_while_it_is_drained_takes_tasks_again_after_all(
    how: str, end: str, way: str
) -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)
    if end == "a kill":
        killed(scene, events)
    if how == "detached":
        scene.world.autoscaling.detach(scene.group, id_, decrement=True)
    else:
        scene.world.autoscaling.set_standby(scene.group, id_, standby=True, decrement=True)
    if end == "a signal":
        stopped(scene, events)
        assert statuses(scene, id_) == ["ACTIVE"]

    list(getattr(scene.roll, way)())

    assert statuses(scene, id_) == ["ACTIVE"]


def test_what_is_detached_and_attached_and_detached_again_takes_tasks_again_each_time() -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)
    member = scene.group.members[id_]

    def detach() -> None:
        scene.world.autoscaling.detach(scene.group, id_, decrement=True)

    def attach() -> None:
        member.lifecycle_state, scene.group.members[id_] = "InService", member
        scene.group.desired += 1
        scene.when(lambda: id_ in scene.draining, detach)

    detach()
    scene.when(lambda: id_ not in scene.draining, lambda: scene.later(20, attach))

    list(events)

    assert statuses(scene, id_) == ["ACTIVE"]


def test_what_is_set_on_standby_right_before_its_end_is_left_alone() -> None:
    scene = Scene(3)
    events = scene.roll.start(DEFAULT)
    next(event for event in events if event.phase == "drained")
    [id_] = scene.draining
    scene.world.autoscaling.set_standby(scene.group, id_, standby=True, decrement=True)

    list(events)

    assert scene.old == [id_]
    assert statuses(scene, id_) == ["ACTIVE"]


def test_those_that_somebody_takes_away_do_not_count_as_replaced() -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)
    scene.world.autoscaling.detach(scene.group, id_, decrement=True)
    scene.stop.signal = 15

    with pytest.raises(RollStopped, match="0 of 2 instances have been replaced, 2 are left"):
        list(events)


def test_an_instance_that_comes_back_from_standby_finds_its_zone_as_it_left_it() -> None:
    scene = Scene(3)
    id_ = scene.old[0]
    scene.world.autoscaling.set_standby(scene.group, id_, standby=True, decrement=True)
    start(scene)
    scene.clock.sleep(200)

    scene.world.autoscaling.set_standby(scene.group, id_, standby=False)
    scene.clock.sleep(300)

    # Auto Scaling had nothing to balance, which it does without draining.
    assert scene.broken_promises == []


def test_a_drained_instance_that_is_deregistered_holds_nothing_up() -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)
    registration = next(r for r in scene.seeded.registrations.values() if r.instance_id == id_)
    scene.world.ecs.deregister(scene.seeded, registration, force=True)
    scene.broken_promises.clear()

    list(events)

    assert set(scene.key_names) == {NEW_KEY}
    assert JOURNAL not in scene.aws.objects


def test_drains_that_cannot_be_followed_any_more_stop_the_roll_though_the_rest_of_aws_answers() -> None:
    scene = Scene(3)
    _, events = draining_one(scene)
    fail_from(scene, "describe_tasks", AwsError("AWS kept throttling ecs:DescribeTasks", code="ThrottlingException"))

    with pytest.raises(RollIncomplete, match="kept throttling ecs:DescribeTasks"):
        list(events)

    assert scene.draining == []


def test_a_group_that_is_moved_to_a_launch_configuration_stops_the_roll() -> None:
    scene = Scene(3)
    events = until(scene, "instance", "terminating")
    scene.world.autoscaling.launch_configurations["old-style"] = dict(scene.template.versions[1].data)
    scene.group.launch_template, scene.group.launch_configuration = None, "old-style"

    with pytest.raises(RollIncomplete, match="launches from a launch configuration now"):
        list(events)

    assert len(scene.old) <= 3
    scene.clock.sleep(120)
    assert scene.draining == []


def test_a_surge_that_is_taken_back_again_and_again_stops_the_roll() -> None:
    scene = Scene(3)

    def scaler() -> None:
        if scene.group.desired > 3 and int(scene.clock.at) % 40 == 0:
            scene.world.autoscaling.set_desired(scene.group, 3)

    scene.clock.watching.append(scaler)

    with pytest.raises(RackctlError, match="after each of the last 3 surges") as caught:
        start(scene)

    assert "--no-surge" in caught.value.hint


def test_a_capacity_that_is_raised_while_the_roll_is_dead_is_kept() -> None:
    whole = Scene(3, max_size=9)
    start(whole)
    last = max(n for n, call in enumerate(whole.aws.mutations) if call == "terminate_instance")
    scene = Scene(3, max_size=9)
    run_until_killed(scene, lambda: start(scene), last, "after")
    scene.clock.sleep(400)
    scene.world.autoscaling.set_desired(scene.group, 5)

    list(scene.roll.resume())

    assert scene.desired == 5


def test_a_roll_that_waits_for_a_scaling_activity_changes_nothing_once_it_is_another_process_s() -> None:
    scene = Scene(3)
    busy = [True]

    def interfere(_: int, call: str, when: str) -> None:
        if (call, when) == ("set_desired_capacity", "before") and busy:
            raise AwsError("busy", code="ScalingActivityInProgress")

    def another() -> None:
        busy.clear()
        scene.roll.unlock(force=True)
        list(scene.roll.abort())

    scene.aws.interfering.append(interfere)
    scene.when(lambda: "suspend_processes" in scene.aws.mutations, another)

    with pytest.raises(JournalLost, match="did nothing more"):
        start(scene)

    assert_given_back(scene, 3)


def test_a_launch_that_the_operator_has_suspended_stays_so_through_an_abort() -> None:
    scene = Scene(3)
    events = until(scene, "surge")
    scene.group.suspended["Launch"] = "by the operator"
    with pytest.raises(RollIncomplete, match="somebody has suspended the Launch process"):
        list(events)

    list(scene.roll.abort())

    assert scene.group.suspended == {"Launch": "by the operator"}
    assert scene.desired == 3


def test_a_surplus_that_may_not_be_terminated_stops_an_abort_with_the_remedy() -> None:
    scene = stopped_with_two_new_ones()
    scene.group.suspended["Terminate"] = "by the operator"

    with pytest.raises(RollIncomplete, match="somebody has suspended the Terminate process") as caught:
        list(scene.roll.abort())

    assert "--scaling-processes Terminate" in caught.value.hint
    del scene.group.suspended["Terminate"]
    list(scene.roll.abort())
    assert_given_back(scene, 3)


def test_a_template_that_is_deleted_with_its_group_does_not_keep_the_rest_from_being_given_back() -> None:
    scene = Scene(2)
    own = scene.world.ec2.create_template("other", dict(scene.template.versions[1].data), {})
    add_group(scene, "prod-zzz").launch_template = {
        "LaunchTemplateId": own.launch_template_id, "LaunchTemplateName": "other", "Version": "1",
    }  # fmt: skip
    stopped(scene, until(scene, "instance", "draining"))
    del scene.world.autoscaling.groups["prod-zzz"], scene.world.ec2.templates[own.launch_template_id]

    list(scene.roll.abort())

    assert (scene.group.desired, scene.group.suspended) == (2, {})


def test_a_default_is_given_back_though_the_group_that_named_it_is_gone() -> None:
    scene = Scene(2)
    name_version(scene, "$Default")
    add_group(scene)
    stopped(scene, until(scene, "surge"))
    scene.world.autoscaling.groups.pop(scene.group.name)

    list(scene.roll.abort())

    assert scene.template.default_version == 1
    assert list(scene.template.versions) == [1]


def test_a_default_that_somebody_moves_on_is_given_back_as_they_had_it() -> None:
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


def test_a_key_that_is_deleted_everywhere_is_not_made_again_under_its_name() -> None:
    scene = Scene(3)
    stopped(scene, until(scene, "instance", "terminating"))
    scene.keys.delete(NEW_KEY)
    del scene.world.ec2.key_pairs[NEW_KEY]

    with pytest.raises(RollIncomplete, match="has been deleted from the store"):
        list(scene.roll.resume())

    assert NEW_KEY not in scene.key_pairs
    assert scene.keys.names() == [OLD_KEY]


@pytest.mark.parametrize("name", ["archive/prod-keypair-2024", "index"])
def test_something_else_in_the_keys_place_is_left_there(name: str) -> None:
    scene = Scene(2)
    other = ("b", f"rackctl/prod/keys/{name}.json")
    scene.aws.objects[other] = StoredObject(b"{}", '"z"', START)
    if name == "index":
        scene.world.ec2.import_key_pair("index", generate("index", created=START).public_key.encode(), {})

    said = texts(start(scene))

    assert other in scene.aws.objects
    assert set(scene.key_names) == {NEW_KEY}
    assert ("key index is kept" in said) == (name == "index")


def test_a_key_that_a_launch_configuration_names_is_kept() -> None:
    scene = Scene(2)
    scene.world.autoscaling.launch_configurations["builds"] = dict(scene.template.versions[1].data)

    said = texts(start(scene))

    assert f"key {OLD_KEY} is kept: launch configuration builds has it" in said
    assert OLD_KEY in scene.key_pairs


def test_instances_of_a_group_that_is_made_meanwhile_are_named_at_the_end() -> None:
    scene = Scene(2)
    events = until(scene, "instance", "terminating")
    name_version(scene, "1")
    add_group(scene)
    name_version(scene, "2")

    last = list(events)[-1].message

    assert last.startswith(f"every instance has the key {NEW_KEY}, but for i-")
    assert all(id_ in last for id_ in scene.old)


def test_what_could_not_be_set_active_is_named_as_draining_until_somebody_resumes() -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)

    def expired(_: int, __: str, ___: str) -> None:
        raise AccessDenied("the AWS credentials have expired")

    scene.aws.interfering.append(expired)
    with pytest.raises(RollIncomplete, match=f"{id_} may still be DRAINING"):
        list(events)
    scene.aws.interfering.clear()
    scene.clock.sleep(400)

    list(scene.roll.resume())

    assert_given_back(scene, 3)


# The new key, refused where it hurts


@pytest.mark.parametrize("options", [RollOptions(require_ssh=True), RollOptions(require_ssh=True, surge=False)])
def test_a_group_of_one_is_not_done_before_its_key_is_proven_and_abort_brings_the_old_key_back(
    options: RollOptions,
) -> None:
    scene = Scene(1, max_size=1 if options.surge else 3)
    for service in scene.seeded.services.values():
        service.desired = 0
    scene.clock.sleep(60)
    scene.login = lambda _: Login("refused", "Permission denied")

    with pytest.raises(RollIncomplete, match="refuses the new key"):
        start(scene, options)

    assert OLD_KEY in scene.keys.names()
    list(scene.roll.abort())
    assert scene.template_in_use.data["KeyName"] == OLD_KEY
    assert OLD_KEY in scene.key_pairs
    assert JOURNAL not in scene.aws.objects


def test_a_refused_key_is_not_all_that_is_left_when_the_last_old_instance_vanishes() -> None:
    scene = Scene(1)
    scene.login = lambda _: Login("refused", "Permission denied")
    scene.when(lambda: bool(scene.logins), lambda: scene.later(20, lambda: scene.world.befall("vanish", scene.old[0])))

    with pytest.raises(RackctlError, match=r"refuses the new key.* but for 1 of 1 instances"):
        start(scene)

    assert scene.template_in_use.data["KeyName"] == OLD_KEY
    assert OLD_KEY in scene.keys.names()


# What a second look at it has found


@pytest.mark.parametrize("at", range(3, 24, 3))
def test_a_journal_whose_writes_are_done_but_not_answered_for_half_a_minute_stays_the_rolls(at: int) -> None:
    scene = Scene(3)
    writes, began = [0], [0.0]

    def interfere(_: int, call: str, when: str) -> None:
        if (call, when) != ("replace", "after"):
            return
        writes[0] += 1
        began[0] = began[0] or (scene.clock.at if writes[0] == at else 0.0)
        if began[0] and scene.clock.at < began[0] + 30:
            raise AwsError("S3 does not answer", code="")

    scene.aws.interfering.append(interfere)

    start(scene)

    assert_given_back(scene, 3)


def test_a_zone_in_which_all_are_on_standby_does_not_hold_the_surplus() -> None:
    scene = Scene(9, max_size=20)
    zones = {id_: scene.world.ec2.instances[id_].subnet for id_ in scene.old}
    aside = next(iter(zones.values()))
    for id_ in [id_ for id_, subnet in zones.items() if subnet is aside]:
        scene.world.autoscaling.set_standby(scene.group, id_, standby=True, decrement=True)
    scene.group.subnets.remove(aside.subnet_id)
    scene.clock.sleep(60)
    scene.world.autoscaling.set_desired(scene.group, 2)
    scene.clock.sleep(200)
    scene.broken_promises.clear()

    start(scene)

    assert scene.desired == 2
    assert JOURNAL not in scene.aws.objects


def test_a_stop_while_a_termination_is_refused_as_busy_leaves_nothing_draining() -> None:
    scene = Scene(3)
    fail_from(scene, "terminate_instance", AwsError("busy", code="ScalingActivityInProgress"))
    scene.when(
        lambda: "terminate_instance" in scene.aws.mutations,
        lambda: scene.later(4, lambda: setattr(scene.stop, "signal", 15)),
    )

    with pytest.raises(RollStopped, match="nothing is left draining"):
        start(scene)

    assert scene.draining == []


def test_a_group_that_is_not_described_for_once_does_not_have_the_roll_go_round_in_circles() -> None:
    scene = Scene(3)
    events = until(scene, "instance", "draining")
    real = scene.aws.groups

    def groups(names: object) -> list[object]:
        scene.aws.groups = real  # type: ignore[method-assign]
        return []

    scene.aws.groups = groups  # type: ignore[method-assign]

    said = texts(list(events))

    assert "the roll goes on without it" in said
    assert scene.draining == []
    assert JOURNAL not in scene.aws.objects


def test_an_abort_does_not_take_a_key_for_proven_because_its_group_was_scaled_to_nothing() -> None:
    scene = Scene(2)
    for service in scene.seeded.services.values():
        service.desired = 0
    events = until(scene, "instance", "new, ")
    stopped(scene, events)
    scene.world.autoscaling.set_desired(scene.group, 0)
    scene.clock.sleep(200)

    list(scene.roll.abort())

    assert scene.template_in_use.data["KeyName"] == OLD_KEY
    assert OLD_KEY in scene.keys.names()


def test_a_roll_that_is_stopped_while_it_waits_for_aws_knows_what_was_done_before() -> None:
    scene = Scene(3)
    stopped(scene, until(scene, "instance", "terminating"))
    events = scene.roll.resume()
    next(event for event in events if "waiting" in event.message)
    scene.stop.signal = 15

    with pytest.raises(RollStopped, match="1 of 3 instances have been replaced"):
        list(events)


def test_what_somebody_takes_away_is_counted_out_once_though_it_cannot_be_set_active_at_first() -> None:
    scene = Scene(3)
    id_, events = draining_one(scene)
    scene.world.autoscaling.detach(scene.group, id_, decrement=True)
    fail_from(scene, "set_container_instances_state", AwsError("no", code="no", refused=True), times=1)
    with pytest.raises(RollIncomplete):
        list(events)
    scene.aws.interfering.clear()
    scene.clock.sleep(400)

    last = list(scene.roll.resume())[-1]

    assert (last.done, last.total) == (2, 2)
    assert statuses(scene, id_) == ["ACTIVE"]


def test_a_surge_that_is_denied_gives_the_rack_back() -> None:
    scene = Scene(3)
    fail_from(scene, "set_desired_capacity", AccessDenied("AWS denied autoscaling:SetDesiredCapacity"))

    with pytest.raises(RackctlError, match="the rack is as it was") as caught:
        start(scene)

    assert caught.value.exit_code == AccessDenied.exit_code
    assert_given_back(scene, 3)


def test_a_new_instance_that_vanishes_while_it_is_being_proven_is_not_the_last_word() -> None:
    scene = Scene(3)
    vanished: list[str] = []

    def login(instance: Instance) -> Login:
        if not vanished:
            vanished.append(instance.ec2_instance_id)
            scene.world.befall("vanish", instance.ec2_instance_id)
        gone = instance.ec2_instance_id in vanished
        return Login("unreachable", "no route") if gone else Login()

    scene.login = login

    start(scene, RollOptions(require_ssh=True))

    assert set(scene.key_names) == {NEW_KEY}
    assert scene.desired == 3


def test_an_error_of_our_own_while_the_rack_is_given_back_leaves_the_roll_to_others() -> None:
    scene = Scene(2)
    scene.login = lambda _: Login("refused", "no")
    fail_from(scene, "delete_launch_template_versions", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        start(scene)

    scene.aws.interfering.clear()
    list(scene.roll.abort())
    assert_given_back(scene, 2)
