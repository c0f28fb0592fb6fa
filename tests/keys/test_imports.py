"""A key in a file is stored only as a generation of its own key pair."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import NotFound, RackctlError, UsageError
from rackctl.keys.files import KeyFile, read_key_file
from rackctl.keys.imports import fits, import_key
from rackctl.model import KeyPair
from tests.fakes.aws import FakeAws
from tests.fakes.keys import store

if TYPE_CHECKING:
    from pathlib import Path

CREATED = datetime(2025, 6, 7, 8, 9, 10, tzinfo=UTC)


@dataclass
class Pairs(FakeAws):
    pairs: list[KeyPair] = field(default_factory=list)

    def key_pair(self, name: str) -> KeyPair | None:
        return next((pair for pair in self.pairs if pair.key_name == name), None)

    def key_pairs(self) -> list[KeyPair]:
        return self.pairs


def key_file(path: Path, *options: str) -> KeyFile:
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", path, *(options or ("-t", "ed25519"))], check=True)
    return read_key_file(str(path), lambda _: b"")


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return key_file(tmp_path / "ops.pem")


def pair(file: KeyFile, name: str = "ops", created: datetime | None = CREATED) -> KeyPair:
    return KeyPair(name, file.public_key, created=created)


@pytest.mark.parametrize("name", ["", "ops"])
def test_a_key_is_stored_as_of_the_time_at_which_ec2_got_it(file: KeyFile, name: str) -> None:
    aws = Pairs(pairs=[KeyPair("other", "ssh-ed25519 AAAA"), pair(file)])
    keys = store(aws)

    imported = import_key(keys._rack, keys, file, name=name)

    assert imported.is_new
    assert keys.everything() == {"ops": [CREATED]}
    stored = keys.open("ops", CREATED)
    assert (stored.public_key, stored.private_key, stored.key_type) == (file.public_key, file.private_key, "ed25519")
    assert (stored.imported, stored.reason) == (CREATED, "imported")


def test_importing_again_does_no_harm(file: KeyFile) -> None:
    aws = Pairs(pairs=[pair(file)])
    keys = store(aws)
    import_key(keys._rack, keys, file)
    before = dict(aws.objects)

    again = import_key(keys._rack, keys, file)

    assert not again.is_new
    assert aws.objects == before


def test_a_key_that_rackctl_stored_itself_gets_no_second_generation(file: KeyFile) -> None:
    aws = Pairs(pairs=[pair(file)])
    keys = store(aws)
    first = import_key(keys._rack, keys, file).key
    aws.pairs = [pair(file, created=datetime(2026, 1, 1, tzinfo=UTC))]

    assert import_key(keys._rack, keys, file).key.generation == first.generation
    assert keys.generations("ops") == [CREATED]


def test_another_key_than_the_pairs_is_refused(file: KeyFile, tmp_path: Path) -> None:
    aws = Pairs(pairs=[pair(key_file(tmp_path / "theirs"))])
    keys = store(aws)

    with pytest.raises(RackctlError, match="is not the key of EC2's key pair ops"):
        import_key(keys._rack, keys, file, name="ops")
    with pytest.raises(NotFound, match="EC2 has no key pair in this region with the key"):
        import_key(keys._rack, keys, file)
    with pytest.raises(NotFound, match="EC2 has no key pair none"):
        import_key(keys._rack, keys, file, name="none")
    assert aws.objects == {}


def test_of_several_pairs_that_fit_the_one_of_the_instances_is_taken(file: KeyFile) -> None:
    aws = Pairs(pairs=[pair(file, "copy"), pair(file, "ops")])
    keys = store(aws)

    for in_use in ((), ("copy", "ops")):
        with pytest.raises(UsageError, match="is the key of copy and ops"):
            import_key(keys._rack, keys, file, in_use=in_use)
    assert import_key(keys._rack, keys, file, in_use=("ops", "third")).key.key_name == "ops"


def test_an_ecdsa_key_is_no_key_pairs(tmp_path: Path) -> None:
    """ImportKeyPair: "supported key types: RSA and ED25519" (EC2's user guide, create-key-pairs)."""
    keys = store(Pairs())

    with pytest.raises(UsageError, match="EC2's key pairs do not support"):
        import_key(keys._rack, keys, key_file(tmp_path / "ecdsa", "-t", "ecdsa"))


def test_a_pair_without_a_time_of_creation_comes_before_all_others(file: KeyFile) -> None:
    keys = store(Pairs(pairs=[pair(file, created=None)]))

    assert import_key(keys._rack, keys, file).key.generation == datetime(1970, 1, 1, tzinfo=UTC)


def test_an_rsa_key_of_4096_bits_fits_into_what_kms_encrypts(tmp_path: Path) -> None:
    """KMS Encrypt, Plaintext: 4,096 bytes at most. EC2 imports no larger RSA keys than of 4,096 bits."""
    file = key_file(tmp_path / "rsa", "-t", "rsa", "-b", "4096", "-m", "PEM")

    assert len(file.private_key) <= 4096


# EC2's fingerprints, by the commands of https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-keys.html


def of_openssl(path: Path, *conversion: str, digest: str) -> str:
    der = subprocess.run(["openssl", *conversion, "-in", path, "-outform", "DER"], check=True, capture_output=True)
    ran = subprocess.run(["openssl", digest, "-c"], input=der.stdout, check=True, capture_output=True)
    return ran.stdout.split()[-1].decode()


def of(path: Path, made_by: str) -> str:
    if made_by == "ec2":
        return of_openssl(path, "pkcs8", "-inform", "PEM", "-topk8", "-nocrypt", digest="sha1")
    if made_by == "import":
        return of_openssl(path, "rsa", "-pubout", digest="md5")
    return subprocess.run(["ssh-keygen", "-l", "-f", path], check=True, capture_output=True, text=True).stdout.split()[
        1
    ]


@pytest.mark.parametrize("made_by", ["ec2", "import", "openssh"])
def test_where_ec2_shows_no_public_key_its_fingerprint_is_compared(made_by: str, tmp_path: Path) -> None:
    options = ("-t", "ed25519") if made_by == "openssh" else ("-t", "rsa", "-b", "2048", "-m", "PEM")
    file = key_file(tmp_path / "key", *options)
    other = key_file(tmp_path / "other", *options)
    fingerprint = of(tmp_path / "key", made_by)

    assert fits(file, KeyPair("ops", fingerprint=fingerprint))
    assert not fits(other, KeyPair("ops", fingerprint=fingerprint))
    # As DescribeKeyPairs writes it: without the name of the digest, and padded.
    if made_by == "openssh":
        assert fits(file, KeyPair("ops", fingerprint=fingerprint.removeprefix("SHA256:") + "="))


@pytest.mark.parametrize("fingerprint", ["", "SHA256:", "="])
def test_an_empty_fingerprint_fits_no_key(file: KeyFile, fingerprint: str) -> None:
    assert not fits(file, KeyPair("ops", fingerprint=fingerprint))
