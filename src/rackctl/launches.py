"""The current launch sources of Auto Scaling groups, and whether an instance was launched from one of them.

A group names a launch template and a version, by its number, ``$Default`` or ``$Latest``; each override of a
MixedInstancesPolicy may name another template. A version names an image by its id or by an SSM parameter. An instance
is outdated if it was launched from none of the sources that its group launches from now.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rackctl.aws.errors import AwsError
from rackctl.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rackctl.aws.session import Aws
    from rackctl.model import AutoScalingGroup, GroupInstance, Instance, LaunchTemplateVersion
    from rackctl.rack_instance import RackInstance

# EC2 puts these tags on every instance that is launched from a template.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/launch-instances-from-launch-template.html
_TEMPLATE_TAG = "aws:ec2launchtemplate:id"
_VERSION_TAG = "aws:ec2launchtemplate:version"
_GROUPS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class LaunchSource:
    """The source of a launch: a version of a launch template, or a launch configuration.

    ``image_id`` is empty if it is not known. A launch configuration never changes its image.
    """

    launch_template_id: str = ""
    version_number: int = 0
    launch_configuration_name: str = ""
    image_id: str = ""

    def __str__(self) -> str:
        if self.launch_configuration_name:
            return f"launch configuration {self.launch_configuration_name}"
        image = f", image {self.image_id}" if self.image_id else ""
        return f"version {self.version_number} of launch template {self.launch_template_id}{image}"

    def is_of(self, other: LaunchSource) -> bool:
        """Return whether an instance launched from this source is one that the other source launches."""
        same = (self.launch_template_id, self.version_number, self.launch_configuration_name) == (
            other.launch_template_id,
            other.version_number,
            other.launch_configuration_name,
        )
        return same and (not self.image_id or not other.image_id or self.image_id == other.image_id)


def launch_sources(aws: Aws, group: AutoScalingGroup) -> tuple[LaunchSource, ...]:
    """Return the sources that a group launches from now, each once; several with a MixedInstancesPolicy.

    Versions are resolved to their numbers, and SSM parameters to the ids of their images
    (DescribeLaunchTemplateVersions, ResolveAlias). Raises NotFound for a group without a source.
    """
    if group.launch_configuration_name:
        return (LaunchSource(launch_configuration_name=group.launch_configuration_name),)
    if not group.launches:
        name = group.auto_scaling_group_name
        raise NotFound(f"group {name} has neither a launch template nor a launch configuration")
    versions = {
        ref: aws.ec2.launch_template_version(ref, resolve_image=True)
        for ref in dict.fromkeys(ref for ref, _ in group.launches)
    }
    return tuple(dict.fromkeys(_source(versions[ref], image_id) for ref, image_id in group.launches))


def _source(version: LaunchTemplateVersion, image_id: str) -> LaunchSource:
    image_id = image_id or version.image_id
    known = image_id if image_id.startswith("ami-") else ""
    return LaunchSource(version.launch_template_id, version.version_number, image_id=known)


def launched_from(instance: Instance, member: GroupInstance | None) -> LaunchSource | None:
    """Return the source of an instance's launch by its group, else by its tags; None if neither names one."""
    if member and member.launch_configuration_name:
        return LaunchSource(launch_configuration_name=member.launch_configuration_name, image_id=instance.image_id)
    ref = member.launch_template if member else None
    id_, version = (ref.launch_template_id, ref.version) if ref else ("", "")
    if not id_:
        id_, version = instance.tags.get(_TEMPLATE_TAG, ""), instance.tags.get(_VERSION_TAG, "")
    if not id_ or not (version.isascii() and version.isdecimal()):
        return None
    return LaunchSource(id_, int(version), image_id=instance.image_id)


def is_outdated(source: LaunchSource | None, current: Iterable[LaunchSource]) -> bool | None:
    """Return whether an instance's source is none of its group's current ones; None if the source is not known."""
    if source is None:
        return None
    return not any(source.is_of(one) for one in current)


def with_outdated(aws: Aws, instances: Sequence[RackInstance]) -> list[RackInstance]:
    """Return instances with their groups' descriptions of them, and whether each is outdated.

    ``outdated`` is None for an instance of no group, and if its group or the group's source does not exist.
    """
    names = {i.instance.auto_scaling_group_name for i in instances if i.instance} - {""}
    groups = aws.autoscaling.groups(sorted(names))
    members = {member.ec2_instance_id: member for group in groups for member in group.instances}
    with ThreadPoolExecutor(_GROUPS_AT_ONCE) as pool:
        sources = pool.map(lambda group: sources_if_any(aws, group), groups)
        current = {group.auto_scaling_group_name: found for group, found in zip(groups, sources, strict=True)}

    def compared(seen: RackInstance) -> RackInstance:
        member = members.get(seen.ec2_instance_id)
        now = current.get(seen.instance.auto_scaling_group_name) if seen.instance else None
        outdated = is_outdated(launched_from(seen.instance, member), now) if seen.instance and now else None
        return replace(seen, member=member, outdated=outdated)

    return list(map(compared, instances))


def sources_if_any(aws: Aws, group: AutoScalingGroup) -> tuple[LaunchSource, ...]:
    """Return the sources that a group launches from now; none if they do not exist."""
    try:
        return launch_sources(aws, group)
    except NotFound:
        return ()
    except AwsError as error:
        if error.refused:
            return ()
        raise
