"""Managed draining: ECS drains instances that Auto Scaling terminates, and holds them until they are empty.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/managed-instance-draining.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rackctl.local.world import timing
from rackctl.local.world.groups import Hook
from rackctl.local.world.lifecycle import TERMINATING

if TYPE_CHECKING:
    from rackctl.local.world.autoscaling import AutoScaling
    from rackctl.local.world.base import Commons
    from rackctl.local.world.clusters import CapacityProvider
    from rackctl.local.world.ecs import Ecs
    from rackctl.local.world.groups import Group

HOOK: Final = "ecs-managed-draining-termination-hook"
_HEARTBEAT: Final = 3600


class Draining:
    """Managed draining: ECS's own terminating lifecycle hook on the groups of capacity providers."""

    def __init__(self, world: Commons, ecs: Ecs, autoscaling: AutoScaling) -> None:
        self._world = world
        self._ecs = ecs
        self._autoscaling = autoscaling
        world.subscribe("draining", "lifecycle_action", "instance_registered")

    def providers_changed(self) -> None:
        """Put the hook on groups whose capacity provider drains; remove it from all others."""
        used = {name for cluster in self._ecs.clusters.values() for name in cluster.capacity_providers}
        draining = {
            p.auto_scaling_group_arn
            for p in self._ecs.capacity_providers.values()
            if p.name in used and p.switches["managedDraining"] == "ENABLED"
        }
        for group in self._autoscaling.groups.values():
            if group.arn in draining:
                group.hooks.setdefault(HOOK, Hook(HOOK, TERMINATING, _HEARTBEAT, "CONTINUE"))
            elif HOOK in group.hooks:
                self._autoscaling.delete_hook(group, HOOK)
        self._world.changed()

    def instance_registered(self, cluster: str, arn: str) -> None:
        """Record the capacity provider of a new registration."""
        found = self._ecs.clusters[cluster]
        registration = found.registrations[arn]
        group = self._autoscaling.group_of(registration.instance_id)
        provider = self._provider_of(group) if group else None
        if provider is not None and provider.name in found.capacity_providers:
            registration.capacity_provider = provider.name

    def _provider_of(self, group: Group) -> CapacityProvider | None:
        providers = self._ecs.capacity_providers.values()
        return next((p for p in providers if p.auto_scaling_group_arn == group.arn), None)

    def lifecycle_action(self, group_name: str, instance_id: str) -> None:
        """Drain an instance that the hook holds."""
        member = self._autoscaling.groups[group_name].members.get(instance_id)
        if member is None or HOOK not in member.holds:
            return
        for _, registration in self._ecs.registrations_of(instance_id):
            if registration.status == "ACTIVE":
                self._ecs.set_status(registration, "DRAINING")
        self._world.after(timing.SERVICE_RECONCILED, "draining", "look", group_name, instance_id)

    def look(self, group_name: str, instance_id: str) -> None:
        """Complete the hook once all tasks have stopped; until then send heartbeats, for at most 48 hours."""
        group = self._autoscaling.groups.get(group_name)
        member = group.members.get(instance_id) if group else None
        if group is None or member is None or HOOK not in member.holds:
            return
        if any(True for _, registration in self._ecs.registrations_of(instance_id) for _ in registration.live()):
            self._autoscaling.record_heartbeat(group, HOOK, instance_id)
            self._world.after(timing.SERVICE_RECONCILED, "draining", "look", group_name, instance_id)
        else:
            self._autoscaling.complete_hook(group, HOOK, instance_id, "CONTINUE")
