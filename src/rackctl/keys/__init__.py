"""SSH keys, generated or imported: every generation of each EC2 key pair, sealed by KMS and stored in S3."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from rackctl.errors import NotFound, RackctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rackctl.model import KeyType
    from rackctl.rack import Rack

T = TypeVar("T")

_FORMAT_VERSION = 3
_RSA_BITS = 4096
_TIME = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class SshKey:
    """An SSH key pair. ``private_key`` is in OpenSSH's format, unencrypted, and exists in memory only.

    ``public_key`` is ``TYPE BASE64``, as in an authorized_keys file; ``fingerprint`` is OpenSSH's SHA-256 form.
    ``imported`` is the time at which EC2 got the public half; None if that was not known when the key was stored.
    """

    key_name: str
    key_type: KeyType
    public_key: str
    created: datetime
    private_key: bytes = field(repr=False)
    reason: str = ""
    imported: datetime | None = None

    @property
    def generation(self) -> datetime:
        """The time, in whole seconds, from which instances are launched with this key."""
        return (self.imported or self.created).astimezone(UTC).replace(microsecond=0)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(base64.b64decode(self.public_key.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


class Unreadable(RackctlError):
    """An object in the place of a stored key is not a key that this rackctl can read."""


def key_name(rack: str, created: datetime) -> str:
    """Return the name of a new key of a rack; such names sort by age."""
    return f"{rack}-keypair-{created.astimezone(UTC):{_TIME}}"


def is_key_name(rack: str, name: str) -> bool:
    """Return whether a name has the form that `key_name` returns for this rack."""
    return bool(re.fullmatch(rf"{re.escape(rack)}-keypair-\d{{8}}T\d{{6}}Z", name, re.ASCII))


def generate(name: str, *, created: datetime, key_type: KeyType = "ed25519", reason: str = "") -> SshKey:
    """Generate a key pair: Ed25519, or RSA of 4,096 bits."""
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


def expected(generations: Sequence[datetime], launched: datetime) -> datetime:
    """Return the generation that an instance is expected to have: the newest before its launch, else the oldest."""
    return max((g for g in generations if g <= launched), default=min(generations))


def in_order(generations: Sequence[datetime], launched: datetime) -> list[datetime]:
    """Return the generations to try on an instance: the expected one, the one before it, the one after it.

    No more than these: sshd closes the connection at the sixth refusal (MaxAuthTries), a hardened one at the fourth. A
    key is stored before it is imported, so an instance launched in between has the one before. If clocks differ, or if
    the launch time is that of a later start, it has the one after.
    """
    ordered = sorted(generations)
    at = ordered.index(expected(ordered, launched))
    return [ordered[at], *reversed(ordered[max(at - 1, 0) : at]), *ordered[at + 1 : at + 2]]


@dataclass(frozen=True, slots=True)
class _Sealed:
    """A stored key, as it is in the bucket: any writer of the bucket may have written it."""

    key_type: KeyType
    created: datetime
    reason: str
    fingerprint: str
    imported: datetime | None
    private_key: bytes = field(repr=False)


class KeyStore:
    """The keys of one rack, in its bucket: every generation of each.

    EC2 keeps one public key under a name at a time, and may have had others under it before. Each is one object,
    ``<prefix>/keys/<key name>/<UTC time>.json``, written once and never changed. Its private half is a ciphertext of
    KMS, bound by its encryption context to the rack's name, the key's name, the generation and the fingerprint. The
    public half is not stored: it is derived from the decrypted private half. So write access to the bucket does not
    suffice to put another key in its place, not even an older one of the same name.
    """

    def __init__(self, rack: Rack) -> None:
        self._rack = rack

    def store(self, key: SshKey) -> None:
        """Seal a key and store it.

        Storing the same key again changes nothing; another key of its generation is refused.
        """
        rack = self._rack
        sealed = rack.aws.kms.encrypt(
            rack.kms_key,
            key.private_key,
            self._context(key.key_name, key.generation, key.fingerprint),
            what=f"SSH key {key.key_name}",
        )
        document = {
            "version": _FORMAT_VERSION,
            "key_name": key.key_name,
            "type": key.key_type,
            "fingerprint": key.fingerprint,
            "created": _written(key.created),
            "imported": _written(key.imported) if key.imported else None,
            "reason": key.reason,
            "private_key": base64.b64encode(sealed).decode("ascii"),
        }
        where = self._object(key.key_name, key.generation)
        if rack.store.create(where, json.dumps(document, indent=2).encode()) is not None:
            return
        stored = self._read(key.key_name, key.generation)
        if stored is None or stored.fingerprint != key.fingerprint:
            raise RackctlError(f"another SSH key is stored as {rack.store.url(where)}; nothing was overwritten")

    def fetch(self, name: str, launched: datetime) -> SshKey:
        """Return the key that an instance launched at a time is expected to have. Raises as `candidates` does."""
        return next(self.candidates(name, launched))

    def candidates(self, name: str, launched: datetime, /) -> Iterator[SshKey]:
        """Yield the keys to try on an instance, the expected one first; each is decrypted when it is fetched.

        Raises NotFound if there is none, AccessDenied or RackctlError, all with a remedy.
        """
        if not name:
            raise _no_key("the instance was launched without an SSH key")
        generations = self.generations(name)
        tried: set[str] = set()
        for generation in in_order(generations, launched) if generations else ():
            # A generation may have been deleted since it was listed.
            with suppress(NotFound):
                key = self.open(name, generation)
                if key.fingerprint not in tried:
                    tried.add(key.fingerprint)
                    yield key
        if not tried:
            where = self._rack.store.url(self._folder(name))
            raise _no_key(f"the instance's key pair is {name}, and there is no key in {where}")

    def open(self, name: str, generation: datetime) -> SshKey:
        """Return one generation of a key, opened by KMS. Raises NotFound, AccessDenied or RackctlError."""
        sealed = self._read(name, generation)
        if sealed is None:
            raise NotFound(f"there is no {self._url(name, generation)}")
        forbid_core_files()
        private_key = self._rack.aws.kms.decrypt(
            sealed.private_key,
            self._context(name, generation, sealed.fingerprint),
            what=f"SSH key {name}",
            kms_key=self._rack.kms_key,
        )
        key = SshKey(
            name,
            sealed.key_type,
            _public_half(private_key),
            sealed.created,
            private_key,
            sealed.reason,
            sealed.imported,
        )
        if key.fingerprint != sealed.fingerprint:
            raise Unreadable(f"{self._url(name, generation)} has another fingerprint than its key")
        return key

    def public_keys(self, name: str) -> dict[datetime, str]:
        """Map the generations of a key, oldest first, to their public halves. Raises as `open` does."""
        return {generation: self.open(name, generation).public_key for generation in self.generations(name)}

    def generations(self, name: str) -> list[datetime]:
        """Return the stored generations of a key, oldest first."""
        folder = self._folder(name)
        times = (_time(key.removeprefix(folder)) for key in self._rack.store.keys(folder))
        return sorted(time for time in times if time)

    def everything(self) -> dict[str, list[datetime]]:
        """Map the names of the stored keys, in order, to their generations, oldest first."""
        prefix = f"{self._rack['prefix']}/keys/"
        found: dict[str, list[datetime]] = {}
        for key in self._rack.store.keys(prefix):
            name, _, rest = key.removeprefix(prefix).partition("/")
            if _is_name(name) and (time := _time(rest)):
                found.setdefault(name, []).append(time)
        return {name: sorted(found[name]) for name in sorted(found)}

    def names(self) -> list[str]:
        """Return the names of the stored keys, sorted: those that `key_name` returns, oldest first."""
        return list(self.everything())

    def delete(self, name: str, generation: datetime) -> None:
        """Delete a generation of a key. If it does not exist, that is no error."""
        self._rack.store.delete(self._object(name, generation))

    def _read(self, name: str, generation: datetime) -> _Sealed | None:
        stored = self._rack.store.get(self._object(name, generation))
        if stored is None:
            return None
        url = self._url(name, generation)
        try:
            document = json.loads(stored.body)
            version = document["version"]
            if version == _FORMAT_VERSION:
                imported = document["imported"]
                if not isinstance(document["fingerprint"], str) or not isinstance(document["reason"], str):
                    raise TypeError("a text is expected")
                return _Sealed(
                    key_type=document["type"],
                    created=datetime.fromisoformat(document["created"]),
                    reason=document["reason"],
                    fingerprint=document["fingerprint"],
                    imported=None if imported is None else datetime.fromisoformat(imported),
                    private_key=base64.b64decode(document["private_key"], validate=True),
                )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Unreadable(f"{url} is not an SSH key that rackctl has stored ({error})") from error
        raise Unreadable(
            f"{url} has format version {version}; this rackctl reads version {_FORMAT_VERSION}", hint="update rackctl"
        )

    def _folder(self, name: str) -> str:
        if not _is_name(name):
            raise UsageError(f'"{name}" cannot be the name of a stored SSH key')
        return f"{self._rack['prefix']}/keys/{name}/"

    def _object(self, name: str, generation: datetime) -> str:
        return f"{self._folder(name)}{generation.astimezone(UTC):{_TIME}}.json"

    def _url(self, name: str, generation: datetime) -> str:
        return self._rack.store.url(self._object(name, generation))

    def _context(self, name: str, generation: datetime, fingerprint: str) -> dict[str, str]:
        return {
            "rackctl:rack": self._rack.name,
            "rackctl:key-name": name,
            "rackctl:generation": f"{generation.astimezone(UTC):{_TIME}}",
            "rackctl:fingerprint": fingerprint,
        }


class _Once:
    """A result that the first thread fetches while the others wait."""

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._answer: object = None
        self._error: RackctlError | None = None
        self._asked = False

    def get(self) -> object:
        with self._lock:
            if not self._asked:
                try:
                    self._answer = self._ask()
                except RackctlError as error:
                    self._error = error
                self._asked = True
        if self._error:
            raise self._error
        return self._answer


class OneGeneration:
    """A source of keys with one generation of each, for a proof that must try no other."""

    def __init__(self, keys: KeyStore, generation: datetime) -> None:
        self._keys = keys
        self._generation = generation

    def candidates(self, name: str, _launched: datetime, /) -> Iterator[SshKey]:
        """Yield that generation of a key. Raises as `KeyStore.open` does."""
        yield self._keys.open(name, self._generation)


class SharedKeyStore(KeyStore):
    """A key store for several threads: it is listed once, and each key is fetched and decrypted once."""

    def __init__(self, rack: Rack) -> None:
        super().__init__(rack)
        self._lock = threading.Lock()
        self._kept: dict[object, _Once] = {}

    def everything(self) -> dict[str, list[datetime]]:
        return self._once("everything", super().everything)

    def generations(self, name: str) -> list[datetime]:
        self._folder(name)
        return self.everything().get(name, [])

    def open(self, name: str, generation: datetime) -> SshKey:
        return self._once((name, generation), lambda: super(SharedKeyStore, self).open(name, generation))

    def _once(self, what: object, ask: Callable[[], T]) -> T:
        with self._lock:
            kept = self._kept.setdefault(what, _Once(ask))
        return kept.get()  # type: ignore[return-value]  # what was asked by this name before


def _public_half(private_key: bytes) -> str:
    """Derive ``TYPE BASE64`` from a private key in OpenSSH's format. Raises Unreadable."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        public = serialization.load_ssh_private_key(private_key, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unreadable(f"its plaintext is not an SSH key ({error})") from error
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode("ascii")


def _written(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds")


def _time(file_name: str) -> datetime | None:
    """Return the time in the name of an object; None if it is not a generation of a key."""
    if not re.fullmatch(r"\d{8}T\d{6}Z\.json", file_name, re.ASCII):
        return None
    with suppress(ValueError):
        return datetime.strptime(file_name.removesuffix(".json"), _TIME).replace(tzinfo=UTC)
    return None


def _is_name(name: str) -> bool:
    # EC2 allows nearly any character in a key pair's name; some have a meaning in S3 keys and in the prefix.
    return bool(re.fullmatch(r"[\w .@+=:,()-]{1,255}", name, re.ASCII)) and not name.startswith(".")


def _no_key(why: str) -> NotFound:
    return NotFound(
        "no instance key found. Did you forget to run `rackctl instances keyroll`?",
        hint=f"{why}; if you have the key in a file, `rackctl instances keys import FILE` stores it, and -i FILE logs "
        "in with it; a keyroll launches instances with a key of rackctl's own",
    )


def forbid_core_files() -> None:
    """Forbid core files and access to this process's memory by other processes of the user."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if sys.platform == "linux":
        import ctypes

        # A core_pattern that is a pipe ignores the limit, but not this: prctl(2), PR_SET_DUMPABLE.
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
