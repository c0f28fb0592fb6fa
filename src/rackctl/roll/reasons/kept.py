"""Renew key pairs under the names that they have: delete the pair, import another public key by the same name.

Running instances keep their key; instances that are launched afterwards get the new one. Nothing that a stack or
Terraform owns is touched. Between the two calls there is no pair to launch with. Therefore the Launch process of the
groups that name it is suspended before the deletion, and resumed once EC2 has shown the imported pair for a while.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from rackctl.aws.errors import AwsError
from rackctl.clock import LAG
from rackctl.errors import AccessDenied, RackctlError, Timeout
from rackctl.roll.reasons.launching import existing_with, key_names
from rackctl.roll.reasons.pairs import doubtful, next_step, which_key
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.model import AutoScalingGroup, Instance, KeyPair, ScalingActivity
    from rackctl.roll.hold import Hold
    from rackctl.roll.journal import GroupRecord
    from rackctl.roll.reasons.generations import Generations
    from rackctl.roll.reasons.pairs import KeyPairRecord
    from rackctl.roll.report import Event

# How long EC2 may take to show what was done to a key pair, in seconds.
_PATIENCE = 120.0
_LAUNCH = "Launch"
_MOST = 5


class KeptPairs:
    """The key pairs of a roll's journal. Each step looks first and does what is still to do."""

    def __init__(self, hold: Hold, generations: Generations) -> None:
        self._hold = hold
        self._aws = hold.aws
        self._journal = hold.journal
        self._generations = generations

    @property
    def _pairs(self) -> list[KeyPairRecord]:
        return list(self._journal.key_pairs.values())

    def is_new(self, instance: Instance) -> bool:
        """Tell whether an instance is known to have the new public key of one of the pairs."""
        pair = self._journal.key_pairs.get(instance.key_name)
        return pair is not None and which_key(pair, instance) == "new"

    def generation(self, key_name: str) -> datetime:
        """Return the generation of a pair's new key in the store."""
        return datetime.fromisoformat(self._journal.key_pairs[key_name].generation)

    # Forwards

    def renew(self) -> Iterator[Event]:
        """Import the new public keys, where that is still to do. Raises RackctlError, StopNow."""
        for pair in self._pairs:
            if pair.state == "new":
                self._require_new(pair)
            else:
                yield from self._generations.make(pair)
        if left := [pair for pair in self._pairs if pair.state != "new"]:
            for pair in left:
                if pair.state == "old":
                    check = self._aws.ec2.require_key_pair_permissions
                    self._hold.retrying(
                        partial(check, pair.key_name, pair.old_key_pair_id, pair.new_public_key, pair.tags)
                    )
            yield from self._change(left, new=True)
        for pair in self._pairs:
            self._generations.date(pair)

    def _require_new(self, pair: KeyPairRecord) -> None:
        """Raise RackctlError if EC2 no longer has the new public key of a pair."""
        if not self._hold.until(lambda: next_step(self._there(pair), pair.new_public_key, "") == "done"):
            raise RackctlError(
                f"key pair {pair.key_name} no longer has the public key that this roll imported",
                hint=f"find out what has changed it; then run {self._journal.command('abort')} and start again",
            )

    # Backwards

    def restore(self) -> Iterator[Event]:
        """Import the old public keys again, where they were replaced. Raises RackctlError, StopNow."""
        left = []
        for pair in self._pairs:
            if pair.state == "old":
                continue
            there = self._there(pair)
            if next_step(there, pair.old_public_key, pair.new_public_key) == "foreign":
                assert there is not None
                pair.state, pair.restored = "old", _time(there)
                self._hold.write()
                yield self._hold.event(
                    "problem", f"key pair {pair.key_name} has neither its old nor its new public key; left as it is"
                )
            else:
                left.append(pair)
        if left:
            yield from self._change(left, new=False)

    # Both

    def _change(self, pairs: Sequence[KeyPairRecord], *, new: bool) -> Iterator[Event]:
        """Import the new public keys of pairs, or the old ones again, while no group launches with the pairs."""
        names = {pair.key_name for pair in pairs}
        groups = [g for g in self._journal.groups.values() if names & set(g.key_names) and not g.deleted]
        yield from self._suspend_launches(groups)
        with self._hold.uninterrupted():
            for pair in pairs:
                pair.state = "changing"
            self._hold.write()
            for pair in pairs:
                yield from self._bring(pair, new=new)
            yield self._hold.event("key", f"waiting until EC2 has shown {_named(names)} unchanged for {LAG:.0f} s")
            there = self._settled(pairs, new=new)
            for pair in pairs:
                yield from self._note(pair, there[pair.key_name], new=new)
        for record in groups:
            if self._hold.resume(record, [_LAUNCH]):
                yield self._hold.event_of_processes(record.auto_scaling_group_name, f"resumed {_LAUNCH}")

    def _suspend_launches(self, records: Sequence[GroupRecord]) -> Iterator[Event]:
        """Keep groups from launching, and wait until no launch is under way. Raises Timeout."""
        since = quiet_since = self._hold.clock.monotonic()
        waits = "Launch to stay suspended"
        while True:
            # A group that is not described may still launch: what it launches is among the doubtful instances later.
            described = {group.auto_scaling_group_name: group for group in self._hold.groups()}
            launching: list[str] = []
            for record in records:
                group = described.get(record.auto_scaling_group_name)
                if group is None:
                    continue
                if _LAUNCH not in group.suspended_processes:
                    quiet_since = self._hold.clock.monotonic()
                    if self._hold.suspend(record, group, _LAUNCH):
                        yield self._hold.event_of_processes(group.auto_scaling_group_name, f"suspended {_LAUNCH}")
                launching += self._launching(group)
            now = self._hold.clock.monotonic()
            if launching:
                waits = f"{listed(launching, most=_MOST)} to launch"
            elif now - quiet_since >= LAG:
                return
            if now - since > self._journal.options.boot_timeout + LAG:
                raise Timeout(
                    f"gave up after {now - since:.0f} s waiting for {waits}",
                    hint="see what the groups launch with `aws autoscaling describe-scaling-activities`",
                )
            if self._hold.is_silent:
                yield self._hold.event("waiting", f"waiting for {waits}")
            self._hold.pause()

    def _launching(self, group: AutoScalingGroup) -> Iterator[str]:
        """Name what a group is launching: an instance, or one that has no id yet."""
        name = group.auto_scaling_group_name
        yield from (m.ec2_instance_id for m in group.instances if m.lifecycle_state == "Pending")
        activities = self._hold.retrying(partial(self._aws.autoscaling.activities, name))
        if any(_has_no_instance_yet(activity) for activity in activities):
            yield f"an instance of group {name}"

    def _bring(self, pair: KeyPairRecord, *, new: bool) -> Iterator[Event]:
        """Delete and import until the name has the public key. Raises RackctlError."""
        name = pair.key_name
        wanted, other = pair.old_public_key, pair.new_public_key
        if new:
            wanted, other = other, wanted
        deadline = self._hold.clock.monotonic() + _PATIENCE
        while (step := next_step(there := self._there(pair), wanted, other)) != "done":
            if step == "foreign":
                raise RackctlError(
                    f"key pair {name} was changed by something other than this roll; it was not overwritten",
                    hint=f"see what it is now with `aws ec2 describe-key-pairs --key-names {name}`; then start again",
                )
            if self._hold.clock.monotonic() >= deadline:
                raise RackctlError(
                    f"EC2 has not shown the last change of key pair {name} for {_PATIENCE:.0f} s",
                    hint=f"see what it shows with `aws ec2 describe-key-pairs --key-names {name}`",
                )
            if step == "delete":
                assert there is not None
                if not new and not pair.created:
                    # Once the pair is deleted, EC2 no longer tells since when instances have got it.
                    pair.created = _time(there)
                    self._hold.write()
                # By its id: by the name it could be the pair that is imported next, if this call is repeated.
                try:
                    self._hold.changing(partial(self._aws.ec2.delete_key_pair, name, there.key_pair_id))
                except AccessDenied:
                    # Of one that is gone by now EC2 does not know that it is ours to delete.
                    if not self._hold.until(lambda: self._is_gone(there)):
                        raise
                yield self._hold.event("key", f"deleted key pair {name} ({there.key_pair_id})")
            try:
                self._hold.changing(partial(self._aws.ec2.import_key_pair, name, wanted, pair.tags))
            except AwsError as error:
                # EC2 may still see the deleted pair for a while, or an earlier try may have imported the key.
                if error.code != "InvalidKeyPair.Duplicate":
                    raise
                self._hold.pause()
            else:
                which = "the new" if new else "its old"
                yield self._hold.event("key", f"imported key pair {name} with {which} public key")

    def _settled(self, pairs: Sequence[KeyPairRecord], *, new: bool) -> dict[str, KeyPair]:
        """Return the pairs once EC2 has shown them, each by the same id, for as long as its answers may lag."""
        wanted = {pair.key_name: pair.new_public_key if new else pair.old_public_key for pair in pairs}
        began = steady_since = self._hold.clock.monotonic()
        shown: dict[str, KeyPair] = {}
        while True:
            now = self._hold.clock.monotonic()
            seen = {pair.key_name: there for pair in pairs if (there := self._there(pair))}
            if not (seen.keys() == wanted.keys() and all(seen[n].public_key == wanted[n] for n in wanted)):
                seen = {}
            if not seen or {n: p.key_pair_id for n, p in seen.items()} != {n: p.key_pair_id for n, p in shown.items()}:
                steady_since = now
            elif now - steady_since >= LAG:
                return seen
            shown = seen
            if now - began > _PATIENCE:
                raise RackctlError(
                    f"EC2 has not shown {_named(wanted)} steadily for {_PATIENCE:.0f} s after the import",
                    hint="find out whether something else changes it, with `aws ec2 describe-key-pairs`",
                )
            self._hold.pause()

    def _note(self, pair: KeyPairRecord, there: KeyPair, *, new: bool) -> Iterator[Event]:
        """Record since when instances get the public key, by EC2's clock, and which instances may have either key."""
        if new:
            pair.created = _time(there)
        elif there.key_pair_id != pair.old_key_pair_id:
            pair.restored = _time(there)
        if there.key_pair_id != pair.old_key_pair_id:
            unsure = doubtful(pair, existing_with(self._hold, [pair.key_name]))
            pair.doubtful = sorted({*pair.doubtful, *unsure})
            if unsure:
                some = listed(unsure, most=_MOST)
                yield self._hold.event(
                    "problem",
                    f"{some}: launched by something else while key pair {pair.key_name} was changed; may have either "
                    "key",
                )
        pair.state = "new" if new else "old"
        self._hold.write()

    # During the roll

    def launches_old(self, group: AutoScalingGroup, record: GroupRecord) -> str:
        """Say with which other key a group launches; empty if it launches with the new one of its pair."""
        for name in key_names(self._aws, group):
            pair = self._journal.key_pairs.get(name)
            if pair is None or name not in record.key_names:
                return f"launches with {f'key pair {name}' if name else 'no key'} now, which this roll does not renew"
            there = self._aws.ec2.key_pair(name)
            if there is None or there.public_key != pair.new_public_key:
                return f"launches with key pair {name}, whose public key is not the new one any more"
        return ""

    # Looking

    def _there(self, pair: KeyPairRecord) -> KeyPair | None:
        return self._hold.retrying(partial(self._aws.ec2.key_pair, pair.key_name))

    def _is_gone(self, pair: KeyPair) -> bool:
        there = self._hold.retrying(partial(self._aws.ec2.key_pair, pair.key_name))
        return there is None or there.key_pair_id != pair.key_pair_id


def _time(pair: KeyPair) -> str:
    if pair.created is None:
        raise RackctlError(f"EC2 does not say when key pair {pair.key_name} was created")
    return pair.created.isoformat()


def _named(names: Sequence[str] | set[str] | dict[str, str]) -> str:
    return f"key pair{'s' if len(names) > 1 else ''} {listed(sorted(names))}"


def _has_no_instance_yet(activity: ScalingActivity) -> bool:
    """Tell whether an activity is about to launch an instance, and does not name it yet.

    https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_Activity.html
    """
    ended = activity.status_code in {"Successful", "Failed", "Cancelled"}
    return not ended and activity.description.startswith("Launching") and ": i-" not in activity.description
