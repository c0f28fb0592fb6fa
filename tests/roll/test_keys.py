"""The keys of a roll: the new one is made, stored and proven before it is needed; old ones are deleted when unused."""

from __future__ import annotations

import pytest

from rackctl.aws.s3 import StoredObject
from rackctl.errors import RackctlError, RollIncomplete
from rackctl.keys import generate
from rackctl.roll.hold import RollStopped
from rackctl.roll.view import RollOptions
from tests.fakes.world import OLD_KEY, START, Scene
from tests.roll.acts import (
    NEW_KEY,
    assert_given_back,
    start,
    stopped,
    stopped_with_two_new_ones,
    texts,
    until,
)


def test_the_new_key_is_stored_and_imported_before_a_template_names_it() -> None:
    scene = Scene(3)

    start(scene, RollOptions(reason="a laptop was lost", keep_old_keys=True))

    calls = scene.aws.mutations
    stored, imported = calls.index("create", 1), calls.index("import_key_pair")
    assert stored < imported < calls.index("create_launch_template_version")
    assert scene.world.ec2.key_pairs[NEW_KEY].tags["rackctl:reason"] == "a laptop was lost"
    assert scene.keys.fetch(NEW_KEY, START).reason == "a laptop was lost"
    assert scene.key_pairs == {OLD_KEY, NEW_KEY}


def test_an_rsa_key_is_made_on_request() -> None:
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


def test_a_rack_without_a_key_gets_its_first_one() -> None:
    scene = Scene(3)
    del scene.template_in_use.data["KeyName"]

    start(scene)

    assert scene.key_names == [NEW_KEY] * 3
    assert scene.key_pairs == {NEW_KEY}


def test_a_new_key_that_instances_have_already_is_kept_by_an_abort() -> None:
    scene = stopped_with_two_new_ones()

    events = list(scene.roll.abort())

    assert sorted(set(scene.key_names)) == [OLD_KEY, NEW_KEY]
    assert f"kept key {NEW_KEY}" in texts(events)
    assert scene.template_in_use.data["KeyName"] == OLD_KEY
    assert_given_back(scene, 3)


def test_a_key_pair_that_rackctl_did_not_create_is_not_deleted() -> None:
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
    assert any("no key pair of that name in this region" in message for message in said)


def test_a_new_key_that_was_deleted_from_the_store_is_not_made_again_under_its_name() -> None:
    scene = Scene(3)
    events = until(scene, "instance", "terminating")
    scene.stop.signal = 2
    with pytest.raises(RollStopped):
        list(events)
    scene.stop.signal = 0
    scene.keys.delete(NEW_KEY, *scene.keys.generations(NEW_KEY))

    with pytest.raises(RollIncomplete, match="has been deleted from the store") as caught:
        list(scene.roll.resume())

    assert "run `rackctl instances keyroll abort --rack prod`, then start another keyroll" in caught.value.hint
    assert scene.keys.names() == [OLD_KEY]
    list(scene.roll.abort())
    start(scene)
    assert NEW_KEY not in scene.key_names
    assert_given_back(scene, 3)


def test_a_key_that_was_deleted_everywhere_is_not_made_again_under_its_name() -> None:
    scene = Scene(3)
    stopped(scene, until(scene, "instance", "terminating"))
    scene.keys.delete(NEW_KEY, *scene.keys.generations(NEW_KEY))
    del scene.world.ec2.key_pairs[NEW_KEY]

    with pytest.raises(RollIncomplete, match="has been deleted from the store"):
        list(scene.roll.resume())

    assert NEW_KEY not in scene.key_pairs
    assert scene.keys.names() == [OLD_KEY]


@pytest.mark.parametrize("name", ["archive/prod-keypair-2024", "index/20260101T000000Z"])
def test_an_object_that_is_no_key_is_left_in_the_keys_place(name: str) -> None:
    scene = Scene(2)
    other = ("b", f"rackctl/prod/keys/{name}.json")
    scene.aws.objects[other] = StoredObject(b"{}", '"z"', START)
    if name.startswith("index/"):
        scene.world.ec2.import_key_pair("index", generate("index", created=START).public_key.encode(), {})

    start(scene)

    assert other in scene.aws.objects
    assert set(scene.key_names) == {NEW_KEY}
    assert ("index" in scene.key_pairs) == name.startswith("index/")


def test_a_key_that_a_launch_configuration_names_is_kept() -> None:
    scene = Scene(2)
    scene.world.autoscaling.launch_configurations["builds"] = dict(scene.template.versions[1].data)

    said = texts(start(scene))

    assert f"kept key {OLD_KEY}: launch configuration builds has it" in said
    assert OLD_KEY in scene.key_pairs


def test_a_key_of_somebody_elses_that_was_imported_outlives_a_roll() -> None:
    scene = Scene(2)
    theirs = generate("ops", created=START)
    scene.world.ec2.import_key_pair("ops", theirs.public_key.encode(), {})
    scene.keys.store(theirs)

    start(scene)

    assert set(scene.key_names) == {NEW_KEY}
    assert scene.key_pairs == set(scene.keys.names()) == {"ops", NEW_KEY}
