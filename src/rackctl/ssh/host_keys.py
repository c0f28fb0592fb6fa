"""Host keys of instances: pinned by instance id, or read from the console output."""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rackctl.background import in_background
from rackctl.errors import AccessDenied, RackctlError, SshError
from rackctl.files import make_own_directory, read_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

Mode = Literal["strict", "first-use", "off"]
# Enough for some 100,000 keys.
_LARGEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public host key: ``ssh-ed25519``, ``ecdsa-sha2-nistp256``, ``ssh-rsa`` …, and its base64."""

    key_type: str
    encoded: str

    @classmethod
    def of(cls, blob: bytes) -> HostKey:
        """Build a host key from its wire format, which begins with the type (RFC 4253, 6.6)."""
        length = int.from_bytes(blob[:4], "big")
        return cls(blob[4 : 4 + length].decode("ascii", "replace"), base64.b64encode(blob).decode("ascii"))

    @property
    def fingerprint(self) -> str:
        """OpenSSH's SHA-256 form of it; "unreadable" for an invalid line in the file."""
        try:
            digest = hashlib.sha256(base64.b64decode(self.encoded, validate=True)).digest()
        except ValueError:
            return "unreadable"
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


class HostKeyFile:
    """The pinned host keys, as lines ``<instance id> <type> <base64>`` of an OpenSSH known_hosts file.

    OpenSSH can use it, with ``UserKnownHostsFile`` and ``HostKeyAlias``. Other lines are kept. The file is written
    under a lock and replaced by a rename, so that concurrent writers lose no line and readers see a whole file.
    """

    def __init__(self, state_directory: Path) -> None:
        self.path = state_directory / "host_keys"

    def pinned(self, ec2_instance_id: str) -> list[HostKey]:
        """Return the keys that are pinned for an instance. Raises RackctlError if the file cannot be read."""
        return [HostKey(*words[1:3]) for words in map(str.split, self._lines()) if _is_of(words, ec2_instance_id)]

    def pin(self, ec2_instance_id: str, keys: Iterable[HostKey]) -> list[HostKey]:
        """Pin the keys of an instance unless some are pinned; return the pinned keys.

        If two processes connect for the first time at once, the first to write pins. Raises RackctlError if the file
        cannot be written.
        """
        with self._locked():
            if not self.pinned(ec2_instance_id):
                new = (f"{ec2_instance_id} {key.key_type} {key.encoded}" for key in dict.fromkeys(keys))
                self._write([*self._lines(), *new])
            return self.pinned(ec2_instance_id)

    def forget(self, ec2_instance_id: str) -> list[HostKey]:
        """Remove and return an instance's pinned keys. Raises RackctlError if the file cannot be written."""
        if not (forgotten := self.pinned(ec2_instance_id)):
            return []
        with self._locked():
            self._write([line for line in self._lines() if not _is_of(line.split(), ec2_instance_id)])
        return forgotten

    def _lines(self) -> list[str]:
        try:
            return read_own(self.path, limit=_LARGEST).decode().splitlines()
        except FileNotFoundError:
            return []
        except UnicodeDecodeError as error:
            raise self._unusable("read", error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            make_own_directory(self.path.parent)
            lock = os.open(
                self.path.with_name("host_keys.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise self._unusable("write", error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise self._unusable("write", error) from error
        finally:
            os.close(lock)

    def _write(self, lines: Iterable[str]) -> None:
        # The lock admits one writer; it overwrites the file that a killed process left.
        new = self.path.with_name("host_keys.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        new.replace(self.path)

    def _unusable(self, verb: str, error: Exception) -> RackctlError:
        return RackctlError(
            f"cannot {verb} the host keys in {self.path}: {error}",
            hint="repair or remove the file, or name another state directory with RACKCTL_STATE_DIR",
        )


def _is_of(words: list[str], ec2_instance_id: str) -> bool:
    return len(words) >= 3 and words[0] == ec2_instance_id


@dataclass(frozen=True, slots=True)
class ConsoleHostKeys:
    """The host keys in an instance's console output: whole keys, fingerprints, or both."""

    keys: tuple[HostKey, ...] = ()
    fingerprints: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.keys or self.fingerprints)

    def include(self, key: HostKey) -> bool:
        return key in self.keys or key.fingerprint in self.fingerprints


_BLOCK = r"-----BEGIN SSH HOST KEY {0}-----(.*?)-----END SSH HOST KEY {0}-----"
_KEY_LINE = re.compile(r"((?:ssh|ecdsa|sk)-[\w@.-]+)\s+(AAAA[A-Za-z0-9+/]+={0,2})(?:\s|$)")
_FINGERPRINT = re.compile(r"\b\d+ (SHA256:[A-Za-z0-9+/]{43})=*\s.*\(\w[\w-]*\)")


def read_console(output: str) -> ConsoleHostKeys:
    """Parse the host keys that cloud-init wrote to the console at the first boot.

    Between its BEGIN and END lines are whole keys, or fingerprints behind ``ec2:`` (Amazon Linux 2) or
    ``cloud-init[…]:`` (2023), and possibly lines of the kernel. The last complete block of each counts.
    """
    keys, fingerprints = (
        blocks[-1].replace("\r", "").splitlines() if blocks else []
        for blocks in (re.findall(_BLOCK.format(kind), output, re.DOTALL) for kind in ("KEYS", "FINGERPRINTS"))
    )
    found = (match for line in keys if (match := _KEY_LINE.search(line)))
    return ConsoleHostKeys(
        tuple(HostKey(*match.groups()) for match in found if _is_whole(*match.groups())),
        frozenset(match[1] for line in fingerprints if (match := _FINGERPRINT.search(line))),
    )


def _is_whole(key_type: str, encoded: str) -> bool:
    try:
        return HostKey.of(base64.b64decode(encoded, validate=True)).key_type == key_type
    except binascii.Error:
        return False


class HostKeyCheck:
    """The check of the host key that an instance presents.

    If keys are pinned, the instance must present one of them. On the first connection the key is compared with the
    console output. If that has no keys, ``strict`` refuses the key and ``first-use`` trusts it. Accepted keys are
    pinned. ``off`` accepts any key and pins none. If a key is trusted unverified, ``notify`` is called.
    """

    def __init__(
        self,
        ec2_instance_id: str,
        file: HostKeyFile,
        mode: Mode,
        *,
        console_output: Callable[[], str],
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._id = ec2_instance_id
        self._file = file
        self._mode = mode
        self._notify = notify
        self._pinned = file.pinned(ec2_instance_id) if mode != "off" else []
        # Fetched now, so that it is there when the server presents its key.
        self._console: Future[str] | None = None
        if mode != "off" and not self._pinned:
            self._console = in_background(console_output)

    @property
    def preferred_types(self) -> list[str]:
        """The types of the pinned keys: a server has keys of several types, and should present one of these."""
        return [key.key_type for key in self._pinned]

    def accept(self, presented: HostKey) -> None:
        """Accept the key, or raise SshError."""
        if self._mode == "off" or presented in self._pinned:
            return
        if not self._pinned:
            self._pinned = self._first_contact(presented)
        if presented not in self._pinned:
            expected = next((k for k in self._pinned if k.key_type == presented.key_type), self._pinned[0])
            raise self._wrong(presented, f"the pinned key is {_named(expected)}")

    def _first_contact(self, presented: HostKey) -> list[HostKey]:
        """Compare a key with the console output, or trust it; return the keys that are now pinned."""
        announced, unread = self._announced()
        if announced:
            if not announced.include(presented):
                said = next((k.fingerprint for k in announced.keys if k.key_type == presented.key_type), "")
                others = said or ", ".join(sorted(announced.fingerprints)) or announced.keys[0].fingerprint
                raise self._wrong(presented, f"its console output shows {others}")
            return self._file.pin(self._id, [presented, *announced.keys])
        if self._mode == "strict":
            why = unread or "its console output shows none (yet)"
            raise SshError(
                f"no host key of {self._id} is known, and {why}; it presents {_named(presented)}",
                hint="the console output can lag by minutes after a launch; try again, "
                "or trust the key now with --host-key-check first-use",
            )
        pinned = self._file.pin(self._id, [presented])
        if presented in pinned:
            self._notify(f"{self._id}: trusting its host key {_named(presented)} from now on{_because(unread)}")
        return pinned

    def _announced(self) -> tuple[ConsoleHostKeys, str]:
        """Return the keys in the console output, or why it could not be fetched."""
        assert self._console is not None
        try:
            return read_console(self._console.result()), ""
        except AccessDenied as error:
            return ConsoleHostKeys(), f"its console output cannot be read: {error}"
        except RackctlError as error:
            return ConsoleHostKeys(), f"could not fetch its console output: {error}"

    def _wrong(self, presented: HostKey, expected: str) -> SshError:
        return SshError(
            f"host key mismatch for {self._id}: it presents {_named(presented)}, but {expected}. "
            "The connection may be intercepted, or another machine may have this address; no login was tried",
            hint=f"if the change is expected, run `rackctl instances forget-host-key {self._id}` and connect again",
        )


def _named(key: HostKey) -> str:
    return f"{key.fingerprint} ({key.key_type})"


def _because(unread: str) -> str:
    return f" ({unread})" if unread else ", since its console output shows none"
