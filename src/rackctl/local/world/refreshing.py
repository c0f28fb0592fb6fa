"""The progress of one instance refresh: instances to replace, and how many at once.

The rules are those of RefreshPreferences in Auto Scaling's model, and of
https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-overview.html and
https://docs.aws.amazon.com/autoscaling/ec2/userguide/asg-adding-checkpoints-instance-refresh.html
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rackctl.local.world.ec2 import INSTANCE_TYPES
from rackctl.local.world.groups import LaunchSource, type_of

if TYPE_CHECKING:
    from rackctl.local.world.autoscaling import AutoScaling
    from rackctl.local.world.base import Commons
    from rackctl.local.world.groups import Group, Member
    from rackctl.local.world.warm_pools import WarmPools


@dataclass
class Rollback:
    """A rollback: the instances that the refresh had ``launched``, and its progress until then."""

    reason: str
    started: float
    percentage: int
    left: int
    launched: set[str]


@dataclass
class Refresh:
    """A refresh of a group. ``existing`` are the members at its start, ``total`` is the number to replace."""

    refresh_id: str
    group: str
    started: float
    preferences: dict[str, Any]
    desired_configuration: dict[str, Any] | None
    existing: set[str]
    status: str = "Pending"
    reason: str = ""
    ended: float | None = None
    total: int = 0
    left: int = 0
    warm_total: int = 0
    warm_left: int = 0
    percentage: int = 0
    rollback: Rollback | None = None
    waits_for_transitions: bool = True
    # The checkpoints that have been reached, and the end of the pause at the last of them.
    passed: list[int] = field(default_factory=list)
    paused_until: float = 0.0
    blocked_since: float | None = None
    baked: float = 0.0

    @property
    def source(self) -> LaunchSource | None:
        """Its launch source; None for its group's own."""
        wanted = self.desired_configuration
        return LaunchSource(wanted.get("LaunchTemplate"), wanted.get("MixedInstancesPolicy")) if wanted else None

    @property
    def skips_matching(self) -> bool:
        return bool(self.prefers("SkipMatching", False))

    @property
    def alarms(self) -> list[str]:
        named: list[str] = self.prefers("AlarmSpecification", {}).get("Alarms", [])
        return named

    def prefers(self, name: str, default: Any) -> Any:
        return self.preferences.get(name, default)

    def may_replace(self, member: Member) -> bool:
        """Return whether a member may be terminated: one that is protected or on standby may have to be waited for."""
        if member.protected and self.prefers("ScaleInProtectedInstances", "Wait") != "Refresh":
            return False
        return member.lifecycle_state != "Standby" or self.prefers("StandbyInstances", "Wait") == "Terminate"

    def ignores(self, member: Member) -> bool:
        if member.protected and self.prefers("ScaleInProtectedInstances", "Wait") == "Ignore":
            return True
        return member.lifecycle_state == "Standby" and self.prefers("StandbyInstances", "Wait") == "Ignore"


class Refreshing:
    """Carries out a refresh of a group step by step."""

    def __init__(
        self, world: Commons, autoscaling: AutoScaling, warm_pools: WarmPools, group: Group, refresh: Refresh
    ) -> None:
        self._world = world
        self._autoscaling = autoscaling
        self._warm_pools = warm_pools
        self._group = group
        self._refresh = refresh

    # Instances to replace

    def outdated(self) -> list[Member]:
        """Return the members that are still to be replaced; in a rollback, those that the refresh launched."""
        return [m for m in self._group.members.values() if not m.is_terminating and self._is_outdated(m)]

    def outdated_warm(self) -> list[Member]:
        going = "Warmed:Terminating"
        return [m for m in self._group.warmed.values() if m.lifecycle_state != going and self._is_outdated(m)]

    def _is_outdated(self, member: Member) -> bool:
        refresh = self._refresh
        if refresh.ignores(member):
            return False
        if refresh.rollback:
            return member.instance_id in refresh.rollback.launched
        if member.instance_id in refresh.existing and not refresh.skips_matching:
            return True
        # $Latest or $Default of the desired configuration may be another version by now.
        return bool(refresh.source or refresh.skips_matching) and not self._matches(member)

    def _matches(self, member: Member) -> bool:
        """Return whether a member was launched from its group's current source, with one of its types."""
        if member.launch_template is None:
            return False
        source = self._group.source
        for specification, override in zip(source.specifications, source.overrides or [{}], strict=True):
            template, version = self._autoscaling.launched_from(specification)
            types = {type_of(override) or version.data.get("InstanceType", "")} & INSTANCE_TYPES.keys()
            launched_from = (template.launch_template_id, template.launch_template_name, version.number)
            if member.launch_template == launched_from and (not types or member.instance_type in types):
                return True
        return False

    # Ready instances

    def _warmup(self) -> float:
        default = self._group.settings.get("DefaultInstanceWarmup")
        if default is None:
            default = self._group.settings.get("HealthCheckGracePeriod", 0)
        return float(self._refresh.prefers("InstanceWarmup", default)) / self._world.speed

    def _is_ready(self, member: Member) -> bool:
        """Return whether a member is in service, healthy and warmed up; existing members have warmed up."""
        if member.lifecycle_state != "InService" or not member.healthy:
            return False
        was_there = member.instance_id in self._refresh.existing
        return was_there or self._world.now >= member.in_service_since + self._warmup()

    def _ready(self) -> list[Member]:
        return [m for m in self._group.members.values() if self._is_ready(m)]

    @property
    def in_transition(self) -> bool:
        """Whether launches or terminations are in progress."""
        return self._is_launching or any(m.is_terminating for m in self._group.members.values())

    @property
    def _is_launching(self) -> bool:
        return any(m.in_capacity and not self._is_ready(m) for m in self._group.members.values())

    # A step

    def step(self) -> str:
        """Terminate and launch as many instances as allowed; return why the refresh waits, if it does."""
        group, refresh = self._group, self._refresh
        group.refresh_surplus = max(min(group.refresh_surplus, group.capacity - group.desired), 0)
        outdated = self.outdated()
        acted = self._end_standby(outdated)
        least, most = self._bounds()
        allowed = self._allowed()
        spare = len(self._ready()) - least
        for member in [] if "Terminate" in group.suspended else self._victims(outdated):
            if (spare <= 0 and member.healthy) or (allowed <= 0 and not group.refresh_surplus):
                break
            spare -= 1
            allowed -= 0 if group.refresh_surplus else 1
            self._autoscaling.terminate_for_refresh(group, member)
            acted = True
        replaceable = {m.instance_id for m in outdated if not m.is_terminating and refresh.may_replace(m)}
        launches = min(most - group.capacity, len(replaceable) - group.refresh_surplus, allowed)
        for _ in range(0 if "Launch" in group.suspended else launches):
            acted = self._autoscaling.launch_for_refresh(group, replaceable) or acted
        left = [m for m in outdated if not m.is_terminating]
        if not left and not refresh.rollback:
            acted = self._replace_warm() or acted
        self._measure()
        return "" if acted else self._held_up_by(left)

    def _bounds(self) -> tuple[int, int]:
        """Return the least number of ready instances, and the largest number of instances.

        If the bounds leave no room: with MaxHealthyPercentage, one is launched before one is terminated; without it,
        one is terminated while its replacement is launched.
        """
        desired = self._group.desired
        least = math.ceil(desired * self._refresh.prefers("MinHealthyPercentage", 90) / 100)
        maximum = self._refresh.preferences.get("MaxHealthyPercentage")
        if maximum is None:
            return min(least, max(desired - 1, 0)), desired
        most = math.floor(desired * maximum / 100)
        return least, max(most, desired + 1) if least >= desired else most

    def _allowed(self) -> int:
        """Return how many more may be replaced before the next checkpoint; pause at one that has been reached."""
        refresh, desired = self._refresh, self._group.desired
        if refresh.rollback:
            return desired
        new = [m for id_, m in self._group.members.items() if m.in_capacity and id_ not in refresh.existing]
        reached = sum(map(self._is_ready, new))
        numbers = {p: math.ceil(desired * p / 100) for p in refresh.prefers("CheckpointPercentages", [100])}
        if passing := [p for p, n in numbers.items() if n <= reached and p < 100 and p not in refresh.passed]:
            delay = refresh.prefers("CheckpointDelay", 3600)
            refresh.passed += passing
            refresh.paused_until = self._world.now + delay / self._world.speed
        limit = next((n for p, n in numbers.items() if p not in refresh.passed), 0)
        return (0 if self._is_paused else limit) - len(new)

    @property
    def _is_paused(self) -> bool:
        return self._world.now < self._refresh.paused_until

    def _victims(self, outdated: list[Member]) -> list[Member]:
        """Return the members that may be terminated: unhealthy ones first, then the oldest of the fullest zone."""
        zones = Counter(m.availability_zone for m in self._group.members.values() if m.in_capacity)
        may = [m for m in outdated if m.lifecycle_state == "InService" and self._refresh.may_replace(m)]
        ordered: list[Member] = []
        while may:
            member = min(may, key=lambda m: (m.healthy, -zones[m.availability_zone], m.joined, m.instance_id))
            zones[member.availability_zone] -= 1
            may.remove(member)
            ordered.append(member)
        return ordered

    def _end_standby(self, outdated: list[Member]) -> bool:
        standing_by = [m for m in outdated if m.lifecycle_state == "Standby" and self._refresh.may_replace(m)]
        for member in standing_by:
            self._autoscaling.terminate_for_refresh(self._group, member)
        return bool(standing_by)

    def _replace_warm(self) -> bool:
        """Replace the next instance of the warm pool, if the pool is complete."""
        warmed, outdated = self._group.warmed, self.outdated_warm()
        prepared = all(m.lifecycle_state.endswith(("Stopped", "Running", "Hibernated")) for m in warmed.values())
        if outdated and prepared and len(warmed) >= self._warm_pools.size(self._group):
            self._warm_pools.end(self._group, outdated[0].instance_id)
        return bool(outdated)

    def _held_up_by(self, left: list[Member]) -> str:
        """Return why the other instances cannot be replaced.

        Launches, terminations and checkpoints are no reason: they end.
        """
        if not left or self._is_paused or self.in_transition:
            return ""
        protected = sum(m.protected for m in left)
        standby = sum(m.lifecycle_state == "Standby" for m in left)
        why = [f"{n} {what}" for n, what in ((protected, "protected from scale in"), (standby, "in Standby")) if n]
        return f"Waiting for remaining instances to be available: {', '.join(why) or 'no new instances launch'}"

    def _measure(self) -> None:
        """Compute PercentageComplete and InstancesToUpdate."""
        group, refresh, outdated = self._group, self._refresh, self.outdated()
        coming = [m for m in group.members.values() if m.in_capacity and not self._is_ready(m) and m not in outdated]
        left = len(outdated) + len(coming) - max(group.capacity - group.desired, 0)
        if rollback := refresh.rollback:
            left = max(min(left, len(rollback.launched)), 0)
            refresh.percentage = rollback.percentage * left // max(len(rollback.launched), 1)
            return
        refresh.left = max(min(left, refresh.total), 0)
        refresh.warm_left = len(self.outdated_warm())
        total, undone = refresh.total + refresh.warm_total, refresh.left + refresh.warm_left
        refresh.percentage = 100 * (total - undone) // total if total else 100

    @property
    def is_done(self) -> bool:
        """Whether all instances, or those up to the last checkpoint, are replaced and have warmed up."""
        group, refresh = self._group, self._refresh
        if self._is_launching or group.capacity != group.desired or self._is_paused:
            return False
        if refresh.rollback:
            return not self.outdated()
        last = refresh.prefers("CheckpointPercentages", [100])[-1]
        return last in refresh.passed or not (self.outdated() or refresh.warm_left)
