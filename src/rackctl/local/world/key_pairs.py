"""EC2's key pairs."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from rackctl.local.world.base import Refused


@dataclass
class KeyPair:
    key_pair_id: str
    key_name: str
    key_type: str
    public_key: str
    fingerprint: str
    created: float
    tags: dict[str, str]


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
