"""The journal of a roll: what it is doing, what was before it, and who holds it. Also the lock.

One S3 object, ``<prefix>/roll.json``, written by conditional writes alone: `If-None-Match` creates it, so that one
of two rolls begins; `If-Match` changes it, so that a holder who has lost it finds out before its next step.
It says what AWS cannot be asked: what was there before, and what is the roll's own doing. Which instances are
still to replace is read from the instances. When it was last written is the holder's heartbeat, as S3 tells it: two
machines' clocks are never compared.
"""

from __future__ import annotations

import getpass
import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rackctl.errors import RackctlError, RollIncomplete

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.aws.s3 import StoredObject
    from rackctl.clock import Clock
    from rackctl.keys import KeyType
    from rackctl.rack import Rack

_FORMAT_VERSION = 1
# A holder writes at least every HEARTBEAT seconds; one that has not for STALE_AFTER seconds is taken for dead. AWS
# calls that are being retried may keep it from writing for two minutes.
HEARTBEAT = 30.0
STALE_AFTER = 300.0

Phase = Literal["preparing", "replacing", "finishing", "aborting"]


@dataclass(frozen=True, slots=True)
class RollOptions:
    """How to roll. Times are seconds; ``batch`` is how many instances may be on their way out at once."""

    batch: int = 1
    surge: bool = True
    drain_timeout: float = 900.0
    boot_timeout: float = 900.0
    key_type: KeyType = "ed25519"
    force: bool = False
    stop_standalone: bool = False
    require_ssh: bool = False
    out_of_band: bool = False
    keep_old_keys: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that holds the journal.

    ``machine`` tells apart what shares process numbers, and ``began`` what has had the same one in turn; empty where
    the system does not say.
    """

    who: str
    pid: int
    token: str
    machine: str = ""
    began: str = ""

    @classmethod
    def this_process(cls) -> Owner:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a user without a name, as in many containers
            user = str(os.getuid())
        pid = os.getpid()
        return cls(f"{user}@{socket.gethostname()}", pid, secrets.token_hex(8), _machine(), _began(pid) or "")

    @property
    def is_dead(self) -> bool:
        """Whether it is known to have ended, as only its own machine can tell."""
        if not self.machine or self.machine != _machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # somebody else's
        return _began(self.pid) not in {None, self.began}

    def __str__(self) -> str:
        return f"{self.who} (process {self.pid})"


def _machine() -> str:
    """Give what two processes share exactly when they share process numbers: this boot and this pid namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str | None:
    """Give when a process began, in ticks since the boot; empty for a dead one that waits for its parent.

    None where the system does not say, as of other users' processes under some of its settings (proc(5), hidepid).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # proc_pid_stat(5): the name, in brackets, may hold anything; then the state, and as the 22nd field the start time.
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in {"Z", "X"} else fields[18]


@dataclass(slots=True)
class TemplateRecord:
    """One launch template as a group named it before: ``version`` is what it named, ``source`` what that was.

    ``key_name`` is the source's key; ``made`` the version with the new key that stands in its place, 0 before there is
    one. All that the roll has made is newer than ``lowest``.
    """

    launch_template_id: str
    launch_template_name: str
    version: str
    source: int
    key_name: str
    lowest: int
    made: int = 0


@dataclass(slots=True)
class PendingChange:
    """A change of a desired capacity that is about to be made, so that it can be told whether it has been.

    Without an instance it sets the desired capacity from ``before`` to ``after``; with one it terminates that
    instance and decrements ``before``.
    """

    before: int
    after: int
    ec2_instance_id: str = ""


@dataclass(slots=True)
class GroupRecord:
    """A group as it was, and what of its present state is the roll's doing.

    ``total`` is how many of its instances were to be replaced, ``surge`` the roll's share of the desired capacity,
    ``suspended`` the processes that it suspended. One that is ``deleted`` has been so by somebody meanwhile.
    """

    auto_scaling_group_name: str
    auto_scaling_group_arn: str
    desired_capacity: int
    total: int
    suspended_before: list[str] = field(default_factory=list)
    templates: list[TemplateRecord] = field(default_factory=list)
    suspended: list[str] = field(default_factory=list)
    surge: int = 0
    pending: PendingChange | None = None
    proof: str = ""
    deleted: bool = False


@dataclass(slots=True)
class InstanceRecord:
    """How far an instance is that is on its way out or in; of the others AWS tells all there is to know.

    ``drained_by_roll`` is set before it is drained, and only if it was ACTIVE; ``counted_out`` once it counts no more
    because somebody has taken it out of its group.
    """

    auto_scaling_group_name: str
    phase: str
    since: str
    drained_by_roll: bool = False
    counted_out: bool = False


@dataclass(slots=True)
class Journal:
    """A roll. ``retiring`` are the keys that it has begun to delete."""

    rack: str
    key_name: str
    started: str
    options: RollOptions
    phase: Phase = "preparing"
    owner: Owner | None = None
    revision: int = 0
    anything_drained: bool = False
    problem: str = ""
    retiring: list[str] = field(default_factory=list)
    groups: dict[str, GroupRecord] = field(default_factory=dict)
    instances: dict[str, InstanceRecord] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many instances were to be replaced, but for those of groups that have been deleted."""
        return sum(group.total for group in self.groups.values() if not group.deleted)

    @property
    def region(self) -> str:
        """The region that it is of, as its groups' ARNs say."""
        return next((group.auto_scaling_group_arn.split(":")[3] for group in self.groups.values()), "")

    def dumps(self) -> bytes:
        return json.dumps({"version": _FORMAT_VERSION, **asdict(self)}, indent=2).encode()

    @classmethod
    def loads(cls, body: bytes) -> Journal:
        """Read a journal. Raises ValueError, KeyError, TypeError or AttributeError for what is none."""
        document: dict[str, Any] = json.loads(body)
        if not isinstance(document, dict):
            raise TypeError("it is no JSON object")
        version = document.pop("version")
        if version != _FORMAT_VERSION:
            raise ValueError(f"it has format version {version}; this rackctl reads version {_FORMAT_VERSION}")
        owner = document["owner"]
        journal = cls(
            **{
                **document,
                "options": RollOptions(**document["options"]),
                "owner": Owner(**owner) if owner else None,
                "groups": {name: _group(record) for name, record in document["groups"].items()},
                "instances": {id_: InstanceRecord(**record) for id_, record in document["instances"].items()},
            }
        )
        _check(journal)
        return journal


def _check(journal: Journal) -> None:
    """Raise ValueError or TypeError for what a hand has put into a journal that no roll writes there."""
    if datetime.fromisoformat(journal.started).tzinfo is None:
        raise ValueError(f"{journal.started} says no time zone")
    if journal.phase not in get_args(Phase):
        raise ValueError(f'"{journal.phase}" is no phase of a roll')
    if not journal.key_name:
        raise ValueError("it names no key")
    for group in journal.groups.values():
        if group.auto_scaling_group_arn.count(":") < 5:
            raise ValueError(f'"{group.auto_scaling_group_arn}" is no ARN of a group')
    usual = RollOptions()
    for what, value, like in (
        *(("total", group.total, 0) for group in journal.groups.values()),
        *((f.name, getattr(journal.options, f.name), getattr(usual, f.name)) for f in fields(usual)),
    ):
        # JSON tells no whole float from an integer, and a boolean is an integer to Python.
        if type(value) is not type(like) and not (type(like) is float and type(value) is int):
            raise TypeError(f"{what} is {value!r}")


def _group(record: Mapping[str, Any]) -> GroupRecord:
    pending = record["pending"]
    return GroupRecord(
        **{
            **record,
            "templates": [TemplateRecord(**template) for template in record["templates"]],
            "pending": PendingChange(**pending) if pending else None,
        }
    )


@dataclass(frozen=True, slots=True)
class Found:
    """A journal as it was read, held by whomever; ``heartbeat`` is when it was written, ``silent_for`` seconds ago."""

    journal: Journal
    etag: str
    heartbeat: datetime
    silent_for: float

    @property
    def is_live(self) -> bool:
        """Whether somebody holds it who may well be at work."""
        owner = self.journal.owner
        return owner is not None and not owner.is_dead and self.silent_for < STALE_AFTER


class JournalLost(RollIncomplete):
    """Somebody else holds the journal now: this roll must not do anything more."""


class JournalStore:
    """The place of a rack's journal, and this process's hold on it.

    After `create` or `take` the holder changes the journal it was given and calls `save`, before anything that
    relies on it; `beat` does so when it is time to show that the holder lives.
    """

    def __init__(self, rack: Rack, clock: Clock) -> None:
        self._s3 = rack.aws.s3
        self._bucket = rack.require("bucket")
        self._key = f"{rack['prefix']}/roll.json"
        self._clock = clock
        self._etag = ""
        self._saved = b""
        self._tried: set[bytes] = set()
        self._last_write = datetime.min.replace(tzinfo=UTC)

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._key}"

    def read(self) -> Found | None:
        """Read the journal; None when no roll is under way."""
        stored = self._s3.get(self._bucket, self._key)
        if stored is None:
            return None
        try:
            return Found(Journal.loads(stored.body), stored.etag, stored.last_modified, stored.age)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RackctlError(
                f"{self.url} is not the journal of a keyroll that this rackctl can read ({error})",
                hint="update rackctl; or, if nothing is to be saved from it, delete that object",
            ) from error

    def create(self, journal: Journal, owner: Owner) -> bool:
        """Begin a journal and hold it; tell whether nobody else had begun one."""
        return self._write(journal, owner, etag=None)

    def take(self, found: Found, owner: Owner) -> bool:
        """Hold a journal that was read before; tell whether it was still as it was read."""
        return self._write(found.journal, owner, etag=found.etag)

    def save(self, journal: Journal) -> None:
        """Write the journal down, if it has changed. Raises JournalLost when it is no longer this process's."""
        if _substance(journal) != self._saved and not self._write(journal, journal.owner, etag=self._etag):
            raise self._lost(journal)

    def beat(self, journal: Journal) -> None:
        """Write the journal down when it has changed or when it is time. Raises JournalLost."""
        # By the time of day: on Linux the other clock stands still while a laptop sleeps.
        if abs((self._clock.now() - self._last_write).total_seconds()) >= HEARTBEAT:
            self.hold(journal)
        else:
            self.save(journal)

    def hold(self, journal: Journal) -> None:
        """Write the journal down, changed or not, and so know that it is held. Raises JournalLost."""
        self._saved = b""
        self.save(journal)

    def release(self, journal: Journal) -> None:
        """Let go of the journal, which stays for `resume` or `abort`. Raises JournalLost."""
        if not self._write(journal, None, etag=self._etag):
            raise self._lost(journal)

    def delete(self, journal: Journal) -> None:
        """Remove the journal: the roll is over. Raises JournalLost."""
        if self._s3.delete(self._bucket, self._key, etag=self._etag) or self.read() is None:
            return
        stored = self._own_write()
        if stored is None or not self._s3.delete(self._bucket, self._key, etag=stored.etag):
            raise self._lost(journal)

    def _write(self, journal: Journal, owner: Owner | None, *, etag: str | None) -> bool:
        journal.owner = owner
        journal.revision += 1
        body = journal.dumps()
        # Whatever becomes of it: its answer may get lost after it is done.
        self._tried.add(body)
        written = (
            self._s3.create(self._bucket, self._key, body)
            if etag is None
            else self._s3.replace(self._bucket, self._key, body, etag=etag)
        )
        while written is None:
            stored = self._own_write()
            if stored is None:
                return False
            written = (
                stored.etag
                if stored.body == body
                else self._s3.replace(self._bucket, self._key, body, etag=stored.etag)
            )
        self._etag, self._saved, self._tried = written, _substance(journal), set()
        self._last_write = self._clock.now()
        return True

    def _own_write(self) -> StoredObject | None:
        """Give what stands there if this process has written it and had no answer; None otherwise."""
        stored = self._s3.get(self._bucket, self._key)
        return stored if stored and stored.body in self._tried else None

    def _lost(self, held: Journal) -> JournalLost:
        found = self.read()
        if found is None:
            return JournalLost(
                f"{self.url} was removed by somebody while this roll went on; it did nothing more",
                hint=_left_behind(held),
            )
        owner = found.journal.owner
        holder = f"{owner} holds it now" if owner else "somebody has unlocked it"
        return JournalLost(
            f"the roll was taken from this process ({holder}); it did nothing more",
            hint="`rackctl instances keyroll status` shows where it stands",
        )


def _left_behind(journal: Journal) -> str:
    """Say what of the rack's state was the roll's doing, for whoever has to put it back without a journal."""
    left = []
    for name, record in journal.groups.items():
        if record.surge or record.pending:
            left.append(f"the desired capacity of group {name} was {record.desired_capacity}")
        if record.suspended:
            left.append(f"{', '.join(record.suspended)} of group {name} is suspended")
    draining = [id_ for id_, record in journal.instances.items() if record.drained_by_roll]
    if draining:
        left.append(f"{', '.join(draining)} may be DRAINING")
    if not left:
        return ""
    return f"unless another process has finished the roll, put this back before you begin another: {'; '.join(left)}"


def _substance(journal: Journal) -> bytes:
    """Give all of a journal but what changes with each write."""
    return json.dumps({**asdict(journal), "revision": 0}).encode()


def timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
