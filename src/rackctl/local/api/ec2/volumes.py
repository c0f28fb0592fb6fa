"""The EBS volumes of instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.ec2.common import INVALID_TOKEN, page_size
from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, Room, derived
from rackctl.local.api.paging import page
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rackctl.local.api.wire_query import Ec2Protocol
    from rackctl.local.world import World
    from rackctl.local.world.ec2 import Instance

ROOT_DEVICE = "/dev/xvda"


class Volumes(Room["Ec2Protocol"]):
    def __init__(self, world: World, protocol: Ec2Protocol) -> None:
        super().__init__(world, protocol)
        self._ec2 = world.ec2

    def describe_volumes(self, asked: Asked) -> Result:
        """Describe the volumes of instances, by id or by their attachment."""
        instances = [instance for instance in self._ec2.instances.values() if instance.exists]
        every = [volume for instance in instances for volume in _volumes(instance)]
        for volume_id in asked.get("VolumeIds", ()):
            if volume_id not in {volume["VolumeId"] for volume in every}:
                raise Refused("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
        values: dict[str, Callable[[Result], Iterable[str]]] = {
            "volume-id": lambda volume: [volume["VolumeId"]],
            "snapshot-id": lambda volume: [volume["SnapshotId"]],
            "attachment.instance-id": lambda volume: [volume["Attachments"][0]["InstanceId"]],
            "attachment.device": lambda volume: [volume["Attachments"][0]["Device"]],
        }
        found, token = page(
            every,
            order=lambda volume: volume["VolumeId"],
            asked=asked,
            limit=page_size(asked, 5, 1000),
            invalid_token=INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), values),
        )
        wanted = asked.get("VolumeIds")
        return {"Volumes": [v for v in found if not wanted or v["VolumeId"] in wanted], "NextToken": token}


def _devices(instance: Instance) -> dict[str, Result]:
    """Return the EBS block devices of an instance by name: the root volume of its image, and those of its launch."""
    root = {ROOT_DEVICE: {"VolumeSize": 30, "SnapshotId": derived("snap-0", instance.image_id, 16)}}
    given = {mapping["DeviceName"]: mapping["Ebs"] for mapping in instance.block_devices}
    return {name: {**root.get(name, {}), **given.get(name, {})} for name in {**root, **given}}


def _attached(instance: Instance, device: str, ebs: Result) -> Result:
    return {
        "AttachTime": instance.launched + 1,
        "DeleteOnTermination": ebs.get("DeleteOnTermination", True),
        "VolumeId": derived("vol-0", instance.instance_id + device.removeprefix(ROOT_DEVICE), 16),
    }


def block_devices(instance: Instance) -> list[Result]:
    status = "attaching" if instance.state == "pending" else "attached"
    return [
        {"DeviceName": name, "Ebs": {**_attached(instance, name, ebs), "Status": status}}
        for name, ebs in _devices(instance).items()
    ]


def _volumes(instance: Instance) -> list[Result]:
    """Describe the volumes of an instance. A volume without a SnapshotId was created empty."""
    found = []
    for name, ebs in _devices(instance).items():
        attached = _attached(instance, name, ebs)
        found.append(
            {
                "VolumeId": attached["VolumeId"],
                "SnapshotId": ebs.get("SnapshotId", ""),
                "Size": ebs.get("VolumeSize", 8),
                "VolumeType": ebs.get("VolumeType", "gp2"),
                "Encrypted": ebs.get("Encrypted", False),
                "State": "in-use",
                "AvailabilityZone": instance.subnet.availability_zone,
                "CreateTime": instance.launched,
                "Attachments": [{**attached, "Device": name, "InstanceId": instance.instance_id, "State": "attached"}],
            }
        )
    return found
