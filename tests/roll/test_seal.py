"""The seal of the journal: the permission to write to the bucket does not suffice to control a roll."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from rackctl.errors import AccessDenied, RackctlError
from rackctl.keys import generate
from rackctl.roll.journal import GroupRecord, TemplateRecord
from rackctl.roll.lock import STALE_AFTER
from rackctl.roll.view import RollOptions
from tests.fakes.world import START, Scene, add_group
from tests.roll.locks import ME, OTHER, created, document_of, found, lock_of, stored
from tests.roll.test_journal import journal, merged


@pytest.fixture
def scene() -> Scene:
    return Scene(0)


# The seal


def edits() -> dict[str, dict[str, Any]]:
    group = journal().dumps()["groups"]["group"]
    return {
        "a later phase": {"phase": "aborting"},
        "another key": {"key_name": "prod-keypair-20990101T000000Z"},
        "another group": {"groups": {"bank": {**group, "auto_scaling_group_name": "bank"}}},
        "a larger surge": {"groups": {"group": {"surge": 2}}},
        "a smaller capacity": {"groups": {"group": {"desired_capacity": 1}}},
        "another template": {"groups": {"group": {"templates": [{**group["templates"][0], "made": 6}]}}},
        "a process": {"groups": {"group": {"suspended": ["Launch"]}}},
        "a pending change": {"groups": {"group": {"pending": None}}},
        "an option": {"options": {"force": True}},
        "a key to delete": {"retiring": ["prod-keypair-20240102T030405Z"]},
        "an instance": {"instances": {"i-2": {"auto_scaling_group_name": "group", "phase": "draining", "since": ""}}},
        "another holder": {"owner": None},
        "a revision": {"revision": 2},
        "something drained": {"anything_drained": True},
    }


@pytest.mark.parametrize("edit", edits().values(), ids=edits().keys())
def test_a_journal_that_was_edited_without_kms_is_shown_and_not_taken(scene: Scene, edit: dict[str, Any]) -> None:
    """The permission to write to the bucket must not suffice to control `resume` or `abort`."""
    created(scene)
    stored(scene, merged(document_of(scene), {"journal": edit}))
    seen, before = found(scene), dict(scene.aws.objects)
    assert seen.journal != journal()

    with pytest.raises(RackctlError, match="its seal does not match") as caught:
        lock_of(scene).take(seen, OTHER)

    assert "find out who may write to the bucket" in caught.value.hint
    assert scene.aws.objects == before


@pytest.mark.parametrize(
    "edit",
    [
        {"rack": "bank", "key_name": "bank-keypair-20260102T030405Z"},
        {"cluster_arn": "arn:aws:ecs:eu-west-1:999999999999:cluster/prod"},
        {"started": "2026-01-02T03:04:06Z"},
    ],
)
def test_the_seal_of_one_roll_does_not_open_the_journal_of_another_rack_cluster_or_roll(
    scene: Scene, edit: dict[str, Any]
) -> None:
    """The KMS encryption context is of all three: what was sealed for one is refused by KMS for another."""
    created(scene)
    stored(scene, merged(document_of(scene), {"journal": edit}))

    with pytest.raises(AccessDenied, match="cannot open the roll's journal"):
        lock_of(scene).take(found(scene), OTHER)


def test_a_key_that_was_not_sealed_by_kms_is_refused(scene: Scene) -> None:
    created(scene)
    document = document_of(scene)
    document["sealed_key"] = base64.b64encode(b"k" * 32).decode()
    stored(scene, document)

    with pytest.raises(AccessDenied, match="cannot open the roll's journal"):
        lock_of(scene).take(found(scene), OTHER)


def test_without_kms_there_is_neither_a_new_journal_nor_a_take_over(scene: Scene) -> None:
    created(scene)
    seen = found(scene)
    denied = AccessDenied("AWS denied kms")

    def deny(*_: object, **__: object) -> bytes:
        raise denied

    scene.aws.encrypt = scene.aws.decrypt = deny  # type: ignore[method-assign]

    with pytest.raises(AccessDenied):
        lock_of(scene).take(seen, OTHER)
    scene.aws.objects.clear()
    with pytest.raises(AccessDenied):
        lock_of(scene).create(journal(), ME)
    assert scene.aws.objects == {}


# A roll with a planted journal


@pytest.mark.parametrize("way", ["resume", "abort"])
def test_a_journal_that_was_edited_makes_neither_resume_nor_abort_change_anything(way: str) -> None:
    scene = Scene(2)
    next(scene.roll.start(RollOptions()))
    scene.clock.sleep(STALE_AFTER)
    group = scene.group.name
    stored(scene, merged(document_of(scene), {"journal": {"groups": {group: {"desired_capacity": 1, "surge": 1}}}}))
    scene.aws.mutations.clear()

    assert scene.roll.status()
    with pytest.raises(RackctlError, match="its seal does not match"):
        list(getattr(scene.roll, way)())

    assert scene.aws.mutations == []
    assert scene.desired == 2


def sealed_by_somebody(scene: Scene, group: Any, **record: Any) -> None:
    """Write a journal that names a group, as a caller who may use the rack's KMS key can."""
    held = journal()
    held.cluster_arn, held.phase, held.instances = scene.aws.cluster_arn, "replacing", {}
    held.groups = {group.name: GroupRecord(group.name, group.arn, 1, 3, **record)}
    held.key_pairs = {name: pair for name, pair in held.key_pairs.items() if name in record.get("key_names", ())}
    lock = lock_of(scene)
    assert lock.create(held, OTHER)
    lock.release()
    scene.aws.mutations.clear()


@pytest.mark.parametrize("way", ["resume", "abort"])
def test_a_sealed_journal_that_names_a_group_of_another_rack_is_refused(way: str) -> None:
    scene = Scene(2)
    bank = add_group(scene, "bank", 2, Rack="bank")
    bank.desired = 3
    sealed_by_somebody(scene, bank, surge=2)

    with pytest.raises(RackctlError, match='names group bank, which is not part of rack "prod"; nothing was done'):
        list(getattr(scene.roll, way)())

    assert scene.aws.mutations == []
    assert bank.desired == 3


@pytest.mark.parametrize("way", ["resume", "abort"])
def test_a_sealed_journal_that_names_a_launch_template_of_another_rack_is_refused(way: str) -> None:
    scene = Scene(2)
    data = scene.template.versions[1].data
    template = scene.world.ec2.create_template("bank", data, {})
    scene.world.ec2.add_version(template, dict(data), source="1", description="keyroll: version 1 with key x")
    template.default_version = 2
    bank = add_group(scene, "bank", 0, Rack="bank")
    bank.launch_template = {"LaunchTemplateId": template.launch_template_id, "Version": "$Default"}
    record = TemplateRecord(template.launch_template_id, "bank", "$Default", 1, "x", 1, made=2)
    sealed_by_somebody(scene, scene.group, templates=[record])

    with pytest.raises(RackctlError, match=f"names launch template {template.launch_template_id}"):
        list(getattr(scene.roll, way)())

    assert scene.aws.mutations == []
    assert template.default_version == 2


@pytest.mark.parametrize("way", ["resume", "abort"])
def test_a_sealed_journal_that_names_a_key_pair_of_another_rack_is_refused(way: str) -> None:
    """Otherwise its "old" public key would be put in the place of the other rack's."""
    scene = Scene(2)
    bank = scene.world.ec2.import_key_pair("ops", generate("ops", created=START).public_key.encode(), {})
    scene.world.ec2.launch({"KeyName": "ops"}, tags={"Rack": "bank"})
    sealed_by_somebody(scene, scene.group, key_names=["ops"])

    with pytest.raises(RackctlError, match='names key pair ops, which is not part of rack "prod"; nothing was done'):
        list(getattr(scene.roll, way)())

    assert scene.aws.mutations == []
    assert scene.world.ec2.key_pairs["ops"] is bank


@pytest.mark.parametrize("way", ["status", "resume", "abort", "unlock"])
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"rack": "bank", "key_name": "bank-keypair-20260102T030405Z"}, 'is of rack "bank", cluster prod'),
        ({"cluster_arn": "arn:aws:ecs:us-east-1:123456789012:cluster/other"}, "cluster other in region us-east-1"),
        ({"cluster_arn": "arn:aws:ecs:eu-west-1:123456789012:cluster/prod"}, "cluster prod in region eu-west-1"),
        ({"cluster_arn": "arn:aws:ecs:us-east-1:999999999999:cluster/prod"}, "account 999999999999"),
    ],
)
def test_a_journal_of_another_rack_cluster_region_or_account_is_refused(
    way: str, changed: dict[str, str], says: str
) -> None:
    """`keyroll resume --cluster other` saw none of the tasks, and terminated every old instance at once."""
    scene, held = Scene(2), journal()
    for name, value in {"cluster_arn": scene.aws.cluster_arn, **changed}.items():
        setattr(held, name, value)
    lock = lock_of(scene)
    lock.create(held, OTHER)
    lock.release()
    found = lock_of(scene).read()
    scene.aws.mutations.clear()

    with pytest.raises(RackctlError, match=says) as caught:
        list(getattr(scene.roll, way)())

    assert 'this is rack "prod", cluster prod in region us-east-1 and account 123456789012' in str(caught.value)
    assert all(option in caught.value.hint for option in ("--rack", "--cluster", "--region"))
    assert scene.aws.mutations == []
    assert lock_of(scene).read() == found
