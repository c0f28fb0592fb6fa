"""The steps of a roll, forwards and backwards; each looks first and does what is still to do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rackctl import keys as ssh_keys
from rackctl.aws.errors import AwsError
from rackctl.errors import RackctlError
from rackctl.keyroll.processes import resume
from rackctl.keyroll.run import GroupDeleted
from rackctl.keyroll.templates import NO_TEMPLATE, Templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rackctl.cluster import Cluster
    from rackctl.keyroll.journal import GroupRecord
    from rackctl.keyroll.replace import Replacer
    from rackctl.keyroll.run import Event, Run
    from rackctl.keys import KeyStore
    from rackctl.model import Instance, KeyPair

# How long to wait at the end for what was terminated to be gone, so that its key can be retired, in seconds.
_GOING_FOR = 120.0


class Steps:
    """What a roll does while its journal is held. ``replacer`` works on one group at a time."""

    def __init__(self, run: Run, cluster: Cluster, keys: KeyStore, replacer: Replacer) -> None:
        self._run = run
        self._aws = run.aws
        self._journal = run.journal
        self._cluster = cluster
        self._keys = keys
        self._replacer = replacer

    def forwards(self) -> Iterator[Event]:
        """Give every instance the new key, from wherever the roll stands. Raises RackctlError, StopNow."""
        yield from self._all_active()
        # One with another key may have come back into service meanwhile, as from standby, into a group that was done.
        while self._journal.phase != "finishing" or any(
            state.stale(self._run.key_name) for state in self._run.look_at_all().values()
        ):
            yield from self._prepare()
            yield from self._on_each_group(self._replace)
            self._journal.phase = "finishing"
        yield from self._finish()

    def _replace(self, record: GroupRecord) -> Iterator[Event]:
        yield from self._replacer.replace_all(record)
        yield from self._replacer.give_surge_back(record)

    def _all_active(self) -> Iterator[Event]:
        """Begin from where nothing is DRAINING by a roll that was cut off, and every group can launch."""
        for group in self._run.groups():
            resume(self._run, self._journal.groups[group.auto_scaling_group_name], ["Launch"])
        for id_ in self._replacer.reactivate():
            yield self._run.event("restored", f"{id_}: ACTIVE again", ec2_instance_id=id_)

    def _on_each_group(self, do: Callable[[GroupRecord], Iterator[Event]]) -> Iterator[Event]:
        """Work on one group after the other, leaving those out that somebody has deleted, even in the middle of it."""
        for record in self._journal.groups.values():
            if record.deleted:
                continue
            try:
                self._run.look(record.auto_scaling_group_name, at_ecs=False)
                yield from do(record)
            except GroupDeleted as deleted:
                record.deleted = True
                yield from self._replacer.let_go_of(record)
                self._run.save()
                yield self._run.event(
                    "problem", f"{deleted}; the roll goes on without it", group=record.auto_scaling_group_name
                )

    def _prepare(self) -> Iterator[Event]:
        self._run.checkpoint()
        yield from self._make_key()
        self._run.checkpoint()
        for change in Templates(self._run).give_new_key():
            yield self._run.event("template", change)
        for group in self._run.groups():
            yield from self._replacer.hold_still(self._journal.groups[group.auto_scaling_group_name], group)
        self._journal.phase = "replacing"
        self._run.save()

    def _make_key(self) -> Iterator[Event]:
        """Make, store and import the key, as far as that is still to do."""
        name, options = self._run.key_name, self._journal.options
        there, public_key = self._run.patiently(lambda: self._pair_and_public_key(name))
        if public_key is None and self._journal.phase != "preparing":
            # Another key by its name would look like the one that instances were launched with, and open none of them.
            raise RackctlError(
                f"key {name} has been deleted from the store, and with it the way to the instances that have it",
                hint="abort this roll and begin another, which replaces them too",
            )
        if public_key is None and not there:
            key = ssh_keys.generate(
                name, created=self._run.clock.now(), key_type=options.key_type, reason=options.reason
            )
            self._keys.store(key)
            public_key = key.public_key
            yield self._run.event("key", f"key {name} is stored, sealed by KMS")
        if there is None:
            assert public_key is not None
            tags = {"rackctl:rack": self._run.rack.name, "Rack": self._run.rack.name}
            if options.reason:
                tags["rackctl:reason"] = options.reason[:256]
            self._aws.ec2.import_key_pair(name, public_key, tags)
            yield self._run.event("key", f"key pair {name} is imported into EC2")
        elif there.public_key != public_key:
            raise RackctlError(f"EC2 has another key pair by the name of {name}; nothing was overwritten")

    def _release_processes(self) -> Iterator[Event]:
        for group in self._run.groups():
            name = group.auto_scaling_group_name
            record = self._journal.groups[name]
            if resumed := resume(self._run, record, record.suspended):
                yield self._run.event("processes", f"group {name}: {', '.join(resumed)} resumed", group=name)

    def _finish(self) -> Iterator[Event]:
        self._run.save()
        yield from self._on_each_group(self._replacer.give_surge_back)
        yield from self._release_processes()
        yield from self._retire(self._old_keys())
        instances = self._run.patiently(self._cluster.instances)
        others = sorted(i.ec2_instance_id for i in instances if i.key_name != self._run.key_name)
        self._run.patiently(lambda: self._run.store.delete(self._journal))
        what = f"every instance has the key {self._run.key_name}"
        if others:
            what += f", but for {', '.join(others[:10])}{' and more' * (len(others) > 10)}, which were left alone"
        yield self._run.event("finished", what)

    def backwards(self, *, may_finish: bool = True) -> Iterator[Event]:
        """Give the rack back; if every instance has the new key already, and takes it, finish.

        Raises RackctlError, StopNow.
        """
        yield from self._all_active()
        if may_finish and self._is_done():
            yield self._run.event("problem", "every instance has been replaced already: finishing is all that is left")
            self._journal.phase = "finishing"
            yield from self._finish()
            return
        self._journal.phase = "aborting"
        self._run.save()
        for change in Templates(self._run).give_back():
            yield self._run.event("restored", change)
        yield from self._on_each_group(self._replacer.give_surge_back)
        yield from self._release_processes()
        yield from self._retire([*self._old_keys(), self._run.key_name])
        self._run.patiently(lambda: self._run.store.delete(self._journal))
        yield self._run.event("restored", as_it_was(self._run))

    def _is_done(self) -> bool:
        """Whether all that is left of the roll is its end: no old key, and no new one that has not been proven."""
        if self._journal.retiring and self._journal.phase == "finishing":
            return True  # old keys are being deleted: nothing could be launched with them any more
        proven = any(record.proof for record in self._journal.groups.values())
        return (
            proven
            and self._journal.phase in {"replacing", "finishing"}
            and all(
                not state.stale(self._run.key_name) and (self._journal.groups[name].proof or not state.alive)
                for name, state in self._run.look_at_all().items()
            )
        )

    def _old_keys(self) -> list[str]:
        """Name the rack's keys that are rackctl's own and older than this roll, unless they are to be kept."""
        if self._journal.options.keep_old_keys:
            return []
        tags = {"rackctl:rack": self._run.rack.name}
        ours = {pair.key_name for pair in self._run.patiently(lambda: list(self._aws.ec2.key_pairs_tagged(tags)))}
        return sorted({*self._run.patiently(self._keys.names), *ours} - {self._run.key_name})

    def _pair_and_public_key(self, name: str) -> tuple[KeyPair | None, str | None]:
        """Give what EC2 and what the store has by a key's name."""
        return self._aws.ec2.key_pair(name), self._keys.public_key(name)

    def _retire(self, names: Sequence[str]) -> Iterator[Event]:
        """Delete those of these keys that no instance and no group's launch template names."""
        used = self._used(names)
        for name in names:
            if name in used:
                yield self._run.event("retired", f"key {name} is kept: {used[name]} has it")
                continue
            self._run.checkpoint()
            try:
                pair, stored = self._run.patiently(partial(self._pair_and_public_key, name))
            except ssh_keys.Unreadable as error:
                yield self._run.event("retired", f"key {name} is kept: {error}")
                continue
            if pair is None and name not in {self._run.key_name, *self._journal.retiring}:
                # A rack of the same name in another region may share the bucket, and have this key's pair.
                yield self._run.event(
                    "retired", f"stored key {name} is kept: EC2 has no key pair by that name in this region"
                )
                continue
            if name not in self._journal.retiring:
                self._journal.retiring.append(name)
                self._run.save()
            if pair is None or self._is_ours(pair, stored):
                self._aws.ec2.delete_key_pair(name)
            else:
                yield self._run.event("retired", f"EC2's key pair {name} is kept: it is none of rackctl's making")
            self._keys.delete(name)
            yield self._run.event("retired", f"key {name} is deleted: nothing has it any more")

    def _is_ours(self, pair: KeyPair, stored: str | None) -> bool:
        """Whether EC2's key pair is the stored key or, where none is stored, was tagged as one of this rack's."""
        return pair.public_key == stored if stored else pair.tags.get("rackctl:rack") == self._run.rack.name

    def _used(self, names: Sequence[str]) -> dict[str, str]:
        """Map those of these keys that something still names to what does."""
        used = self._run.patiently(self._launched_with)
        deadline = self._run.clock.monotonic() + _GOING_FOR
        while True:
            existing, going = self._run.patiently(lambda: self._instances_with(names))
            if not going or self._run.clock.monotonic() >= deadline:
                return {**used, **{i.key_name: i.ec2_instance_id for i in existing}}
            self._run.pause()

    def _launched_with(self) -> dict[str, str]:
        """Map the keys that something is launched with, whosever it is, to what that is."""
        used: dict[str, str] = {}
        for group in self._aws.autoscaling.all_groups():
            for ref in group.launch_templates:
                try:
                    used[self._aws.ec2.launch_template_version(ref).key_name] = f"group {group.auto_scaling_group_name}"
                except AwsError as error:
                    # A group, of whomever, that names what does not exist names no key.
                    if error.code not in NO_TEMPLATE:
                        raise
        for configuration, key in self._aws.autoscaling.launch_configuration_keys().items():
            used[key] = f"launch configuration {configuration}"
        return used

    def _instances_with(self, names: Sequence[str]) -> tuple[list[Instance], bool]:
        """Give the instances that are up and have one of these keys, and whether some of them are about to go."""
        existing = [i for i in self._aws.ec2.instances_with_key(list(names)) if not i.is_going]
        members = self._aws.autoscaling.members([i.ec2_instance_id for i in existing])
        return existing, any(member.is_going for member in members.values())


def as_it_was(run: Run) -> str:
    """Say how much of a rack that was given back is as it was before the roll."""
    if not run.done:
        return "the rack is as it was"
    return f"the rack is as it was, but for {run.done} of {run.journal.total} instances, which have been replaced"
