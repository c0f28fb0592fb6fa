"""EC2's key pairs: the current ones, and the former ones that EC2 may still use."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from rackctl.local.world.base import Commons


# Recent changes of key pairs.
_REMEMBERED = 100


@dataclass
class KeyPair:
    key_pair_id: str
    key_name: str
    key_type: str
    public_key: str
    fingerprint: str
    created: float
    tags: dict[str, str]


class KeyPairs(dict[str, KeyPair]):
    """The key pairs by their names.

    Recent deletions and imports are kept. Under the condition `key-pairs-late`, EC2 launches with the pairs of some
    seconds ago, and every other call describes those.
    """

    def __init__(self, world: Commons) -> None:
        super().__init__()
        self._world = world
        self._past: list[tuple[float, str, KeyPair | None]] = []
        self._described = 0

    def change(self, name: str, pair: KeyPair | None) -> None:
        """Replace the pair of a name, or delete it."""
        self._past = [*self._past[-_REMEMBERED:], (self._world.now, name, self.get(name))]
        if pair is None:
            self.pop(name, None)
        else:
            self[name] = pair
        self._world.changed()

    def to_launch_with(self, name: str) -> KeyPair | None:
        """Return the pair whose public key an instance gets if it is launched now."""
        return self._late().get(name)

    def to_describe(self) -> dict[str, KeyPair]:
        """Return the pairs that a call describes now."""
        self._described += 1
        return self._late() if self._described % 2 else dict(self)

    def is_taken(self, name: str) -> bool:
        """Return whether EC2 refuses to import a pair under this name."""
        return name in self or name in self._late()

    def _late(self) -> dict[str, KeyPair]:
        since = self._world.now - float(self._world.conditions.get("key-pairs-late") or 0) / self._world.speed
        then = dict(self)
        for at, name, before in reversed(self._past):
            if at <= since:
                break
            if before is None:
                then.pop(name, None)
            else:
                then[name] = before
        return then


def read_public_key(material: bytes) -> tuple[str, str, str]:
    """Return the type, the one-line form and the fingerprint, in AWS's two forms, of an OpenSSH public key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

    try:
        key = load_ssh_public_key(material)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Refused("InvalidKey.Format", "Key is not in valid OpenSSH public key format") from error
    text = b" ".join(material.split()[:2]).decode("ascii")
    if isinstance(key, Ed25519PublicKey):
        digest = hashlib.sha256(base64.b64decode(text.split()[1])).digest()
        return "ed25519", text, base64.b64encode(digest).decode()
    if isinstance(key, RSAPublicKey) and key.key_size >= 1024:
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        md5 = hashlib.md5(der, usedforsecurity=False).hexdigest()
        return "rsa", text, ":".join(md5[at : at + 2] for at in range(0, 32, 2))
    raise Refused("InvalidKey.Format", "Key is not in valid OpenSSH public key format")
