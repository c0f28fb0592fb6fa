"""Functions that ECS's operations share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rackctl.local.api.paging import page
from rackctl.local.world.base import Refused
from rackctl.local.world.clusters import FARGATE_PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackctl.local.api.operations import Asked, Result
    from rackctl.local.world.clusters import Cluster, Registration, Service, Tags, TaskDefinition
    from rackctl.local.world.ecs import Ecs

MISSING = "MISSING"
# Parameters of tasks and services that many clients send, and that have no effect here.
HARMLESS = frozenset({"clientToken", "referenceId", "enableECSManagedTags", "propagateTags", "enableExecuteCommand"})


def invalid(message: str) -> Refused:
    return Refused("InvalidParameterException", message)


def registration_of(ecs: Ecs, cluster: Cluster, name: str) -> Registration | None:
    arn = name if name.startswith("arn:") else ecs.arn(f"container-instance/{cluster.name}/{name}")
    return cluster.registration(arn)


def known_registration(ecs: Ecs, cluster: Cluster, name: str) -> Registration:
    registration = registration_of(ecs, cluster, name)
    if registration is None:
        raise invalid("Referenced container instance not found.")
    return registration


def missing(ecs: Ecs, kind: str, cluster: Cluster, name: str) -> Result:
    arn = name if name.startswith("arn:") else ecs.arn(f"{kind}/{cluster.name}/{name}")
    return {"arn": arn, "reason": MISSING}


def service_of(cluster: Cluster, name: str) -> Service:
    service = cluster.services.get(name.rpartition("/")[2])
    if service is None:
        raise Refused("ServiceNotFoundException", "Service not found.")
    return service


def definition_of(ecs: Ecs, name: str) -> TaskDefinition:
    if not re.fullmatch(r"[a-zA-Z0-9_-]+(:\d+)?", name.rpartition("/")[2]):
        raise Refused("ClientException", f"Invalid task definition: {name}")
    return ecs.definition(name)


def listed(
    member: str, found: Sequence[tuple[Any, Any]], asked: Asked, default: int = 100, *, descending: bool = False
) -> Result:
    """Return a page of items, given with their sort keys."""
    limit = asked.get("maxResults", default)
    if not 1 <= limit <= 100:
        raise invalid("maxResults must be between 1 and 100.")
    some, token = page(
        found,
        order=lambda one: one[1],
        asked=asked,
        limit=limit,
        invalid_token=invalid("Invalid token."),
        token_name="nextToken",  # noqa: S106 - a parameter's name
        descending=descending,
    )
    return {member: [item for item, _ in some], **({"nextToken": token} if token else {})}


def check_some(asked: Asked, name: str, most: int) -> None:
    """Refuse an empty list and one that is too long."""
    if not asked[name]:
        raise invalid(f"{name} cannot be empty.")
    check_at_most(asked, name, most)


def check_at_most(asked: Asked, name: str, most: int) -> None:
    if len(asked.get(name, ())) > most:
        raise invalid(f"{name} can have at most {most} items.")


def launch_type_of(asked: Asked, definition: TaskDefinition) -> str:
    """Return the launch type of a request's tasks. Raises Refused if their definition does not support it."""
    strategy = asked.get("capacityProviderStrategy", ())
    if strategy and "launchType" in asked:
        raise invalid("Specifying both a launch type and capacity provider strategy is not supported.")
    on_fargate = bool(strategy) and strategy[0]["capacityProvider"] in FARGATE_PROVIDERS
    launch_type = "FARGATE" if on_fargate else str(asked.get("launchType", "EC2"))
    if launch_type not in definition.compatibilities:
        raise invalid(f"Task definition does not support launch_type {launch_type}.")
    if launch_type == "FARGATE" and not asked.get("networkConfiguration"):
        raise invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    return launch_type


def check_supported(asked: Asked, *names: str) -> None:
    """Refuse parameters that the local rack does not implement."""
    for name in sorted(asked.keys() - {*names}):
        raise invalid(f"The local rack does not support {name} for this operation.")


def tags_from(asked: Asked) -> Tags:
    tags: Tags = {tag["key"]: tag.get("value") for tag in asked.get("tags", ())}
    if any(key.lower().startswith("aws:") for key in tags):
        raise invalid("Tag keys must not begin with aws:, which is reserved.")
    return tags
