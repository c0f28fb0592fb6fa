"""ECS's response documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackctl.local.api.operations import Result, derived

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.world import World
    from rackctl.local.world.clusters import CapacityProvider, Cluster, Registration, Service, Task, TaskDefinition

# The attributes of an agent of the ECS-optimized Amazon Linux 2 image.
_CAPABILITIES = (
    *(f"com.amazonaws.ecs.capability.docker-remote-api.1.{minor}" for minor in range(17, 31)),
    "com.amazonaws.ecs.capability.ecr-auth",
    "com.amazonaws.ecs.capability.logging-driver.awslogs",
    "com.amazonaws.ecs.capability.logging-driver.journald",
    "com.amazonaws.ecs.capability.logging-driver.json-file",
    "com.amazonaws.ecs.capability.logging-driver.none",
    "com.amazonaws.ecs.capability.logging-driver.syslog",
    "com.amazonaws.ecs.capability.privileged-container",
    "com.amazonaws.ecs.capability.task-iam-role",
    "com.amazonaws.ecs.capability.task-iam-role-network-host",
    "ecs.capability.container-health-check",
    "ecs.capability.container-ordering",
    "ecs.capability.docker-plugin.local",
    "ecs.capability.env-files.s3",
    "ecs.capability.execution-role-awslogs",
    "ecs.capability.execution-role-ecr-pull",
    "ecs.capability.full-sync",
    "ecs.capability.secrets.ssm.environment-variables",
    "ecs.capability.task-cpu-mem-limit",
)
_PENDING = frozenset({"PROVISIONING", "PENDING", "ACTIVATING"})


def tag_documents(tags: Mapping[str, str | None]) -> list[dict[str, str]]:
    return [{"key": key} if value is None else {"key": key, "value": value} for key, value in tags.items()]


def _counts(tasks: list[Task]) -> tuple[int, int]:
    """Count running and pending tasks; a stopping task is neither."""
    going = [task.last_status for task in tasks if task.desired_status == "RUNNING"]
    return going.count("RUNNING"), sum(status in _PENDING for status in going)


def running(registration: Registration) -> int:
    return _counts(list(registration.tasks.values()))[0]


def cluster(cluster_: Cluster, include: frozenset[str] = frozenset()) -> Result:
    started, pending = _counts(list(cluster_.tasks.values()))
    on_fargate = _counts([task for task in cluster_.tasks.values() if task.launch_type == "FARGATE"])
    services = [service.status for service in cluster_.services.values()]
    of_fargate = [service.status for service in cluster_.services.values() if service.runs_on == "FARGATE"]
    statistics = {
        "runningEC2TasksCount": started - on_fargate[0],
        "runningFargateTasksCount": on_fargate[0],
        "pendingEC2TasksCount": pending - on_fargate[1],
        "pendingFargateTasksCount": on_fargate[1],
        "activeEC2ServiceCount": services.count("ACTIVE") - of_fargate.count("ACTIVE"),
        "activeFargateServiceCount": of_fargate.count("ACTIVE"),
        "drainingEC2ServiceCount": services.count("DRAINING") - of_fargate.count("DRAINING"),
        "drainingFargateServiceCount": of_fargate.count("DRAINING"),
    }
    return {
        "clusterArn": cluster_.arn,
        "clusterName": cluster_.name,
        "status": cluster_.status,
        "registeredContainerInstancesCount": len(cluster_.registrations),
        "runningTasksCount": started,
        "pendingTasksCount": pending,
        "activeServicesCount": services.count("ACTIVE"),
        "statistics": [{"name": name, "value": str(value)} for name, value in statistics.items()]
        if "STATISTICS" in include
        else [],
        "tags": tag_documents(cluster_.tags) if "TAGS" in include else [],
        "settings": [{"name": "containerInsights", "value": "disabled"}] if "SETTINGS" in include else [],
        "capacityProviders": cluster_.capacity_providers,
        "defaultCapacityProviderStrategy": cluster_.default_strategy,
    }


def attributes(registration: Registration, world: World) -> dict[str, str | None]:
    """Return a container instance's attributes; most of them have no value."""
    found: dict[str, str | None] = dict.fromkeys(_CAPABILITIES)
    if registration.launch_type == "EXTERNAL":
        found["ecs.capability.external"] = None
    instance = world.ec2.instances.get(registration.instance_id)
    if instance is not None:
        found |= {
            "ecs.ami-id": instance.image_id,
            "ecs.availability-zone": instance.subnet.availability_zone,
            "ecs.instance-type": instance.instance_type,
            "ecs.subnet-id": instance.subnet.subnet_id,
            "ecs.vpc-id": world.ec2.vpc_id,
        }
    windows = instance is not None and instance.platform == "windows"
    family, kind = ("WINDOWS_SERVER_2022_CORE", "windows") if windows else ("LINUX", "linux")
    return {**found, "ecs.cpu-architecture": "x86_64", "ecs.os-family": family, "ecs.os-type": kind}


def capacity_provider(provider: CapacityProvider, *, tagged: bool) -> Result:
    document: Result = {
        "capacityProviderArn": provider.arn,
        "name": provider.name,
        "status": provider.status,
        "tags": tag_documents(provider.tags) if tagged else [],
    }
    if provider.auto_scaling_group_arn:
        document["autoScalingGroupProvider"] = {
            "autoScalingGroupArn": provider.auto_scaling_group_arn,
            "managedScaling": provider.managed_scaling,
            **provider.switches,
        }
    return document


def container_instance(registration: Registration, world: World) -> Result:
    started, pending = _counts(list(registration.tasks.values()))
    document: Result = {
        "containerInstanceArn": registration.arn,
        "ec2InstanceId": registration.instance_id,
        "version": registration.version,
        "versionInfo": {
            "agentVersion": registration.agent_version,
            "agentHash": derived("*", registration.agent_version, 8),
            "dockerVersion": "DockerVersion: 25.0.8",
        },
        "remainingResources": _resources(
            registration.remaining_cpu, registration.remaining_memory, sorted(registration.used_ports)
        ),
        "registeredResources": _resources(registration.cpu, registration.memory, [22, 2375, 2376, 51678, 51679]),
        "status": registration.status,
        "agentConnected": registration.agent_connected,
        "runningTasksCount": started,
        "pendingTasksCount": pending,
        "attributes": [
            {"name": name} if value is None else {"name": name, "value": value}
            for name, value in attributes(registration, world).items()
        ],
        "registeredAt": registration.registered_at,
        "attachments": [],
        "tags": [],
    }
    if registration.capacity_provider:
        document["capacityProviderName"] = registration.capacity_provider
    if registration.status_reason:
        document["statusReason"] = registration.status_reason
    return document


def _resources(cpu: int, memory: int, ports: list[int]) -> list[Result]:
    none: Result = {"doubleValue": 0.0, "longValue": 0, "integerValue": 0}
    return [
        {"name": "CPU", "type": "INTEGER", **none, "integerValue": cpu},
        {"name": "MEMORY", "type": "INTEGER", **none, "integerValue": memory},
        {"name": "PORTS", "type": "STRINGSET", **none, "stringSetValue": list(map(str, ports))},
        {"name": "PORTS_UDP", "type": "STRINGSET", **none, "stringSetValue": []},
    ]


def task(task_: Task, cluster_: Cluster, world: World) -> Result:
    instance = world.ec2.instances.get(task_.registration.instance_id)
    document: Result = {
        "attachments": [],
        "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
        "clusterArn": cluster_.arn,
        "containers": [_container(container, task_) for container in task_.definition.containers],
        "cpu": str(task_.definition.cpu),
        "createdAt": task_.created,
        "desiredStatus": task_.desired_status,
        "enableExecuteCommand": False,
        "group": task_.group,
        "healthStatus": "UNKNOWN",
        "lastStatus": task_.last_status,
        "launchType": task_.launch_type,
        "memory": str(task_.definition.memory),
        "overrides": {"containerOverrides": [{"name": c["name"]} for c in task_.definition.containers]},
        "tags": [],
        "taskArn": task_.arn,
        "taskDefinitionArn": task_.definition.arn,
        "version": task_.version,
    }
    if task_.registration.arn:
        document["containerInstanceArn"] = task_.registration.arn
    else:
        document |= {"platformVersion": "1.4.0", "platformFamily": "Linux"}
    placed_by = task_.registration.capacity_provider
    if task_.service in cluster_.services:
        placed_by = cluster_.services[task_.service].capacity_provider or placed_by
    if placed_by:
        document["capacityProviderName"] = placed_by
    if instance is not None:
        document["availabilityZone"] = instance.subnet.availability_zone
    if task_.started is not None:
        document |= {
            "connectivity": "CONNECTED",
            "connectivityAt": task_.started - 2,
            "pullStartedAt": task_.started - 2,
            "pullStoppedAt": task_.started - 1,
        }
    optional = {
        "startedAt": task_.started,
        "startedBy": task_.started_by or None,
        "stoppingAt": task_.stopping,
        "executionStoppedAt": task_.stopped,
        "stoppedAt": task_.stopped,
        "stopCode": task_.stop_code or None,
        "stoppedReason": task_.stopped_reason or None,
    }
    return {**document, **{name: value for name, value in optional.items() if value is not None}}


def _container(container: Mapping[str, Any], task_: Task) -> Result:
    status = task_.last_status if task_.last_status in {"RUNNING", "STOPPED"} else "PENDING"
    if task_.desired_status == "STOPPED" and status == "PENDING":
        status = "RUNNING"  # until the task has stopped
    own = task_.arn + container["name"]
    document: Result = {
        "containerArn": f"{task_.arn.replace(':task/', ':container/')}/{derived('', own, 32)}",
        "taskArn": task_.arn,
        "name": container["name"],
        "image": container["image"],
        "lastStatus": status,
        "networkBindings": [],
        "networkInterfaces": [],
        "healthStatus": "UNKNOWN",
        "cpu": str(container.get("cpu", 0)),
    }
    for name in ("memory", "memoryReservation"):
        if name in container:
            document[name] = str(container[name])
    if status == "RUNNING":
        document["runtimeId"] = derived("", own, 64)
        document["networkBindings"] = [
            {
                "bindIP": "0.0.0.0",  # noqa: S104 - a text of the answer
                "containerPort": mapping["containerPort"],
                "hostPort": task_.host_port(mapping),
                "protocol": mapping.get("protocol", "tcp"),
            }
            for mapping in container.get("portMappings", ())
        ]
    if status == "STOPPED":
        document["exitCode"] = 0
    return document


def service(service_: Service, cluster_: Cluster, include: frozenset[str] = frozenset()) -> Result:
    started, pending = _counts(cluster_.tasks_of(service_))
    desired = service_.desired
    if service_.strategy == "DAEMON" and service_.status == "ACTIVE":
        desired = sum(
            r.status == "ACTIVE" and r.launch_type == service_.runs_on for r in cluster_.registrations.values()
        )
    strategy = service_.capacity_provider_strategy
    where: Result = {"capacityProviderStrategy": strategy} if strategy else {"launchType": service_.launch_type}
    counts = {"desiredCount": desired, "runningCount": started, "pendingCount": pending}
    return {
        "serviceArn": service_.arn,
        "serviceName": service_.name,
        "clusterArn": cluster_.arn,
        "loadBalancers": [],
        "serviceRegistries": [],
        "status": service_.status,
        **counts,
        **where,
        "taskDefinition": service_.definition.arn,
        "deploymentConfiguration": {
            "deploymentCircuitBreaker": {"enable": False, "rollback": False},
            "maximumPercent": service_.maximum_percent,
            "minimumHealthyPercent": service_.minimum_percent,
            "strategy": "ROLLING",
        },
        "deployments": [
            {
                "id": service_.deployment_id,
                "status": "PRIMARY",
                "taskDefinition": service_.definition.arn,
                **counts,
                "failedTasks": 0,
                "createdAt": service_.created,
                "updatedAt": service_.created,
                **where,
                "rolloutState": "COMPLETED",
                "rolloutStateReason": f"ECS deployment {service_.deployment_id} completed.",
            }
        ],
        "events": [{"id": id_, "createdAt": at, "message": message} for id_, at, message in service_.events],
        "createdAt": service_.created,
        "placementConstraints": [],
        "placementStrategy": [],
        "schedulingStrategy": service_.strategy,
        "deploymentController": {"type": "ECS"},
        "enableECSManagedTags": False,
        "propagateTags": "NONE",
        "enableExecuteCommand": False,
        "tags": tag_documents(service_.tags) if "TAGS" in include else [],
    }


def task_definition(definition: TaskDefinition) -> Result:
    empty: Result = {"cpu": 0, "portMappings": [], "essential": True, "environment": [], "mountPoints": []}
    return {
        "networkMode": "bridge",
        "volumes": [],
        "placementConstraints": [],
        **{name: value for name, value in definition.document.items() if name != "tags"},
        "taskDefinitionArn": definition.arn,
        "containerDefinitions": [{**empty, "volumesFrom": [], **container} for container in definition.containers],
        "family": definition.family,
        "revision": definition.revision,
        "status": "ACTIVE",
        "requiresAttributes": [],
        "compatibilities": list(definition.compatibilities),
        "registeredAt": definition.registered_at,
    }
