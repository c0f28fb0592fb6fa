"""The public key that an instance has, and when a new pair takes effect: tables of times by EC2's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rackctl.model import Instance, KeyPair
from rackctl.roll.reasons.pairs import KeyPairRecord, doubtful, next_step, which_key

IMPORTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RESTORED = IMPORTED + timedelta(minutes=10)
OLD, NEW, THIRD = "ssh-rsa old", "ssh-rsa new", "ssh-rsa third"


def record(*, restored: bool = False, created: bool = True, unsure: tuple[str, ...] = ()) -> KeyPairRecord:
    return KeyPairRecord(
        "ops", "key-1", OLD, {}, new_public_key=NEW, created=IMPORTED.isoformat() if created else "",
        restored=RESTORED.isoformat() if restored else "", doubtful=[*unsure],
    )  # fmt: skip


def instance(seconds: float, *, started: float | None = None) -> Instance:
    """Make an instance that was launched so many seconds after the import, and perhaps started again later."""
    launched = IMPORTED + timedelta(seconds=seconds)
    last = launched if started is None else IMPORTED + timedelta(seconds=started)
    return Instance("i-1", "running", last, key_name="ops", attach_time=launched)


@pytest.mark.parametrize(
    ("pair", "launched", "has"),
    [
        (record(), instance(-60), "old"),
        (record(), instance(-1), "old"),
        # EC2 tells whole seconds: before the deletion of the one, or after the import of the other.
        (record(), instance(0), "unknown"),
        (record(), instance(1), "new"),
        (record(), instance(600), "new"),
        # DescribeInstances, LaunchTime: "The time that the instance was last launched."
        (record(), instance(-60, started=600), "old"),
        (record(unsure=("i-1",)), instance(5), "unknown"),
        (record(created=False), instance(600), "old"),
        (record(restored=True), instance(-60), "old"),
        (record(restored=True), instance(1), "new"),
        (record(restored=True), instance(599), "new"),
        (record(restored=True), instance(600), "unknown"),
        (record(restored=True), instance(601), "old"),
        (record(restored=True, created=False), instance(601), "old"),
    ],
)
def test_an_instance_has_the_public_key_that_the_name_had_at_its_first_launch(
    pair: KeyPairRecord, launched: Instance, has: str
) -> None:
    assert which_key(pair, launched) == has


@pytest.mark.parametrize(
    ("there", "wanted", "other", "step"),
    [
        (None, NEW, OLD, "import"),
        (KeyPair("ops", OLD), NEW, OLD, "delete"),
        (KeyPair("ops", NEW), NEW, OLD, "done"),
        (KeyPair("ops", NEW), OLD, NEW, "delete"),
        (KeyPair("ops", OLD), OLD, NEW, "done"),
        (KeyPair("ops", THIRD), NEW, OLD, "foreign"),
        (KeyPair("ops", THIRD), OLD, NEW, "foreign"),
        # Without its public key nothing is known of it.
        (KeyPair("ops"), NEW, OLD, "foreign"),
    ],
)
def test_only_the_other_one_of_the_two_public_keys_is_ever_deleted(
    there: KeyPair | None, wanted: str, other: str, step: str
) -> None:
    assert next_step(there, wanted, other) == step


@pytest.mark.parametrize(("restored", "since"), [(False, 0), (True, 600)])
def test_what_was_launched_since_the_last_import_is_in_doubt(restored: bool, since: float) -> None:
    found = doubtful(record(restored=restored), [instance(since - 1), instance(since), instance(since + 1)])

    assert found == ["i-1", "i-1"]
