"""ECS's operations on services."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rackctl.local.api.ecs import documents
from rackctl.local.api.ecs.common import (
    HARMLESS,
    check_some,
    check_supported,
    definition_of,
    invalid,
    launch_type_of,
    listed,
    missing,
    service_of,
    tags_from,
)
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.world.base import Refused
from rackctl.local.world.clusters import Service

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.api.wire_json import JsonProtocol
    from rackctl.local.world import World

_PERCENTS = {"REPLICA": (100, 200), "DAEMON": (0, 100)}


class Services(Room["JsonProtocol"]):
    def __init__(self, world: World, protocol: JsonProtocol) -> None:
        super().__init__(world, protocol)
        self._ecs = world.ecs

    def list_services(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        found = [
            (service.arn, service.arn)
            for service in cluster.services.values()
            if asked.get("schedulingStrategy", service.strategy) == service.strategy
            and asked.get("launchType", service.runs_on) == service.runs_on
        ]
        return listed("serviceArns", found, asked, default=10)

    def describe_services(self, asked: Asked) -> Result:
        check_some(asked, "services", 10)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        include = frozenset(asked.get("include", ()))
        found, failures = [], []
        for name in asked["services"]:
            service = cluster.services.get(name.rpartition("/")[2])
            if service is None:
                failures.append(missing(self._ecs, "service", cluster, name))
            else:
                found.append(documents.service(service, cluster, include))
        return {"services": found, "failures": failures}

    def create_service(self, asked: Asked) -> Result:
        check_supported(
            asked, "cluster", "serviceName", "taskDefinition", "desiredCount", "launchType", "deploymentConfiguration",
            "schedulingStrategy", "capacityProviderStrategy", "networkConfiguration", "tags", *HARMLESS,
        )  # fmt: skip
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        name = asked["serviceName"]
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,255}", name):
            raise invalid(f"Invalid service name: {name}")
        if name in cluster.services:
            draining = cluster.services[name].status == "DRAINING"
            raise invalid(
                "Unable to Start a service that is still Draining."
                if draining
                else "Creation of service was not idempotent."
            )
        if "taskDefinition" not in asked:
            raise invalid("TaskDefinition can not be blank.")
        definition = definition_of(self._ecs, asked["taskDefinition"])
        strategy = asked.get("schedulingStrategy", "REPLICA")
        if strategy == "REPLICA" and "desiredCount" not in asked:
            raise invalid("desiredCount is required for services of the REPLICA scheduling strategy.")
        if strategy == "DAEMON" and "desiredCount" in asked:
            raise invalid("desiredCount cannot be given for services of the DAEMON scheduling strategy.")
        launch_type = launch_type_of(asked, definition)
        if strategy == "DAEMON" and launch_type == "FARGATE":
            raise invalid("The DAEMON scheduling strategy is not supported for Fargate.")
        for item in asked.get("capacityProviderStrategy", ()):
            if item["capacityProvider"] not in cluster.capacity_providers:
                raise invalid("The specified capacity provider was not found: it is not associated with the cluster.")
        least, most = _PERCENTS[strategy]
        service = Service(
            self._ecs.arn(f"service/{cluster.name}/{name}"),
            name,
            definition,
            strategy,
            _count(asked, 0),
            least,
            most,
            self.world.now,
            f"ecs-svc/{self.world.ids.hex(19)}",
            tags=tags_from(asked),
            launch_type=launch_type,
            capacity_provider_strategy=[
                {"weight": 0, "base": 0, **item} for item in asked.get("capacityProviderStrategy", ())
            ],
        )
        _set_percents(service, asked)
        self.world.scheduler.create_service(cluster, service)
        return {"service": documents.service(service, cluster, frozenset({"TAGS"}))}

    def update_service(self, asked: Asked) -> Result:
        check_supported(
            asked, "cluster", "service", "desiredCount", "taskDefinition", "deploymentConfiguration", *HARMLESS
        )
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        service = service_of(cluster, asked["service"])
        if service.status != "ACTIVE":
            raise Refused("ServiceNotActiveException", "Service was not ACTIVE.")
        if "taskDefinition" in asked and definition_of(self._ecs, asked["taskDefinition"]) is not service.definition:
            raise invalid("The local rack makes no deployments: a service's task definition cannot change.")
        if service.strategy == "DAEMON" and "desiredCount" in asked:
            raise invalid("desiredCount cannot be given for services of the DAEMON scheduling strategy.")
        desired = _count(asked, service.desired)
        _set_percents(service, asked)
        service.desired = desired
        return {"service": documents.service(service, cluster)}

    def delete_service(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        service = service_of(cluster, asked["service"])
        if service.strategy == "REPLICA" and service.desired > 0 and not asked.get("force", False):
            raise invalid("The service cannot be stopped while it is scaled above 0.")
        service.status, service.desired = "DRAINING", 0
        return {"service": documents.service(service, cluster)}


def _count(asked: Asked, default: int) -> int:
    count: int = asked.get("desiredCount", default)
    if count < 0:
        raise invalid("desiredCount must not be negative.")
    return count


def _set_percents(service: Service, asked: Asked) -> None:
    given: Mapping[str, Any] = asked.get("deploymentConfiguration", {})
    least = given.get("minimumHealthyPercent", service.minimum_percent)
    most = given.get("maximumPercent", service.maximum_percent)
    if not 0 <= least <= 100 or (service.strategy == "REPLICA" and most < 100) or (least == 100 and most == 0):
        raise invalid("minimumHealthyPercent must be between 0 and 100, and maximumPercent at least 100.")
    if service.strategy == "DAEMON" and least == 100 and most == 100:
        raise invalid("A DAEMON service's minimumHealthyPercent and maximumPercent cannot both be 100.")
    service.minimum_percent, service.maximum_percent = least, most
