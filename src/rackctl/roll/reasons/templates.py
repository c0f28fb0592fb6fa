"""The launch templates of a rack's groups: create a version of each with the new key, and undo that.

A group names a version by its number, as ``$Default`` or as ``$Latest``, and goes on naming it the same way: a number
becomes another number, ``$Default`` is pointed at the new version, ``$Latest`` is the new version by itself. What the
roll made is known by its description and its key, not by memory, so that each step can be done again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rackctl.aws.errors import AwsError
from rackctl.errors import RackctlError
from rackctl.model import LaunchTemplateRef
from rackctl.roll.journal import TemplateRecord
from rackctl.roll.observe import GroupDeleted
from rackctl.roll.reasons.launching import NO_TEMPLATE, template_name
from rackctl.roll.refresh_terms import takes_configuration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rackctl.model import AutoScalingGroup, LaunchTemplate, LaunchTemplateVersion
    from rackctl.roll.hold import Hold

T = TypeVar("T")

_MADE = re.compile(r"keyroll: version (?P<source>\d+) with key .*")


class Templates:
    """Changes the launch templates of groups in a roll's journal, and changes them back.

    Of those that get a key of a new name: the others launch from what they launch from.
    """

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._aws = hold.aws
        self._journal = hold.journal

    def record(self, group: AutoScalingGroup) -> list[TemplateRecord]:
        """Say how a group names its templates and what that is, before it is changed."""
        return [_record(ref, self._aws.ec2.launch_template_version(ref)) for ref in group.launch_templates]

    def give_new_key(self) -> Iterator[str]:
        """Have every group launch with the new key, yielding a sentence for each template that changed for it."""
        uses = [(group, ref) for group in self._groups() for ref in group.launch_templates]
        # A version made of another one would be `$Latest` until its own successor is made: that one is made last.
        for group, ref in sorted(uses, key=lambda use: use[1].version == "$Latest"):
            yield from self._give(group, ref)

    def _give(self, group: AutoScalingGroup, ref: LaunchTemplateRef) -> Iterator[str]:
        key = self._journal.key_name
        record = self._find(group.auto_scaling_group_name, ref)
        # None if it was deleted meanwhile, as the roll's own version may have been: it is created again.
        now = self._version(ref)
        if now is not None:
            source = _source(now, key)
            if now.key_name == key and (source is None or ref.version != "$Latest" or source == record.source):
                if source == record.source:
                    record.made = now.version_number  # by another group that names it, if not by this one
                return
            if source is None and record.source != now.version_number:
                # $Default was moved since the roll began; the newer one is kept.
                record.source, record.key_name = now.version_number, now.key_name
        made = self._derived(ref, record.source, key)
        # Written before it is used: a roll-back must know which version stands in the place of which.
        record.made = made
        self._hold.write()
        what = f"version {record.source} with the new key"
        if self._journal.options.engine == "refresh" and takes_configuration(group):
            # The refresh has the group name it, once all instances have come from it.
            yield f"launch template {template_name(ref)}: created version {made} ({what})"
        else:
            yield self._use(group, ref, made, what)

    def _derived(self, ref: LaunchTemplateRef, source: int, key_name: str) -> int:
        """Return a version that differs from its source in nothing but the key, made now or before."""
        id_ = ref.launch_template_id
        original = self._hold.retrying(
            partial(self._aws.ec2.launch_template_version, LaunchTemplateRef(id_, "", str(source)))
        )
        versions = self._versions_from(id_, source)
        # A description proves nothing: what is not the source with another key is not used.
        same = [v for v in versions if _source(v, key_name) == source and not differences(original.data, v.data)]
        made = max((v.version_number for v in same), default=0)
        latest = max((v.version_number for v in versions), default=0)
        if not made or (ref.version == "$Latest" and made != latest):
            made = self._create(original, key_name)
        return made

    def _create(self, source: LaunchTemplateVersion, key_name: str) -> int:
        """Create a version from another one, and check that it launches the same instances but for their key."""
        id_, number = source.launch_template_id, source.version_number
        changes: dict[str, Any] = {"KeyName": key_name}
        if mappings := source.data.get("BlockDeviceMappings"):
            changes["BlockDeviceMappings"] = mappings
        description = _description(number, key_name)
        made = self._hold.change(
            lambda: self._aws.ec2.create_launch_template_version(id_, number, changes, description=description)
        )
        created = self._created(id_, made)
        if different := differences(source.data, created.data):
            self._hold.change(lambda: self._aws.ec2.delete_launch_template_versions(id_, [made]))
            raise RackctlError(
                f"EC2 made an incomplete copy of version {number} of launch template {id_}: "
                f"{'; '.join(different[:5])}. The copy was deleted",
                hint="create the version yourself: in the EC2 console, `Modify template (Create new version)`",
            )
        return made

    def _created(self, launch_template_id: str, number: int) -> LaunchTemplateVersion:
        """Read a version that was created just now, which may be described a moment later."""
        ref = LaunchTemplateRef(launch_template_id, "", str(number))
        version = self._hold.until(partial(self._version, ref))
        if version is None:
            raise RackctlError(f"EC2 does not describe version {number} of launch template {launch_template_id}")
        return version

    def _use(self, group: AutoScalingGroup, ref: LaunchTemplateRef, version: int, what: str) -> str:
        """Have what a reference names be this version, and say so."""
        template = template_name(ref)
        if ref.version == "$Default":
            self._set_default(ref.launch_template_id, version)
            return f"launch template {template}: version {version} is the default ({what})"
        if ref.version == "$Latest":
            return f"launch template {template}: created version {version} ({what})"
        name = group.auto_scaling_group_name
        self._set_versions(name, {ref: str(version)})
        return f"group {name}: uses version {version} of launch template {template} ({what})"

    def _set_default(self, launch_template_id: str, version: int) -> None:
        self._hold.changing(lambda: self._aws.ec2.set_default_version(launch_template_id, version))

    def _set_versions(self, group_name: str, versions: Mapping[LaunchTemplateRef, str]) -> None:
        group = self._group(group_name)
        self._hold.changing(lambda: self._aws.autoscaling.set_launch_template_versions(group, versions))

    def _find(self, group_name: str, ref: LaunchTemplateRef) -> TemplateRecord:
        """Find or make the record of what a group named where it names this now."""
        records = self._journal.groups[group_name].templates
        for record in records:
            if record.launch_template_id == ref.launch_template_id and ref.version in {
                record.version,
                str(record.made),
            }:
                return record
        now = self._hold.retrying(partial(self._aws.ec2.launch_template_version, ref))
        record = _record(ref, now)
        if now.key_name != self._journal.key_name:
            records.append(record)
        return record

    def _version(self, ref: LaunchTemplateRef) -> LaunchTemplateVersion | None:
        """Return the version that a reference names, None if there is none."""
        return self._if_there_is(partial(self._aws.ec2.launch_template_version, ref))

    def _groups(self) -> list[AutoScalingGroup]:
        records = self._journal.groups
        return [g for g in self._hold.groups() if not records[g.auto_scaling_group_name].key_names]

    def _group(self, name: str) -> AutoScalingGroup:
        """Describe a group as it is now, its policy and all. Raises GroupDeleted."""
        if group := self._hold.group(name):
            return group
        raise GroupDeleted(f"group {name} has been deleted")

    def _template(self, launch_template_id: str) -> LaunchTemplate | None:
        """Describe a launch template, None when there is none."""
        described = self._if_there_is(partial(self._aws.ec2.launch_templates, [launch_template_id]))
        return next(iter(described or ()), None)

    def _if_there_is(self, describe: Callable[[], T]) -> T | None:
        """Describe a launch template or a version of one; None if EC2 says that there is none."""
        try:
            return self._hold.retrying(describe)
        except AwsError as error:
            if error.code in NO_TEMPLATE:
                return None
            raise

    def _versions_from(self, launch_template_id: str, lowest: int) -> list[LaunchTemplateVersion]:
        return self._hold.retrying(
            lambda: list(self._aws.ec2.launch_template_versions_from(launch_template_id, lowest))
        )

    def give_back(self) -> Iterator[str]:
        """Have every group launch as before the roll, and delete the versions that the roll made.

        Versions that were made from those meanwhile are kept, with the old key.
        """
        for record in self._records():
            if record.version == "$Default" and record.made:
                yield from self._restore_default(record)
        for group in self._groups():
            name = group.auto_scaling_group_name
            for record in self._journal.groups[name].templates:
                if record.version.isdecimal() and record.made:
                    yield from self._restore_number(name, record)
        yield from self._delete_made()
        for group in self._groups():
            for ref in group.launch_templates:
                yield from self._give_old_key(group, ref)
        for record in self._records():
            record.made = 0

    def _give_old_key(self, group: AutoScalingGroup, ref: LaunchTemplateRef) -> Iterator[str]:
        now = self._version(ref)
        if now is None or now.key_name != self._journal.key_name:
            return
        records = self._journal.groups[group.auto_scaling_group_name].templates
        before = next((r.key_name for r in records if r.launch_template_id == ref.launch_template_id), "")
        if not before or self._hold.retrying(partial(self._aws.ec2.key_pair, before)) is None:
            # A key can be put in the place of another; none cannot.
            yield (
                f"launch template {template_name(ref)}: version {now.version_number}, created during the roll, keeps "
                f"key {now.key_name}"
            )
            return
        made = self._derived(ref, now.version_number, before)
        yield self._use(group, ref, made, f"version {now.version_number} with the old key")

    def _restore_default(self, record: TemplateRecord) -> Iterator[str]:
        """Move a template's default version back to where it was, if the roll has moved it."""
        id_ = record.launch_template_id
        template = self._template(id_)
        if template and template.default_version_number == record.made and self._exists(record):
            self._set_default(id_, record.source)
            yield f"launch template {template.launch_template_name}: version {record.source} is the default again"

    def _restore_number(self, group_name: str, record: TemplateRecord) -> Iterator[str]:
        """Have a group name the version that it named before."""
        group = self._group(group_name)
        back = {
            ref: record.version
            for ref in group.launch_templates
            if ref.launch_template_id == record.launch_template_id and ref.version == str(record.made)
        }
        if back and self._exists(record):
            self._set_versions(group_name, back)
            name = record.launch_template_name or record.launch_template_id
            yield f"group {group_name}: uses version {record.version} of launch template {name} again"

    def _exists(self, record: TemplateRecord) -> bool:
        """Return whether the version that the roll's own was made from still exists."""
        return self._version(LaunchTemplateRef(record.launch_template_id, "", str(record.source))) is not None

    def _delete_made(self) -> Iterator[str]:
        lowest: dict[str, int] = {}
        for record in self._records():
            id_ = record.launch_template_id
            lowest[id_] = min(lowest.get(id_, record.lowest), record.lowest)
        named = _named_by_number(self._hold.all_groups()) if lowest else set()
        for id_, number in lowest.items():
            template = self._template(id_)
            if template is None:
                continue
            made = [
                version.version_number
                for version in self._versions_from(id_, number)
                if _source(version, self._journal.key_name) is not None
                and version.version_number != template.default_version_number
                and (id_, version.version_number) not in named
            ]
            if made:
                self._hold.change(partial(self._aws.ec2.delete_launch_template_versions, id_, made))
                which = ", ".join(map(str, made))
                yield f"launch template {template.launch_template_name}: deleted version {which}"

    def _records(self) -> Iterator[TemplateRecord]:
        for record in self._journal.groups.values():
            yield from record.templates


def _named_by_number(groups: Sequence[AutoScalingGroup]) -> set[tuple[str, int]]:
    return {
        (ref.launch_template_id, int(ref.version))
        for group in groups
        for ref in group.launch_templates
        if ref.version.isdecimal()
    }


def _record(ref: LaunchTemplateRef, version: LaunchTemplateVersion) -> TemplateRecord:
    number = version.version_number
    return TemplateRecord(
        version.launch_template_id,
        ref.launch_template_name,
        ref.version,
        source=number,
        key_name=version.key_name,
        lowest=number,
    )


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Return where two versions' LaunchTemplateData differ in anything but their KeyName, each as one phrase."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return [
            found
            for name in sorted({*before, *after} - (set() if path else {"KeyName"}))
            for found in differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            found
            for n, (old, new) in enumerate(zip(before, after, strict=True))
            for found in differences(old, new, f"{path}[{n}]")
        ]
    if before == after:
        return []
    # UserData and the like may hold secrets: only what is missing or short is shown.
    shown = "is missing" if after is None else "is new" if before is None else "differs"
    return [f"{path} {shown}"]


def _description(source: int, key_name: str) -> str:
    # EC2 takes at most 255 characters.
    return f"keyroll: version {source} with key {key_name}"[:255]


def _source(version: LaunchTemplateVersion, key_name: str) -> int | None:
    """Return the version that the roll made this one from; None if the roll did not make it."""
    found = _MADE.fullmatch(version.description)
    return int(found["source"]) if found and version.key_name == key_name else None
