"""Which Auto Scaling groups are a rack's. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from rackctl.model import AutoScalingGroup, CapacityProvider
    from rackctl.rack_instance import RackInstance

# It is the rack's; it is not; some of its instances are registered with the rack's cluster, and others are not.
Belonging = Literal["ours", "foreign", "unclear"]


def belonging(
    group: AutoScalingGroup, rack: str, registered: Collection[str], providers: Iterable[CapacityProvider]
) -> Belonging:
    """Tell whether a group is a rack's: by its tag, by a capacity provider of the cluster, or by all its instances.

    ``registered`` are the ids of the instances that are registered with the rack's cluster. One instance claims no
    group: the others may be another cluster's.
    """
    if group.tags.get("Purpose") == "Build":
        return "foreign"
    if "Rack" in group.tags:
        return "ours" if group.tags["Rack"] == rack else "foreign"
    if any(provider.auto_scaling_group_arn == group.auto_scaling_group_arn for provider in providers):
        return "ours"
    here = [member.ec2_instance_id in registered for member in group.instances if member.in_service]
    if not any(here):
        return "foreign"
    return "ours" if all(here) else "unclear"


def registered_ids(listed: Iterable[RackInstance]) -> set[str]:
    """Return the ids of the instances that are registered with the cluster."""
    return {instance.ec2_instance_id for instance in listed if instance.registrations}
