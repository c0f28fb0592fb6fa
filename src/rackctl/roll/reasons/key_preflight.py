"""How each group gets its new key, what forbids it, and what is to be known before it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from rackctl.errors import RackctlError
from rackctl.keys import is_key_name
from rackctl.owners import owner_of
from rackctl.roll.problems import Problem
from rackctl.roll.reasons.launching import launching, other_instances, other_users, template_name
from rackctl.roll.reasons.pairs import KeyPairRecord, is_public_key
from rackctl.roll.reasons.ways import problems_of, ways_of
from rackctl.settings import Source
from rackctl.text import listed as in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rackctl.aws.session import Aws
    from rackctl.keys import KeyStore
    from rackctl.model import AutoScalingGroup, Instance, KeyPair
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.reasons.ways import KeyWay, Launching
    from rackctl.roll.view import RollOptions, View

_MOST = 5


class KeyPreflight:
    """The checks of one plan of a keyroll. ``instance`` returns what EC2 has said of an instance.

    ``listed`` are the instances of the rack, ``everywhere`` the account's groups, ``groups`` those that are rolled.
    """

    def __init__(
        self,
        rack: Rack,
        keys: KeyStore,
        options: RollOptions,
        instance: Callable[[str], Instance | None],
        *,
        listed: Sequence[RackInstance],
        everywhere: Sequence[AutoScalingGroup],
        groups: Mapping[str, tuple[AutoScalingGroup, View]],
    ) -> None:
        self._rack = rack
        self._aws = rack.aws
        self._keys = keys
        self._options = options
        self._instance = instance
        self._listed = listed
        self._everywhere = everywhere
        self._groups = groups
        self._rolled = [group for group, _ in groups.values()]

    @cached_property
    def _launching(self) -> list[Launching]:
        ids = sorted({ref.launch_template_id for group in self._rolled for ref in group.launch_templates} - {""})
        templates = {t.launch_template_id: t for t in self._aws.ec2.launch_templates(ids)}
        return [launching(self._aws, self._rack.name, group, templates) for group in self._rolled]

    @cached_property
    def ways(self) -> dict[str, KeyWay]:
        """Map the groups to the ways in which they get their new keys."""
        wanted = self._rack.setting("key_name")
        given = wanted.origin.source is Source.OPTION
        asked = f"--key-name {wanted.value}" if given else f"key_name is {wanted.value} ({wanted.origin})"
        return ways_of(self._launching, wanted.value, asked, new_key_name(self._rack.name))

    def problems(self) -> Iterator[Problem]:
        """Yield what forbids a new key, and what is to be known before."""
        if self._rack["bucket"] and self._rack["kms_key"]:
            yield from self._stored()
        yield from problems_of(self._launching, self.ways, out_of_band=self._options.out_of_band)
        yield from self._sharing()
        for name, group_name in self._kept.items():
            yield from self._key_pair(name, group_name)
        for group, view in self._groups.values():
            yield from self._windows(group, view)

    def _stored(self) -> Iterator[Problem]:
        """See whether the bucket is the one that the rack's keys are stored in."""
        store, prefix = self._rack.store, self._rack["prefix"]
        try:
            stored = set(self._keys.names())
        except RackctlError as error:
            yield Problem(str(error), error.hint)
            return
        present = {i.instance.key_name: i.ec2_instance_id for i in self._listed if i.instance and not i.is_terminating}
        lost = sorted(name for name in present if is_key_name(self._rack.name, name) and name not in stored)
        if lost:
            reason = f"key {lost[0]} of {present[lost[0]]} is not stored in s3://{store.name}/{prefix}/keys/"
            if self._rack.is_given("bucket"):
                yield Problem(f"{reason}: rackctl cannot log in to instances that have it", warns=True)
            else:
                yield Problem(
                    f"{reason}, and the bucket is named by a tag alone",
                    "check who changed the cluster's tag rackctl:bucket; if the bucket is right and the key is lost, "
                    f"set RACKCTL_BUCKET={store.name}",
                )

    def _sharing(self) -> Iterator[Problem]:
        """Refuse to change what other groups launch from."""
        changing = [group for group in self._rolled if self.ways[group.auto_scaling_group_name].way == "new"]
        refs = {ref for group in changing for ref in group.launch_templates}
        changed = {ref.launch_template_id for ref in refs}
        defaults = {ref.launch_template_id for ref in refs if ref.version == "$Default"}
        for group in self._everywhere:
            if group.auto_scaling_group_name in {one.auto_scaling_group_name for one in changing}:
                continue
            for ref in group.launch_templates:
                moves = changed if ref.version == "$Latest" else defaults if ref.version == "$Default" else set()
                if ref.launch_template_id in moves:
                    others = "" if group.auto_scaling_group_name in self._groups else ", which is not this rack's,"
                    yield Problem(
                        f"group {group.auto_scaling_group_name}{others} launches from {ref.version} of launch "
                        f"template {template_name(ref)} as well: it would get this rack's key",
                        f"have that group name a version by its number, or tag it Rack={self._rack.name} if it is "
                        "the rack's",
                    )

    @property
    def _kept(self) -> dict[str, str]:
        """The key pairs that are renewed under their names, each with a group that launches with it."""
        return {name: group for group, way in self.ways.items() for name in way.key_names}

    def shared(self) -> Iterator[Problem]:
        """Refuse key pairs that are renewed under their names and that others launch with as well."""
        names = self._kept
        if not names:
            return
        known = {instance.ec2_instance_id for instance in self._listed}
        users: dict[str, list[str]] = {}
        for name, what in (
            *other_users(self._aws, self._rolled, self._everywhere),
            *other_instances(self._aws, list(names), known),
        ):
            if name in names and what not in users.setdefault(name, []):
                users[name].append(what)
        for name, what_all in sorted(users.items()):
            reason = (
                f"key pair {name} has other users: {in_words(what_all, most=_MOST)}. What they launch next gets the "
                "new key; what runs keeps its own"
            )
            if self._options.shared_key_pair:
                yield Problem(reason, warns=True)
            else:
                yield Problem(reason, "tell their owners, then use --shared-key-pair; or use --key-name new")

    def _key_pair(self, name: str, group: str) -> Iterator[Problem]:
        try:
            self._keys.generations(name) if self._rack["bucket"] else None
            pair = self._aws.ec2.key_pair(name)
        except RackctlError as error:
            yield Problem(str(error), error.hint)
            return
        if pair is None:
            yield Problem(
                f"group {group} launches with key pair {name}, which does not exist in EC2",
                "import one (`aws ec2 import-key-pair`), so that the group can launch; or use --key-name new",
            )
        elif not is_public_key(pair.public_key) or pair.created is None:
            yield Problem(
                f"EC2 does not show the public key of key pair {name}, or when it was created: an abort could not "
                "restore it",
                "use --key-name new, or have the group name another key pair",
            )
        elif owner := owner_of(pair.tags):
            yield Problem(
                f"key pair {name} belongs to {owner}: it keeps its name, but not CloudFormation's tags; a change of "
                "PublicKeyMaterial in the stack would replace it",
                warns=True,
            )

    def _windows(self, group: AutoScalingGroup, view: View) -> Iterator[Problem]:
        windows = [
            m.ec2_instance_id for m in view.old if (i := self._instance(m.ec2_instance_id)) and i.platform == "windows"
        ]
        if windows and self._options.key_type != "rsa":
            yield Problem(
                f"{windows[0]} of group {group.auto_scaling_group_name} runs Windows, and EC2 launches no Windows "
                "image with an Ed25519 key",
                "use --key-type rsa",
            )


def new_key_name(rack: str) -> str:
    """Return the placeholder of a plan for the name of a new key pair, which has the time at which the roll begins."""
    return f"{rack}-keypair-<time>"


def key_pair_record(aws: Aws, name: str) -> KeyPairRecord:
    """Read what a key pair is, before it is renewed. Raises RackctlError."""
    pair = aws.ec2.key_pair(name)
    if pair is None or not is_public_key(pair.public_key):
        raise RackctlError(f"EC2 did not describe key pair {name}; nothing was changed", hint="try again in a moment")
    return KeyPairRecord(name, pair.key_pair_id, pair.public_key, _own_tags(pair))


def _own_tags(pair: KeyPair) -> dict[str, str]:
    """Return the tags that can be given to another pair: those of AWS itself cannot."""
    return {key: value for key, value in pair.tags.items() if not key.startswith("aws:")}
