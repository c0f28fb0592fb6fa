"""Instance refreshes: Auto Scaling itself replacing a group's instances, without draining any."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rackctl.local.world import timing
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from rackctl.local.world.autoscaling import AutoScaling
    from rackctl.local.world.base import Commons
    from rackctl.local.world.groups import Group

# https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_InstanceRefresh.html
ACTIVE = {"Pending", "InProgress", "Cancelling"}


@dataclass
class Refresh:
    refresh_id: str
    group: str
    started: float
    minimum_healthy_percent: int
    outdated: list[str]
    total: int
    status: str = "Pending"
    ended: float | None = None
    preferences: dict[str, Any] = field(default_factory=dict)


class Refreshes:
    def __init__(self, world: Commons, autoscaling: AutoScaling) -> None:
        self._world = world
        self._autoscaling = autoscaling
        self._refreshes: list[Refresh] = []

    def of(self, group: str) -> list[Refresh]:
        """Return a group's refreshes, the newest first."""
        return [refresh for refresh in reversed(self._refreshes) if refresh.group == group]

    def start(self, group: Group, preferences: dict[str, Any]) -> Refresh:
        """Begin to replace every instance that is in service. Raises Refused while another refresh is active."""
        if self._active(group.name):
            raise Refused(
                "InstanceRefreshInProgress",
                "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.",
            )
        outdated = [m.instance_id for m in group.members.values() if m.lifecycle_state == "InService"]
        refresh = Refresh(
            self._world.ids.uuid(),
            group.name,
            self._world.now,
            preferences["MinHealthyPercentage"],
            outdated,
            len(outdated),
            preferences=preferences,
        )
        self._refreshes.append(refresh)
        self._world.changed()
        self._world.after(timing.GROUP_RECONCILED, "refreshes", "advance", refresh.refresh_id)
        return refresh

    def cancel(self, group: Group) -> Refresh:
        refresh = self._active(group.name)
        if refresh is None:
            raise Refused(
                "ActiveInstanceRefreshNotFound", f"No in progress or pending Instance Refresh found for {group.name}."
            )
        refresh.status = "Cancelling"
        self._world.changed()
        return refresh

    def _active(self, group: str) -> Refresh | None:
        return next((refresh for refresh in self.of(group) if refresh.status in ACTIVE), None)

    def advance(self, refresh_id: str) -> None:
        """Run the next step: terminate as many as MinHealthyPercentage allows, at least one."""
        refresh = next(r for r in self._refreshes if r.refresh_id == refresh_id)
        group = self._autoscaling.groups.get(refresh.group)
        self._world.changed()
        if refresh.status == "Cancelling" or group is None:
            refresh.status, refresh.ended = "Cancelled", self._world.now
            return
        refresh.status = "InProgress"
        members = group.members
        refresh.outdated = [id_ for id_ in refresh.outdated if id_ in members and not members[id_].is_terminating]
        healthy = sum(m.lifecycle_state == "InService" for m in members.values())
        if not refresh.outdated and healthy >= group.desired:
            refresh.status, refresh.ended = "Successful", self._world.now
            return
        least = min(math.ceil(group.desired * refresh.minimum_healthy_percent / 100), group.desired - 1)
        for id_ in refresh.outdated[: max(healthy - least, 0)]:
            # Protected from scale-in: a refresh waits for it, as its preference is unless given.
            if members[id_].lifecycle_state == "InService" and not members[id_].protected:
                self._autoscaling.refresh(group, id_)
        self._world.after(timing.GROUP_RECONCILED, "refreshes", "advance", refresh_id)
