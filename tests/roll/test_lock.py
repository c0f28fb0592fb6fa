"""The lock of a roll: one holder at a time even if answers are lost, and only journals of rackctl's."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError
from rackctl.aws.s3 import StoredObject
from rackctl.errors import RackctlError, RollIncomplete
from rackctl.roll.lock import HEARTBEAT, STALE_AFTER, JournalLost, Lock
from rackctl.roll.owner import Owner
from rackctl.roll.view import RollOptions
from tests.fakes.world import START, Scene, WorldClock
from tests.roll.acts import JOURNAL, fail_from, start
from tests.roll.locks import ME, OTHER, created, document_of, found, lock_of, stored
from tests.roll.test_journal import journal, merged

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.roll.journal import Journal


@pytest.fixture
def scene() -> Scene:
    return Scene(0)


# Begin, write, take, let go


def test_a_journal_is_read_back_as_it_was_created(scene: Scene) -> None:
    _, held = created(scene)

    assert found(scene).journal == held
    assert held.owner == ME


def test_only_one_of_two_processes_creates_the_journal(scene: Scene) -> None:
    created(scene)

    assert not lock_of(scene).create(journal(), OTHER)
    assert found(scene).journal.owner == ME


def test_what_has_not_changed_is_not_written_again_until_the_heartbeat(scene: Scene) -> None:
    lock, _ = created(scene)
    scene.aws.mutations.clear()

    lock.write()
    lock.heartbeat()
    assert scene.aws.mutations == []

    scene.clock.sleep(HEARTBEAT)
    lock.heartbeat()
    assert scene.aws.mutations == ["replace"]


def test_what_has_changed_is_written_by_the_next_heartbeat(scene: Scene) -> None:
    lock, held = created(scene)
    held.phase = "finishing"

    lock.heartbeat()

    assert found(scene).journal.phase == "finishing"


def test_the_owner_is_checked_by_a_write_unless_there_was_one_just_now(scene: Scene) -> None:
    lock, _ = created(scene)
    scene.aws.mutations.clear()

    lock.check_owner()
    assert scene.aws.mutations == []

    scene.clock.sleep(2)
    lock.check_owner()
    assert scene.aws.mutations == ["replace"]


def test_a_holder_that_was_suspended_finds_out_before_its_next_change_that_it_lost_the_journal(scene: Scene) -> None:
    lock, _ = created(scene)
    scene.clock.sleep(STALE_AFTER)
    assert lock_of(scene).take(found(scene), OTHER)

    with pytest.raises(JournalLost, match=r"other@there .* holds it now"):
        lock.check_owner()


def test_a_holder_that_lost_the_journal_can_neither_write_nor_release_nor_delete_it(scene: Scene) -> None:
    lock, held = created(scene)
    assert lock_of(scene).take(found(scene), OTHER)
    held.phase = "finishing"

    for act in (lock.write, lock.heartbeat, lock.check_owner, lock.release, lock.delete):
        with pytest.raises(JournalLost, match=r"other@there .* holds it now"):
            act()

    assert found(scene).journal.owner == OTHER
    assert found(scene).journal.phase != "finishing"
    assert issubclass(JournalLost, RollIncomplete)


def test_a_journal_cannot_be_taken_once_its_holder_has_written_again(scene: Scene) -> None:
    lock, held = created(scene)
    seen = found(scene)
    held.phase = "finishing"
    lock.write()

    assert not lock_of(scene).take(seen, OTHER)


def test_a_journal_that_was_taken_is_written_by_its_new_holder_under_the_same_seal(scene: Scene) -> None:
    created(scene)
    theirs, seen = lock_of(scene), found(scene)
    assert theirs.take(seen, OTHER)
    seen.journal.phase = "finishing"
    theirs.write()

    again = found(scene)

    assert again.sealed_key == seen.sealed_key
    assert lock_of(scene).take(again, ME)


def test_a_released_journal_stays_and_is_not_live(scene: Scene) -> None:
    lock, _ = created(scene)

    lock.release()

    assert not found(scene).is_live
    assert found(scene).journal.owner is None


def test_a_deleted_journal_is_gone(scene: Scene) -> None:
    lock, _ = created(scene)

    lock.delete()

    assert lock_of(scene).read() is None


def test_a_holder_whose_journal_was_removed_says_what_it_leaves_behind(scene: Scene) -> None:
    lock, _ = created(scene)
    scene.aws.objects.pop(JOURNAL)
    scene.clock.sleep(2)

    with pytest.raises(JournalLost, match="was removed while this roll was running") as caught:
        lock.check_owner()

    for what in ("desired capacity of group group was 3", "AZRebalance of group group is suspended", "i-1 may be"):
        assert what in caught.value.hint


# Live or dead


def test_a_journal_is_live_until_its_holder_has_been_silent_for_a_time(scene: Scene) -> None:
    created(scene)

    assert found(scene).is_live
    scene.clock.sleep(STALE_AFTER)
    assert found(scene).silent_for == STALE_AFTER
    assert not found(scene).is_live


def test_a_reader_whose_clock_is_wrong_is_not_misled(scene: Scene) -> None:
    created(scene)
    ahead = WorldClock(scene.world, at=scene.clock.at + 86_400)

    read = Lock(scene.rack, ahead).read()

    assert read
    assert read.is_live
    assert read.heartbeat == scene.clock.now()


def test_a_process_that_its_own_machine_knows_to_have_ended_is_dead() -> None:
    me = Owner.this_process()
    ended = replace(me, pid=2**22 + 1)  # beyond any pid_max

    assert not me.is_dead
    if me.machine:
        assert ended.is_dead
    assert not replace(ended, machine="another").is_dead


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says when a process began")
def test_a_process_whose_number_another_one_has_got_is_dead() -> None:
    me = Owner.this_process()

    assert replace(me, began=f"{int(me.began) - 1}").is_dead


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says that a process is a zombie")
def test_a_zombie_is_dead() -> None:
    with subprocess.Popen(["true"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert replace(Owner.this_process(), pid=zombie.pid).is_dead


def test_a_process_of_an_unknown_machine_is_not_taken_for_dead() -> None:
    assert not replace(Owner.this_process(), machine="", pid=2**22 + 1).is_dead


# Answers that get lost, and conflicts


@pytest.mark.parametrize("write", ["create", "replace", "delete"])
def test_a_write_that_botocore_repeats_because_its_answer_was_lost_is_known_as_ones_own(
    scene: Scene, write: str
) -> None:
    lock, held = lock_of(scene), journal()
    if write != "create":
        lock.create(held, ME)
    real = getattr(scene.aws, write)

    def twice(*args: object, **kwargs: object) -> object:
        real(*args, **kwargs)
        return real(*args, **kwargs)

    setattr(scene.aws, write, twice)
    held.phase = "finishing"
    acts(lock, held)[write]()

    if write == "delete":
        assert JOURNAL not in scene.aws.objects
    else:
        assert found(scene).journal == held


def acts(lock: Lock, held: Journal) -> dict[str, Callable[[], object]]:
    return {
        "create": lambda: lock.create(held, ME),
        "replace": lock.write,
        "delete": lock.delete,
    }


@pytest.mark.parametrize("write", ["create", "replace", "delete"])
def test_a_write_that_was_done_though_it_failed_is_known_as_ones_own_at_the_next(scene: Scene, write: str) -> None:
    lock, held = lock_of(scene), journal()
    if write != "create":
        lock.create(held, ME)
    fail_from(scene, write, AwsError("S3 cannot be reached", code=""), times=1, when="after")
    held.phase = "finishing"
    act = acts(lock, held)[write]
    with pytest.raises(AwsError):
        act()

    act()

    if write == "delete":
        assert JOURNAL not in scene.aws.objects
    else:
        assert found(scene).journal == held
        scene.clock.sleep(2)
        lock.check_owner()


def test_the_write_of_another_process_is_not_taken_for_ones_own(scene: Scene) -> None:
    lock, held = created(scene)
    fail_from(scene, "replace", AwsError("S3 cannot be reached", code=""), times=1)
    held.phase = "finishing"
    with pytest.raises(AwsError):
        lock.write()
    scene.aws.interfering.clear()
    assert lock_of(scene).take(found(scene), OTHER)

    with pytest.raises(JournalLost):
        lock.write()


def conflict() -> AwsError:
    return AwsError("another conditional request was in progress", code="ConditionalRequestConflict")


@pytest.mark.parametrize("write", ["create", "replace", "delete"])
def test_a_write_conflict_is_an_unanswered_call_and_not_a_lost_lock(scene: Scene, write: str) -> None:
    """PutObjectRequest.IfMatch, in botocore's S3 model: "If a conflicting operation occurs during the upload S3 returns
    a 409 ConditionalRequestConflict response. On a 409 failure you should fetch the object's ETag and retry the
    upload."
    """
    lock, held = lock_of(scene), journal()
    if write != "create":
        lock.create(held, ME)
    fail_from(scene, write, conflict(), times=1)
    held.phase = "finishing"
    act = acts(lock, held)[write]

    with pytest.raises(AwsError) as caught:
        act()
    assert not isinstance(caught.value, JournalLost)
    assert not caught.value.refused
    act()

    assert (lock_of(scene).read() is None) is (write == "delete")


@pytest.mark.parametrize("write", ["create", "replace", "delete"])
def test_a_roll_whose_journal_writes_meet_conflicts_comes_through(write: str) -> None:
    scene = Scene(1)
    failed = fail_from(scene, write, conflict(), times=3)

    start(scene)

    assert len(failed) == 3
    assert scene.old == []
    assert JOURNAL not in scene.aws.objects


# Invalid journals


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"not json", "Expecting value"),
        (b"[]", "list"),
        (b"{}", "version"),
        (b'{"version": 2}', "journal"),
        (b'{"version": 2, "journal": []}', "journal that this rackctl can read"),
        (b'{"version": 1}', "format version 1; this rackctl reads version 2"),
        (b'{"version": "2"}', "format version 2; this rackctl reads version 2"),
        (b"[" * 100_000, "recursion"),
        (b"\xff\xff", "decode"),
        (b" " * (4 * 1024 * 1024 + 1), "it has 4194305 bytes"),
    ],
)
def test_what_is_no_journal_is_an_error_that_names_its_place(scene: Scene, body: bytes, says: str) -> None:
    scene.aws.objects[JOURNAL] = StoredObject(body, '"9"', START)

    with pytest.raises(RackctlError, match=says) as caught:
        lock_of(scene).read()

    assert "s3://b/rackctl/prod/roll.json is not a journal" in str(caught.value)
    assert "delete that object" in caught.value.hint


@pytest.mark.parametrize(
    "edit",
    [
        {"sealed_key": "%%%"},
        {"sealed_key": 5},
        {"sealed_key": None},
        {"mac": "\u00e9"},
        {"mac": "\ud800"},
        {"mac": None},
        {"mac": 5},
        {"journal": {"phase": "resting"}},
    ],
)
def test_a_journal_with_a_damaged_field_is_an_error_that_names_its_place(scene: Scene, edit: dict[str, Any]) -> None:
    created(scene)
    stored(scene, merged(document_of(scene), edit))

    with pytest.raises(RackctlError, match=r"s3://b/rackctl/prod/roll\.json is not a journal"):
        lock_of(scene).read()


def test_a_journal_holds_no_secret() -> None:
    scene = Scene(1)
    events = scene.roll.start(RollOptions())
    next(event for event in events if event.kind == "template")
    body = scene.aws.objects[JOURNAL].body
    sealed = found(scene).sealed_key
    context = {"rackctl:rack": "prod", "rackctl:cluster": scene.aws.cluster_arn, "rackctl:roll": "2026-01-02T03:04:35Z"}
    mac_key = scene.aws.decrypt(sealed, context, what="", kms_key="alias/k")

    assert b"PRIVATE" not in body
    assert len(mac_key) == 32
    assert mac_key.hex().encode() not in body
    assert base64.b64encode(mac_key) not in body
