"""Inputs that a roll must not trust: the wrong cluster, a planted journal or key, foreign tags, a lost lock.

The seal of the journal alone, and each edit of it, is in tests/roll/test_seal.py.
"""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.s3 import StoredObject
from rackctl.errors import RackctlError
from rackctl.keys import KeyStore, generate
from rackctl.roll.hold import RollStopped
from rackctl.roll.journal import GroupRecord, TemplateRecord
from rackctl.roll.lock import HEARTBEAT, JournalLost
from rackctl.roll.prove import _PROOF_TIMEOUT
from rackctl.settings import Origin, Source, Value
from tests.fakes.origin import GIVEN
from tests.fakes.world import OLD_KEY, START, Scene, add_group
from tests.roll.acts import (
    DEFAULT,
    EACH,
    JOURNAL,
    NEW_KEY,
    assert_given_back,
    draining_one,
    killed,
    refused,
    start,
    texts,
    until,
)
from tests.roll.locks import ME, document_of, found, lock_of, stored
from tests.roll.test_journal import journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.roll.report import Event

TAG = Origin(Source.TAG, "a tag of the cluster")
_LOCK = {"create", "replace", "delete"}


def do(scene: Scene, way: str) -> None:
    """Type a command of keyroll's; those that work on the roll yield events."""
    done: Any = getattr(scene.roll, way)()
    if way in {"resume", "abort"}:
        list(done)


# A planted journal


def bank(scene: Scene) -> Any:
    """Make another rack's group, larger than before and with a default version and a suspended process of its own."""
    template = scene.world.ec2.create_template("bank", dict(scene.template.versions[1].data), {})
    scene.world.ec2.add_version(template, {"InstanceType": "t3.small"}, source="1")
    template.default_version = 2
    group = add_group(scene, "bank", 3, Rack="bank")
    group.launch_template = {"LaunchTemplateId": template.launch_template_id, "Version": "$Default"}
    group.suspended["AlarmNotification"] = "User"
    return group


def hostile_documents(scene: Scene, group: Any) -> dict[str, dict[str, Any]]:
    """Return the fields of a planted journal that names another rack's group."""
    template = next(t for t in scene.world.ec2.templates.values() if t.launch_template_name == "bank")
    id_ = template.launch_template_id
    record = GroupRecord(group.name, group.arn, 1, 3)
    default = TemplateRecord(id_, "bank", "$Default", 1, "x", 1, made=2)
    return {
        "a surge": {"groups": {group.name: replace(record, surge=2)}},
        "a default version": {"groups": {group.name: replace(record, templates=[default])}},
        "a process": {"groups": {group.name: replace(record, suspended=["AlarmNotification"])}},
        "a key pair": {"key_name": "bank-unused"},
        "a key to delete": {"retiring": ["bank-unused"], "phase": "finishing"},
        "a new key": {"phase": "preparing", "groups": {group.name: record}},
    }


HOSTILE = ["a surge", "a default version", "a process", "a key pair", "a key to delete", "a new key"]


def state_of(scene: Scene) -> Any:
    groups = scene.world.autoscaling.groups.values()
    return (
        [(g.name, g.desired, dict(g.suspended), sorted(g.members)) for g in groups],
        scene.templates,
        scene.key_pairs,
    )


def hostile(scene: Scene, what: str) -> Any:
    scene.world.ec2.import_key_pair("bank-unused", generate("bank-unused", created=START).public_key.encode(), {})
    held = journal()
    held.cluster_arn, held.phase, held.instances, held.owner = scene.aws.cluster_arn, "replacing", {}, None
    held.groups = {scene.group.name: GroupRecord(scene.group.name, scene.group.arn, 2, 2)}
    for name, value in hostile_documents(scene, bank(scene))[what].items():
        setattr(held, name, value)
    return held


@pytest.mark.parametrize("way", ["resume", "abort", "unlock"])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_journal_that_names_what_is_another_racks_is_refused_without_the_right_to_use_the_kms_key(
    what: str, way: str
) -> None:
    """Whoever has `s3:PutObject` on the prefix can store `roll.json`, and somebody then types the `resume` that
    keyroll asks for.
    """
    scene = Scene(2)
    held = hostile(scene, what)
    forged = {
        "version": 2,
        "journal": held.dumps(),
        "sealed_key": base64.b64encode(b"k" * 32).decode(),
        "mac": "0" * 64,
    }
    stored(scene, forged)
    before = state_of(scene)
    scene.aws.mutations.clear()

    with pytest.raises(RackctlError):
        do(scene, way)

    assert scene.aws.mutations == []
    assert state_of(scene) == before


@pytest.mark.parametrize("way", ["resume", "abort"])
@pytest.mark.parametrize("what", HOSTILE)
def test_even_a_sealed_journal_makes_nothing_happen_to_what_is_another_racks(what: str, way: str) -> None:
    scene = Scene(2)
    held = hostile(scene, what)
    lock = lock_of(scene)
    lock.create(held, ME)
    lock.release()
    scene.clock.sleep(400)
    before = [state for state in state_of(scene)[0] if state[0] == "bank"]
    bank_templates = [t for t in scene.templates[1] if t[0] == 2]

    with suppress(RackctlError):
        list(getattr(scene.roll, way)())

    assert [state for state in state_of(scene)[0] if state[0] == "bank"] == before
    assert [t for t in scene.templates[1] if t[0] == 2] == bank_templates
    assert "bank-unused" in scene.key_pairs


# A planted key


def planted_key(name: str) -> tuple[str, StoredObject]:
    """Make what somebody without a right to use the KMS key can store by a key's name, and its public half."""
    theirs = generate(name, created=START)
    document = {
        "version": 3, "key_name": name, "type": "ed25519", "public_key": theirs.public_key,
        "fingerprint": theirs.fingerprint, "created": START.isoformat(), "imported": None, "reason": "",
        "private_key": base64.b64encode(theirs.private_key).decode(),
    }  # fmt: skip
    return theirs.public_key, StoredObject(json.dumps(document).encode(), '"planted"', START)


def test_a_key_that_was_planted_under_the_new_keys_name_is_not_imported() -> None:
    """The public half is derived from the private half that KMS has opened (KMS Decrypt: "you must specify the same
    (an exact case-sensitive match) encryption context to decrypt the data"), and never read beside it.
    """
    scene = Scene(2)
    events = scene.roll.start(DEFAULT)
    next(events)
    public_key, planted = planted_key(NEW_KEY)
    scene.aws.objects["b", f"rackctl/prod/keys/{NEW_KEY}/20260102T030405Z.json"] = planted

    with pytest.raises(RackctlError):
        list(events)

    assert public_key not in {pair.public_key for pair in scene.world.ec2.key_pairs.values()}
    assert scene.key_pairs == {OLD_KEY}
    assert scene.key_names == [OLD_KEY] * 2
    assert scene.keys_in_templates == {OLD_KEY}


# Foreign tags


def by_tag(scene: Scene, name: str, value: str) -> None:
    """Have a setting come from a tag of the cluster alone."""
    del scene.rack._given[name]  # type: ignore[attr-defined]
    scene.seeded.tags[f"rackctl:{name.replace('_', '-')}"] = value
    scene.aws.tags[f"rackctl:{name.replace('_', '-')}"] = value
    for cached in ("ecs_cluster", "store"):
        scene.rack.__dict__.pop(cached, None)


def test_a_bucket_of_another_account_that_a_tag_names_is_refused() -> None:
    """GetObject.ExpectedBucketOwner, in botocore's S3 model: "If the account ID that you provide does not match the
    actual owner of the bucket, the request fails with the HTTP status code 403 Forbidden".
    """
    scene = Scene(2)
    scene.aws.bucket_owners["theirs"] = "999999999999"
    by_tag(scene, "bucket", "theirs")

    with pytest.raises(RackctlError, match="theirs"):
        start(scene)

    assert scene.aws.mutations == []


def test_a_kms_key_of_another_account_is_refused_from_a_tag_and_taken_from_the_user() -> None:
    scene = Scene(2)
    theirs = "arn:aws:kms:us-east-1:999999999999:key/0f0f0f0f-0f0f-4f0f-8f0f-0f0f0f0f0f0f"
    by_tag(scene, "kms_key", theirs)

    said = refused(scene)
    assert "999999999999" in said
    assert "RACKCTL_KMS_KEY" in said
    scene.rack._given["kms_key"] = Value(theirs, GIVEN)  # type: ignore[index]
    KeyStore(scene.rack)
    assert not any("999999999999" in refusal.reason for refusal in scene.roll.plan(DEFAULT).refusals)


def test_a_store_that_lacks_the_keys_of_present_instances_is_refused_if_only_a_tag_names_it() -> None:
    scene = Scene(2)
    by_tag(scene, "bucket", "empty")

    said = refused(scene)

    assert OLD_KEY in said
    assert "rackctl:bucket" in said


def test_the_plan_says_where_bucket_and_kms_key_come_from() -> None:
    scene = Scene(2)
    scene.aws.objects = {("prod-keys", key): stored for (_, key), stored in scene.aws.objects.items()}
    by_tag(scene, "bucket", "prod-keys")

    plan = scene.roll.plan(DEFAULT)

    assert plan.refusals == ()
    assert (plan.bucket.value, plan.bucket.origin.source) == ("prod-keys", Source.TAG)
    assert (plan.kms_key.value, plan.kms_key.origin) == ("alias/k", GIVEN)


# A process that lost the roll


def reads_of_a_roll() -> list[int]:
    """Number a roll's reading calls while it holds its journal: each third of them, or each twelfth."""
    scene = Scene(2)
    for _ in scene.roll.start(DEFAULT):
        held = len(scene.aws.reads)
    return list(range(5, held - 36, 3 * EACH))


def stand_still_at(scene: Scene, at: int, way: str) -> list[str]:
    """Have the process stand still at a reading call while another takes its roll over and ends it.

    The list that is returned grows with what the first one changes afterwards.
    """
    before = len(scene.aws.reads)
    stage = ["running"]
    changed: list[str] = []

    def interfere(number: int, call: str, when: str) -> None:
        if stage == ["lost"] and number >= 0 and when == "before" and call not in _LOCK:
            changed.append(call)
        if stage != ["running"] or when == "after" or len(scene.aws.reads) - before < at:
            return
        if JOURNAL not in scene.aws.objects:
            return
        stage[0] = "standing still"
        scene.clock.sleep(5)
        scene.roll.unlock(force=True)
        list(getattr(scene.roll, way)())
        stage[0] = "lost"

    scene.aws.interfering.append(interfere)
    return changed


@pytest.mark.parametrize("way", ["resume", "abort"])
@pytest.mark.parametrize("at", reads_of_a_roll())
def test_a_process_that_lost_the_roll_while_it_stood_still_changes_nothing_more(at: int, way: str) -> None:
    """SIGSTOP, or the lid of a laptop: what it does next it would do with what it knew before."""
    scene = Scene(2)
    changed = stand_still_at(scene, at, way)

    with pytest.raises(JournalLost):
        list(scene.roll.start(DEFAULT))

    assert changed == []
    assert scene.aws.terminated_busy == []
    assert_given_back(scene, 2)


@pytest.mark.parametrize("first", ["resume", "abort"])
@pytest.mark.parametrize("at", range(2, 40, EACH))
def test_a_process_that_took_a_roll_over_and_lost_it_changes_nothing_more(at: int, first: str) -> None:
    scene = Scene(3)
    _, events = draining_one(scene)
    killed(scene, events)
    changed = stand_still_at(scene, at, first)

    with pytest.raises(RackctlError, match=r"was taken from|has just taken over this roll|was removed while"):
        list(getattr(scene.roll, first)())

    assert changed == []
    assert scene.aws.terminated_busy == []
    assert_given_back(scene, 3)


# Restored and remaining resources


def test_zones_that_are_uneven_at_the_end_leave_az_rebalance_suspended_and_that_is_said() -> None:
    """Auto Scaling terminates instances of the fuller zones to even them out, and drains nothing."""
    scene = Scene(6)

    def detach_a_zone() -> None:
        [last] = [scene.group.members[id_] for id_ in scene.draining]
        there = [m for m in scene.group.members.values() if m.availability_zone != last.availability_zone]
        for member in [m for m in there if m.availability_zone == there[0].availability_zone]:
            scene.world.autoscaling.detach(scene.group, member.instance_id, decrement=True)

    scene.when(lambda: len(scene.old) == 1 and scene.draining == scene.old, detach_a_zone)
    said = texts(list(scene.roll.start(DEFAULT)))
    scene.clock.sleep(600)

    assert "left AZRebalance suspended: the Availability Zones are uneven" in said
    assert f"resume-processes --auto-scaling-group-name {scene.group.name} --scaling-processes AZRebalance" in said
    assert set(scene.group.suspended) == {"AZRebalance"}
    assert "resumed AZRebalance" not in said
    assert scene.broken_promises == []


def test_an_instance_that_is_detached_with_decrement_during_the_surge_makes_the_group_smaller() -> None:
    """DetachInstances with ShouldDecrementDesiredCapacity is a relative change: it is the group that is smaller."""
    scene = Scene(4)
    events = until(scene, "surge")

    scene.world.autoscaling.detach(scene.group, scene.old[0], decrement=True)
    list(events)

    assert scene.desired == 3
    assert len(scene.group.members) == 3


# The proof


class Silent:
    """A login to a server that says nothing: it never has an outcome."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, _: Any) -> None:
        self.asked += 1


def test_the_roll_beats_while_a_server_that_says_nothing_is_logged_in_to() -> None:
    scene = Scene(2)
    scene.login = Silent()
    beats: list[float] = []

    def beat(_: int, call: str, when: str) -> None:
        if (call, when) == ("replace", "after"):
            beats.append(scene.clock.at)

    events: Iterator[Event] = scene.roll.start(DEFAULT)
    for event in events:
        if event.kind == "surge":
            scene.aws.interfering.append(beat)
        if event.kind == "proof":
            break

    assert "could not be reached" in event.message
    assert beats[-1] - beats[0] > 6 * _PROOF_TIMEOUT
    assert max(later - before for before, later in pairwise(beats)) <= HEARTBEAT + 5


def test_a_login_to_a_server_that_says_nothing_stops_when_asked() -> None:
    scene = Scene(2)
    scene.login = silent = Silent()
    asked: list[float] = []

    def stop() -> None:
        asked.append(scene.clock.at)
        scene.stop.signal = 2

    scene.when(lambda: silent.asked > 5, stop)

    with pytest.raises(RollStopped):
        list(scene.roll.start(DEFAULT))

    assert scene.clock.at - asked[0] < 2
    assert found(scene).journal.owner is None


def test_a_proof_in_the_journal_counts_for_nothing() -> None:
    """A roll that is taken over logs in itself: an accepted key in the journal may be planted."""
    scene = Scene(3)
    _, events = draining_one(scene)
    killed(scene, events)
    logins = len(scene.logins)
    assert "proof" not in json.dumps(document_of(scene))

    said = texts(list(scene.roll.resume()))

    assert len(scene.logins) > logins
    assert "accepts the new key" in said
    assert_given_back(scene, 3)
