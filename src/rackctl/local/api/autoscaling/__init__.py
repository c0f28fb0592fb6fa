"""Auto Scaling's operations, grouped by subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.autoscaling.groups import Groups
from rackctl.local.api.autoscaling.hooks import LifecycleHooks
from rackctl.local.api.autoscaling.launch_configurations import LaunchConfigurations
from rackctl.local.api.autoscaling.members import Members
from rackctl.local.api.autoscaling.processes import Processes
from rackctl.local.api.autoscaling.refreshes import InstanceRefreshes
from rackctl.local.api.autoscaling.tags import Tags
from rackctl.local.api.autoscaling.warm_pools import WarmPools
from rackctl.local.api.operations import Service
from rackctl.local.api.wire_query import AutoScalingProtocol

if TYPE_CHECKING:
    from rackctl.local.world import World


class AutoScalingService(Service):
    def __init__(self, world: World) -> None:
        rooms = [
            Groups, Members, Processes, LifecycleHooks, WarmPools, InstanceRefreshes, LaunchConfigurations, Tags,
        ]  # fmt: skip
        super().__init__(world, "autoscaling", AutoScalingProtocol, rooms)
