"""The place of a rack's journal, and this process's hold on it: the lock of a roll.

One S3 object, ``<prefix>/roll.json``, written by conditional writes alone: `If-None-Match` creates it, so that one
of two rolls begins; `If-Match` changes it, so that a holder that has lost it finds out before its next change. The time
of the last write, by S3's clock, is the holder's heartbeat: two machines' clocks are never compared.

Write access to the bucket alone must not make a roll do anything. So the object carries a MAC (RFC 2104, SHA-256) of
the journal under a key that KMS has encrypted under the rack's context. A process that takes over has KMS decrypt that
key and checks the MAC first.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rackctl.errors import RackctlError, RollIncomplete
from rackctl.keys import forbid_core_files
from rackctl.roll.journal import Journal

if TYPE_CHECKING:
    from rackctl.aws.s3 import StoredObject
    from rackctl.clock import Clock
    from rackctl.rack import Rack
    from rackctl.roll.owner import Owner

_FORMAT_VERSION = 2
# A holder writes at least every HEARTBEAT seconds, and counts as dead after STALE_AFTER seconds of silence. Retried
# calls may keep it from writing for two minutes.
HEARTBEAT = 30.0
STALE_AFTER = 300.0
# For how long a write proves that the journal is held, in seconds: about as long as the call that follows it takes.
_PROVES_FOR = 1.0
# 5,000 instances under way at once would make less than this.
_LARGEST = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """A journal as it was read, its seal unchecked; it was written at ``heartbeat``, ``silent_for`` seconds ago."""

    journal: Journal
    etag: str
    heartbeat: datetime
    silent_for: float
    sealed_key: bytes
    mac: str

    @property
    def is_live(self) -> bool:
        """Whether it is held by a process that may well be running."""
        owner = self.journal.owner
        return owner is not None and not owner.is_dead and self.silent_for < STALE_AFTER


class JournalLost(RollIncomplete):
    """Another process holds the journal now: this roll must not do anything more."""


class Lock:
    """A rack's journal in S3.

    After `create` or `take` the holder changes the journal that it gave to it, and calls `write` before anything that
    relies on it; `heartbeat` does so when it is time to show that the holder lives.
    """

    def __init__(self, rack: Rack, clock: Clock) -> None:
        self._rack = rack
        self._store = rack.store
        self._key = f"{rack['prefix']}/roll.json"
        self._clock = clock
        self._journal: Journal  # from `create` or `take`
        self._mac_key = b""
        self._sealed_key = b""
        self._etag = ""
        self._written = b""
        self._tried: set[bytes] = set()
        self._last_write = datetime.min.replace(tzinfo=UTC)

    @property
    def url(self) -> str:
        return self._store.url(self._key)

    def read(self) -> Found | None:
        """Read the journal; None when there is no roll. Its seal is not checked: use it for display only."""
        stored = self._store.get(self._key)
        if stored is None:
            return None
        try:
            if len(stored.body) > _LARGEST:
                raise ValueError(f"it has {len(stored.body)} bytes")
            document = json.loads(stored.body)
            if document["version"] != _FORMAT_VERSION:
                raise ValueError(
                    f"it has format version {document['version']}; this rackctl reads version {_FORMAT_VERSION}"
                )
            mac = document["mac"]
            if not isinstance(mac, str) or not mac.isascii():
                raise TypeError("its seal is not a MAC")
            return Found(
                Journal.loads(document["journal"]),
                stored.etag,
                stored.last_modified,
                stored.age,
                base64.b64decode(document["sealed_key"], validate=True),
                mac,
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RackctlError(
                f"{self.url} is not a journal that this rackctl can read ({error})",
                hint="update rackctl; or check the groups' desired capacity and suspended processes, and delete that "
                "object",
            ) from error

    def create(self, journal: Journal, owner: Owner) -> bool:
        """Create the journal and hold it; return False if there is one already. Raises RackctlError if KMS refuses."""
        if not self._mac_key:
            forbid_core_files()
            self._mac_key = secrets.token_bytes(32)
            self._sealed_key = self._rack.aws.kms.encrypt(
                self._rack.kms_key, self._mac_key, _context(journal), what="the roll's journal"
            )
        self._journal = journal
        return self._write(owner, etag=None)

    def take(self, found: Found, owner: Owner) -> bool:
        """Hold a journal that was read before; return whether it was still as it was read.

        Raises RackctlError for one that no roll of this rack has written, and what KMS says.
        """
        forbid_core_files()
        mac_key = self._rack.aws.kms.decrypt(
            found.sealed_key, _context(found.journal), what="the roll's journal", kms_key=self._rack.kms_key
        )
        if not hmac.compare_digest(_mac(mac_key, found.journal), found.mac):
            raise RackctlError(
                f"{self.url} was changed by something other than rackctl: its seal does not match",
                hint="find out who may write to the bucket. Nothing was done; check the groups' desired capacity and "
                "suspended processes, and delete that object when they are right",
            )
        self._journal, self._mac_key, self._sealed_key = found.journal, mac_key, found.sealed_key
        return self._write(owner, etag=found.etag)

    def write(self) -> None:
        """Write the journal, if it has changed. Raises JournalLost when it is no longer this process's."""
        if self._substance() != self._written and not self._write(self._journal.owner, etag=self._etag):
            raise self._lost()

    def check_owner(self) -> None:
        """Check that this process still owns the journal, by writing it, unless it was written just now.

        Raises JournalLost.
        """
        if self._silence() >= _PROVES_FOR or self._substance() != self._written:
            self._written = b""
            self.write()

    def heartbeat(self) -> None:
        """Write the journal when it has changed or when it is time. Raises JournalLost."""
        if not self._etag:
            return  # it is not known yet whether it was created
        if self._silence() >= HEARTBEAT:
            self.check_owner()
        else:
            self.write()

    def release(self) -> None:
        """Release the lock; the journal stays for `resume` or `abort`. Raises JournalLost."""
        if not self._write(None, etag=self._etag):
            raise self._lost()

    def delete(self) -> None:
        """Remove the journal: the roll is over. Raises JournalLost."""
        if self._store.delete(self._key, etag=self._etag) or self.read() is None:
            return
        stored = self._own_write()
        if stored is None or not self._store.delete(self._key, etag=stored.etag):
            raise self._lost()

    def _silence(self) -> float:
        # By the time of day: on Linux the monotonic clock stands still while a laptop sleeps.
        return abs((self._clock.now() - self._last_write).total_seconds())

    def _write(self, owner: Owner | None, *, etag: str | None) -> bool:
        self._journal.owner = owner
        self._journal.revision += 1
        body = self._body()
        # The write may be carried out although its answer gets lost.
        self._tried.add(body)
        written = (
            self._store.create(self._key, body) if etag is None else self._store.replace(self._key, body, etag=etag)
        )
        while written is None:
            stored = self._own_write()
            if stored is None:
                return False
            written = stored.etag if stored.body == body else self._store.replace(self._key, body, etag=stored.etag)
        self._etag, self._written, self._tried = written, self._substance(), set()
        self._last_write = self._clock.now()
        return True

    def _body(self) -> bytes:
        document = {
            "version": _FORMAT_VERSION,
            "journal": self._journal.dumps(),
            "sealed_key": base64.b64encode(self._sealed_key).decode("ascii"),
            "mac": _mac(self._mac_key, self._journal),
        }
        return json.dumps(document, indent=1).encode()

    def _substance(self) -> bytes:
        """Return all of the journal but what changes with each write."""
        return _canonical({**self._journal.dumps(), "revision": 0})

    def _own_write(self) -> StoredObject | None:
        """Return what is stored if this process has written it and had no answer; None otherwise."""
        stored = self._store.get(self._key)
        return stored if stored and stored.body in self._tried else None

    def _lost(self) -> JournalLost:
        found = self.read()
        if found is None:
            return JournalLost(
                f"{self.url} was removed while this roll was running; the roll has stopped",
                hint=_left_behind(self._journal),
            )
        owner = found.journal.owner
        holder = f"{owner} holds it now" if owner else "it was unlocked"
        return JournalLost(
            f"the roll was taken from this process ({holder}); this process has stopped",
            hint=f"{self._journal.command('status')} shows where it stands",
        )


def _context(journal: Journal) -> dict[str, str]:
    return {
        "rackctl:rack": journal.rack,
        "rackctl:cluster": journal.cluster_arn,
        "rackctl:roll": journal.started,
    }


def _mac(key: bytes, journal: Journal) -> str:
    return hmac.new(key, _canonical(journal.dumps()), hashlib.sha256).hexdigest()


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _left_behind(journal: Journal) -> str:
    """Return what the roll has changed, to be changed back without a journal."""
    left = []
    for name, record in journal.groups.items():
        if record.surge or record.pending:
            left.append(f"the desired capacity of group {name} was {record.desired_capacity}")
        if record.suspended:
            left.append(f"{', '.join(record.suspended)} of group {name} is suspended")
    left += [
        f"key pair {pair.key_name} had the public key {pair.old_public_key}"
        for pair in journal.key_pairs.values()
        if pair.state != "old"
    ]
    draining = [id_ for id_, record in journal.instances.items() if record.drained_by_roll]
    if draining:
        left.append(f"{', '.join(draining)} may be DRAINING")
    if not left:
        return ""
    return f"unless another process has finished the roll, change this back before you start another: {'; '.join(left)}"
