"""Ask AWS with which keys groups launch, and who else launches with a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.aws.errors import AwsError
from rackctl.keys import is_key_name
from rackctl.owners import owner_of
from rackctl.roll.reasons.ways import Launching

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from rackctl.aws.session import Aws
    from rackctl.model import AutoScalingGroup, Instance, LaunchTemplate, LaunchTemplateRef, LaunchTemplateVersion
    from rackctl.owners import Owner
    from rackctl.roll.hold import Hold

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
NO_TEMPLATE = {
    "InvalidLaunchTemplateId.NotFound",
    "InvalidLaunchTemplateId.VersionNotFound",
    "InvalidLaunchTemplateName.NotFoundException",
}


def key_names(aws: Aws, group: AutoScalingGroup) -> tuple[str, ...]:
    """Return the keys of all that a group launches from, each once; empty for what names none."""
    return _key_names(aws, group, _versions(aws, group))


def _versions(aws: Aws, group: AutoScalingGroup) -> dict[LaunchTemplateRef, LaunchTemplateVersion]:
    return {ref: aws.ec2.launch_template_version(ref) for ref in group.launch_templates}


def _key_names(
    aws: Aws, group: AutoScalingGroup, versions: Mapping[LaunchTemplateRef, LaunchTemplateVersion]
) -> tuple[str, ...]:
    if group.launch_configuration_name:
        # One that is gone names no key: nothing is launched from it.
        return (aws.autoscaling.launch_configuration_keys().get(group.launch_configuration_name, ""),)
    return tuple(dict.fromkeys(version.key_name for version in versions.values()))


def launching(aws: Aws, rack: str, group: AutoScalingGroup, templates: Mapping[str, LaunchTemplate]) -> Launching:
    """Return how a group launches; ``templates`` are its launch templates by id, and perhaps others."""
    versions = _versions(aws, group)
    names = _key_names(aws, group, versions)
    owned, owner = _owner(group, templates)
    return Launching(
        group.auto_scaling_group_name,
        names,
        frozenset(name for name in names if is_key_name(rack, name)),
        tuple(dict.fromkeys(ref.launch_template_id for ref in group.launch_templates)),
        group.launch_configuration_name,
        owner,
        owned,
        versions,
    )


def _owner(group: AutoScalingGroup, templates: Mapping[str, LaunchTemplate]) -> tuple[str, Owner | None]:
    """Return what of a group belongs to a stack, and to which; a template before the group."""
    for ref in group.launch_templates:
        template = templates.get(ref.launch_template_id)
        if template and (owner := owner_of(template.tags)):
            return f"launch template {template_name(ref)}", owner
    return f"group {group.auto_scaling_group_name}", owner_of(group.tags)


def template_name(ref: LaunchTemplateRef) -> str:
    return ref.launch_template_name or ref.launch_template_id


def keys_of_groups(aws: Aws, groups: Sequence[AutoScalingGroup]) -> Iterator[tuple[str, str]]:
    """Yield each key that groups launch with, and what launches with it; a template that is gone names none."""
    for group in groups:
        for ref in group.launch_templates:
            try:
                yield aws.ec2.launch_template_version(ref).key_name, f"group {group.auto_scaling_group_name}"
            except AwsError as error:
                if error.code not in NO_TEMPLATE:
                    raise


def keys_of_configurations(aws: Aws, *, besides: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield the keys of the launch configurations of the account, ``besides`` some, and what names each."""
    for configuration, key_name in aws.autoscaling.launch_configuration_keys().items():
        if configuration not in besides:
            yield key_name, f"launch configuration {configuration}"


def other_users(
    aws: Aws, rolled: Sequence[AutoScalingGroup], everywhere: Sequence[AutoScalingGroup]
) -> Iterator[tuple[str, str]]:
    """Yield each key with which something that is not rolled launches, and what that is; some of them twice."""
    ours = {group.auto_scaling_group_name for group in rolled}
    others = [group for group in everywhere if group.auto_scaling_group_name not in ours]
    templates = {ref.launch_template_id for group in rolled for ref in group.launch_templates}
    configurations = {group.launch_configuration_name for group in rolled}
    by_configuration = aws.autoscaling.launch_configuration_keys()
    for group in others:
        if group.launch_configuration_name in configurations:
            key_name = by_configuration.get(group.launch_configuration_name, "")
            yield key_name, f"group {group.auto_scaling_group_name}"
    yield from keys_of_groups(aws, others)
    yield from keys_of_configurations(aws, besides=configurations)
    for version in aws.ec2.newest_and_default_versions():
        if version.launch_template_id not in templates:
            yield version.key_name, f"launch template {version.launch_template_name or version.launch_template_id}"


def existing_with(hold: Hold, key_pairs: Sequence[str]) -> list[Instance]:
    """Return the instances of any rack that have one of these key pairs and have not terminated.

    It is asked twice: one incomplete answer must not cost a key that is needed.
    """
    found = {
        instance.ec2_instance_id: instance
        for _ in range(2)
        for instance in hold.retrying(lambda: list(hold.aws.ec2.instances_with_key(list(key_pairs))))
    }
    return [instance for instance in found.values() if not instance.is_terminating]


def other_instances(aws: Aws, key_pairs: Collection[str], known: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the key and a description of each instance that has one of these key pairs and is not ``known``."""
    for instance in aws.ec2.instances_with_key(sorted(key_pairs)):
        if not instance.is_terminating and instance.ec2_instance_id not in known:
            rack = instance.tags.get("Rack", "")
            yield instance.key_name, f"instance {instance.ec2_instance_id}" + (f' of rack "{rack}"' if rack else "")
