"""ECS: clusters, container instances, tasks, services."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from rackctl.aws.errors import AwsError
from rackctl.errors import NotFound
from rackctl.model import ContainerInstance, Failure, Resources, Service, ServiceEvent, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.aws.client import Client

# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/: the most items each operation takes.
_CONTAINER_INSTANCES_PER_UPDATE = 10
_TASKS_PER_DESCRIBE = 100
_SERVICES_PER_DESCRIBE = 10


class Ecs:
    def __init__(self, call: Client) -> None:
        self._call = call

    def cluster_tags(self, cluster: str) -> dict[str, str]:
        """Give a cluster's tags. Raises NotFound."""
        answer = self._call("describe_clusters", resource=f"cluster {cluster}", clusters=[cluster], include=["TAGS"])
        for document in answer["clusters"]:
            if document.get("status") != "INACTIVE":
                return {tag["key"]: tag["value"] for tag in document.get("tags", ())}
        raise _no_cluster(cluster)

    def container_instance_arns(self, cluster: str, *, filter: str = "") -> Iterator[list[str]]:  # noqa: A002 - AWS's name
        """Yield, a page of up to 100 at a time, the ARNs of the cluster's container instances.

        ``filter`` is an expression of the cluster query language. Raises NotFound for no such cluster.
        """
        parameters = {"filter": filter} if filter else {}
        try:
            for page in self._call.pages(
                "list_container_instances", resource=f"cluster {cluster}", cluster=cluster, **parameters
            ):
                yield page["containerInstanceArns"]
        except AwsError as error:
            if error.code == "ClusterNotFoundException":
                raise _no_cluster(cluster) from error
            raise

    def describe_container_instances(self, cluster: str, arns: Sequence[str]) -> list[ContainerInstance]:
        """Describe up to 100 container instances. One that has gone since it was listed is left out."""
        if not arns:
            return []
        answer = self._call(
            "describe_container_instances",
            resource=f"cluster {cluster}",
            cluster=cluster,
            containerInstances=list(arns),
        )
        return [_container_instance(document) for document in answer["containerInstances"]]

    def set_container_instances_state(
        self, cluster: str, arns: Sequence[str], status: Literal["ACTIVE", "DRAINING"]
    ) -> list[Failure]:
        """Set the status of container instances, and give what ECS could not do."""
        failures: list[Failure] = []
        for some in _chunks(arns, _CONTAINER_INSTANCES_PER_UPDATE):
            answer = self._call(
                "update_container_instances_state",
                resource=f"cluster {cluster}",
                cluster=cluster,
                containerInstances=some,
                status=status,
            )
            failures += map(_failure, answer.get("failures", ()))
        return failures

    def tasks_on(
        self, cluster: str, container_instance_arn: str, desired_status: Literal["RUNNING", "STOPPED"]
    ) -> list[str]:
        """List the ARNs of the tasks on a container instance that should run, or that should stop or have stopped."""
        return [
            arn
            for page in self._call.pages(
                "list_tasks",
                resource=f"cluster {cluster}",
                cluster=cluster,
                containerInstance=container_instance_arn,
                desiredStatus=desired_status,
            )
            for arn in page["taskArns"]
        ]

    def running_tasks(self, cluster: str) -> list[Task]:
        """Describe every task of a cluster that should run."""
        return [
            task
            for page in self._call.pages("list_tasks", resource=f"cluster {cluster}", cluster=cluster)
            for task in self.describe_tasks(cluster, page["taskArns"])
        ]

    def stop_task(self, cluster: str, task_arn: str, reason: str) -> None:
        """Ask a task to stop; it has stopped when its last status says so."""
        self._call("stop_task", resource=task_arn, cluster=cluster, task=task_arn, reason=reason)

    def describe_tasks(self, cluster: str, arns: Sequence[str]) -> list[Task]:
        """Describe tasks. One that ECS has forgotten, as it does about an hour after the end, is left out."""
        return [
            _task(document)
            for some in _chunks(arns, _TASKS_PER_DESCRIBE)
            for document in self._call("describe_tasks", resource=f"cluster {cluster}", cluster=cluster, tasks=some)[
                "tasks"
            ]
        ]

    def services(self, cluster: str) -> list[Service]:
        """Describe every service of a cluster."""
        arns = [
            arn
            for page in self._call.pages(
                "list_services", resource=f"cluster {cluster}", cluster=cluster, maxResults=100
            )
            for arn in page["serviceArns"]
        ]
        return self.describe_services(cluster, arns)

    def describe_services(self, cluster: str, services: Sequence[str]) -> list[Service]:
        """Describe services, given by name or ARN."""
        return [
            _service(document)
            for some in _chunks(services, _SERVICES_PER_DESCRIBE)
            for document in self._call(
                "describe_services", resource=f"cluster {cluster}", cluster=cluster, services=some
            )["services"]
        ]


def _no_cluster(cluster: str) -> NotFound:
    return NotFound(
        f'there is no ECS cluster "{cluster}" in this account and region',
        hint="see the racks you have with `rackctl racks`; set another cluster name or region for this one "
        "with --cluster and --region",
    )


def _chunks(items: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def _container_instance(document: dict[str, Any]) -> ContainerInstance:
    return ContainerInstance(
        container_instance_arn=document["containerInstanceArn"],
        ec2_instance_id=document.get("ec2InstanceId", ""),
        status=document["status"],
        agent_connected=document.get("agentConnected", False),
        running_tasks_count=document.get("runningTasksCount", 0),
        pending_tasks_count=document.get("pendingTasksCount", 0),
        registered=_resources(document.get("registeredResources", ())),
        remaining=_resources(document.get("remainingResources", ())),
        registered_at=document.get("registeredAt"),
        agent_version=document.get("versionInfo", {}).get("agentVersion", ""),
        status_reason=document.get("statusReason", ""),
    )


def _resources(documents: Sequence[dict[str, Any]]) -> Resources:
    found = {document["name"]: document.get("integerValue", 0) for document in documents}
    return Resources(cpu=found.get("CPU", 0), memory=found.get("MEMORY", 0))


def _failure(document: dict[str, Any]) -> Failure:
    return Failure(document.get("arn", ""), document.get("reason", ""), document.get("detail", ""))


def _task(document: dict[str, Any]) -> Task:
    return Task(
        task_arn=document["taskArn"],
        last_status=document["lastStatus"],
        desired_status=document.get("desiredStatus", ""),
        group=document.get("group", ""),
        container_instance_arn=document.get("containerInstanceArn", ""),
        started_by=document.get("startedBy", ""),
        stopped_reason=document.get("stoppedReason", ""),
    )


def _service(document: dict[str, Any]) -> Service:
    deployment = document.get("deploymentConfiguration", {})
    daemon = document.get("schedulingStrategy") == "DAEMON"
    return Service(
        service_name=document["serviceName"],
        service_arn=document["serviceArn"],
        scheduling_strategy=document.get("schedulingStrategy", "REPLICA"),
        desired_count=document.get("desiredCount", 0),
        running_count=document.get("runningCount", 0),
        minimum_healthy_percent=deployment.get("minimumHealthyPercent", 0 if daemon else 100),
        maximum_percent=deployment.get("maximumPercent", 100 if daemon else 200),
        events=tuple(ServiceEvent(event["createdAt"], event["message"]) for event in document.get("events", ())),
    )
