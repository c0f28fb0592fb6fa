"""In which of two ways each group gets a new key, and why. Pure.

*keep* imports the new public key under the name that the key pair has: nothing that launches instances is changed.
*new* makes a key pair of a new name, and launch template versions that name it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from rackctl.roll.problems import Problem
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackctl.model import LaunchTemplateRef, LaunchTemplateVersion
    from rackctl.owners import Owner

Way = Literal["keep", "new"]
_MIGRATE_DOCS = "https://docs.aws.amazon.com/autoscaling/ec2/userguide/migrate-to-launch-templates.html"


@dataclass(frozen=True, slots=True)
class Launching:
    """With which keys a group launches.

    ``key_names`` are those of its launch templates or of its launch configuration, empty for one that names none, and
    ``own`` those of them that rackctl has given. ``owner`` is who ``owned``, the group or one of its templates, belongs
    to. ``versions`` are what its launch templates are now.
    """

    auto_scaling_group_name: str
    key_names: tuple[str, ...]
    own: frozenset[str] = frozenset()
    launch_template_ids: tuple[str, ...] = ()
    launch_configuration_name: str = ""
    owner: Owner | None = None
    owned: str = ""
    versions: Mapping[LaunchTemplateRef, LaunchTemplateVersion] = field(default_factory=dict)

    @property
    def lacks_key(self) -> bool:
        """Whether something that it launches from names no key."""
        return not all(self.key_names)

    @property
    def others(self) -> tuple[str, ...]:
        """The key pairs that rackctl did not create."""
        return tuple(name for name in self.key_names if name and name not in self.own)


@dataclass(frozen=True, slots=True)
class KeyWay:
    """The way in which a group gets its new key. ``key_names`` are the key pairs that are renewed under their names.

    ``lines`` are what to write where the group is made, each with the tool that it is for.
    """

    way: Way
    reason: str
    key_names: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.way == "new":
            return f"creates a key pair with a new name and launch template versions that name it ({self.reason})"
        pairs = "key pairs" if len(self.key_names) > 1 else "key pair"
        return f"renews {pairs} {listed(self.key_names)} under the same name ({self.reason})"


def ways_of(groups: Sequence[Launching], wanted: str, asked: str, new_name: str) -> dict[str, KeyWay]:
    """Return the way of each group: the ``wanted`` one; for *auto*, one that changes nothing that a stack owns.

    ``asked`` says what wants it, ``new_name`` is the name of a new key pair in the lines.
    """
    chosen = {group.auto_scaling_group_name: _way_of(group, wanted, asked) for group in groups}
    if wanted == "auto":
        _agree(groups, chosen)
    ways = {}
    for group in groups:
        way, reason = chosen[group.auto_scaling_group_name]
        if way == "keep":
            names = tuple(dict.fromkeys(name for name in group.key_names if name))
            ways[group.auto_scaling_group_name] = KeyWay(way, reason, names)
        else:
            made_elsewhere = group.owner or group.others or group.lacks_key
            lines = (line_for(group.owner, new_name),) if made_elsewhere else ()
            ways[group.auto_scaling_group_name] = KeyWay(way, reason, lines=lines)
    return ways


def _way_of(group: Launching, wanted: str, asked: str) -> tuple[Way, str]:
    match wanted:
        case "keep" | "new":
            return wanted, asked
        case _ if group.launch_configuration_name:
            return "keep", f"launch configuration {group.launch_configuration_name} cannot be changed"
        case _ if group.lacks_key:
            return "new", "it launches without a key"
        case _ if group.owner:
            return "keep", f"{group.owned} belongs to {group.owner}"
        case _ if group.others:
            return "keep", f"rackctl has not given key pair {group.others[0]} its name"
        case _:
            return "new", f"key pair {group.key_names[0]} is one of rackctl's own"


def _agree(groups: Sequence[Launching], chosen: dict[str, tuple[Way, str]]) -> None:
    """Let groups that share a template or a key pair with a group that keeps its name keep theirs as well."""
    undecided = [g for g in groups if chosen[g.auto_scaling_group_name][0] == "new" and not g.lacks_key]
    keeping = [g for g in groups if chosen[g.auto_scaling_group_name][0] == "keep"]
    while keeping:
        one = keeping.pop()
        for group in list(undecided):
            if shared := _shared(group, one):
                undecided.remove(group)
                keeping.append(group)
                chosen[group.auto_scaling_group_name] = "keep", f"it shares {shared} with {one.auto_scaling_group_name}"


def _shared(group: Launching, other: Launching) -> str:
    if set(group.launch_template_ids) & set(other.launch_template_ids):
        return "a launch template"
    return "a key pair" if set(group.key_names) & set(other.key_names) else ""


def line_for(owner: Owner | None, key_name: str) -> str:
    """Return what to write where a group is made, so that it launches with a key pair from then on."""
    if owner is None:
        return f'Terraform: key_name = "{key_name}"'
    if owner.kind == "cdk":
        return f'CDK, {owner}: keyPair: ec2.KeyPair.fromKeyPairName(this, "KeyPair", "{key_name}"),'
    return f"CloudFormation, {owner}: KeyName: {key_name}"


def problems_of(groups: Sequence[Launching], ways: Mapping[str, KeyWay], *, out_of_band: bool) -> Iterator[Problem]:
    """Yield what refuses new keys in these ways, and what a plan warns of."""
    for group in groups:
        name, way = group.auto_scaling_group_name, ways[group.auto_scaling_group_name].way
        if group.lacks_key:
            yield from _without_key(group, way, out_of_band=out_of_band)
        elif way == "new" and group.launch_configuration_name:
            yield Problem(
                f"group {name} launches from launch configuration {group.launch_configuration_name}, whose key cannot "
                "be changed",
                f"use --key-name keep, or move it to a launch template: {_MIGRATE_DOCS}",
            )
        elif way == "new" and group.owner:
            yield Problem(
                f"{group.owned} belongs to {group.owner}, whose next update may bring the old key back",
                warns=True,
            )


def _without_key(group: Launching, way: Way, *, out_of_band: bool) -> Iterator[Problem]:
    name = group.auto_scaling_group_name
    remedy = f"name a key pair there: {line_for(group.owner, 'NAME')}"
    if group.launch_configuration_name:
        yield Problem(
            f"group {name} launches without a key from launch configuration {group.launch_configuration_name}, which "
            "cannot be changed",
            f"{remedy}; or move the group to a launch template: {_MIGRATE_DOCS}",
        )
    elif way == "keep":
        yield Problem(
            f"group {name} launches without a key: there is no name to keep",
            f"{remedy}; or use --key-name new for a key pair with a new name",
        )
    elif group.owner or group.others:
        where = f"{group.owned} belongs to {group.owner}" if group.owner else (
            f"another template of it names key pair {group.others[0]}"
        )  # fmt: skip
        reason = f"group {name} launches without a key, and {where}"
        if out_of_band:
            yield Problem(f"{reason}: its next update may take the new key away", warns=True)
        else:
            yield Problem(reason, f"{remedy}; or use --out-of-band")
