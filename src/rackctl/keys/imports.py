"""Import a private key from a file as a generation of EC2's key pair."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rackctl.errors import NotFound, RackctlError, UsageError
from rackctl.keys import SshKey
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Collection

    from rackctl.keys import KeyStore
    from rackctl.keys.files import KeyFile
    from rackctl.model import KeyPair, KeyType
    from rackctl.rack import Rack

_TYPES: dict[str, KeyType] = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}
# The generation of a pair whose time of creation EC2 does not report: before all others.
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Imported:
    """A stored key. ``new`` is False if the same key was stored before."""

    key: SshKey
    is_new: bool


def import_key(rack: Rack, keys: KeyStore, file: KeyFile, *, name: str = "", in_use: Collection[str] = ()) -> Imported:
    """Store a key, which must be that of EC2's key pair ``name``, or fit exactly one pair.

    If it fits several pairs, the one in ``in_use`` is chosen. Raises NotFound, UsageError, RackctlError.
    """
    key_type = _TYPES.get(file.public_key.split()[0])
    if key_type is None:
        raise UsageError(
            f"{file.key_name} is of the type {file.public_key.split()[0]}, which EC2's key pairs do not support",
            hint=f"use it without storing it: `rackctl instances ssh -i {file.key_name} ID`",
        )
    pair = _named(rack, file, name) if name else _fitting(rack, file, in_use)
    for generation, public_key in keys.public_keys(pair.key_name).items():
        if public_key == file.public_key:
            return Imported(keys.open(pair.key_name, generation), is_new=False)
    created = pair.created or _UNKNOWN
    key = SshKey(
        pair.key_name, key_type, file.public_key, created, file.private_key, reason="imported", imported=created
    )
    keys.store(key)
    return Imported(key, is_new=True)


def _named(rack: Rack, file: KeyFile, name: str) -> KeyPair:
    pair = rack.aws.ec2.key_pair(name)
    if pair is None:
        raise NotFound(f"EC2 has no key pair {name} in this region", hint="leave out --name to find the pair")
    if not fits(file, pair):
        raise RackctlError(
            f"{file.key_name} is not the key of EC2's key pair {name}: its public half differs; nothing was stored",
            hint="leave out --name to find the pair with this key, or use the file: `rackctl instances ssh -i FILE ID`",
        )
    return pair


def _fitting(rack: Rack, file: KeyFile, in_use: Collection[str]) -> KeyPair:
    pairs = [pair for pair in rack.aws.ec2.key_pairs() if fits(file, pair)]
    if not pairs:
        raise NotFound(
            f"EC2 has no key pair in this region with the key in {file.key_name}; nothing was stored",
            hint="check the region, or use the file: `rackctl instances ssh -i FILE ID`",
        )
    chosen = pairs if len(pairs) == 1 else [pair for pair in pairs if pair.key_name in in_use]
    if len(chosen) != 1:
        names = listed(sorted(pair.key_name for pair in chosen or pairs))
        raise UsageError(f"{file.key_name} is the key of {names}", hint="choose the key pair with --name")
    return chosen[0]


def fits(file: KeyFile, pair: KeyPair) -> bool:
    """Return whether a key is a pair's: by the public key, or by the fingerprint if EC2 has no public key."""
    if pair.public_key:
        return file.public_key == pair.public_key
    return pair.fingerprint.removeprefix("SHA256:").rstrip("=") in _fingerprints(file)


def _fingerprints(file: KeyFile) -> set[str]:
    """Return the fingerprints that EC2 may have for a key.

    For an RSA pair that EC2 created, the SHA-1 of the private key (PKCS#8, DER); for an imported one, the MD5 of the
    public key (DER); for Ed25519, OpenSSH's SHA-256: KeyPairInfo, KeyFingerprint, and
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-keys.html.
    """
    from cryptography.hazmat.primitives import serialization

    private = serialization.load_ssh_private_key(file.private_key, None)
    encoding, plain = serialization.Encoding.DER, serialization.NoEncryption()
    pkcs8 = private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    public = private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    openssh = hashlib.sha256(base64.b64decode(file.public_key.split()[1])).digest()
    return {
        hashlib.sha1(pkcs8, usedforsecurity=False).digest().hex(":"),
        hashlib.md5(public, usedforsecurity=False).digest().hex(":"),
        base64.b64encode(openssh).decode().rstrip("="),
    }
