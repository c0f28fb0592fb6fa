"""ECS's operations, grouped by subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.ecs.capacity_providers import CapacityProviders
from rackctl.local.api.ecs.clusters import Clusters
from rackctl.local.api.ecs.container_instances import ContainerInstances
from rackctl.local.api.ecs.services import Services
from rackctl.local.api.ecs.task_definitions import TaskDefinitions
from rackctl.local.api.ecs.tasks import Tasks
from rackctl.local.api.operations import Service
from rackctl.local.api.wire_json import JsonProtocol

if TYPE_CHECKING:
    from rackctl.local.world import World


class EcsService(Service):
    def __init__(self, world: World) -> None:
        rooms = [Clusters, CapacityProviders, ContainerInstances, Tasks, Services, TaskDefinitions]
        super().__init__(world, "ecs", JsonProtocol, rooms)
