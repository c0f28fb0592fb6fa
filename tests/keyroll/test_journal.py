"""The journal is written by one holder at a time, whatever answers get lost, and is read back as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError
from rackctl.aws.s3 import StoredObject
from rackctl.errors import RackctlError, RollIncomplete
from rackctl.keyroll.journal import (
    HEARTBEAT,
    STALE_AFTER,
    Found,
    GroupRecord,
    InstanceRecord,
    Journal,
    JournalLost,
    JournalStore,
    Owner,
    PendingChange,
    RollOptions,
    TemplateRecord,
)
from tests.fakes.world import START, Scene, WorldClock
from tests.keyroll.acts import JOURNAL, fail_from

if TYPE_CHECKING:
    from collections.abc import Callable

ME, OTHER = Owner("me@here", 1, "token-1"), Owner("other@there", 2, "token-2")


@pytest.fixture
def scene() -> Scene:
    return Scene(0)


def journal() -> Journal:
    return Journal(
        rack="prod",
        key_name="key",
        started="2026-01-02T03:04:05Z",
        options=RollOptions(batch=3, reason="because"),
        groups={
            "group": GroupRecord(
                "group",
                "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:u:autoScalingGroupName/group",
                3,
                3,
                ["AlarmNotification"],
                [TemplateRecord("lt-1", "template", "$Default", 4, "old-key", 4, made=5)],
                ["AZRebalance"],
                1,
                PendingChange(4, 3, "i-1"),
                "accepted",
            )
        },
        instances={"i-1": InstanceRecord("group", "terminating", "2026-01-02T03:05:05Z", drained_by_roll=True)},
    )


def store(scene: Scene) -> JournalStore:
    return JournalStore(scene.rack, scene.clock)


def found(scene: Scene) -> Found:
    read = store(scene).read()
    assert read
    return read


def test_a_journal_is_read_back_as_it_was_written(scene: Scene) -> None:
    written = journal()

    assert store(scene).create(written, ME)

    assert found(scene).journal == written
    assert written.owner == ME


def test_only_one_of_two_creates_it(scene: Scene) -> None:
    assert store(scene).create(journal(), ME)
    assert not store(scene).create(journal(), OTHER)
    assert found(scene).journal.owner == ME


def test_what_has_not_changed_is_not_written_again_until_the_heartbeat(scene: Scene) -> None:
    mine, held = store(scene), journal()
    mine.create(held, ME)
    scene.aws.mutations.clear()

    mine.save(held)
    mine.beat(held)
    assert scene.aws.mutations == []

    scene.clock.sleep(HEARTBEAT)
    mine.beat(held)
    assert scene.aws.mutations == ["replace"]


def test_a_holder_who_has_lost_it_finds_out_at_the_next_write_and_at_its_removal(scene: Scene) -> None:
    mine, held = store(scene), journal()
    mine.create(held, ME)
    theirs = store(scene)
    taken = theirs.read()
    assert taken
    assert theirs.take(taken, OTHER)

    held.phase = "replacing"
    with pytest.raises(JournalLost, match=r"other@there .* holds it now"):
        mine.save(held)
    with pytest.raises(JournalLost):
        mine.delete(held)
    assert issubclass(JournalLost, RollIncomplete)


def test_it_cannot_be_taken_once_its_holder_has_written_again(scene: Scene) -> None:
    mine, held = store(scene), journal()
    mine.create(held, ME)
    theirs = store(scene)
    seen = theirs.read()
    assert seen
    held.phase = "replacing"
    mine.save(held)

    assert not theirs.take(seen, OTHER)


@pytest.mark.parametrize("write", ["create", "replace", "delete"])
def test_a_write_whose_answer_was_lost_is_known_by_what_stands_there(scene: Scene, write: str) -> None:
    mine, held = store(scene), journal()
    real = getattr(scene.aws, write)

    def twice(*args: object, **kwargs: object) -> object:
        # botocore asks again when no answer comes, and meets its own write.
        real(*args, **kwargs)
        return real(*args, **kwargs)

    if write != "create":
        mine.create(held, ME)
    setattr(scene.aws, write, twice)
    held.phase = "finishing"

    if write == "create":
        assert mine.create(held, ME)
    elif write == "replace":
        mine.save(held)
    else:
        mine.delete(held)
        assert JOURNAL not in scene.aws.objects
        return
    assert found(scene).journal == held


def test_it_counts_as_dead_after_a_time_of_silence(scene: Scene) -> None:
    held = journal()
    store(scene).create(held, ME)

    assert found(scene).is_live
    scene.clock.sleep(STALE_AFTER)
    assert found(scene).silent_for == STALE_AFTER
    assert not found(scene).is_live


def test_a_reader_whose_clock_is_wrong_is_not_misled(scene: Scene) -> None:
    store(scene).create(journal(), ME)
    ahead = WorldClock(scene.world, at=scene.clock.at + 86_400)

    read = JournalStore(scene.rack, ahead).read()

    assert read
    assert read.is_live
    assert read.heartbeat == scene.clock.now()


def test_one_that_was_let_go_is_not_live(scene: Scene) -> None:
    mine, held = store(scene), journal()
    mine.create(held, ME)

    mine.release(held)

    assert not found(scene).is_live
    assert found(scene).journal.owner is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"not json", "Expecting value"),
        (b"[]", "no JSON object"),
        (b'{"version": 1}', "owner"),
        (json.dumps({"version": 2}).encode(), "format version 2; this rackctl reads version 1"),
    ],
)
def test_what_is_no_journal_is_said_with_its_place(scene: Scene, body: bytes, says: str) -> None:
    scene.aws.objects[JOURNAL] = StoredObject(body, '"9"', START)

    with pytest.raises(RackctlError, match=says) as caught:
        store(scene).read()

    assert "s3://b/rackctl/prod/roll.json" in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"started": "yesterday"}, "yesterday"),
        ({"started": "2026-01-02T03:04:05"}, "no time zone"),
        ({"started": 5}, "must be str"),
        ({"phase": "resting"}, "no phase of a roll"),
        ({"key_name": ""}, "names no key"),
        ({"groups": {"group": {"total": "3"}}}, "total is '3'"),
        ({"groups": {"group": {"auto_scaling_group_arn": "group"}}}, "no ARN"),
        ({"options": {"batch": "2"}}, "batch is '2'"),
        ({"options": {"force": 1}}, "force is 1"),
        ({"groups": []}, "list"),
        ({"owner": "me"}, "mapping"),
    ],
)
def test_a_journal_that_a_hand_has_damaged_is_no_journal(scene: Scene, edit: dict[str, Any], says: str) -> None:
    store(scene).create(journal(), ME)
    document = json.loads(scene.aws.objects[JOURNAL].body)
    for name, value in edit.items():
        document[name] = merged(document[name], value)
    scene.aws.objects[JOURNAL] = StoredObject(json.dumps(document).encode(), '"9"', START)

    with pytest.raises(RackctlError, match=f"not the journal of a keyroll.*{says}"):
        store(scene).read()


def merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{name: merged(old.get(name), value) for name, value in new.items()}}


def test_a_holder_whose_journal_was_removed_says_what_it_leaves_behind(scene: Scene) -> None:
    mine, held = store(scene), journal()
    mine.create(held, ME)
    scene.aws.objects.pop(JOURNAL)

    with pytest.raises(JournalLost, match="was removed by somebody") as caught:
        mine.hold(held)

    for what in ("desired capacity of group group was 3", "AZRebalance of group group is suspended", "i-1 may be"):
        assert what in caught.value.hint


def test_a_journal_holds_no_secret(scene: Scene) -> None:
    list(scene.roll.start(replace(RollOptions(), keep_old_keys=True)))
    scene = Scene(1)
    events = scene.roll.start(RollOptions())
    next(event for event in events if event.kind == "template")

    assert b"PRIVATE" not in scene.aws.objects[JOURNAL].body
    list(events)


@pytest.mark.parametrize("write", ["create", "replace", "delete"])
def test_a_write_that_was_done_though_it_failed_is_known_for_ones_own_at_the_next(scene: Scene, write: str) -> None:
    mine, held = store(scene), journal()
    if write != "create":
        mine.create(held, ME)
    fail_from(scene, write, AwsError("S3 cannot be reached", code=""), times=1, when="after")
    held.phase = "finishing"
    acts: dict[str, Callable[[], object]] = {
        "create": lambda: mine.create(held, ME),
        "replace": lambda: mine.save(held),
        "delete": lambda: mine.delete(held),
    }
    act = acts[write]
    with pytest.raises(AwsError):
        act()

    act()

    if write == "delete":
        assert JOURNAL not in scene.aws.objects
    else:
        assert found(scene).journal == held
        mine.hold(held)


def test_somebody_elses_write_is_not_taken_for_ones_own(scene: Scene) -> None:
    mine, held = store(scene), journal()
    mine.create(held, ME)
    fail_from(scene, "replace", AwsError("S3 cannot be reached", code=""), times=1)
    held.phase = "finishing"
    with pytest.raises(AwsError):
        mine.save(held)
    scene.aws.interfering.clear()
    theirs = store(scene)
    taken = theirs.read()
    assert taken
    assert theirs.take(taken, OTHER)

    with pytest.raises(JournalLost):
        mine.save(held)
