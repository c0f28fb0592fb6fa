"""The launch templates of a rack's groups: give each a version with the new key, and take it back.

A group names a version by its number, as ``$Default`` or as ``$Latest``, and goes on naming it the same way: a number
becomes another number, ``$Default`` is pointed at the new version, ``$Latest`` is the new version by itself. What the
roll made is known by its description and its key, not by memory, so that each step can be done again.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rackctl.errors import RackctlError
from rackctl.keyroll.journal import TemplateRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.keyroll.journal import GroupRecord
    from rackctl.keyroll.run import Run
    from rackctl.model import AutoScalingGroup, LaunchTemplateRef, LaunchTemplateVersion

_MADE = re.compile(r"keyroll: version (?P<source>\d+) with key .*")


class Templates:
    """Changes the launch templates of the groups in a roll's journal."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._aws = run.aws
        self._journal = run.journal

    def record(self, group: AutoScalingGroup) -> list[TemplateRecord]:
        """Say how a group names its templates and what that is, before it is changed."""
        return [
            TemplateRecord(
                version.launch_template_id, ref.launch_template_name, ref.version, source=version.version_number
            )
            for ref in group.launch_templates
            for version in [self._aws.ec2.launch_template_version(ref)]
        ]

    def give_new_key(self) -> Iterator[str]:
        """Have every group launch with the new key, yielding a sentence for each template that changed for it."""
        uses = [(group, ref) for group in self._run.groups() for ref in group.launch_templates]
        # A version made of another one would be `$Latest` until its own successor is made: that one is made last.
        for group, ref in sorted(uses, key=lambda use: use[1].version == "$Latest"):
            yield from self._give(group, ref)

    def _give(self, group: AutoScalingGroup, ref: LaunchTemplateRef) -> Iterator[str]:
        key, name = self._journal.key_name, group.auto_scaling_group_name
        record = self._find(name, ref)
        now = self._aws.ec2.launch_template_version(ref)
        source = _source(now, key)
        if now.key_name == key and (source is None or ref.version != "$Latest" or source == record.source):
            return
        if source is None and record.source != now.version_number:
            # Somebody has moved it on since the roll began: that is what is to be kept now.
            record.source = now.version_number
        made = self._made(now.launch_template_id, record.source)
        if not made or (ref.version == "$Latest" and made != self._latest(now.launch_template_id)):
            made = self._aws.ec2.create_launch_template_version(
                now.launch_template_id,
                record.source,
                key_name=key,
                description=_description(record.source, key),
            )
        # Written down before it is used: whoever takes it back must know what stands in the place of what.
        record.made = made
        self._run.save()
        template = ref.launch_template_name or ref.launch_template_id
        if ref.version == "$Default":
            self._aws.ec2.set_default_version(now.launch_template_id, made)
            yield f"launch template {template}: version {made} is the default, version {record.source} with the new key"
        elif ref.version == "$Latest":
            yield f"launch template {template}: version {made} is the latest, version {record.source} with the new key"
        else:
            current = self._group(name)
            self._aws.autoscaling.set_launch_template_versions(current, {ref: str(made)})
            yield f"group {name}: launch template {template} version {made}, which is {record.source} with the new key"

    def _find(self, group_name: str, ref: LaunchTemplateRef) -> TemplateRecord:
        records = self._journal.groups[group_name].templates
        for record in records:
            if record.launch_template_id == ref.launch_template_id and record.version == ref.version:
                return record
        version = self._aws.ec2.launch_template_version(ref)
        record = TemplateRecord(
            version.launch_template_id, ref.launch_template_name, ref.version, source=version.version_number
        )
        if version.key_name != self._journal.key_name:
            records.append(record)
        return record

    def _group(self, name: str) -> AutoScalingGroup:
        for group in self._aws.autoscaling.groups([name]):
            return group
        raise RackctlError(f"group {name} has been deleted")

    def _latest(self, launch_template_id: str) -> int:
        return self._aws.ec2.launch_templates([launch_template_id])[0].latest_version_number

    def _made(self, launch_template_id: str, source: int) -> int:
        """Find the newest version that this roll made of a source; 0 for none."""
        versions = self._aws.ec2.launch_template_versions_from(launch_template_id, source)
        key = self._journal.key_name
        return max((v.version_number for v in versions if _source(v, key) == source), default=0)

    def give_back(self) -> Iterator[str]:
        """Have every group launch as before the roll, and delete the versions that the roll made."""
        for group in self._run.groups():
            yield from self._restore(group, self._journal.groups[group.auto_scaling_group_name])
        yield from self._delete_made()

    def _restore(self, group: AutoScalingGroup, record: GroupRecord) -> Iterator[str]:
        for template in record.templates:
            id_, name = template.launch_template_id, template.launch_template_name or template.launch_template_id
            if not template.made or template.version == "$Latest":
                continue
            if template.version == "$Default":
                if self._aws.ec2.launch_templates([id_])[0].default_version_number == template.made:
                    self._aws.ec2.set_default_version(id_, template.source)
                    yield f"launch template {name}: version {template.source} is the default again"
                continue
            current = self._group(group.auto_scaling_group_name)
            back = {
                ref: template.version
                for ref in current.launch_templates
                if ref.launch_template_id == id_ and ref.version == str(template.made)
            }
            if back:
                self._aws.autoscaling.set_launch_template_versions(current, back)
                yield f"group {group.auto_scaling_group_name}: launch template {name} version {template.version} again"

    def _delete_made(self) -> Iterator[str]:
        lowest: dict[str, int] = {}
        for record in self._journal.groups.values():
            for template in record.templates:
                id_ = template.launch_template_id
                lowest[id_] = min(lowest.get(id_, template.source), template.source)
        named = _named_by_number(self._aws.autoscaling.all_groups()) if lowest else set()
        for id_, source in lowest.items():
            default = self._aws.ec2.launch_templates([id_])[0].default_version_number
            made = [
                version.version_number
                for version in self._aws.ec2.launch_template_versions_from(id_, source)
                if _source(version, self._journal.key_name) is not None
                and version.version_number != default
                and (id_, version.version_number) not in named
            ]
            if made:
                self._aws.ec2.delete_launch_template_versions(id_, made)
                yield f"launch template {id_}: version {', '.join(map(str, made))} deleted"


def _named_by_number(groups: Sequence[AutoScalingGroup]) -> set[tuple[str, int]]:
    return {
        (ref.launch_template_id, int(ref.version))
        for group in groups
        for ref in group.launch_templates
        if ref.version.isdecimal()
    }


def _description(source: int, key_name: str) -> str:
    # EC2 takes at most 255 characters.
    return f"keyroll: version {source} with key {key_name}"[:255]


def _source(version: LaunchTemplateVersion, key_name: str) -> int | None:
    """Give the version that the roll made this one of; None for one that the roll did not make."""
    found = _MADE.fullmatch(version.description)
    return int(found["source"]) if found and version.key_name == key_name else None
