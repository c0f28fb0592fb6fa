"""Auto Scaling's operations on the instances of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.autoscaling.common import INVALID_TOKEN, activity_document, member_document, page_size
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.world.base import Refused, validation_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.local.api.wire_query import AutoScalingProtocol
    from rackctl.local.world import World
    from rackctl.local.world.groups import Activity, Group, Member


class Members(Room["AutoScalingProtocol"]):
    def __init__(self, world: World, protocol: AutoScalingProtocol) -> None:
        super().__init__(world, protocol)
        self._scaling = world.autoscaling

    def describe_auto_scaling_instances(self, asked: Asked) -> Result:
        wanted = set(asked.get("InstanceIds", ()))
        if len(asked.get("InstanceIds", ())) > 50:
            raise validation_error("The number of instance IDs that may be passed is limited to 50.")
        found, token = page(
            [
                (member, group)
                for group in self._scaling.groups.values()
                for member in [*group.members.values(), *group.warmed.values()]
            ],
            order=lambda one: one[0].instance_id,
            asked=asked,
            limit=page_size(asked, 50, 50),
            invalid_token=INVALID_TOKEN,
            matches=lambda one: not wanted or one[0].instance_id in wanted,
        )
        return {
            "AutoScalingInstances": [
                {**member_document(member, short=True), "AutoScalingGroupName": group.name} for member, group in found
            ],
            "NextToken": token,
        }

    def terminate_instance_in_auto_scaling_group(self, asked: Asked) -> Result:
        if "InstanceId" not in asked:
            raise self.protocol.missing("instanceId")
        instance_id = asked["InstanceId"]
        group = self._scaling.group_of(instance_id)
        activity = self._scaling.terminate(instance_id, decrement=asked["ShouldDecrementDesiredCapacity"])
        assert group is not None  # or terminate had refused
        return {"Activity": activity_document(self.world, activity, group)}

    def detach_instances(self, asked: Asked) -> Result:
        decrement = asked["ShouldDecrementDesiredCapacity"]
        return self._on_each(asked, lambda group, id_: self._scaling.detach(group, id_, decrement=decrement))

    def attach_instances(self, asked: Asked) -> Result:
        if len(asked.get("InstanceIds", ())) > 20:
            raise validation_error("The number of instances that may be attached at once is limited to 20.")
        try:
            self._scaling.attach(self._scaling.get(asked["AutoScalingGroupName"]), asked.get("InstanceIds", ()))
        except Refused as refused:
            raise validation_error(refused.message) from refused
        return {}

    def enter_standby(self, asked: Asked) -> Result:
        decrement = asked["ShouldDecrementDesiredCapacity"]
        return self._on_each(
            asked, lambda group, id_: self._scaling.set_standby(group, id_, standby=True, decrement=decrement)
        )

    def exit_standby(self, asked: Asked) -> Result:
        return self._on_each(asked, lambda group, id_: self._scaling.set_standby(group, id_, standby=False))

    def _on_each(self, asked: Asked, do: Callable[[Group, str], Activity]) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        members = self._members(asked, group)
        return {
            "Activities": [activity_document(self.world, do(group, member.instance_id), group) for member in members]
        }

    def set_instance_protection(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        for member in self._members(asked, group):
            member.protected = asked["ProtectedFromScaleIn"]
        return {}

    @staticmethod
    def _members(asked: Asked, group: Group) -> list[Member]:
        for instance_id in asked.get("InstanceIds", ()):
            if instance_id not in group.members:
                raise validation_error(f"The instance {instance_id} is not part of Auto Scaling group {group.name}.")
        return [group.members[instance_id] for instance_id in asked.get("InstanceIds", ())]

    def set_instance_health(self, asked: Asked) -> Result:
        group = self._scaling.group_of(asked["InstanceId"])
        if group is None or asked["InstanceId"] not in group.members:
            raise validation_error(
                f"Instance Id not found - No managed instance found for instance ID {asked['InstanceId']}"
            )
        if asked["HealthStatus"] not in {"Healthy", "Unhealthy"}:
            raise validation_error("Valid instance health states are: [Healthy, Unhealthy].")
        group.members[asked["InstanceId"]].healthy = asked["HealthStatus"] == "Healthy"
        return {}
