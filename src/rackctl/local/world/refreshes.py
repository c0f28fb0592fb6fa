"""Instance refreshes: Auto Scaling itself replaces a group's instances, and rolls back on request.

A refresh drains nothing: terminating lifecycle hooks do, such as that of managed draining. An instance that such a hook
holds no longer counts towards its group, so the refresh continues meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackctl.local.world import timing
from rackctl.local.world.base import Refused, validation_error
from rackctl.local.world.refreshing import Refresh, Refreshing, Rollback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.world.autoscaling import AutoScaling
    from rackctl.local.world.base import Commons
    from rackctl.local.world.groups import Group
    from rackctl.local.world.warm_pools import WarmPools

# https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_InstanceRefresh.html
ACTIVE: Final = {"Pending", "InProgress", "Baking", "Cancelling", "RollbackInProgress"}
# Alarms: https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-rollback.html
# Limitations: "keeps retrying for an hour"; "the maximum amount of time … is 14 days".
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-overview.html
_RETRIED_FOR: Final = 3600.0
_LASTS_AT_MOST: Final = 14 * 86400.0


class Refreshes:
    def __init__(self, world: Commons, autoscaling: AutoScaling, warm_pools: WarmPools) -> None:
        self._world = world
        self._autoscaling = autoscaling
        self._warm_pools = warm_pools
        self._refreshes: list[Refresh] = []

    def of(self, group: str) -> list[Refresh]:
        """Return a group's refreshes, the newest first."""
        return [refresh for refresh in reversed(self._refreshes) if refresh.group == group]

    # Requests

    def start(
        self, group: Group, preferences: Mapping[str, Any], desired_configuration: dict[str, Any] | None = None
    ) -> Refresh:
        """Start a refresh. Raises Refused if another one is active, or if AWS does not support it."""
        if self._active(group.name):
            raise Refused(
                "InstanceRefreshInProgress",
                "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.",
            )
        policy = group.settings.get("InstanceMaintenancePolicy") or {"MinHealthyPercentage": 90}
        existing = {*group.members, *group.warmed}
        preferred = {**policy, **preferences}
        refresh = Refresh(
            self._world.ids.uuid(), group.name, self._world.now, preferred, desired_configuration, existing
        )
        self._check(group, refresh)
        group.refreshed_from = refresh.source
        refreshing = self._refreshing(group, refresh)
        refresh.total = refresh.left = len(refreshing.outdated())
        refresh.warm_total = refresh.warm_left = len(refreshing.outdated_warm())
        self._refreshes.append(refresh)
        self._world.changed()
        self._world.after(timing.GROUP_RECONCILED, "refreshes", "advance", refresh.refresh_id)
        return refresh

    def _check(self, group: Group, refresh: Refresh) -> None:
        by_attributes = any("InstanceRequirements" in override for override in group.source.overrides)
        if by_attributes and (refresh.skips_matching or refresh.source):
            raise validation_error(
                "SkipMatching and DesiredConfiguration are not supported for groups with InstanceRequirements."
            )
        if refresh.skips_matching and not (refresh.source or group.source).specifications:
            raise validation_error("SkipMatching is not supported for a launch configuration.")
        for specification in refresh.source.specifications if refresh.source else ():
            self._autoscaling.launched_from(specification)
        for alarm in refresh.alarms:
            state, _ = self._world.alarms.get(alarm, ("missing", ""))
            if state != "OK":
                raise validation_error(f"The CloudWatch alarm {alarm} is not in a compatible state: {state}.")
        if refresh.prefers("AutoRollback", False):
            self._require_reversible(group, refresh)

    def _require_reversible(self, group: Group, refresh: Refresh) -> None:
        if refresh.source is None:
            raise _irreversible("the instance refresh has no desired configuration")
        for specification in group.own_source.specifications:
            if not (specification.get("Version") or "$Default").isdecimal():
                raise _irreversible("the group uses the launch template version $Latest or $Default")
            _, version = self._autoscaling.launched_from(specification)
            if str(version.data.get("ImageId", "")).startswith("resolve:ssm:"):
                raise _irreversible("the group's launch template uses a Systems Manager parameter")

    def cancel(self, group: Group, *, wait: bool = True) -> Refresh:
        """Cancel a refresh or a rollback; with ``wait``, once its launches and terminations have ended."""
        refresh = self._existing(group)
        if refresh.status != "Cancelling":
            refresh.status, refresh.waits_for_transitions = "Cancelling", wait
            self._world.changed()
        return refresh

    def roll_back(self, group: Group) -> Refresh:
        """Roll back a refresh: replace the instances that it has launched. Raises Refused."""
        refresh = self._existing(group)
        if refresh.status in {"Cancelling", "RollbackInProgress"}:
            raise _none(group)
        self._require_reversible(group, refresh)
        self._begin_rollback(group, refresh, "Manual rollback")
        return refresh

    def _begin_rollback(self, group: Group, refresh: Refresh, reason: str) -> None:
        group.refreshed_from = None
        refresh.status, refresh.reason = "RollbackInProgress", reason
        refresh.blocked_since, refresh.paused_until = None, 0.0
        launched = {*group.members, *group.warmed} - refresh.existing
        refresh.rollback = Rollback(reason, self._world.now, refresh.percentage, refresh.left, launched)
        self._world.changed()

    def _existing(self, group: Group) -> Refresh:
        refresh = self._active(group.name)
        if refresh is None:
            raise _none(group)
        return refresh

    def _active(self, group: str) -> Refresh | None:
        return next((refresh for refresh in self.of(group) if refresh.status in ACTIVE), None)

    def _refreshing(self, group: Group, refresh: Refresh) -> Refreshing:
        return Refreshing(self._world, self._autoscaling, self._warm_pools, group, refresh)

    # Progress

    def advance(self, refresh_id: str) -> None:
        """Run the next step of a refresh, and schedule another unless it has ended."""
        refresh = next(r for r in self._refreshes if r.refresh_id == refresh_id)
        group = self._autoscaling.groups.get(refresh.group)
        if group is None:
            self._end(None, refresh, "Cancelled", "the group was deleted")
            return
        if refresh.status == "Pending":
            refresh.status = "InProgress"
        self._step(group, refresh)
        self._world.changed()
        if refresh.status in ACTIVE:
            self._world.after(timing.GROUP_RECONCILED, "refreshes", "advance", refresh_id)

    def _step(self, group: Group, refresh: Refresh) -> None:
        refreshing = self._refreshing(group, refresh)
        if refresh.status == "Cancelling":
            if not refresh.waits_for_transitions or not refreshing.in_transition:
                self._end(group, refresh, "Cancelled", "Cancelled by user")
        elif refresh.status == "Baking":
            if self._world.now >= refresh.baked:
                self._succeed(group, refresh)
        elif alarmed := self._alarmed(refresh):
            self._fail(group, refresh, alarmed)
        elif "InstanceRefresh" not in group.suspended and not self._lacks_data(refresh):
            self._look_whether_held_up(group, refresh, refreshing.step())
            if refresh.status in {"InProgress", "RollbackInProgress"} and refreshing.is_done:
                self._finish(group, refresh)

    def _alarmed(self, refresh: Refresh) -> str:
        """Return the alarm that fails a refresh, with its state and reason. An alarm does not fail a rollback."""
        for alarm in () if refresh.rollback else refresh.alarms:
            state, why = self._world.alarms.get(alarm, ("", ""))
            if state == "ALARM":
                return f"CloudWatch alarm {alarm} is in state ALARM: {why}"
        return ""

    def _lacks_data(self, refresh: Refresh) -> bool:
        # "Amazon EC2 Auto Scaling cannot replace instances until new data points are found."
        states = {self._world.alarms.get(alarm, ("", ""))[0] for alarm in refresh.alarms}
        return not refresh.rollback and "INSUFFICIENT_DATA" in states

    def _look_whether_held_up(self, group: Group, refresh: Refresh, reason: str) -> None:
        now, speed = self._world.now, self._world.speed
        refresh.reason = reason or (refresh.rollback.reason if refresh.rollback else "")
        refresh.blocked_since = (refresh.blocked_since or now) if reason else None
        if refresh.blocked_since is not None and now - refresh.blocked_since > _RETRIED_FOR / speed:
            self._fail(group, refresh, reason)
        elif now - refresh.started > _LASTS_AT_MOST / speed:
            self._fail(group, refresh, "The instance refresh has lasted for 14 days.")

    def _finish(self, group: Group, refresh: Refresh) -> None:
        bake = refresh.prefers("BakeTime", 0)
        if refresh.rollback:
            self._end(group, refresh, "RollbackSuccessful", refresh.rollback.reason)
        elif bake:
            refresh.status, refresh.baked = "Baking", self._world.now + bake / self._world.speed
        else:
            self._succeed(group, refresh)

    def _succeed(self, group: Group, refresh: Refresh) -> None:
        self._end(group, refresh, "Successful")
        if refresh.desired_configuration:
            self._autoscaling.update(group, refresh.desired_configuration)

    def _fail(self, group: Group, refresh: Refresh, reason: str) -> None:
        if refresh.rollback:
            self._end(group, refresh, "RollbackFailed", reason)
        elif refresh.prefers("AutoRollback", False):
            self._begin_rollback(group, refresh, f"Automatic rollback: {reason}")
        else:
            self._end(group, refresh, "Failed", reason)

    def _end(self, group: Group | None, refresh: Refresh, status: str, reason: str = "") -> None:
        refresh.status, refresh.reason, refresh.ended = status, reason, self._world.now
        if group:
            group.refreshed_from, group.refresh_surplus = None, 0
        self._world.changed()


def _none(group: Group) -> Refused:
    return Refused(
        "ActiveInstanceRefreshNotFound", f"No in progress or pending Instance Refresh found for {group.name}."
    )


def _irreversible(why: str) -> Refused:
    return Refused("IrreversibleInstanceRefresh", f"The instance refresh cannot be rolled back: {why}.")
