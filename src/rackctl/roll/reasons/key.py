"""A new SSH key: every instance that was launched with another one is old."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rackctl import keys as ssh_keys
from rackctl.errors import AccessDenied, NotFound, RackctlError
from rackctl.roll.reasons.generations import Generations
from rackctl.roll.reasons.kept import KeptPairs
from rackctl.roll.reasons.launching import existing_with, keys_of_configurations, keys_of_groups
from rackctl.roll.reasons.templates import Templates
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from rackctl.instances import Instances
    from rackctl.keys import KeyStore
    from rackctl.model import AutoScalingGroup, GroupInstance, Instance, KeyPair
    from rackctl.roll.hold import Hold
    from rackctl.roll.report import Event
    from rackctl.ssh.login import Proof

# So many instances are named at most.
_MOST = 10


class NewKey:
    """Gives every instance of a rack a new key, by a new name or by the one that its key pair has.

    ``login`` begins a login with one generation of an instance's key.
    """

    proves = "accepts the new key"

    def __init__(
        self,
        hold: Hold,
        instances: Instances,
        keys: KeyStore,
        login: Callable[[Instance, datetime], Callable[[], Proof | None]],
    ) -> None:
        self._hold = hold
        self._aws = hold.aws
        self._journal = hold.journal
        self._rack_instances = instances
        self._keys = keys
        self._login = login
        self._templates = Templates(hold)
        self._generations = Generations(hold, keys)
        self._kept = KeptPairs(hold, self._generations)

    @property
    def _name(self) -> str:
        return self._journal.key_name

    @property
    def launched_before(self) -> datetime:
        return self._journal.launched_before

    def is_old(self, instance: Instance, member: GroupInstance | None = None) -> bool:  # noqa: ARG002 - the protocol's
        """Tell whether an instance has another key than the roll's, as far as is known."""
        return not (bool(self._name) and instance.key_name == self._name) and not self._kept.is_new(instance)

    def is_kept(self, instance: Instance) -> bool:  # noqa: ARG002 - the protocol's
        """Return False: what has the roll's key was launched for it."""
        return False

    def start_proof(self, instance: Instance) -> Callable[[], Proof | None]:
        """Begin a login with the new key and no other generation of it."""
        if instance.key_name in self._journal.key_pairs:
            return self._login(instance, self._kept.generation(instance.key_name))
        generations = self._hold.retrying(lambda: self._keys.generations(self._name))
        if not generations:
            raise self._lost()
        return self._login(instance, generations[-1])

    # Before

    def prepare(self) -> Iterator[Event]:
        """Make, store and import the key, and have the groups launch with it, as far as that is still to do."""
        yield from self._kept.renew()
        if not self._name:
            return
        self._hold.checkpoint()
        yield from self._make_key()
        self._hold.checkpoint()
        for change in self._templates.give_new_key():
            yield self._hold.event("template", change)

    def _make_key(self) -> Iterator[Event]:
        name, options = self._name, self._journal.options
        there, stored = self._hold.retrying(lambda: (self._aws.ec2.key_pair(name), self._keys.public_keys(name)))
        public_key = stored[max(stored)] if stored else None
        if public_key is None and self._journal.phase != "preparing":
            # Another key by its name would look like the one that instances were launched with, and open none of them.
            raise self._lost()
        if public_key is None and not there:
            key = ssh_keys.generate(
                name, created=self._hold.clock.now(), key_type=options.key_type, reason=options.reason
            )
            self._hold.changing(lambda: self._keys.store(key))
            public_key = key.public_key
            yield self._hold.event("key", f"stored key {name}, sealed by KMS")
        if there is None:
            assert public_key is not None
            tags = {"rackctl:rack": self._hold.rack.name, "Rack": self._hold.rack.name}
            if options.reason:
                tags["rackctl:reason"] = options.reason[:256]
            self._hold.changing(partial(self._aws.ec2.import_key_pair, name, public_key, tags))
            yield self._hold.event("key", f"imported key pair {name} into EC2")
        elif there.public_key != public_key:
            raise RackctlError(
                f"EC2 has another key pair named {name}; nothing was overwritten",
                hint="start another keyroll, whose key has another name",
            )

    def _lost(self) -> RackctlError:
        return RackctlError(
            f"key {self._name} has been deleted from the store: rackctl cannot log in to the instances that have it",
            hint=f"run {self._journal.command('abort')}, then start another keyroll: it replaces those instances too",
        )

    def launches_old(self, group: AutoScalingGroup) -> str:
        """Say with which other key a group launches, or that its key cannot be changed; empty if it is the new one."""
        record = self._journal.groups[group.auto_scaling_group_name]
        if record.key_names:
            return self._kept.launches_old(group, record)
        if not group.launch_templates:
            return "uses a launch configuration now, whose key cannot be changed"
        for ref in group.launch_templates:
            launches_with = self._aws.ec2.launch_template_version(ref).key_name
            if launches_with != self._name:
                key = f"key {launches_with}" if launches_with else "no key"
                return f"launches with {key} again and not with {self._name}"
        return ""

    # After

    def roll_back(self) -> Iterator[Event]:
        """Have the groups launch with the keys that they had."""
        yield from self._kept.restore()
        for change in self._templates.give_back():
            yield self._hold.event("restored", change)

    def finish(self) -> Iterator[Event]:
        """Delete the keys that nothing has any more, and say what to write where the groups are made."""
        if not self._journal.options.keep_old_keys:
            yield from self._generations.retire()
        yield from self._retire(self._old_keys())
        for record in self._journal.groups.values():
            for line in record.key_lines:
                name = record.auto_scaling_group_name
                yield self._hold.event("advice", f"group {name}: to keep the new key, set in {line}", group=name)

    def clean_up(self) -> Iterator[Event]:
        """Delete the keys that nothing has any more, the new one among them if no instance has got it."""
        yield from self._generations.discard()
        yield from self._retire([*self._old_keys(), *([self._name] if self._name else ())])

    def summary(self) -> str:
        """Return which key the instances have, and which have another."""
        present = self._hold.retrying(self._rack_instances.instances)
        others = [i.ec2_instance_id for i in present if self.is_old(i)]
        members = self._hold.retrying(lambda: self._aws.autoscaling.members(others))
        terminating = [id_ for id_ in others if id_ in members and members[id_].is_terminating]
        alone = [id_ for id_ in others if id_ not in terminating]
        keys = [f"key {self._name}"] if self._name else []
        keys += [f"the new key of key pair {name}" for name in self._journal.key_pairs]
        said = f"every instance has {' or '.join(keys)}"
        if alone:
            said += f", except {listed(alone, most=_MOST)}, which the roll left alone"
        if terminating:
            said += f"; still terminating: {listed(terminating, most=_MOST)}"
        return said

    def _old_keys(self) -> list[str]:
        """Name the rack's keys that rackctl has given and that are older than this roll, unless they are to be kept."""
        if self._journal.options.keep_old_keys:
            return []
        rack = self._hold.rack.name
        tagged = self._hold.retrying(lambda: self._aws.ec2.key_pairs_tagged({"rackctl:rack": rack}))
        stored = [name for name in self._hold.retrying(self._keys.names) if ssh_keys.is_key_name(rack, name)]
        return sorted({*stored, *(pair.key_name for pair in tagged)} - {self._name, *self._journal.key_pairs})

    def _retire(self, names: Sequence[str]) -> Iterator[Event]:
        """Delete those of these keys that no instance and no group's launch template names."""
        if not names:
            return
        used = self._used(names)
        for name in names:
            if name in used:
                yield self._hold.event("retired", f"kept key {name}: {used[name]} has it")
                continue
            self._hold.checkpoint()
            yield from self._delete(name)

    def _delete(self, name: str) -> Iterator[Event]:
        try:
            pair, stored = self._hold.retrying(lambda: (self._aws.ec2.key_pair(name), self._keys.public_keys(name)))
        except (ssh_keys.Unreadable, AccessDenied, NotFound) as error:
            yield self._hold.event("retired", f"kept key {name}: {error}")
            return
        if pair is None and name not in {self._name, *self._journal.retiring}:
            # A rack of the same name in another region may share the bucket, and have this key's pair.
            yield self._hold.event(
                "retired", f"kept stored key {name}: EC2 has no key pair of that name in this region"
            )
            return
        if name not in self._journal.retiring:
            self._journal.retiring.append(name)
            self._hold.write()
        if pair and self._is_ours(pair, stored):
            self._hold.changing(partial(self._aws.ec2.delete_key_pair, name))
            yield self._hold.event("retired", f"deleted key pair {name}: no longer used")
        elif pair:
            yield self._hold.event("retired", f"kept key pair {name}: rackctl did not create it")
        for generation in stored:
            self._hold.changing(partial(self._keys.delete, name, generation))
        if stored:
            yield self._hold.event("retired", f"deleted stored key {name}: no longer used")

    def _is_ours(self, pair: KeyPair, stored: Mapping[datetime, str]) -> bool:
        """Tell whether EC2's key pair is the stored key or, where none is stored, was tagged as one of this rack's."""
        if stored:
            return pair.public_key in stored.values()
        return pair.tags.get("rackctl:rack") == self._hold.rack.name

    def _used(self, names: Sequence[str]) -> dict[str, str]:
        """Map those of these keys that something still names to what does."""
        existing = existing_with(self._hold, names)
        # Asked twice as well, in case of an incomplete answer.
        used = {**self._hold.retrying(self._launched_with), **self._hold.retrying(self._launched_with)}
        return {**used, **{i.key_name: i.ec2_instance_id for i in existing}}

    def _launched_with(self) -> dict[str, str]:
        """Map the keys that groups and launch configurations of the account launch with to what names them."""
        return dict([*keys_of_groups(self._aws, self._hold.all_groups()), *keys_of_configurations(self._aws)])
