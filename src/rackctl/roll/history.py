"""What was rolled: a small object for each roll that has ended, ``<prefix>/history/<start>.json``, beside the journal.

Any principal that may write to the bucket can write there. So entries are for display alone: no decision depends on
them, and an object that does not look like an entry of this rack is left out.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from rackctl.errors import RackctlError
from rackctl.roll.holding import unfinished_roll
from rackctl.roll.owner import Operator  # noqa: TC001 - read as a type hint
from rackctl.roll.typed import read
from rackctl.roll.view import Engine, Kind, Selection
from rackctl.text import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rackctl.clock import Clock
    from rackctl.rack import Rack
    from rackctl.roll.journal import Journal

# How a roll ended: every instance replaced, given up by `abort`, undone by itself because of an error. Or not yet.
Outcome = Literal["finished", "aborted", "rolled back", "running", "unfinished"]

_FORMAT_VERSION = 1
_KEPT_FOR = timedelta(days=365)
# At the end of a roll so many old entries are deleted at most: a roll adds one, and is not to wait.
_PRUNED_AT_ONCE = 25
# A year of a roll every half an hour is less.
_MOST_LISTED = 20_000
_A_PAGE = 1000
_READ_AT_ONCE = 8
# In characters, groups and bytes.
_LONGEST_TEXT = 1000
_MOST_GROUPS = 50
_LARGEST = 64 * 1024
_LARGEST_NUMBER = 1e12
_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """One roll. ``replaced`` is None and ``ended`` empty where it has not ended; ``problem`` is why it rolled back."""

    rack: str
    cluster_arn: str
    started: str
    kind: Kind
    outcome: Outcome
    ended: str = ""
    replaced: int | None = None
    total: int = 0
    reason: str = ""
    problem: str = ""
    key_name: str = ""
    engine: Engine = "rackctl"
    older_than: float = 0.0
    groups: tuple[str, ...] = ()
    operators: tuple[Operator, ...] = ()

    @property
    def command(self) -> str:
        """The subcommand of `rackctl instances` that began it."""
        return Selection(self.kind).command

    @property
    def seconds(self) -> float | None:
        """How long it took; None where it has not ended."""
        if not self.ended:
            return None
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.started)).total_seconds()


@dataclass(frozen=True, slots=True)
class Past:
    """The newest rolls, newest first, how many older ones there are, and how many objects are no entries.

    ``unknown`` says why it is not known whether there is an unfinished roll, empty where it is.
    """

    entries: tuple[Entry, ...]
    older: int = 0
    not_entries: int = 0
    unknown: str = ""


def entry_of(
    journal: Journal, outcome: Outcome, problem: str, *, ended: datetime | None = None, replaced: int | None = None
) -> Entry:
    """Make the entry of a roll."""
    return Entry(
        rack=journal.rack,
        cluster_arn=journal.cluster_arn,
        started=journal.started,
        kind=journal.selection.kind,
        outcome=outcome,
        ended=rfc3339(ended) if ended else "",
        replaced=replaced,
        total=journal.total,
        reason=journal.options.reason[:_LONGEST_TEXT],
        problem=problem[:_LONGEST_TEXT],
        key_name=journal.key_name,
        engine=journal.options.engine,
        older_than=journal.selection.older_than,
        groups=tuple(sorted(journal.groups)[:_MOST_GROUPS]),
        operators=tuple(journal.operators),
    )


class History:
    """The rolls of one rack that have ended."""

    def __init__(self, rack: Rack) -> None:
        self._rack = rack
        self._prefix = f"{rack['prefix']}/history/"

    def add(self, entry: Entry, now: datetime) -> None:
        """Keep an entry, in place of one of the same roll, and delete some of those that are over a year old."""
        document = {"version": _FORMAT_VERSION, **asdict(entry)}
        self._rack.store.put(self._key(entry.started), json.dumps(document, indent=1).encode())
        oldest = rfc3339(now - _KEPT_FOR)
        # Names are times, and S3 lists them in their order: the oldest come first.
        for started in islice(self._starts(islice(self._rack.store.keys(self._prefix), _A_PAGE)), _PRUNED_AT_ONCE):
            if started < oldest:
                self._rack.store.delete(self._key(started))

    def newest(self, most: int) -> Past:
        """Read the newest entries. Raises RackctlError for more objects than rackctl ever wrote."""
        found = list(islice(self._rack.store.sizes(self._prefix), _MOST_LISTED + 1))
        if len(found) > _MOST_LISTED:
            raise RackctlError(
                f"there are more than {_MOST_LISTED} objects under {self._rack.store.url(self._prefix)}, which rackctl "
                "did not write",
                hint="find out who may write to the bucket, and delete the objects that are not rolls",
            )
        starts = list(self._starts(key for key, size in found if size <= _LARGEST))
        chosen = starts[-most:][::-1]
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            read = list(pool.map(self._read, chosen))
        entries = tuple(entry for entry in read if entry)
        return Past(entries, len(starts) - len(chosen), len(found) - len(starts) + len(read) - len(entries))

    def _key(self, started: str) -> str:
        return f"{self._prefix}{started}.json"

    def _starts(self, keys: Iterable[str]) -> Iterator[str]:
        """Yield the start of each roll that an object is named by."""
        names = (key.removeprefix(self._prefix).removesuffix(".json") for key in keys if key.endswith(".json"))
        return (name for name in names if _NAME.fullmatch(name))

    def _read(self, started: str) -> Entry | None:
        stored = self._rack.store.get(self._key(started))
        try:
            entry = _loaded(stored.body) if stored else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
        here = (self._rack.name, self._rack.ecs_cluster.cluster_arn, started)
        return entry if entry and (entry.rack, entry.cluster_arn, entry.started) == here else None


def past_rolls(rack: Rack, clock: Clock, most: int) -> Past:
    """Return the newest rolls of a rack, the unfinished one first."""
    past = History(rack).newest(most)
    try:
        found = unfinished_roll(rack, clock)
    except RackctlError as error:
        return replace(past, unknown=str(error))
    if found is None:
        return past
    # A roll that was killed between its entry and the end of its journal is not over.
    entries = [entry for entry in past.entries if entry.started != found.journal.started]
    unfinished = entry_of(found.journal, "running" if found.is_live else "unfinished", found.journal.problem)
    kept = (unfinished, *entries)[:most]
    return replace(past, entries=kept, older=past.older + len(entries) + 1 - len(kept))


def _loaded(body: bytes) -> Entry:
    """Read an entry. Raises ValueError, KeyError, TypeError or AttributeError for what is none."""
    document: dict[str, Any] = json.loads(body)
    if document.pop("version") != _FORMAT_VERSION:
        raise ValueError("it has another format version")
    entry = read(Entry, document)
    for number in (entry.total, entry.replaced, entry.older_than):
        if number is None or not 0 <= number < _LARGEST_NUMBER:
            raise ValueError("a number is expected")
    if not _NAME.fullmatch(entry.ended):
        raise ValueError("it does not say when it ended")
    if entry.seconds is None or entry.seconds < 0:
        raise ValueError("it ended before it began")
    return entry
