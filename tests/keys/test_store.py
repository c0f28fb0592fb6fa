"""Keys are generated, sealed, stored once, and decrypted only for their own rack and name."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from rackctl.aws.s3 import StoredObject
from rackctl.errors import AccessDenied, NotFound, RackctlError, UsageError
from rackctl.keys import (
    KeyStore,
    SshKey,
    Unreadable,
    generate,
    is_key_name,
    key_name,
)
from tests.fakes.aws import FakeAws
from tests.fakes.keys import store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAME = "prod-keypair-20260102T030405Z"
OBJECT = ("b", f"rackctl/prod/keys/{NAME}/20260102T030405Z.json")
WELL_FORMED = {
    "version": 3,
    "type": "rsa",
    "fingerprint": "x",
    "created": "2026-01-02",
    "imported": None,
    "reason": "",
    "private_key": "AAAA",
}


@pytest.fixture(scope="module")
def key() -> SshKey:
    return generate(NAME, created=WHEN)


def test_names_of_keys_sort_by_age_in_any_time_zone() -> None:
    tokyo = timezone(timedelta(hours=9))

    assert key_name("prod", WHEN) == NAME
    assert key_name("prod", WHEN.astimezone(tokyo)) == NAME
    assert key_name("prod", WHEN + timedelta(seconds=1)) > NAME


@pytest.mark.parametrize(
    ("rack", "name", "is_its"),
    [
        ("prod", NAME, True),
        ("pro", NAME, False),
        ("prod-keypair", NAME, False),
        ("p.od", NAME, False),
        ("prod", "prod-keypair-mine", False),
        ("prod", f"{NAME}.json", False),
        ("prod", f"{NAME}\n", False),
    ],
)
def test_a_racks_own_key_is_known_by_its_name(rack: str, name: str, is_its: bool) -> None:
    assert is_key_name(rack, name) is is_its


@pytest.mark.parametrize(("kind", "begins"), [("ed25519", "ssh-ed25519 AAAA"), ("rsa", "ssh-rsa AAAA")])
def test_openssh_reads_the_private_key_and_finds_the_same_public_half_and_fingerprint(
    kind: str, begins: str, tmp_path: Path
) -> None:
    made = generate(NAME, created=WHEN, key_type=kind)  # type: ignore[arg-type]
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_bytes(made.private_key)

    public = subprocess.run(["ssh-keygen", "-y", "-f", path], check=True, capture_output=True, text=True).stdout
    listed = subprocess.run(["ssh-keygen", "-l", "-f", path], check=True, capture_output=True, text=True).stdout

    assert made.public_key.startswith(begins)
    assert public.split()[:2] == made.public_key.split()
    assert made.fingerprint in listed
    assert (kind != "rsa") or listed.startswith("4096 ")


def test_an_rsa_key_fits_into_what_kms_encrypts() -> None:
    assert len(generate(NAME, created=WHEN, key_type="rsa").private_key) <= 4096


def test_the_private_half_shows_in_no_representation(key: SshKey) -> None:
    assert "PRIVATE" not in repr(key)
    assert "PRIVATE" not in str(key)


def test_a_key_that_was_stored_comes_back_whole(key: SshKey) -> None:
    aws = FakeAws()
    store(aws).store(replace(key, reason="yearly"))

    fetched = store(aws).fetch(NAME, WHEN)

    assert fetched == replace(key, reason="yearly")
    load_ssh_private_key(fetched.private_key, None)


def test_a_stored_object_has_the_documented_shape_and_neither_half_of_the_key(key: SshKey) -> None:
    aws = FakeAws()
    store(aws).store(key)

    body = aws.objects[OBJECT].body
    document = json.loads(body)

    assert {k: v for k, v in document.items() if k != "private_key"} == {
        "version": 3,
        "key_name": NAME,
        "type": "ed25519",
        "fingerprint": key.fingerprint,
        "created": "2026-01-02T03:04:05+00:00",
        "imported": None,
        "reason": "",
    }
    assert b"OPENSSH" not in body
    assert key.public_key.split()[1].encode() not in body


def test_storing_the_same_key_again_does_no_harm(key: SshKey) -> None:
    aws = FakeAws()
    store(aws).store(key)
    store(aws).store(key)

    assert store(aws).names() == [NAME]


def test_another_key_by_the_same_name_is_refused_and_the_first_stays(key: SshKey) -> None:
    aws = FakeAws()
    store(aws).store(key)

    with pytest.raises(RackctlError, match="nothing was overwritten"):
        store(aws).store(generate(NAME, created=WHEN))

    assert store(aws).fetch(NAME, WHEN) == key


def test_a_key_sealed_for_one_rack_does_not_open_for_another(key: SshKey) -> None:
    aws = FakeAws()
    store(aws).store(key)

    with pytest.raises(AccessDenied, match=NAME):
        store(aws, rack="staging", prefix="rackctl/prod").fetch(NAME, WHEN)


def test_a_key_moved_to_another_name_does_not_open(key: SshKey) -> None:
    aws = FakeAws()
    store(aws).store(key)
    aws.objects["b", "rackctl/prod/keys/other/20260102T030405Z.json"] = aws.objects[OBJECT]

    with pytest.raises(AccessDenied, match="other"):
        store(aws).fetch("other", WHEN)


def test_a_generation_moved_to_another_time_does_not_open(key: SshKey) -> None:
    """Otherwise an old key, whose private half a former user may have, could replace the new one of the name."""
    aws = FakeAws()
    store(aws).store(key)
    aws.objects["b", f"rackctl/prod/keys/{NAME}/20260202T030405Z.json"] = aws.objects[OBJECT]

    assert store(aws).open(NAME, WHEN) == key
    with pytest.raises(AccessDenied, match=NAME):
        store(aws).open(NAME, WHEN.replace(month=2))


# A writer of the bucket, or of another bucket


def planted(aws: FakeAws, **changed: str) -> None:
    """Change fields of the stored key, as a caller with s3:PutObject can."""
    document = json.loads(aws.objects[OBJECT].body)
    aws.objects[OBJECT] = StoredObject(json.dumps({**document, **changed}).encode(), '"2"', WHEN)


def test_a_public_key_that_was_planted_beside_a_stored_key_is_not_read(key: SshKey) -> None:
    """It would be imported into EC2, and its owner could log in to every new instance."""
    aws = FakeAws()
    store(aws).store(key)
    planted(aws, public_key=generate(NAME, created=WHEN).public_key)

    assert store(aws).public_keys(NAME) == {WHEN: key.public_key}
    assert store(aws).fetch(NAME, WHEN).public_key == key.public_key


def test_a_stored_key_whose_fingerprint_was_changed_does_not_open(key: SshKey) -> None:
    aws = FakeAws()
    store(aws).store(key)
    planted(aws, fingerprint=generate(NAME, created=WHEN).fingerprint)

    for ask in OPENS:
        with pytest.raises(AccessDenied, match=NAME):
            ASKS[ask](store(aws), key)


def test_a_planted_key_that_kms_has_not_sealed_does_not_open(key: SshKey) -> None:
    aws, other = FakeAws(), generate(NAME, created=WHEN)
    store(aws).store(key)
    planted(
        aws,
        public_key=other.public_key,
        fingerprint=other.fingerprint,
        private_key=base64.b64encode(other.private_key).decode(),
    )

    for ask in OPENS:
        with pytest.raises(AccessDenied, match=NAME):
            ASKS[ask](store(aws), key)


def sealed(aws: FakeAws, private_key: bytes, fingerprint: str) -> None:
    """Store a key sealed by a caller who may use the rack's KMS key."""
    context = {
        "rackctl:rack": "prod",
        "rackctl:key-name": NAME,
        "rackctl:generation": "20260102T030405Z",
        "rackctl:fingerprint": fingerprint,
    }
    ciphertext = aws.encrypt("alias/k", private_key, context, what="")
    document = {**WELL_FORMED, "fingerprint": fingerprint, "private_key": base64.b64encode(ciphertext).decode()}
    aws.objects[OBJECT] = StoredObject(json.dumps(document).encode(), '"1"', WHEN)


def test_the_encryption_context_names_the_rack_the_key_its_generation_and_its_fingerprint(key: SshKey) -> None:
    """KMS has it in CloudTrail and in key policies, and opens nothing for another one."""
    aws = FakeAws()

    sealed(aws, key.private_key, key.fingerprint)

    assert store(aws).fetch(NAME, WHEN).private_key == key.private_key


def test_a_key_that_has_another_fingerprint_than_it_was_sealed_with_is_unreadable(key: SshKey) -> None:
    aws = FakeAws()
    sealed(aws, key.private_key, generate(NAME, created=WHEN).fingerprint)

    with pytest.raises(Unreadable, match="has another fingerprint than its key"):
        store(aws).fetch(NAME, WHEN)


@pytest.mark.parametrize("private_key", [b"", b"not a key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
def test_a_plaintext_that_is_not_an_ssh_key_is_unreadable(private_key: bytes) -> None:
    aws = FakeAws()
    sealed(aws, private_key, "SHA256:x")

    with pytest.raises(Unreadable, match="is not an SSH key"):
        store(aws).public_keys(NAME)


ASKS: dict[str, Callable[[KeyStore, SshKey], object]] = {
    "store": lambda keys, key: keys.store(key),
    "fetch": lambda keys, _: keys.fetch(NAME, WHEN),
    "open": lambda keys, _: keys.open(NAME, WHEN),
    "public_keys": lambda keys, _: keys.public_keys(NAME),
    "generations": lambda keys, _: keys.generations(NAME),
    "names": lambda keys, _: keys.names(),
    "delete": lambda keys, _: keys.delete(NAME, WHEN),
}


OPENS = ("fetch", "open", "public_keys")


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_bucket_of_another_account_than_the_clusters_is_denied(
    ask: Callable[[KeyStore, SshKey], object], key: SshKey
) -> None:
    """A tag of the cluster may name the bucket: the next private key would go to the bucket of any caller who can set
    that tag.

    PutObjectRequest.ExpectedBucketOwner, in botocore's S3 model: "If the account ID that you provide does not match the
    actual owner of the bucket, the request fails with the HTTP status code 403 Forbidden (access denied)."
    """
    aws = FakeAws(bucket_owners={"b": "999999999999"})

    with pytest.raises(AccessDenied, match="bucket b"):
        ask(store(aws), key)
    assert aws.objects == {}


def test_a_bucket_of_another_account_is_used_if_the_user_has_named_that_account(key: SshKey) -> None:
    aws = FakeAws(bucket_owners={"b": "999999999999"})
    keys = store(aws, bucket_owner="999999999999")

    keys.store(key)

    assert keys.fetch(NAME, WHEN) == key


# Missing objects and invalid keys


@pytest.mark.parametrize(
    ("name", "why"), [("", "launched without an SSH key"), ("mine", "there is no key in s3://b/rackctl")]
)
def test_without_a_key_the_message_is_the_one_convox_had_and_says_why(name: str, why: str) -> None:
    with pytest.raises(NotFound) as caught:
        store(FakeAws()).fetch(name, WHEN)

    assert str(caught.value) == "no instance key found. Did you forget to run `rackctl instances keyroll`?"
    assert why in caught.value.hint


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"not json", "is not an SSH key that rackctl has stored"),
        (b"[]", "is not an SSH key that rackctl has stored"),
        (b"{}", "is not an SSH key that rackctl has stored"),
        (b'{"version": 4}', "format version 4; this rackctl reads version 3"),
        (b'{"version": 3}', "is not an SSH key that rackctl has stored"),
        *(
            (json.dumps({**WELL_FORMED, **wrong}).encode(), "is not an SSH key that rackctl has stored")
            for wrong in (
                {"private_key": "%"},
                {"private_key": 5},
                {"fingerprint": 5},
                {"reason": 5},
                {"created": "now"},
                {"imported": 5},
            )
        ),
    ],
)
def test_an_object_that_is_no_key_of_ours_is_named(body: bytes, says: str) -> None:
    aws = FakeAws(objects={OBJECT: StoredObject(body, '"1"', WHEN)})

    with pytest.raises(RackctlError, match="s3://b/rackctl/prod/keys/") as caught:
        store(aws).fetch(NAME, WHEN)

    assert says in str(caught.value)


@pytest.mark.parametrize("name", ["../other/keys/k", "a/b", ".hidden", "new\nline", "x" * 256])
def test_a_key_pair_whose_name_would_leave_the_prefix_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        store(FakeAws()).fetch(name, WHEN)


def test_names_are_listed_oldest_first_and_only_keys_are(key: SshKey) -> None:
    aws = FakeAws()
    aws.objects["b", "rackctl/prod/roll.json"] = StoredObject(b"", "", WHEN)
    for age in (3, 1, 2):
        store(aws).store(replace(key, key_name=key_name("prod", WHEN - timedelta(days=age))))

    assert store(aws).names() == sorted(store(aws).names())
    assert len(store(aws).names()) == 3


def test_a_deleted_key_is_gone_and_deleting_it_again_is_no_error(key: SshKey) -> None:
    aws = FakeAws()
    store(aws).store(key)
    store(aws).delete(NAME, WHEN)
    store(aws).delete(NAME, WHEN)

    assert store(aws).names() == []


def test_a_rack_without_a_bucket_says_how_to_set_one(key: SshKey) -> None:
    with pytest.raises(NotFound, match="has no bucket"):
        store(FakeAws(), bucket="").store(key)
