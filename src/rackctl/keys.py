"""SSH keys: made here, sealed by KMS, kept in S3, one for each EC2 key pair."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rackctl.errors import NotFound, RackctlError, UsageError

if TYPE_CHECKING:
    from rackctl.model import KeyType
    from rackctl.rack import Rack

_FORMAT_VERSION = 2
_RSA_BITS = 4096


@dataclass(frozen=True, slots=True)
class SshKey:
    """An SSH key pair. ``private_key`` is in OpenSSH's format, unencrypted, and exists in memory only.

    ``public_key`` is ``TYPE BASE64``, as in an authorized_keys file; ``fingerprint`` is OpenSSH's SHA-256 form.
    """

    key_name: str
    key_type: KeyType
    public_key: str
    created: datetime
    private_key: bytes = field(repr=False)
    reason: str = ""

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.public_key.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class Unreadable(RackctlError):
    """What stands in a stored key's place is none that this rackctl can read."""


def key_name(rack: str, created: datetime) -> str:
    """Name a new key of a rack; such names sort by age."""
    return f"{rack}-keypair-{created.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def is_key_name(rack: str, name: str) -> bool:
    """Tell whether a key's name is one that `key_name` makes for this rack."""
    return bool(re.fullmatch(rf"{re.escape(rack)}-keypair-\d{{8}}T\d{{6}}Z", name, re.ASCII))


def generate(name: str, *, created: datetime, key_type: KeyType = "ed25519", reason: str = "") -> SshKey:
    """Make a new key pair: Ed25519, or RSA of 4,096 bits."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    forbid_core_files()
    private: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey = (
        ed25519.Ed25519PrivateKey.generate()
        if key_type == "ed25519"
        else rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    )
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return SshKey(
        key_name=name,
        key_type=key_type,
        public_key=public.decode("ascii"),
        created=created,
        reason=reason,
        private_key=private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        ),
    )


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A stored key as it is in the bucket. Any writer of the bucket may have put it there."""

    key_type: KeyType
    created: datetime
    reason: str
    fingerprint: str
    private_key: bytes = field(repr=False)


class KeyStore:
    """The keys of one rack, in its bucket.

    Each is one object, ``<prefix>/keys/<key name>.json``, written once and never changed. Its private half is
    what KMS `Encrypt` returned, bound to the rack's and the key's name and to the fingerprint by the encryption
    context. The public half is not stored: it is derived from the private half that KMS has opened, so that
    write access to the bucket alone puts no other key in its place.
    """

    def __init__(self, rack: Rack) -> None:
        self._rack = rack

    def store(self, key: SshKey) -> None:
        """Seal a key and store it. Storing the same key again does no harm; another by its name is refused."""
        rack = self._rack
        sealed = rack.aws.kms.encrypt(
            rack.kms_key,
            key.private_key,
            self._context(key.key_name, key.fingerprint),
            what=f"SSH key {key.key_name}",
        )
        document = {
            "version": _FORMAT_VERSION,
            "key_name": key.key_name,
            "type": key.key_type,
            "fingerprint": key.fingerprint,
            "created": key.created.astimezone(UTC).isoformat(timespec="seconds"),
            "reason": key.reason,
            "private_key": base64.b64encode(sealed).decode("ascii"),
        }
        where = self._object(key.key_name)
        if rack.store.create(where, json.dumps(document, indent=2).encode()) is not None:
            return
        stored = self._read(key.key_name)
        if stored is None or stored.fingerprint != key.fingerprint:
            raise RackctlError(f"another SSH key is stored as {rack.store.url(where)}; nothing was overwritten")

    def fetch(self, name: str) -> SshKey:
        """Return a key, opened by KMS. Raises NotFound, AccessDenied or RackctlError, each with the remedy."""
        if not name:
            raise _no_key("the instance was launched without an SSH key")
        sealed = self._read(name)
        if sealed is None:
            raise _no_key(f"the instance's key pair is {name}, and there is no {self._url(name)}")
        return self._open(name, sealed)

    def public_key(self, name: str) -> str | None:
        """Return the public half of a stored key; None when there is no such key. Raises as `fetch` does."""
        sealed = self._read(name)
        return self._open(name, sealed).public_key if sealed else None

    def names(self) -> list[str]:
        """Return the names of the stored keys, oldest first."""
        prefix = f"{self._rack['prefix']}/keys/"
        stored = self._rack.store.keys(prefix)
        names = (key.removeprefix(prefix).removesuffix(".json") for key in stored if key.endswith(".json"))
        return sorted(name for name in names if _is_name(name))

    def delete(self, name: str) -> None:
        """Delete a key; one that is not there is no error."""
        self._rack.store.delete(self._object(name))

    def _open(self, name: str, sealed: _Sealed) -> SshKey:
        forbid_core_files()
        private_key = self._rack.aws.kms.decrypt(
            sealed.private_key,
            self._context(name, sealed.fingerprint),
            what=f"SSH key {name}",
            kms_key=self._rack.kms_key,
        )
        key = SshKey(name, sealed.key_type, _public_half(private_key), sealed.created, private_key, sealed.reason)
        if key.fingerprint != sealed.fingerprint:
            raise Unreadable(f"{self._url(name)} names another fingerprint than its key has")
        return key

    def _read(self, name: str) -> _Sealed | None:
        stored = self._rack.store.get(self._object(name))
        if stored is None:
            return None
        try:
            document = json.loads(stored.body)
            version = document["version"]
            if version == _FORMAT_VERSION:
                if not isinstance(document["fingerprint"], str) or not isinstance(document.get("reason", ""), str):
                    raise TypeError("a text is expected")
                return _Sealed(
                    key_type=document["type"],
                    created=datetime.fromisoformat(document["created"]),
                    reason=document.get("reason", ""),
                    fingerprint=document["fingerprint"],
                    private_key=base64.b64decode(document["private_key"], validate=True),
                )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Unreadable(f"{self._url(name)} is not an SSH key that rackctl has stored ({error})") from error
        raise Unreadable(
            f"{self._url(name)} has format version {version}; this rackctl reads version {_FORMAT_VERSION}",
            hint="update rackctl",
        )

    def _object(self, name: str) -> str:
        if not _is_name(name):
            raise UsageError(f'"{name}" cannot be the name of a stored SSH key')
        return f"{self._rack['prefix']}/keys/{name}.json"

    def _url(self, name: str) -> str:
        return self._rack.store.url(self._object(name))

    def _context(self, name: str, fingerprint: str) -> dict[str, str]:
        return {
            "rackctl:rack": self._rack.name,
            "rackctl:key-name": name,
            "rackctl:fingerprint": fingerprint,
        }


def _public_half(private_key: bytes) -> str:
    """Derive ``TYPE BASE64`` from a private key in OpenSSH's format. Raises Unreadable."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        public = serialization.load_ssh_private_key(private_key, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unreadable(f"what KMS has opened is not an SSH key ({error})") from error
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode("ascii")


def _is_name(name: str) -> bool:
    # EC2 allows nearly any character in a key pair's name; S3 keys and our prefix do not mean the same by all.
    return bool(re.fullmatch(r"[\w .@+=:,()-]{1,255}", name, re.ASCII)) and not name.startswith(".")


def _no_key(why: str) -> NotFound:
    return NotFound(
        "no instance key found. Did you forget to run `rackctl instances keyroll`?",
        hint=f"{why}; a keyroll replaces the rack's instances by ones with a key of rackctl's own",
    )


def forbid_core_files() -> None:
    """Keep this process's memory out of core files, and from other processes of the same user."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if sys.platform == "linux":
        import ctypes

        # A core_pattern that is a pipe ignores the limit; it heeds this. prctl(2), PR_SET_DUMPABLE.
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
