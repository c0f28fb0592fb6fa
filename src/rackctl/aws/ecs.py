"""ECS: clusters, container instances, tasks, services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rackctl.aws.errors import AwsError
from rackctl.errors import NotFound, RackctlError
from rackctl.model import (
    CapacityProvider,
    Container,
    ContainerInstance,
    EcsCluster,
    Failure,
    PortBinding,
    Resources,
    Service,
    ServiceEvent,
    Task,
)
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackctl.aws.client import Client, Document

# The most items of each operation: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/
_CLUSTERS_PER_DESCRIBE = 100
_CONTAINER_INSTANCES_PER_UPDATE = 10
_TASKS_PER_DESCRIBE = 100
_SERVICES_PER_DESCRIBE = 10
_CAPACITY_PROVIDERS_PER_DESCRIBE = 10


class NoCluster(NotFound):
    """The named cluster does not exist."""


class Ecs:
    def __init__(self, call: Client) -> None:
        self._call = call

    def cluster(self, cluster: str) -> EcsCluster:
        """Describe a cluster and its tags. Raises NotFound."""
        for described in self.clusters([cluster]):
            return described
        raise self._no_cluster(cluster)

    def clusters(self, clusters: Sequence[str]) -> list[EcsCluster]:
        """Describe clusters and their tags, by name or ARN. Clusters that do not exist are left out."""
        return [
            described
            for some in _chunks(clusters, _CLUSTERS_PER_DESCRIBE)
            for described in self._call(
                "describe_clusters",
                lambda answer: [_cluster(document) for document in answer["clusters"]],
                resource=f"cluster {some[0]}" if len(some) == 1 else "",
                clusters=some,
                include=["TAGS"],
            )
            if described
        ]

    def tag(self, arn: str, tags: Mapping[str, str]) -> None:
        """Set tags of a resource; its other tags stay."""
        given = [{"key": key, "value": value} for key, value in tags.items()]
        self._call("tag_resource", resource=arn, resourceArn=arn, tags=given)

    def cluster_arns(self) -> list[str]:
        """List the clusters of the account and region."""
        pages = self._call.pages("list_clusters", lambda answer: list(map(str, answer["clusterArns"])))
        return [arn for page in pages for arn in page]

    def _no_cluster(self, cluster: str) -> NoCluster:
        """Return the error of a cluster that does not exist, naming those with a similar name."""
        try:
            near = _near(cluster, [arn.rpartition("/")[2] for arn in self.cluster_arns()])
        except RackctlError:
            near = []
        see = "`rackctl racks find` lists the clusters; --cluster and --region select another"
        return NoCluster(
            f'there is no ECS cluster "{cluster}" in this account and region',
            hint=f"did you mean {listed(near, last='or')}? {see}" if near else see,
        )

    def capacity_providers(self, names: Sequence[str]) -> list[CapacityProvider]:
        """Describe capacity providers. Those without an Auto Scaling group are left out."""
        return [
            provider
            for some in _chunks(names, _CAPACITY_PROVIDERS_PER_DESCRIBE)
            for provider in self._call("describe_capacity_providers", _capacity_providers, capacityProviders=some)
        ]

    def container_instance_arns(self, cluster: str, *, filter: str = "") -> Iterator[list[str]]:  # noqa: A002 - AWS's name
        """Yield the ARNs of the cluster's container instances, in pages of up to 100.

        ``filter`` is an expression of the cluster query language. Raises NotFound if the cluster does not exist.
        """
        parameters = {"filter": filter} if filter else {}
        try:
            yield from self._call.pages(
                "list_container_instances",
                lambda page: _arns(page, "containerInstanceArns"),
                resource=f"cluster {cluster}",
                cluster=cluster,
                **parameters,
            )
        except AwsError as error:
            if error.code == "ClusterNotFoundException":
                raise self._no_cluster(cluster) from error
            raise

    def describe_container_instances(self, cluster: str, arns: Sequence[str]) -> list[ContainerInstance]:
        """Describe up to 100 container instances. Those that ECS no longer knows are left out."""
        if not arns:
            return []
        return self._call(
            "describe_container_instances",
            lambda answer: [_container_instance(document) for document in answer["containerInstances"]],
            resource=f"cluster {cluster}",
            cluster=cluster,
            containerInstances=list(arns),
        )

    def set_container_instances_state(
        self, cluster: str, arns: Sequence[str], status: Literal["ACTIVE", "DRAINING"]
    ) -> list[Failure]:
        """Set the status of container instances; return the failures."""
        failures: list[Failure] = []
        for some in _chunks(arns, _CONTAINER_INSTANCES_PER_UPDATE):
            failures += self._call(
                "update_container_instances_state",
                lambda answer: [_failure(document) for document in answer.get("failures", ())],
                resource=f"cluster {cluster}",
                cluster=cluster,
                containerInstances=some,
                status=status,
            )
        return failures

    def tasks_on(
        self, cluster: str, container_instance_arn: str, desired_status: Literal["RUNNING", "STOPPED"]
    ) -> list[str]:
        """List the ARNs of the tasks on a container instance whose desired status is RUNNING, or STOPPED."""
        return [
            arn
            for page in self._call.pages(
                "list_tasks",
                lambda page: _arns(page, "taskArns"),
                resource=f"cluster {cluster}",
                cluster=cluster,
                containerInstance=container_instance_arn,
                desiredStatus=desired_status,
            )
            for arn in page
        ]

    def running_tasks(self, cluster: str) -> list[Task]:
        """Describe every task of a cluster whose desired status is RUNNING."""
        return [
            task
            for page in self._call.pages(
                "list_tasks",
                lambda page: _arns(page, "taskArns"),
                resource=f"cluster {cluster}",
                cluster=cluster,
            )
            for task in self.describe_tasks(cluster, page)
        ]

    def stop_task(self, cluster: str, task_arn: str, reason: str) -> None:
        """Set a task's desired status to STOPPED; it has stopped once its last status is STOPPED too."""
        self._call("stop_task", resource=task_arn, cluster=cluster, task=task_arn, reason=reason)

    def describe_tasks(self, cluster: str, arns: Sequence[str]) -> list[Task]:
        """Describe tasks. Those that ECS has forgotten, about an hour after their end, are left out."""
        return [
            task
            for some in _chunks(arns, _TASKS_PER_DESCRIBE)
            for task in self._call(
                "describe_tasks",
                lambda answer: [_task(document) for document in answer["tasks"]],
                resource=f"cluster {cluster}",
                cluster=cluster,
                tasks=some,
            )
        ]

    def services(self, cluster: str) -> list[Service]:
        """Describe every service of a cluster."""
        arns = [
            arn
            for page in self._call.pages(
                "list_services",
                lambda page: _arns(page, "serviceArns"),
                resource=f"cluster {cluster}",
                cluster=cluster,
                maxResults=100,
            )
            for arn in page
        ]
        return self.describe_services(cluster, arns)

    def describe_services(self, cluster: str, services: Sequence[str]) -> list[Service]:
        """Describe services, by name or ARN."""
        return [
            service
            for some in _chunks(services, _SERVICES_PER_DESCRIBE)
            for service in self._call(
                "describe_services",
                lambda answer: [_service(document) for document in answer["services"]],
                resource=f"cluster {cluster}",
                cluster=cluster,
                services=some,
            )
        ]


def _near(name: str, names: Sequence[str]) -> list[str]:
    """Return up to three names that are similar to another one, the nearest first, or that contain it."""
    from difflib import get_close_matches

    by_lower = {other.lower(): other for other in names}
    close = get_close_matches(name.lower(), by_lower, n=3)
    # A generated name begins with the stack's name: Prod-ClusterEB0386A7-1ABC2DEF3GHI.
    containing = sorted((other for other in by_lower if name.lower() in other), key=len)
    return [by_lower[other] for other in dict.fromkeys((*close, *containing))][:3]


def _chunks(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _arns(page: Document, member: str) -> list[str]:
    return [str(arn) for arn in page[member]]


# botocore passes on JSON values of any type unchecked: each is converted to its type here, or refused.


def _cluster(document: Document) -> EcsCluster | None:
    if document.get("status") == "INACTIVE":
        return None
    tags = {str(tag["key"]): str(tag.get("value", "")) for tag in document.get("tags", ())}
    arn = str(document["clusterArn"])
    if arn.count(":") != 5:
        raise ValueError(f"{arn!r} is not the ARN of a cluster")
    return EcsCluster(
        arn,
        tuple(map(str, document.get("capacityProviders", ()))),
        tags,
        int(document.get("registeredContainerInstancesCount", 0)),
    )


def _capacity_providers(answer: Document) -> list[CapacityProvider]:
    return [
        CapacityProvider(
            str(document["name"]),
            str(provider["autoScalingGroupArn"]),
            provider.get("managedDraining") == "ENABLED",
            provider.get("managedScaling", {}).get("status") == "ENABLED",
            provider.get("managedTerminationProtection") == "ENABLED",
        )
        for document in answer["capacityProviders"]
        if (provider := document.get("autoScalingGroupProvider"))
    ]


def _container_instance(document: Document) -> ContainerInstance:
    return ContainerInstance(
        container_instance_arn=str(document["containerInstanceArn"]),
        ec2_instance_id=str(document.get("ec2InstanceId", "")),
        status=str(document["status"]),
        agent_connected=bool(document.get("agentConnected", False)),
        running_tasks_count=int(document.get("runningTasksCount", 0)),
        pending_tasks_count=int(document.get("pendingTasksCount", 0)),
        registered=_resources(document.get("registeredResources", ())),
        remaining=_resources(document.get("remainingResources", ())),
        registered_at=document.get("registeredAt"),
        agent_version=str(document.get("versionInfo", {}).get("agentVersion", "")),
        status_reason=str(document.get("statusReason", "")),
    )


def _resources(documents: Sequence[Document]) -> Resources:
    found = {document["name"]: int(document.get("integerValue", 0)) for document in documents}
    return Resources(cpu=found.get("CPU", 0), memory=found.get("MEMORY", 0))


def _failure(document: Document) -> Failure:
    return Failure(*(str(document.get(member, "")) for member in ("arn", "reason", "detail")))


def _task(document: Document) -> Task:
    return Task(
        task_arn=str(document["taskArn"]),
        last_status=str(document["lastStatus"]),
        desired_status=str(document.get("desiredStatus", "")),
        group=str(document.get("group", "")),
        container_instance_arn=str(document.get("containerInstanceArn", "")),
        containers=tuple(map(_container, document.get("containers", ()))),
    )


def _container(document: Document) -> Container:
    bindings = tuple(
        PortBinding(int(b["hostPort"]), int(b["containerPort"]), str(b.get("protocol", "tcp")))
        for b in document.get("networkBindings", ())
        if "hostPort" in b and "containerPort" in b
    )
    return Container(
        name=str(document["name"]),
        image=str(document.get("image", "")),
        last_status=str(document.get("lastStatus", "")),
        port_bindings=bindings,
    )


def _service(document: Document) -> Service:
    deployment = document.get("deploymentConfiguration", {})
    daemon = document.get("schedulingStrategy") == "DAEMON"
    return Service(
        service_name=str(document["serviceName"]),
        scheduling_strategy=str(document.get("schedulingStrategy", "REPLICA")),
        desired_count=int(document.get("desiredCount", 0)),
        running_count=int(document.get("runningCount", 0)),
        minimum_healthy_percent=int(deployment.get("minimumHealthyPercent", 0 if daemon else 100)),
        maximum_percent=int(deployment.get("maximumPercent", 100 if daemon else 200)),
        events=tuple(
            ServiceEvent(event["createdAt"], str(event.get("message", ""))) for event in document.get("events", ())
        ),
        status=str(document.get("status", "ACTIVE")),
        rollout_state=next(
            (str(d.get("rolloutState", "")) for d in document.get("deployments", ()) if d.get("status") == "PRIMARY"),
            "",
        ),
    )
