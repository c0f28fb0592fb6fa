"""ECS's operations."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from rackctl.local.api import ecs_documents as documents
from rackctl.local.api import query
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.api.wire import EcsProtocol, Fragments, Raw
from rackctl.local.world.base import Refused
from rackctl.local.world.ecs import Cluster, Registration, Service, Task, TaskDefinition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rackctl.local.world import World

_MISSING = "MISSING"
_PERCENTS = {"REPLICA": (100, 200), "DAEMON": (0, 100)}
# Said of tasks and services by many clients, and of no consequence here.
_HARMLESS = frozenset({"clientToken", "referenceId", "enableECSManagedTags", "propagateTags", "enableExecuteCommand"})


def _invalid(message: str) -> Refused:
    return Refused("InvalidParameterException", message)


class EcsOperations(Room[EcsProtocol]):
    def __init__(self, world: World, protocol: EcsProtocol) -> None:
        super().__init__(world, protocol)
        self._ecs = world.ecs
        self._fragments = Fragments()

    # Clusters

    def list_clusters(self, asked: Asked) -> Result:
        return _listed("clusterArns", [(c.arn, c.arn) for c in self._ecs.clusters.values()], asked)

    def describe_clusters(self, asked: Asked) -> Result:
        _at_most(asked, "clusters", 100)
        include = frozenset(asked.get("include", ()))
        found, failures = [], []
        for name in asked.get("clusters") or ["default"]:
            try:
                found.append(documents.cluster(self._ecs.cluster(name), include))
            except Refused:
                arn = name if name.startswith("arn:") else self._ecs.arn(f"cluster/{name}")
                failures.append({"arn": arn, "reason": _MISSING})
        return {"clusters": found, "failures": failures}

    def create_cluster(self, asked: Asked) -> Result:
        _supported(asked, "clusterName", "tags")
        name = asked.get("clusterName", "default")
        if not re.fullmatch(r"[a-zA-Z][\w-]{0,254}", name):
            raise _invalid("Invalid identifier: Identifier is for cluster. Your input: " + name)
        cluster = self._ecs.create_cluster(name, _tags(asked))
        return {"cluster": documents.cluster(cluster, frozenset({"TAGS"}))}

    # Tags

    def list_tags_for_resource(self, asked: Asked) -> Result:
        return {"tags": documents.tag_documents(self._tags_of(asked["resourceArn"]))}

    def tag_resource(self, asked: Asked) -> Result:
        tags = self._tags_of(asked["resourceArn"])
        given = _tags(asked)
        if len({**tags, **given}) > 50:
            raise _invalid("Tags can have at most 50 items.")
        tags.update(given)
        return {}

    def untag_resource(self, asked: Asked) -> Result:
        tags = self._tags_of(asked["resourceArn"])
        for key in asked["tagKeys"]:
            tags.pop(key, None)
        return {}

    def _tags_of(self, arn: str) -> dict[str, str]:
        match arn.rpartition(":")[2].split("/"):
            case ["cluster", name]:
                return self._ecs.cluster(name).tags
            case ["container-instance", name, _] if arn in self._ecs.cluster(name).registrations:
                return self._ecs.cluster(name).registrations[arn].tags
            case ["service", name, service] if service in self._ecs.cluster(name).services:
                return self._ecs.cluster(name).services[service].tags
            case ["capacity-provider", name] if name in self._ecs.capacity_providers:
                return self._ecs.capacity_providers[name].tags
            case _:
                raise _invalid(f"The specified resource has no tags here, or does not exist: {arn}")

    # Container instances

    def list_container_instances(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        status = asked.get("status")
        registrations = [r for r in cluster.registrations.values() if status is None or r.status == status]
        if expression := asked.get("filter"):
            try:
                matches = query.parse(expression)
                registrations = [r for r in registrations if matches(self._values(r))]
            except ValueError as error:
                raise _invalid(f"The filter expression is not valid: {error}: {expression}") from error
        return _listed("containerInstanceArns", [(r.arn, r.arn) for r in registrations], asked)

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
        _some(asked, "containerInstances", 100)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        include = frozenset(asked.get("include", ()))
        found: list[Raw] = []
        failures = []
        for name in asked["containerInstances"]:
            registration = self._registration(cluster, name)
            if registration is None:
                failures.append(self._missing("container-instance", cluster, name))
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

    def _registration(self, cluster: Cluster, name: str) -> Registration | None:
        arn = name if name.startswith("arn:") else self._ecs.arn(f"container-instance/{cluster.name}/{name}")
        return cluster.registrations.get(arn)

    def _known_registration(self, cluster: Cluster, name: str) -> Registration:
        registration = self._registration(cluster, name)
        if registration is None:
            raise _invalid("Referenced container instance not found.")
        return registration

    def _missing(self, kind: str, cluster: Cluster, name: str) -> Result:
        arn = name if name.startswith("arn:") else self._ecs.arn(f"{kind}/{cluster.name}/{name}")
        return {"arn": arn, "reason": _MISSING}

    def update_container_instances_state(self, asked: Asked) -> Result:
        _some(asked, "containerInstances", 10)
        if asked["status"] not in {"ACTIVE", "DRAINING"}:
            raise _invalid("Container instance status should be one of [ACTIVE, DRAINING].")
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        found, failures = [], []
        for name in asked["containerInstances"]:
            registration = self._registration(cluster, name)
            if registration is None:
                failures.append(self._missing("container-instance", cluster, name))
            elif registration.status not in {"ACTIVE", "DRAINING"}:
                failures.append({"arn": registration.arn, "reason": registration.status})
            else:
                if registration.status != asked["status"]:
                    self._ecs.set_status(registration, asked["status"])
                found.append(documents.container_instance(registration, self.world))
        return {"containerInstances": found, "failures": failures}

    def register_container_instance(self, asked: Asked) -> Result:
        """Register what an identity document names, as its agent would by itself."""
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        try:
            instance_id = json.loads(asked.get("instanceIdentityDocument", ""))["instanceId"]
        except (ValueError, KeyError, TypeError):
            raise _invalid("instanceIdentityDocument must be a JSON object with an instanceId.") from None
        found = self._ecs.registration_of(instance_id)
        if found is None:
            self._ecs.register_instance(instance_id)
            found = self._ecs.registration_of(instance_id)
        if found is None or found[0] is not cluster:
            raise _invalid(f"{instance_id} is no instance whose user data names the cluster {cluster.name}.")
        return {"containerInstance": documents.container_instance(found[1], self.world)}

    def deregister_container_instance(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        registration = self._known_registration(cluster, asked["containerInstance"])
        self._ecs.deregister(cluster, registration, force=asked.get("force", False))
        return {"containerInstance": documents.container_instance(registration, self.world)}

    def list_attributes(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        if "attributeValue" in asked and "attributeName" not in asked:
            raise _invalid("attributeName is required when attributeValue is given.")
        found = [
            (
                {"name": name, **({} if value is None else {"value": value}), "targetId": registration.arn},
                [registration.arn, name],
            )
            for registration in cluster.registrations.values()
            for name, value in documents.attributes(registration, self.world).items()
            if asked.get("attributeName", name) == name and asked.get("attributeValue", value) == value
        ]
        return _listed("attributes", found, asked)

    # Tasks

    def list_tasks(self, asked: Asked) -> Result:
        """List tasks, newest first; those that should run unless asked otherwise."""
        _supported(
            asked, "cluster", "containerInstance", "family", "nextToken", "maxResults", "startedBy", "serviceName",
            "desiredStatus", "launchType",
        )  # fmt: skip
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        others = {"containerInstance", "family", "serviceName"} & asked.keys()
        if "startedBy" in asked and others:
            raise _invalid(f"startedBy cannot be combined with {', '.join(sorted(others))}.")
        tasks: Sequence[Task] = list(cluster.tasks.values())
        if "containerInstance" in asked:
            tasks = list(self._known_registration(cluster, asked["containerInstance"]).tasks.values())
        if "serviceName" in asked:
            service = self._service(cluster, asked["serviceName"])
            tasks = [task for task in tasks if task.service == service.name]
        status = asked.get("desiredStatus", "RUNNING")
        found = [
            (task.arn, [-task.created, task.arn])
            for task in tasks
            if task.desired_status == status
            and asked.get("family", task.definition.family) == task.definition.family
            and asked.get("startedBy", task.started_by) == task.started_by
            and asked.get("launchType", "EC2") == "EC2"
        ]
        return _listed("taskArns", found, asked)

    def describe_tasks(self, asked: Asked) -> Result:
        _some(asked, "tasks", 100)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        found, failures = [], []
        for name in asked["tasks"]:
            task = self._task(cluster, name)
            if task is None:
                failures.append(self._missing("task", cluster, name))
            else:
                found.append(documents.task(task, cluster, self.world))
        return {"tasks": found, "failures": failures}

    def _task(self, cluster: Cluster, name: str) -> Task | None:
        return cluster.tasks.get(name if name.startswith("arn:") else self._ecs.arn(f"task/{cluster.name}/{name}"))

    def stop_task(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        task = self._task(cluster, asked["task"])
        if task is None:
            raise _invalid("The referenced task was not found.")
        self._ecs.stop_task(cluster, task, asked.get("reason", "Task stopped by user"))
        return {"task": documents.task(task, cluster, self.world)}

    def run_task(self, asked: Asked) -> Result:
        _supported(asked, "cluster", "count", "group", "launchType", "startedBy", "taskDefinition", *_HARMLESS)
        _only_ec2(asked)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        count = asked.get("count", 1)
        if not 1 <= count <= 10:
            raise _invalid("count must be between 1 and 10.")
        if not cluster.registrations:
            raise _invalid("No Container Instances were found in your cluster.")
        definition = self._definition(asked["taskDefinition"])
        started: list[Task] = []
        for _ in range(count):
            registration = self._ecs.place(cluster, definition)
            if registration is None:
                break
            started.append(self._start(cluster, definition, registration, asked))
        return {
            "tasks": [documents.task(task, cluster, self.world) for task in started],
            "failures": []
            if len(started) == count
            else [{"arn": r.arn, "reason": _why_not(r, definition)} for r in cluster.registrations.values()],
        }

    def start_task(self, asked: Asked) -> Result:
        _supported(asked, "cluster", "containerInstances", "group", "startedBy", "taskDefinition", *_HARMLESS)
        _some(asked, "containerInstances", 10)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        definition = self._definition(asked["taskDefinition"])
        started, failures = [], []
        for name in asked["containerInstances"]:
            registration = self._registration(cluster, name)
            if registration is None:
                failures.append(self._missing("container-instance", cluster, name))
            elif reason := _why_not(registration, definition):
                failures.append({"arn": registration.arn, "reason": reason})
            else:
                task = self._start(cluster, definition, registration, asked)
                started.append(documents.task(task, cluster, self.world))
        return {"tasks": started, "failures": failures}

    def _start(self, cluster: Cluster, definition: TaskDefinition, registration: Registration, asked: Asked) -> Task:
        group = asked.get("group", "")
        if group.startswith("service:"):
            raise _invalid("Invalid namespace for group.")
        return self._ecs.start_task(
            cluster, definition, registration, group=group, started_by=asked.get("startedBy", "")
        )

    # Services

    def list_services(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        found = [
            (service.arn, service.arn)
            for service in cluster.services.values()
            if asked.get("schedulingStrategy", service.strategy) == service.strategy
            and asked.get("launchType", "EC2") == "EC2"
        ]
        return _listed("serviceArns", found, asked, default=10)

    def describe_services(self, asked: Asked) -> Result:
        _some(asked, "services", 10)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        include = frozenset(asked.get("include", ()))
        found, failures = [], []
        for name in asked["services"]:
            service = cluster.services.get(name.rpartition("/")[2])
            if service is None:
                failures.append(self._missing("service", cluster, name))
            else:
                found.append(documents.service(service, cluster, include))
        return {"services": found, "failures": failures}

    @staticmethod
    def _service(cluster: Cluster, name: str) -> Service:
        service = cluster.services.get(name.rpartition("/")[2])
        if service is None:
            raise Refused("ServiceNotFoundException", "Service not found.")
        return service

    def create_service(self, asked: Asked) -> Result:
        _supported(
            asked, "cluster", "serviceName", "taskDefinition", "desiredCount", "launchType", "deploymentConfiguration",
            "schedulingStrategy", "tags", *_HARMLESS,
        )  # fmt: skip
        _only_ec2(asked)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        name = asked["serviceName"]
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,255}", name):
            raise _invalid(f"Invalid service name: {name}")
        if name in cluster.services:
            draining = cluster.services[name].status == "DRAINING"
            raise _invalid(
                "Unable to Start a service that is still Draining."
                if draining
                else "Creation of service was not idempotent."
            )
        if "taskDefinition" not in asked:
            raise _invalid("TaskDefinition can not be blank.")
        definition = self._definition(asked["taskDefinition"])
        strategy = asked.get("schedulingStrategy", "REPLICA")
        if strategy == "REPLICA" and "desiredCount" not in asked:
            raise _invalid("desiredCount is required for services of the REPLICA scheduling strategy.")
        if strategy == "DAEMON" and "desiredCount" in asked:
            raise _invalid("desiredCount cannot be given for services of the DAEMON scheduling strategy.")
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
            tags=_tags(asked),
        )
        _set_percents(service, asked)
        self._ecs.create_service(cluster, service)
        return {"service": documents.service(service, cluster, frozenset({"TAGS"}))}

    def update_service(self, asked: Asked) -> Result:
        _supported(asked, "cluster", "service", "desiredCount", "taskDefinition", "deploymentConfiguration", *_HARMLESS)
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        service = self._service(cluster, asked["service"])
        if service.status != "ACTIVE":
            raise Refused("ServiceNotActiveException", "Service was not ACTIVE.")
        if "taskDefinition" in asked and self._definition(asked["taskDefinition"]) is not service.definition:
            raise _invalid("The local rack makes no deployments: a service's task definition stays what it is.")
        if service.strategy == "DAEMON" and "desiredCount" in asked:
            raise _invalid("desiredCount cannot be given for services of the DAEMON scheduling strategy.")
        desired = _count(asked, service.desired)
        _set_percents(service, asked)
        service.desired = desired
        return {"service": documents.service(service, cluster)}

    def delete_service(self, asked: Asked) -> Result:
        cluster = self._ecs.cluster(asked.get("cluster", ""))
        service = self._service(cluster, asked["service"])
        if service.strategy == "REPLICA" and service.desired > 0 and not asked.get("force", False):
            raise _invalid("The service cannot be stopped while it is scaled above 0.")
        service.status, service.desired = "DRAINING", 0
        return {"service": documents.service(service, cluster)}

    # Task definitions

    def register_task_definition(self, asked: Asked) -> Result:
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,255}", asked["family"]):
            raise Refused("ClientException", f"Invalid family: {asked['family']}")
        if not asked["containerDefinitions"]:
            raise Refused("ClientException", "Container list cannot be empty.")
        for container in asked["containerDefinitions"]:
            _check_container(container, asked)
        definition = self._ecs.register_definition(asked)
        return {"taskDefinition": documents.task_definition(definition), "tags": asked.get("tags", [])}

    def describe_task_definition(self, asked: Asked) -> Result:
        definition = self._definition(asked["taskDefinition"])
        tags = definition.document.get("tags", []) if "TAGS" in asked.get("include", ()) else []
        return {"taskDefinition": documents.task_definition(definition), "tags": tags}

    def list_task_definitions(self, asked: Asked) -> Result:
        """List the revisions by family and number; each of them is active here."""
        prefix = asked.get("familyPrefix")
        found = [
            (d.arn, [family, d.revision])
            for family, revisions in self._ecs.definitions.items()
            for d in revisions
            if prefix in {None, family} and asked.get("status", "ACTIVE") == "ACTIVE"
        ]
        return _listed("taskDefinitionArns", found, asked, descending=asked.get("sort") == "DESC")

    def list_task_definition_families(self, asked: Asked) -> Result:
        prefix = asked.get("familyPrefix", "")
        active = asked.get("status", "ACTIVE") != "INACTIVE"
        return _listed("families", [(f, f) for f in self._ecs.definitions if active and f.startswith(prefix)], asked)

    def _definition(self, name: str) -> TaskDefinition:
        if not re.fullmatch(r"[a-zA-Z0-9_-]+(:\d+)?", name.rpartition("/")[2]):
            raise Refused("ClientException", f"Invalid task definition: {name}")
        return self._ecs.definition(name)


def _listed(
    member: str, found: Sequence[tuple[Any, Any]], asked: Asked, default: int = 100, *, descending: bool = False
) -> Result:
    """Give a page of items, each with what it is sorted by."""
    limit = asked.get("maxResults", default)
    if not 1 <= limit <= 100:
        raise _invalid("maxResults must be between 1 and 100.")
    some, token = page(
        found,
        order=lambda one: one[1],
        asked=asked,
        limit=limit,
        invalid_token=_invalid("Invalid token."),
        token_name="nextToken",  # noqa: S106 - a parameter's name
        descending=descending,
    )
    return {member: [item for item, _ in some], **({"nextToken": token} if token else {})}


def _some(asked: Asked, name: str, most: int) -> None:
    """Refuse a list of nothing, and one of too much."""
    if not asked[name]:
        raise _invalid(f"{name} cannot be empty.")
    _at_most(asked, name, most)


def _at_most(asked: Asked, name: str, most: int) -> None:
    if len(asked.get(name, ())) > most:
        raise _invalid(f"{name} can have at most {most} items.")


def _supported(asked: Asked, *names: str) -> None:
    """Refuse what would not be done: an answer that pretends would mislead."""
    for name in sorted(asked.keys() - {*names}):
        raise _invalid(f"The local rack has no {name} for this operation.")


def _only_ec2(asked: Asked) -> None:
    if asked.get("launchType", "EC2") != "EC2":
        raise _invalid("The local rack has only the launch type EC2.")


def _tags(asked: Asked) -> dict[str, str]:
    tags = {tag["key"]: tag.get("value", "") for tag in asked.get("tags", ())}
    if any(key.lower().startswith("aws:") for key in tags):
        raise _invalid("Tag keys must not begin with aws:, which is reserved.")
    return tags


def _why_not(registration: Registration, definition: TaskDefinition) -> str:
    """Say why a task cannot be placed somewhere, as failures do; empty if it can."""
    if registration.status != "ACTIVE":
        return registration.status
    if not registration.agent_connected:
        return "AGENT"
    if registration.remaining_cpu < definition.cpu:
        return "RESOURCE:CPU"
    if registration.remaining_memory < definition.memory:
        return "RESOURCE:MEMORY"
    return "RESOURCE:PORTS" if registration.used_ports & definition.host_ports else ""


def _count(asked: Asked, default: int) -> int:
    count: int = asked.get("desiredCount", default)
    if count < 0:
        raise _invalid("desiredCount must not be negative.")
    return count


def _set_percents(service: Service, asked: Asked) -> None:
    given: Mapping[str, Any] = asked.get("deploymentConfiguration", {})
    least = given.get("minimumHealthyPercent", service.minimum_percent)
    most = given.get("maximumPercent", service.maximum_percent)
    if not 0 <= least <= 100 or (service.strategy == "REPLICA" and most < 100) or (least == 100 and most == 0):
        raise _invalid("minimumHealthyPercent must be between 0 and 100, and maximumPercent at least 100.")
    if service.strategy == "DAEMON" and least == 100 and most == 100:
        raise _invalid("A DAEMON service's minimumHealthyPercent and maximumPercent cannot both be 100.")
    service.minimum_percent, service.maximum_percent = least, most


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
