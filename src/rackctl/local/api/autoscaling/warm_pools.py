"""Auto Scaling's operations on warm pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.autoscaling.common import INVALID_TOKEN, member_document, page_size
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.world.base import validation_error

if TYPE_CHECKING:
    from rackctl.local.api.wire_query import AutoScalingProtocol
    from rackctl.local.world import World


class WarmPools(Room["AutoScalingProtocol"]):
    def __init__(self, world: World, protocol: AutoScalingProtocol) -> None:
        super().__init__(world, protocol)
        self._scaling = world.autoscaling

    def put_warm_pool(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        settings = {name: value for name, value in asked.items() if name != "AutoScalingGroupName"}
        if settings.get("MinSize", 0) < 0 or settings.get("MaxGroupPreparedCapacity", -1) < -1:
            raise validation_error("MinSize must be at least 0, and MaxGroupPreparedCapacity at least -1.")
        self.world.warm_pools.put(group, settings)
        return {}

    def describe_warm_pool(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        found, token = page(
            group.warmed.values(),
            order=lambda member: member.instance_id,
            asked=asked,
            limit=page_size(asked, 50, 50),
            invalid_token=INVALID_TOKEN,
        )
        instances = [member_document(member) for member in found]
        return {"WarmPoolConfiguration": group.warm_pool, "Instances": instances, "NextToken": token}

    def delete_warm_pool(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        self.world.warm_pools.delete(group, force=asked.get("ForceDelete", False))
        return {}
