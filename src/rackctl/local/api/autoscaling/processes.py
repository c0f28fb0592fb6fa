"""Auto Scaling's operations on processes, activities and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.autoscaling.common import INVALID_TOKEN, activity_document, page_size
from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.world.autoscaling import PROCESSES
from rackctl.local.world.base import validation_error

if TYPE_CHECKING:
    from rackctl.local.api.wire_query import AutoScalingProtocol
    from rackctl.local.world import World


class Processes(Room["AutoScalingProtocol"]):
    def __init__(self, world: World, protocol: AutoScalingProtocol) -> None:
        super().__init__(world, protocol)
        self._scaling = world.autoscaling

    def suspend_processes(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        at = self.protocol.time(self.world.now)
        for process in _processes(asked):
            group.suspended.setdefault(process, f"User suspended at {at}")
        return {}

    def resume_processes(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        for process in _processes(asked):
            group.suspended.pop(process, None)
        return {}

    def describe_scaling_process_types(self, _: Asked) -> Result:
        return {"Processes": [{"ProcessName": process} for process in PROCESSES]}

    def describe_scaling_activities(self, asked: Asked) -> Result:
        name = asked.get("AutoScalingGroupName")
        groups = [self._scaling.get(name)] if name else list(self._scaling.groups.values())
        activities = [(activity, group) for group in groups for activity in group.activities]
        if ids := asked.get("ActivityIds"):
            activities = [one for one in activities if one[0].activity_id in ids]
        found, token = page(
            activities,
            order=lambda one: [-one[0].start, one[0].activity_id],
            asked=asked,
            limit=page_size(asked, 100, 100),
            invalid_token=INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), {"Status": lambda one: [one[0].status]}, wildcards=False),
        )
        return {
            "Activities": [activity_document(self.world, activity, group) for activity, group in found],
            "NextToken": token,
        }

    def describe_account_limits(self, _: Asked) -> Result:
        return {
            "MaxNumberOfAutoScalingGroups": 500,
            "MaxNumberOfLaunchConfigurations": 200,
            "NumberOfAutoScalingGroups": len(self._scaling.groups),
            "NumberOfLaunchConfigurations": len(self._scaling.launch_configurations),
        }


def _processes(asked: Asked) -> list[str]:
    """Return the processes a request names; all if it names none."""
    processes: list[str] = asked.get("ScalingProcesses") or list(PROCESSES)
    for process in processes:
        if process not in PROCESSES:
            raise validation_error(f"{process} is not a valid process. Valid processes: {', '.join(PROCESSES)}")
    return processes
