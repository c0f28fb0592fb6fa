"""ECS's operations on task definitions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rackctl.local.api.ecs import documents
from rackctl.local.api.ecs.common import definition_of, listed
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.api.wire_json import JsonProtocol
    from rackctl.local.world import World


class TaskDefinitions(Room["JsonProtocol"]):
    def __init__(self, world: World, protocol: JsonProtocol) -> None:
        super().__init__(world, protocol)
        self._ecs = world.ecs

    def register_task_definition(self, asked: Asked) -> Result:
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,255}", asked["family"]):
            raise Refused("ClientException", f"Invalid family: {asked['family']}")
        if not asked["containerDefinitions"]:
            raise Refused("ClientException", "Container list cannot be empty.")
        for container in asked["containerDefinitions"]:
            _check_container(container, asked)
        if "FARGATE" in asked.get("requiresCompatibilities", ()):
            _check_fargate(asked)
        definition = self._ecs.register_definition(asked)
        return {"taskDefinition": documents.task_definition(definition), "tags": asked.get("tags", [])}

    def describe_task_definition(self, asked: Asked) -> Result:
        definition = definition_of(self._ecs, asked["taskDefinition"])
        tags = definition.document.get("tags", []) if "TAGS" in asked.get("include", ()) else []
        return {"taskDefinition": documents.task_definition(definition), "tags": tags}

    def list_task_definitions(self, asked: Asked) -> Result:
        """List the revisions by family and number; all are active here."""
        prefix = asked.get("familyPrefix")
        found = [
            (d.arn, [family, d.revision])
            for family, revisions in self._ecs.definitions.items()
            for d in revisions
            if prefix in {None, family} and asked.get("status", "ACTIVE") == "ACTIVE"
        ]
        return listed("taskDefinitionArns", found, asked, descending=asked.get("sort") == "DESC")

    def list_task_definition_families(self, asked: Asked) -> Result:
        prefix = asked.get("familyPrefix", "")
        active = asked.get("status", "ACTIVE") != "INACTIVE"
        return listed("families", [(f, f) for f in self._ecs.definitions if active and f.startswith(prefix)], asked)


def _check_fargate(asked: Mapping[str, Any]) -> None:
    if asked.get("networkMode") != "awsvpc":
        raise Refused("ClientException", "Fargate only supports network mode 'awsvpc'.")
    if not (asked.get("cpu") and asked.get("memory")):
        raise Refused("ClientException", "Fargate requires that 'cpu' and 'memory' be defined at the task level.")


def _check_container(container: Mapping[str, Any], asked: Asked) -> None:
    name = container.get("name", "")
    if not name or not container.get("image"):
        raise Refused("ClientException", "Container.name and Container.image should not be null or empty.")
    memory, reservation = container.get("memory"), container.get("memoryReservation")
    if not (memory or reservation or asked.get("memory")):
        raise Refused(
            "ClientException",
            f"Invalid setting for container '{name}'. At least one of 'memory' or 'memoryReservation' must be "
            "specified.",
        )
    if memory and reservation and reservation > memory:
        raise Refused(
            "ClientException",
            f"Invalid setting for container '{name}'. 'memoryReservation' must not be greater than 'memory'.",
        )
