"""The history of rolls: the entry of each roll that ends, and the objects that are read as entries."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError
from rackctl.aws.s3 import StoredObject
from rackctl.errors import RackctlError
from rackctl.roll.history import Entry, History, Past, past_rolls
from rackctl.roll.lock import JournalLost, Lock
from rackctl.roll.owner import Operator, Owner
from rackctl.roll.view import RollOptions, Selection
from rackctl.text import rfc3339
from tests.fakes.world import START, Killed, Login, Scene
from tests.roll.acts import JOURNAL, NEW_KEY, REFRESH, fail_from, refused, start, stopped, with_managed_draining

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "rackctl/prod/history/"
JOE = Operator(Owner.this_process().who, "arn:aws:iam::123456789012:user/joe")


def past(scene: Scene, most: int = 20) -> Past:
    return past_rolls(scene.rack, scene.clock, most)


def history_objects(scene: Scene) -> list[str]:
    return [key for _, key in scene.aws.objects if key.startswith(PREFIX)]


def put(scene: Scene, name: str, body: bytes) -> None:
    scene.aws.objects["b", f"{PREFIX}{name}"] = StoredObject(body, '"x"', START)


def document(scene: Scene, started: str, **changes: Any) -> bytes:
    entry = Entry("prod", scene.aws.cluster_arn, started, "key", "finished", ended=started, replaced=1, total=1)
    return json.dumps({"version": 1, **asdict(entry), **changes}).encode()


# Writing


def test_a_roll_that_has_finished_is_kept_with_what_when_by_whom_and_why() -> None:
    scene = Scene(3)
    began = scene.clock.now()

    start(scene, RollOptions(reason="a laptop was lost"))

    (entry,) = past(scene).entries
    assert entry == Entry(
        rack="prod",
        cluster_arn=scene.aws.cluster_arn,
        started=rfc3339(began),
        kind="key",
        outcome="finished",
        ended=rfc3339(scene.clock.now()),
        replaced=3,
        total=3,
        reason="a laptop was lost",
        key_name=NEW_KEY,
        groups=(scene.group.name,),
        operators=(JOE,),
    )
    assert entry.seconds == int(entry.seconds or 0) > 100
    assert JOURNAL not in scene.aws.objects


def test_a_replacement_is_kept_with_what_it_selected() -> None:
    scene = Scene(2)
    scene.selection = Selection("age", older_than=60.0)

    start(scene)

    (entry,) = past(scene).entries
    assert (entry.command, entry.kind, entry.older_than, entry.key_name) == ("replace", "age", 60.0, "")


def test_a_roll_that_auto_scaling_carried_out_says_so() -> None:
    scene = with_managed_draining(2)
    list(scene.roll.start(REFRESH, detach=True))
    (entry,) = past(scene).entries
    assert (entry.outcome, entry.engine) == ("unfinished", "refresh")

    list(scene.roll.resume())

    (entry,) = past(scene).entries
    assert (entry.outcome, entry.engine, entry.replaced) == ("finished", "refresh", 2)


def test_a_roll_that_was_aborted_says_how_many_were_replaced_and_who_had_run_it() -> None:
    scene = Scene(3)
    events = scene.roll.start(RollOptions())
    next(event for event in events if event.done == 1)
    stopped(scene, events)

    def by_another(name: str, answer: Any) -> Any:
        return replace(answer, arn="arn:aws:iam::123456789012:user/ann") if name == "caller" else answer

    scene.aws.misreading.append(by_another)
    list(scene.roll.abort())

    (entry,) = past(scene).entries
    assert (entry.outcome, entry.replaced, entry.total) == ("aborted", 1, 3)
    assert [operator.caller_arn[-4:] for operator in entry.operators] == ["/joe", "/ann"]


def test_a_roll_that_rolled_back_by_itself_says_why() -> None:
    scene = Scene(2)
    scene.login = lambda _: Login("refused", "no such key")

    with pytest.raises(RackctlError):
        start(scene)

    (entry,) = past(scene).entries
    assert (entry.outcome, entry.replaced) == ("rolled back", 0)
    assert "no such key" in entry.problem


def test_a_roll_that_has_nothing_to_do_or_is_refused_is_not_kept() -> None:
    scene = Scene(2)
    scene.selection = Selection("outdated")
    start(scene)
    scene.group.suspended["Launch"] = "by hand"
    scene.selection = Selection("all")
    refused(scene)

    assert past(scene) == Past(())
    assert history_objects(scene) == []


def test_an_unfinished_roll_comes_first_and_is_not_said_to_have_ended() -> None:
    scene = Scene(2)
    start(scene)
    scene.clock.sleep(3600)
    events = scene.roll.start(RollOptions())
    next(events)

    running, finished = past(scene).entries
    assert (running.outcome, running.ended, running.replaced, running.total) == ("running", "", None, 2)
    assert finished.outcome == "finished"
    stopped(scene, events)

    assert [entry.outcome for entry in past(scene).entries] == ["unfinished", "finished"]
    assert past(scene).entries[0].problem == "stopped by SIGINT (Ctrl-C)"
    assert [entry.outcome for entry in past(scene, 1).entries] == ["unfinished"]
    assert past(scene, 1).older == 1


# When it is kept


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("way_on", ["resume", "abort"])
def test_a_roll_that_is_killed_when_it_writes_its_entry_is_kept_once(when: str, way_on: str) -> None:
    scene = Scene(2)
    fail_from(scene, "put", Killed(), times=1, when=when)
    with pytest.raises(Killed):
        start(scene)
    assert JOURNAL in scene.aws.objects
    scene.clock.sleep(400)
    assert [entry.outcome for entry in past(scene).entries] == ["unfinished"]

    list(getattr(scene.roll, way_on)())

    (entry,) = past(scene).entries
    assert (entry.outcome, entry.replaced) == ("finished", 2)
    assert len(history_objects(scene)) == 1


def test_an_entry_that_cannot_be_written_is_said_and_does_not_keep_the_roll_from_ending() -> None:
    scene = Scene(2)
    fail_from(scene, "put", AwsError("AWS denied s3:PutObject", code="AccessDenied", refused=True))

    events = start(scene)

    assert events[-1].kind == "finished"
    problem = next(event for event in events if event.kind == "problem")
    assert problem.message == "the history of rolls may lack this one: AWS denied s3:PutObject"
    assert JOURNAL not in scene.aws.objects


def test_a_process_that_has_lost_the_roll_at_its_end_writes_no_entry() -> None:
    scene = Scene(2)
    events = scene.roll.start(RollOptions())
    for event in events:
        if event.kind == "retired":
            scene.clock.sleep(2)
            lock = Lock(scene.rack, scene.clock)
            found = lock.read()
            assert found
            assert lock.take(found, Owner.this_process())
            break

    with pytest.raises(JournalLost):
        list(events)

    assert history_objects(scene) == []


def test_a_roll_does_not_depend_on_sts() -> None:
    scene = Scene(2)
    fail_from(scene, "caller", AwsError("STS did not answer", code=""))

    start(scene)

    assert past(scene).entries[0].operators == (Operator(JOE.who),)


# Pruning


def test_entries_of_more_than_a_year_ago_are_deleted_some_at_each_end_of_a_roll_and_nothing_else() -> None:
    scene = Scene(2)
    now = scene.clock.now()
    old = [rfc3339(now - timedelta(days=400, hours=n)) for n in range(30)]
    young = [rfc3339(now - timedelta(days=363, hours=n)) for n in range(30)]
    for started in (*old, *young):
        put(scene, f"{started}.json", document(scene, started))
    put(scene, "README", b"not ours")

    start(scene)

    left = {key.removeprefix(PREFIX).removesuffix(".json") for key in history_objects(scene)}
    assert left >= {*young, "README"}
    assert len(left & set(old)) == 30 - 25
    scene.clock.sleep(60)
    start(scene)
    assert past(scene, 1000).older == 0
    assert len(past(scene, 1000).entries) == 30 + 2


# Reading


def test_the_newest_are_read_of_however_many() -> None:
    scene = Scene(2)
    starts = [rfc3339(START - timedelta(hours=n)) for n in range(5000)]
    for started in starts:
        put(scene, f"{started}.json", document(scene, started))
    scene.aws.reads.clear()

    found = past(scene, 20)

    assert [entry.started for entry in found.entries] == starts[:20]
    assert (found.older, found.not_entries) == (4980, 0)
    assert scene.aws.reads.count("get") == 20 + 1


def test_more_objects_than_rackctl_ever_wrote_are_refused() -> None:
    scene = Scene(2)
    for n in range(20_001):
        put(scene, f"{n}", b"")

    with pytest.raises(RackctlError, match="more than 20000 objects"):
        past(scene)


STARTED = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "edit",
    [
        lambda body: b"",
        lambda body: b"[" * 100_000,
        lambda body: b"\xff",
        lambda body: b"[]",
        lambda body: b"null",
        lambda body: body + b" " * 70_000,
        lambda body: body.replace(b'"version": 1', b'"version": 2'),
        lambda body: body.replace(b'"rack": "prod"', b'"rack": "staging"'),
        lambda body: body.replace(b"us-east-1", b"eu-west-1"),
        lambda body: body.replace(b'"started": "2026-01-01', b'"started": "2026-01-02'),
        lambda body: body.replace(b'"ended": "2026', b'"ended": "2025'),
        lambda body: body.replace(b'"kind": "key"', b'"kind": "whim"'),
        lambda body: body.replace(b'"engine": "rackctl"', b'"engine": "steam"'),
        lambda body: body.replace(b'"outcome": "finished"', b'"outcome": "won"'),
        lambda body: body.replace(b'"replaced": 1', b'"replaced": null'),
        lambda body: body.replace(b'"total": 1', b'"total": -1'),
        lambda body: body.replace(b'"total": 1', b'"total": true'),
        lambda body: body.replace(b'"older_than": 0.0', b'"older_than": NaN'),
        lambda body: body.replace(b'"older_than": 0.0', b'"older_than": Infinity'),
        lambda body: body.replace(b'"reason": ""', b'"reason": 5'),
        lambda body: body.replace(b'"groups": []', b'"groups": [5]'),
        lambda body: body.replace(b'"operators": []', b'"operators": [{"who": 5}]'),
        lambda body: body.replace(b'"reason"', b'"whim"'),
    ],
)
def test_what_is_no_entry_of_this_rack_is_left_out_and_counted(edit: Callable[[bytes], bytes]) -> None:
    scene = Scene(2)
    body = document(scene, STARTED)
    put(scene, f"{STARTED}.json", body)
    assert [entry.started for entry in past(scene).entries] == [STARTED]
    assert edit(body) != body

    put(scene, f"{STARTED}.json", edit(body))

    assert past(scene) == Past((), not_entries=1)


@pytest.mark.parametrize("name", ["2026.json", f"{STARTED}.txt", "../keys/a.json", f"a/{STARTED}.json", ".json"])
def test_objects_of_other_names_are_counted_and_not_read(name: str) -> None:
    scene = Scene(2)
    put(scene, name, document(scene, STARTED))
    scene.aws.reads.clear()

    assert past(scene) == Past((), not_entries=1)
    assert scene.aws.reads.count("get") == 1


def test_a_journal_that_cannot_be_read_does_not_hide_the_history() -> None:
    scene = Scene(2)
    start(scene)
    scene.aws.objects[JOURNAL] = StoredObject(b"{}", '"x"', START)

    found = past(scene)

    assert [entry.outcome for entry in found.entries] == ["finished"]
    assert "is not a journal" in found.unknown


def test_long_texts_are_cut_where_they_are_written() -> None:
    scene = Scene(2)

    start(scene, RollOptions(reason="x" * 5000))

    assert past(scene).entries[0].reason == "x" * 1000


def test_an_entry_of_the_same_start_takes_the_place_of_the_one_before() -> None:
    scene = Scene(2)
    entry = Entry("prod", scene.aws.cluster_arn, STARTED, "key", "finished", ended=STARTED, replaced=1, total=2)
    for outcome in ("finished", "aborted"):
        History(scene.rack).add(replace(entry, outcome=outcome), START)

    assert [found.outcome for found in past(scene).entries] == ["aborted"]
