"""What forbids a roll by an instance refresh, or is to be known before it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from rackctl.launches import launched_from
from rackctl.roll.problems import Problem
from rackctl.roll.refresh_terms import (
    CHECKPOINT_DELAY,
    WARMUP,
    has_instance_requirements,
    inexpressible,
    matches_launch,
    takes_configuration,
    unheeded,
    without_data,
)
from rackctl.roll.simulate import BOOT, DRAIN, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from rackctl.aws.session import Aws
    from rackctl.launches import LaunchSource
    from rackctl.model import AutoScalingGroup, CapacityProvider, Instance
    from rackctl.rack import Rack
    from rackctl.roll.observe import Look
    from rackctl.roll.view import AlarmSeen, RollOptions, Selection, View

# https://docs.aws.amazon.com/AmazonECS/latest/developerguide/managed-instance-draining.html
MANAGED_DRAINING_HOOK: Final = "ecs-managed-draining-termination-hook"


class RefreshPreflight:
    """The checks of one plan. ``instance`` returns what EC2 has said of an instance."""

    def __init__(
        self,
        rack: Rack,
        options: RollOptions,
        selection: Selection,
        instance: Callable[[str], Instance | None],
        alarms: Sequence[AlarmSeen],
    ) -> None:
        self._rack = rack
        self._options = options
        self._selection = selection
        self._instance = instance
        self._alarms = alarms

    def problems(
        self,
        looks: Mapping[str, Look],
        views: Mapping[str, View],
        launches: Mapping[str, Sequence[LaunchSource]],
        providers: Sequence[CapacityProvider],
        kept: Collection[str],
    ) -> Iterator[Problem]:
        """Yield what forbids a refresh, and what is to be known before it.

        ``launches`` are what the groups launch from, where that was asked, ``kept`` the groups whose key pairs keep
        their names.
        """
        yield from unheeded(self._options)
        yield from without_data(self._alarms)
        for name, look in looks.items():
            view = views[name]
            if not view.old:
                continue
            yield from self._drains(look, providers)
            yield from self._suspended(look)
            yield from self._full(look)
            yield from inexpressible(look.group, view, self._selection, self._matching(look, launches.get(name, ())))
            if self._selection.kind == "key":
                yield from self._irreversible(look, is_kept=name in kept)

    def _drains(self, look: Look, providers: Sequence[CapacityProvider]) -> Iterator[Problem]:
        """Refuse a group if nothing shows that its instances are drained before they terminate."""
        name, trusted = look.name, self._options.drain_hook
        hooks = {h.name for h in self._rack.aws.autoscaling.lifecycle_hooks(name) if h.is_terminating}
        if trusted in hooks:
            return
        provider = next((p for p in providers if p.auto_scaling_group_arn == look.group.auto_scaling_group_arn), None)
        if provider and provider.managed_draining and MANAGED_DRAINING_HOOK in hooks:
            return
        if trusted:
            reason = f"group {name} has no terminating lifecycle hook {trusted}"
        elif provider is None:
            reason = f"group {name} is behind no capacity provider of cluster {self._rack.cluster}"
        elif not provider.managed_draining:
            reason = f"managed draining of capacity provider {provider.name} is off"
        else:
            reason = f"group {name} lacks the lifecycle hook of managed draining, {MANAGED_DRAINING_HOOK}"
        yield Problem(
            f"{reason}: an instance refresh would terminate its instances undrained",
            "enable managed draining on the group's capacity provider (`aws ecs update-capacity-provider "
            f"--name {provider.name if provider else 'NAME'} --auto-scaling-group-provider managedDraining=ENABLED`), "
            "name a lifecycle hook that drains with --drain-hook, or use --engine rackctl",
        )

    @staticmethod
    def _suspended(look: Look) -> Iterator[Problem]:
        name = look.name
        if "InstanceRefresh" in look.group.suspended_processes:
            yield Problem(
                f"the InstanceRefresh process of group {name} is suspended",
                f"`aws autoscaling resume-processes --auto-scaling-group-name {name} --scaling-processes "
                "InstanceRefresh`",
            )

    def _full(self, look: Look) -> Iterator[Problem]:
        group = look.group
        if group.desired_capacity + 1 > group.max_size:
            yield Problem(
                f"group {look.name} is at its maximum size of {group.max_size}: AWS does not say whether an instance "
                "refresh launches one more before it terminates one",
                warns=True,
            )

    def _irreversible(self, look: Look, *, is_kept: bool) -> Iterator[Problem]:
        """Warn of a group whose instance refresh Auto Scaling cannot roll back, and say why.

        https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_RollbackInstanceRefresh.html
        """
        cannot = "Auto Scaling cannot roll back an instance refresh of it"
        if is_kept:
            why = "launches as before, with a key pair that keeps its name"
            cannot = "an instance refresh replaces all of its instances, and Auto Scaling cannot roll it back"
        elif has_instance_requirements(look.group):
            why = "selects instance types by their attributes"
        elif not takes_configuration(look.group):
            why = "does not name a launch template version by its number"
        elif names_parameter(self._rack.aws, look.group):
            why = "launches an image that an SSM parameter names"
        else:
            return
        yield Problem(
            f"group {look.name} {why}: {cannot}. An abort cancels it, and keeps the instances that were replaced",
            warns=True,
        )

    def _matching(self, look: Look, launches: Sequence[LaunchSource]) -> set[str]:
        return {
            member.ec2_instance_id
            for member in look.group.instances
            if (instance := self._instance(member.ec2_instance_id))
            and matches_launch(launched_from(instance, member), launches)
        }


def names_parameter(aws: Aws, group: AutoScalingGroup) -> bool:
    """Tell whether a group's launch templates name an image by an SSM parameter: no refresh of it is rolled back."""
    versions = map(aws.ec2.launch_template_version, group.launch_templates)
    return any(version.image_id.startswith("resolve:ssm:") for version in versions)


def course(view: View, order: tuple[str, ...]) -> tuple[int, str, Simulation]:
    """Return by how many instances a refresh lets a group grow, why, and how it is expected to go."""
    left = len(order)
    if not left:
        return 0, "nothing is to be replaced", Simulation(order, 0, 0)
    surge = max(min(view.options.extra, left, view.desired_capacity), 1)
    waves = 1 + math.ceil((left - 1) / surge)
    pauses = CHECKPOINT_DELAY if view.desired_capacity > 1 else 0
    seconds = waves * max(BOOT, WARMUP) + pauses + DRAIN
    reason = "the instance refresh launches new instances before old ones are terminated"
    return surge, reason, Simulation(order, surge, seconds)
