"""ECS's operations on container instances."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rackctl.local.api.ecs import documents, query
from rackctl.local.api.ecs.common import check_some, invalid, known_registration, listed, missing, registration_of
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.wire import Fragments, Raw

if TYPE_CHECKING:
    from rackctl.local.api.wire_json import JsonProtocol
    from rackctl.local.world import World
    from rackctl.local.world.clusters import Registration


class ContainerInstances(Room["JsonProtocol"]):
    def __init__(self, world: World, protocol: JsonProtocol) -> None:
        super().__init__(world, protocol)
        self._ecs = world.ecs
        self._fragments = Fragments()

    def list_container_instances(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        status = asked.get("status")
        registrations = [r for r in cluster.registrations.values() if status is None or r.status == status]
        if expression := asked.get("filter"):
            try:
                matches = query.parse(expression)
                registrations = [r for r in registrations if matches(self._values(r))]
            except ValueError as error:
                raise invalid(f"The filter expression is not valid: {error}: {expression}") from error
        return listed("containerInstanceArns", [(r.arn, r.arn) for r in registrations], asked)

    def _values(self, registration: Registration) -> query.Values:
        attributes = documents.attributes(registration, self.world)
        return {
            "agentConnected": registration.agent_connected,
            "agentVersion": registration.agent_version,
            "ec2InstanceId": registration.instance_id,
            "registeredAt": float(registration.registered_at),
            "runningTasksCount": float(documents.running(registration)),
            "task:group": tuple(task.group for task in registration.live()),
            **{f"attribute:{name}": value for name, value in attributes.items()},
        }

    def describe_container_instances(self, asked: Asked) -> Result:
        check_some(asked, "containerInstances", 100)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        include = frozenset(asked.get("include", ()))
        found: list[Raw] = []
        failures = []
        for name in asked["containerInstances"]:
            registration = registration_of(self._ecs, cluster, name)
            if registration is None:
                failures.append(missing(self._ecs, "container-instance", cluster, name))
            else:
                found.append(self._container_instance(registration, include))
        return {"containerInstances": found, "failures": failures}

    def _container_instance(self, registration: Registration, include: frozenset[str]) -> Raw:
        if include:
            document = documents.container_instance(registration, self.world)
            if "TAGS" in include:
                document["tags"] = documents.tag_documents(registration.tags)
            if "CONTAINER_INSTANCE_HEALTH" in include:
                document["healthStatus"] = {
                    "overallStatus": "OK" if registration.agent_connected else "INSUFFICIENT_DATA",
                    "details": [],
                }
            return self.protocol.fragment(document)
        return self._fragments.get(
            registration.arn,
            registration.version,
            lambda: self.protocol.fragment(documents.container_instance(registration, self.world)),
        )

    def update_container_instances_state(self, asked: Asked) -> Result:
        check_some(asked, "containerInstances", 10)
        if asked["status"] not in {"ACTIVE", "DRAINING"}:
            raise invalid("Container instance status should be one of [ACTIVE, DRAINING].")
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        found, failures = [], []
        for name in asked["containerInstances"]:
            registration = registration_of(self._ecs, cluster, name)
            if registration is None:
                failures.append(missing(self._ecs, "container-instance", cluster, name))
            elif registration.status not in {"ACTIVE", "DRAINING"}:
                failures.append({"arn": registration.arn, "reason": registration.status})
            else:
                if registration.status != asked["status"]:
                    self._ecs.set_status(registration, asked["status"])
                found.append(documents.container_instance(registration, self.world))
        return {"containerInstances": found, "failures": failures}

    def register_container_instance(self, asked: Asked) -> Result:
        """Register the instance of an identity document, as its agent does.

        If the request names a registration, it is renewed.
        """
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        try:
            instance_id = json.loads(asked.get("instanceIdentityDocument", ""))["instanceId"]
        except (ValueError, KeyError, TypeError):
            raise invalid("instanceIdentityDocument must be a JSON object with an instanceId.") from None
        instance = self.world.ec2.instances.get(instance_id)
        if not instance_id.startswith("mi-") and (instance is None or instance.state != "running"):
            raise invalid(f"{instance_id} is not a running instance.")
        if "containerInstanceArn" in asked:
            registration = known_registration(self._ecs, cluster, asked["containerInstanceArn"])
        else:
            registration = self._ecs.register(cluster, instance_id)
        self._ecs.connect_soon(cluster, registration)
        return {"containerInstance": documents.container_instance(registration, self.world)}

    def deregister_container_instance(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        registration = known_registration(self._ecs, cluster, asked["containerInstance"])
        self._ecs.deregister(cluster, registration, force=asked.get("force", False))
        return {"containerInstance": documents.container_instance(registration, self.world)}

    def list_attributes(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        if "attributeValue" in asked and "attributeName" not in asked:
            raise invalid("attributeName is required when attributeValue is given.")
        found = [
            (
                {"name": name, **({} if value is None else {"value": value}), "targetId": registration.arn},
                [registration.arn, name],
            )
            for registration in cluster.registrations.values()
            for name, value in documents.attributes(registration, self.world).items()
            if asked.get("attributeName", name) == name and asked.get("attributeValue", value) == value
        ]
        return listed("attributes", found, asked)
