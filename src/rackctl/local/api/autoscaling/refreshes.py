"""Auto Scaling's operations on instance refreshes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.autoscaling.common import INVALID_TOKEN, page_size
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.world.base import validation_error

if TYPE_CHECKING:
    from rackctl.local.api.wire_query import AutoScalingProtocol
    from rackctl.local.world import World
    from rackctl.local.world.refreshes import Refresh


class InstanceRefreshes(Room["AutoScalingProtocol"]):
    def __init__(self, world: World, protocol: AutoScalingProtocol) -> None:
        super().__init__(world, protocol)
        self._scaling = world.autoscaling

    def start_instance_refresh(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        preferences = {"MinHealthyPercentage": 90, **asked.get("Preferences", {})}
        known = {"AutoScalingGroupName", "Preferences", "MinHealthyPercentage"}
        known |= {"Strategy"} if asked.get("Strategy") == "Rolling" else set()
        if unknown := sorted({*asked, *preferences} - known):
            raise validation_error(f"The local rack has no {unknown[0]} of instance refreshes.")
        return {"InstanceRefreshId": self.world.refreshes.start(group, preferences).refresh_id}

    def cancel_instance_refresh(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        return {"InstanceRefreshId": self.world.refreshes.cancel(group).refresh_id}

    def describe_instance_refreshes(self, asked: Asked) -> Result:
        name = self._scaling.get(asked["AutoScalingGroupName"]).name
        ids = asked.get("InstanceRefreshIds")
        found, token = page(
            self.world.refreshes.of(name),
            order=lambda refresh: [-refresh.started, refresh.refresh_id],
            asked=asked,
            limit=page_size(asked, 50, 100),
            invalid_token=INVALID_TOKEN,
            matches=lambda refresh: not ids or refresh.refresh_id in ids,
        )
        return {"InstanceRefreshes": [_refresh(refresh) for refresh in found], "NextToken": token}


def _refresh(refresh: Refresh) -> Result:
    left = len(refresh.outdated)
    return {
        "InstanceRefreshId": refresh.refresh_id,
        "AutoScalingGroupName": refresh.group,
        "Status": refresh.status,
        "StartTime": refresh.started,
        "EndTime": refresh.ended,
        "PercentageComplete": 100 * (refresh.total - left) // refresh.total if refresh.total else 100,
        "InstancesToUpdate": left,
        "Preferences": refresh.preferences,
        "Strategy": "Rolling",
    }
