"""Warm pools: instances that Auto Scaling prepares for a group, which enter service when it scales out.

https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-warm-pools.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackctl.local.world import timing
from rackctl.local.world.base import Refused, validation_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.world.autoscaling import AutoScaling
    from rackctl.local.world.base import Commons
    from rackctl.local.world.ec2 import Ec2
    from rackctl.local.world.groups import Group


class WarmPools:
    def __init__(self, world: Commons, ec2: Ec2, autoscaling: AutoScaling) -> None:
        self._world = world
        self._ec2 = ec2
        self._autoscaling = autoscaling
        world.subscribe("warm_pools", "instance_prepared")

    def put(self, group: Group, settings: Mapping[str, Any]) -> None:
        """Give a group a warm pool, or change its warm pool."""
        pool = {"MinSize": 0, "PoolState": "Stopped", **(group.warm_pool or {}), **settings}
        if pool["PoolState"] not in {"Stopped", "Running", "Hibernated"}:
            raise validation_error("PoolState must be one of Stopped, Running and Hibernated.")
        if group.mixed_instances_policy:
            raise validation_error(
                "You can't add a warm pool to an Auto Scaling group that has a mixed instances policy."
            )
        is_new = group.warm_pool is None
        group.warm_pool = pool
        self._world.changed()
        if is_new:
            self._world.after(0, "warm_pools", "reconcile", group.name)

    def delete(self, group: Group, *, force: bool) -> None:
        """Delete a group's warm pool with its instances. Without ``force``, raises Refused if there are any."""
        if group.warm_pool is None:
            raise validation_error(f"No warm pool found for Auto Scaling group {group.name}")
        if group.warmed and not force:
            raise Refused("ResourceInUse", "You cannot delete a warm pool while there are instances still in it.")
        if not group.warmed:
            group.warm_pool = None
        else:
            group.warm_pool["Status"] = "PendingDelete"
            for instance_id in group.warmed:
                self.end(group, instance_id)
        self._world.changed()

    def end(self, group: Group, instance_id: str) -> None:
        group.warmed[instance_id].lifecycle_state = "Warmed:Terminating"
        self._ec2.terminate(self._ec2.instances[instance_id])

    def instance_prepared(self, name: str, instance_id: str) -> None:
        """Move a prepared instance to the pool's state."""
        group = self._autoscaling.groups[name]
        state = str((group.warm_pool or {}).get("PoolState", "Stopped"))
        group.warmed[instance_id].lifecycle_state = f"Warmed:{state}"
        if state != "Running":
            self._ec2.stop(self._ec2.instances[instance_id])
        self._world.changed()

    @staticmethod
    def size(group: Group) -> int:
        """Return the size of a warm pool: MaxGroupPreparedCapacity, or the maximum size, less the desired capacity."""
        pool = group.warm_pool or {}
        prepared = pool.get("MaxGroupPreparedCapacity", -1)
        most = group.max_size if prepared < 0 else prepared
        return max(int(pool["MinSize"]), most - group.desired, 0)

    def reconcile(self, name: str) -> None:
        """Run one periodic step: launch missing instances, terminate surplus ones."""
        group = self._autoscaling.groups.get(name)
        if group is None or group.warm_pool is None:
            return
        if "Status" in group.warm_pool:
            if not group.warmed:
                group.warm_pool = None
                self._world.changed()
                return
        elif not group.suspended.keys() & {"Launch", "Terminate"} and not group.deleting:
            self._resize(group, self.size(group))
        self._world.after(timing.GROUP_RECONCILED, "warm_pools", "reconcile", name)

    def _resize(self, group: Group, size: int) -> None:
        lasting = [id_ for id_, m in group.warmed.items() if m.lifecycle_state != "Warmed:Terminating"]
        for _ in range(size - len(lasting)):
            member = self._autoscaling.launch(group, "An instance was prepared for the warm pool.", "Warmed:Pending")
            if member is None:
                return
            self._ec2.instances[member.instance_id].is_warm = True
            group.warmed[member.instance_id] = member
        for instance_id in lasting[size:]:
            self.end(group, instance_id)
