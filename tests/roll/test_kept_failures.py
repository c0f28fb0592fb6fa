"""Failures while a key pair is renewed under its name: in the end there is always a pair to launch with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import AccessDenied, RackctlError, RollIncomplete
from rackctl.keys import generate
from rackctl.roll.hold import RollStopped
from rackctl.roll.lock import JournalLost
from rackctl.roll.view import RollOptions
from tests.fakes.world import START, Login
from tests.roll.acts import JOURNAL, assert_given_back, collect, fail_from, killed, start, texts, until
from tests.roll.test_kept import THEIRS, at, journal, made, ops, pair

if TYPE_CHECKING:
    from rackctl.roll.report import Event


def test_a_deletion_that_is_denied_for_a_pair_that_is_gone_by_now_was_done() -> None:
    """A call that is repeated since its answer was lost names an id that EC2 cannot judge by a policy any more."""
    scene = ops(2)

    def deny() -> None:
        raise AccessDenied("AWS denied ec2:DeleteKeyPair on key pair ops")

    at(scene, "delete_key_pair", deny, "after")

    start(scene)

    assert pair(scene).public_key != scene.old_public_key
    assert scene.old == []
    assert_given_back(scene, 2)


def test_a_deletion_that_is_denied_changes_nothing() -> None:
    scene = ops(2)
    first = pair(scene)
    fail_from(scene, "delete_key_pair", AccessDenied("AWS denied ec2:DeleteKeyPair on key pair ops"), times=1)

    with pytest.raises(RackctlError, match=r"denied ec2:DeleteKeyPair on key pair ops\. Nothing was drained"):
        start(scene)

    assert pair(scene) is first
    assert_given_back(scene, 2)


def test_an_import_that_fails_brings_the_old_key_back() -> None:
    scene = ops(2)
    fail_from(scene, "import_key_pair", RackctlError("EC2 does not want it"), times=1)

    with pytest.raises(RackctlError, match=r"EC2 does not want it\. Nothing was drained; rolled back"):
        start(scene)

    assert pair(scene).public_key == scene.old_public_key
    assert pair(scene).tags == {"team": "ops"}
    assert_given_back(scene, 2)


def test_a_pair_that_cannot_be_brought_back_at_once_is_named_and_launch_stays_suspended_until_it_is() -> None:
    scene = ops(2)
    failing = fail_from(scene, "import_key_pair", RackctlError("EC2 does not want it"))

    with pytest.raises(RollIncomplete) as caught:
        start(scene)

    assert "EC2 may have no key pair ops" in caught.value.hint
    assert "keeps Launch suspended" in caught.value.hint
    assert "Launch" in scene.group.suspended
    assert failing
    scene.aws.interfering.clear()
    list(scene.roll.abort())
    assert pair(scene).public_key == scene.old_public_key
    assert_given_back(scene, 2)


@pytest.mark.parametrize("way", ["resume", "abort"])
def test_a_third_key_that_somebody_imports_in_between_is_not_overwritten(way: str) -> None:
    scene = ops(2)
    events = until(scene, "processes", "suspended Launch")
    killed(scene, events)
    scene.world.ec2.key_pairs.change("ops", None)
    theirs = scene.world.ec2.import_key_pair("ops", THEIRS.encode(), {})

    if way == "resume":
        with pytest.raises(RackctlError, match="key pair ops was changed by something other than this roll"):
            list(scene.roll.resume())
    else:
        list(scene.roll.abort())

    assert pair(scene) is theirs
    assert JOURNAL not in scene.aws.objects
    assert scene.group.suspended == {}


def test_an_older_key_that_was_planted_as_the_new_generation_is_not_imported() -> None:
    """A former user with its private half, who may write to the bucket, could log in to every new instance.

    KMS Decrypt: "you must specify the same (an exact case-sensitive match) encryption context to decrypt the data".
    """
    scene = ops(2)
    former = generate("ops", created=START - timedelta(days=30))
    scene.keys.store(former)
    killed(scene, until(scene, "key", "stored a new key"))
    folder = JOURNAL[1].replace("roll.json", "keys/ops/")
    new = journal(scene)["key_pairs"]["ops"]["generation"]
    places = [f"{folder}{time.astimezone(UTC):%Y%m%dT%H%M%SZ}.json" for time in scene.keys.generations("ops")]
    assert datetime.fromisoformat(new) == scene.keys.generations("ops")[-1]
    scene.aws.objects["b", places[-1]] = scene.aws.objects["b", places[0]]

    with pytest.raises(RackctlError, match=r"cannot open SSH key ops.*rolled back"):
        list(scene.roll.resume())

    assert pair(scene).public_key == scene.old_public_key
    for generation in (former.generation, datetime.fromisoformat(new)):
        scene.keys.delete("ops", generation)
    assert_given_back(scene, 2)


def test_a_request_to_stop_waits_until_there_is_a_pair_to_launch_with() -> None:
    scene = ops(2)
    at(scene, "delete_key_pair", lambda: setattr(scene.stop, "signal", 2), "after")
    events: list[Event] = []

    with pytest.raises(RollStopped):
        collect(scene.roll.start(RollOptions()), events)

    scene.stop.signal = 0
    assert pair(scene).public_key != scene.old_public_key
    assert "Launch" not in scene.group.suspended
    list(scene.roll.resume())
    assert scene.old == []
    assert_given_back(scene, 2)


def test_a_first_instance_that_refuses_the_new_key_brings_the_old_one_back() -> None:
    scene = ops(2)
    before = made(scene)
    scene.login = lambda _: Login("refused", "Permission denied (publickey)")

    with pytest.raises(RackctlError, match="refused the new key"):
        start(scene)

    assert pair(scene).public_key == scene.old_public_key
    assert made(scene) == before
    assert len(scene.old) == 2
    assert_given_back(scene, 2)


def test_an_abort_brings_the_old_key_back_and_leaves_the_new_one_to_those_that_have_it() -> None:
    scene = ops()
    killed(scene, until(scene, "instance", "terminating"))

    events = list(scene.roll.abort())

    assert pair(scene).public_key == scene.old_public_key
    (replaced,) = [id_ for id_, key in scene.public_keys.items() if key != scene.old_public_key]
    assert f"kept the new key of key pair ops in the store: {replaced}" in texts(events)
    # New instances have the old key again, and the store has the generation of each instance.
    scene.world.autoscaling.set_desired(scene.group, 4)
    scene.clock.sleep(120)
    assert sorted(scene.public_keys.values()).count(scene.old_public_key) == 3
    for id_, key in scene.public_keys.items():
        launched = scene.aws._instance(scene.world.ec2.instances[id_]).first_launch_time
        assert scene.keys.fetch("ops", launched).public_key == key


def test_each_instance_is_logged_in_to_after_any_number_of_aborts() -> None:
    scene = ops(5, max_size=12)
    for more in range(6, 9):
        killed(scene, until(scene, "instance", "terminating"))
        list(scene.roll.abort())
        scene.world.autoscaling.set_desired(scene.group, more)
        scene.clock.sleep(120)

    assert len(set(scene.public_keys.values())) > 2
    for id_, key in scene.public_keys.items():
        launched = scene.aws._instance(scene.world.ec2.instances[id_]).first_launch_time
        assert scene.keys.fetch("ops", launched).public_key == key


def test_a_new_key_that_is_deleted_from_the_store_stops_the_roll_and_an_abort_brings_the_old_one_back() -> None:
    scene = ops()
    killed(scene, until(scene, "proof"))
    scene.keys.delete("ops", scene.keys.generations("ops")[-1])

    with pytest.raises(RackctlError, match="the new key of key pair ops has been deleted from the store"):
        list(scene.roll.resume())

    list(scene.roll.abort())
    assert pair(scene).public_key == scene.old_public_key
    assert_given_back(scene, 3)


def test_a_pair_that_is_changed_again_after_it_was_renewed_stops_the_roll_and_abort_brings_the_old_one_back() -> None:
    scene = ops()
    killed(scene, until(scene, "proof"))
    scene.world.ec2.key_pairs.change("ops", None)
    scene.world.ec2.import_key_pair("ops", scene.old_public_key.encode(), {})

    with pytest.raises(RackctlError, match="no longer has the public key that this roll imported"):
        list(scene.roll.resume())

    list(scene.roll.abort())
    assert pair(scene).public_key == scene.old_public_key
    assert_given_back(scene, 3)


def test_a_template_that_names_another_key_in_the_middle_stops_the_roll() -> None:
    scene = ops()
    scene.world.ec2.import_key_pair("theirs", THEIRS.encode(), {})
    events = until(scene, "instance", "terminating")
    scene.template.versions[1].data["KeyName"] = "theirs"

    with pytest.raises(RollIncomplete, match="launches with key pair theirs now, which this roll does not renew"):
        list(events)


def test_a_journal_that_is_removed_says_which_public_key_the_pair_had() -> None:
    scene = ops()
    events = until(scene, "key", "deleted key pair ops")
    del scene.aws.objects[JOURNAL]

    with pytest.raises(JournalLost) as caught:
        list(events)

    assert f"key pair ops had the public key {scene.old_public_key}" in caught.value.hint
