"""The store's side of key pairs that are renewed under their names: each name has several generations of a key."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from rackctl import keys as ssh_keys
from rackctl.errors import AccessDenied, NotFound, RackctlError
from rackctl.roll.reasons.launching import existing_with
from rackctl.roll.reasons.pairs import which_key
from rackctl.text import listed, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.keys import KeyStore, SshKey
    from rackctl.roll.hold import Hold
    from rackctl.roll.reasons.pairs import KeyPairRecord
    from rackctl.roll.report import Event

_MOST = 5


class Generations:
    """The generations that a roll makes, and those that it deletes again. Each step does what is still to do."""

    def __init__(self, hold: Hold, keys: KeyStore) -> None:
        self._hold = hold
        self._journal = hold.journal
        self._keys = keys

    @property
    def _pairs(self) -> list[KeyPairRecord]:
        return list(self._journal.key_pairs.values())

    def make(self, pair: KeyPairRecord) -> Iterator[Event]:
        """Generate and store the new key, unless that is done, and write its public key into the journal."""
        name, options = pair.key_name, self._journal.options
        stored = self._open(pair, _time(pair)) if pair.generation else None
        if stored is None:
            if pair.state != "old":
                raise self._lost(pair)
            pair.generation, pair.new_public_key = self._free_time(name).isoformat(), ""
            self._hold.write()
            stored = ssh_keys.generate(name, created=_time(pair), key_type=options.key_type, reason=options.reason)
            self._hold.changing(partial(self._keys.store, stored))
            yield self._hold.event("key", f"stored a new key for key pair {name}, sealed by KMS")
        pair.new_public_key = stored.public_key
        self._hold.write()

    def date(self, pair: KeyPairRecord) -> None:
        """Store the new key under EC2's time of its import, in place of this machine's time."""
        imported, before = datetime.fromisoformat(pair.created), _time(pair)
        dated = imported.replace(microsecond=0)
        if dated == before:
            if self._open(pair, before) is None:
                raise self._lost(pair)
            return
        try:
            there = self._open(pair, dated)
        except ssh_keys.Unreadable:
            return
        if there is None:
            stored = self._open(pair, before)
            if stored is None:
                raise self._lost(pair)
            self._hold.changing(partial(self._keys.store, replace(stored, imported=imported)))
        elif there.public_key != pair.new_public_key:
            return  # another one was imported in the same second
        self._hold.changing(partial(self._keys.delete, pair.key_name, before))
        pair.generation = dated.isoformat()
        self._hold.write()

    def _open(self, pair: KeyPairRecord, time: datetime) -> SshKey | None:
        try:
            return self._hold.retrying(lambda: self._keys.open(pair.key_name, time))
        except NotFound:
            return None

    def _free_time(self, name: str) -> datetime:
        taken = set(self._hold.retrying(lambda: self._keys.generations(name)))
        time = self._hold.clock.now().replace(microsecond=0)
        while time in taken:
            time += timedelta(seconds=1)
        return time

    def _lost(self, pair: KeyPairRecord) -> RackctlError:
        return RackctlError(
            f"the new key of key pair {pair.key_name} has been deleted from the store: nothing could log in with it",
            hint=f"run {self._journal.command('abort')}, then start another roll",
        )

    def retire(self) -> Iterator[Event]:
        """Delete the old keys from the store that no instance can have any more."""
        for pair in self._pairs:
            having = self._having(pair, "old")
            yield from self._delete_stored(pair, pair.old_public_key, "old", having)

    def discard(self) -> Iterator[Event]:
        """Delete the new keys from the store that no instance can have, after the old ones were restored."""
        for pair in self._pairs:
            if not pair.new_public_key and pair.generation:
                try:
                    stored = self._open(pair, _time(pair))
                except (ssh_keys.Unreadable, AccessDenied) as error:
                    # It was never imported: the journal would have its public key.
                    yield self._hold.event(
                        "retired", f"kept {rfc3339(_time(pair))} of key pair {pair.key_name}: {error}"
                    )
                    continue
                pair.new_public_key = stored.public_key if stored else ""
            if not pair.new_public_key:
                continue
            having = self._having(pair, "new")
            if having and pair.restored:
                self._store_again(pair)
            yield from self._delete_stored(pair, pair.new_public_key, "new", having)

    def _store_again(self, pair: KeyPairRecord) -> None:
        """Store the old key once more, as the generation of instances that are launched after it was restored."""
        name, restored = pair.key_name, datetime.fromisoformat(pair.restored)
        generations = self._hold.retrying(lambda: self._keys.generations(name))
        if restored.replace(microsecond=0) in generations:
            return
        for time in generations:
            with suppress(ssh_keys.Unreadable):
                key = self._open(pair, time)
                if key and key.public_key == pair.old_public_key:
                    self._hold.changing(partial(self._keys.store, replace(key, imported=restored)))
                    return

    def _having(self, pair: KeyPairRecord, which: str) -> list[str]:
        """Name the instances that have one of a pair's public keys, or may have it."""
        other = "new" if which == "old" else "old"
        found = existing_with(self._hold, [pair.key_name])
        if which == "new" and not pair.created:
            # It may have been imported, and deleted by something else, unseen.
            return [i.ec2_instance_id for i in found if i.first_launch_time > self._journal.launched_before]
        return [i.ec2_instance_id for i in found if which_key(pair, i) != other]

    def _delete_stored(
        self, pair: KeyPairRecord, public_key: str, which: str, having: Sequence[str]
    ) -> Iterator[Event]:
        name = pair.key_name
        if having:
            some = listed(having, most=_MOST)
            yield self._hold.event(
                "retired", f"kept the {which} key of key pair {name} in the store: {some} may have it"
            )
            return
        try:
            stored = self._hold.retrying(lambda: self._keys.public_keys(name))
        except RackctlError as error:
            yield self._hold.event("retired", f"kept the {which} key of key pair {name} in the store: {error}")
            return
        generations = [generation for generation, stored_key in stored.items() if stored_key == public_key]
        if not generations:
            return
        self._hold.checkpoint()
        if name not in self._journal.retiring:
            self._journal.retiring.append(name)
            self._hold.write()
        for generation in generations:
            self._hold.changing(partial(self._keys.delete, name, generation))
        times = listed(map(rfc3339, generations))
        yield self._hold.event("retired", f"deleted the {which} key of key pair {name} from the store ({times})")


def _time(pair: KeyPairRecord) -> datetime:
    return datetime.fromisoformat(pair.generation)
