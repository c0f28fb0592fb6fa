"""The generation of a key that an instance has, and those that a login tries."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from rackctl.aws.s3 import StoredObject
from rackctl.errors import NotFound
from rackctl.keys import KeyStore, OneGeneration, SharedKeyStore, SshKey, Unreadable, generate
from tests.fakes.aws import FakeAws
from tests.fakes.keys import store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAME = "prod-keypair-20260102T030405Z"
DAY = timedelta(days=1)
OPS = "ops"


@pytest.fixture(scope="module")
def key() -> SshKey:
    return generate(NAME, created=WHEN)


@pytest.fixture(scope="module")
def renewed() -> list[SshKey]:
    """A key that was renewed under its name every day."""
    return [generate(OPS, created=WHEN + DAY * number) for number in range(4)]


def stored(keys: Sequence[SshKey]) -> KeyStore:
    made = store(FakeAws())
    for key in keys:
        made.store(key)
    return made


@pytest.mark.parametrize(
    ("launched", "tried"),
    [
        (WHEN - DAY, [0, 1]),
        (WHEN, [0, 1]),
        (WHEN + DAY - timedelta(milliseconds=1), [0, 1]),
        (WHEN + DAY, [1, 0, 2]),
        (WHEN + DAY * 2.5, [2, 1, 3]),
        (WHEN + DAY * 99, [3, 2]),
    ],
)
def test_an_instance_has_the_newest_generation_until_its_launch_and_then_its_neighbours_are_tried(
    renewed: list[SshKey], launched: datetime, tried: list[int]
) -> None:
    """EC2's RunInstances gives an instance the public key that its pair has then."""
    keys = stored(renewed)

    assert list(keys.candidates(OPS, launched)) == [renewed[number] for number in tried]
    assert keys.fetch(OPS, launched) == renewed[tried[0]]


def test_a_generation_is_of_the_time_at_which_it_was_imported_if_that_is_known(key: SshKey) -> None:
    imported = replace(key, key_name=OPS, imported=WHEN + DAY + timedelta(microseconds=5))

    keys = stored([imported])

    assert keys.generations(OPS) == [WHEN + DAY]
    assert keys.open(OPS, WHEN + DAY) == replace(imported, imported=WHEN + DAY)


def test_no_generation_is_read_before_the_one_before_it_was_refused(renewed: list[SshKey]) -> None:
    aws = FakeAws()
    for key in renewed:
        store(aws).store(key)
    for number in (0, 1, 3):
        aws.objects["b", f"rackctl/prod/keys/ops/{WHEN + DAY * number:%Y%m%dT%H%M%SZ}.json"] = StoredObject(
            b"", "", WHEN
        )

    candidates = store(aws).candidates(OPS, WHEN + DAY * 2)

    assert next(candidates) == renewed[2]
    with pytest.raises(Unreadable):
        next(candidates)


def test_a_generation_that_is_deleted_after_it_was_listed_is_passed_over(renewed: list[SshKey]) -> None:
    keys = stored(renewed)
    candidates = keys.candidates(OPS, WHEN + DAY * 2)
    next(candidates)
    keys.delete(OPS, WHEN + DAY)

    assert list(candidates) == [renewed[3]]


def test_the_same_key_under_two_times_is_tried_once(key: SshKey) -> None:
    keys = stored([replace(key, key_name=OPS), replace(key, key_name=OPS, imported=WHEN + DAY)])

    assert len(keys.generations(OPS)) == 2
    assert len(list(keys.candidates(OPS, WHEN))) == 1


def test_one_generation_tries_no_neighbour(renewed: list[SshKey]) -> None:
    keys = OneGeneration(stored(renewed), WHEN + DAY)

    for launched in (WHEN - DAY, WHEN, WHEN + DAY * 3):
        assert list(keys.candidates(OPS, launched)) == [renewed[1]]
    with pytest.raises(NotFound):
        next(OneGeneration(stored(renewed), WHEN + DAY * 9).candidates(OPS, WHEN))


def test_everything_is_listed_and_only_keys_are(renewed: list[SshKey], key: SshKey) -> None:
    aws = FakeAws()
    for made in (*reversed(renewed), key):
        store(aws).store(made)
    for other in (
        "keys/ops.json",
        "keys/ops/notes.json",
        "keys/ops/20261399T000000Z.json",
        "keys/ops/a/b.json",
        "keys/.",
    ):
        aws.objects["b", f"rackctl/prod/{other}"] = StoredObject(b"{}", "", WHEN)

    assert store(aws).everything() == {OPS: [WHEN + DAY * number for number in range(4)], NAME: [WHEN]}
    assert store(aws).generations(OPS) == [WHEN + DAY * number for number in range(4)]
    assert store(aws).public_keys(OPS) == {made.created: made.public_key for made in renewed}


def test_a_key_whose_name_begins_with_another_name_is_not_a_generation_of_it(key: SshKey) -> None:
    keys = stored([replace(key, key_name="ops"), replace(key, key_name="ops2")])

    assert keys.generations("ops") == [WHEN]


def test_a_deleted_generation_leaves_the_others(renewed: list[SshKey]) -> None:
    keys = stored(renewed)

    keys.delete(OPS, WHEN + DAY)

    assert keys.generations(OPS) == [WHEN, WHEN + DAY * 2, WHEN + DAY * 3]


# Several threads


class Counting(FakeAws):
    def decrypt(self, ciphertext: bytes, context: Mapping[str, str], *, what: str, kms_key: str = "") -> bytes:
        self.calls.append("decrypt")
        return super().decrypt(ciphertext, context, what=what, kms_key=kms_key)

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        self.calls.append(f"list {prefix}")
        return super().keys(bucket, prefix)


def shared(aws: FakeAws) -> SharedKeyStore:
    return SharedKeyStore(store(aws)._rack)


def test_several_threads_list_and_open_each_key_once(renewed: list[SshKey], key: SshKey) -> None:
    aws = Counting()
    for made in (renewed[0], renewed[1], key):
        store(aws).store(made)
    keys = shared(aws)

    with ThreadPoolExecutor(4) as pool:
        asked = [(OPS, WHEN), (OPS, WHEN + DAY), (NAME, WHEN), (OPS, WHEN)]
        got = list(pool.map(lambda instance: keys.fetch(*instance), asked))

    assert got == [renewed[0], renewed[1], key, renewed[0]]
    assert Counter(aws.calls) == Counter({"decrypt": 3, "list rackctl/prod/keys/": 1})


def test_an_error_with_a_key_is_one_for_all_threads() -> None:
    keys = shared(FakeAws())

    for _ in range(2):
        with pytest.raises(NotFound):
            keys.fetch(OPS, WHEN)
