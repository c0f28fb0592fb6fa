"""EC2's operations on networks, zones, regions and images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.ec2 import documents
from rackctl.local.api.ec2.common import chosen
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from rackctl.local.api.wire_query import Ec2Protocol
    from rackctl.local.world import World


class Networks(Room["Ec2Protocol"]):
    def __init__(self, world: World, protocol: Ec2Protocol) -> None:
        super().__init__(world, protocol)
        self._ec2 = world.ec2

    def describe_vpcs(self, asked: Asked) -> Result:
        return {"Vpcs": chosen([documents.vpc(self.world)], asked, "VpcIds", "VpcId", "InvalidVpcID.NotFound")}

    def describe_subnets(self, asked: Asked) -> Result:
        every = [documents.subnet(subnet, self.world) for subnet in self._ec2.subnets.values()]
        return {"Subnets": chosen(every, asked, "SubnetIds", "SubnetId", "InvalidSubnetID.NotFound")}

    def describe_security_groups(self, asked: Asked) -> Result:
        every = [documents.security_group(self.world)]
        if names := asked.get("GroupNames"):
            unknown = [name for name in names if name != documents.SECURITY_GROUP]
            if unknown:
                raise Refused("InvalidGroup.NotFound", f"The security group '{unknown[0]}' does not exist")
        return {"SecurityGroups": chosen(every, asked, "GroupIds", "GroupId", "InvalidGroup.NotFound")}

    def describe_availability_zones(self, asked: Asked) -> Result:
        every = [documents.availability_zone(s.availability_zone, self.world) for s in self._ec2.subnets.values()]
        return {"AvailabilityZones": chosen(every, asked, "ZoneNames", "ZoneName", "InvalidParameterValue")}

    def describe_regions(self, asked: Asked) -> Result:
        region = self.world.region
        every = [
            {
                "RegionName": region,
                "Endpoint": f"ec2.{region}.amazonaws.com",
                "OptInStatus": "opt-in-not-required",
            }
        ]
        return {"Regions": chosen(every, asked, "RegionNames", "RegionName", "InvalidParameterValue")}

    def describe_images(self, asked: Asked) -> Result:
        every = [documents.image(image_id, self.world) for image_id in self._ec2.images]
        return {"Images": chosen(every, asked, "ImageIds", "ImageId", "InvalidAMIID.NotFound")}
