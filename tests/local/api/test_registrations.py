"""Several, ended and external registrations, and services on Fargate, through boto3."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.local.api.clients import refusal
from tests.local.api.test_ecs import arns_of, described

if TYPE_CHECKING:
    from tests.local.api.clients import Rack


def register(rack: Rack, cluster: str, instance_id: str, **parameters: str) -> dict[str, Any]:
    document = json.dumps({"instanceId": instance_id, "region": "us-east-1"})
    answer = rack.ecs.register_container_instance(cluster=cluster, instanceIdentityDocument=document, **parameters)
    found: dict[str, Any] = answer["containerInstance"]
    return found


def test_an_agent_that_names_no_registration_gets_another_one(seeded: Rack) -> None:
    """RegisterContainerInstance, containerInstanceArn: "(if it was previously registered)"."""
    first = arns_of(seeded)[0]
    id_ = described(seeded, first)["ec2InstanceId"]

    again = register(seeded, "rack", id_)
    same = register(seeded, "rack", id_, containerInstanceArn=first)

    assert same["containerInstanceArn"] == first
    assert again["containerInstanceArn"] != first
    assert len(arns_of(seeded)) == 4
    assert len(arns_of(seeded, filter=f"ec2InstanceId == {id_}")) == 2
    seeded.pass_time(10)
    assert described(seeded, again["containerInstanceArn"])["agentConnected"]


def test_an_instance_may_register_with_any_cluster(seeded: Rack) -> None:
    seeded.ecs.create_cluster(clusterName="other")
    id_ = described(seeded, arns_of(seeded)[0])["ec2InstanceId"]

    register(seeded, "other", id_)

    (other,) = seeded.ecs.list_container_instances(cluster="other")["containerInstanceArns"]
    assert ":container-instance/other/" in other
    assert len(seeded.ecs.list_clusters()["clusterArns"]) == 2


def test_an_instance_that_is_not_running_is_not_registered(seeded: Rack) -> None:
    document = json.dumps({"instanceId": "i-00000000000000000"})
    call = seeded.ecs.register_container_instance
    assert refusal(call, cluster="rack", instanceIdentityDocument=document)[0] == "InvalidParameterException"


def test_an_ended_registration_is_described_as_inactive_then_missing(seeded: Rack) -> None:
    """ECS's guide: "you can still describe the container instance for one hour after termination"."""
    arn = arns_of(seeded)[0]
    seeded.ecs.deregister_container_instance(cluster="rack", containerInstance=arn, force=True)

    assert arn not in arns_of(seeded)
    assert (described(seeded, arn)["status"], described(seeded, arn)["agentConnected"]) == ("INACTIVE", False)
    update = seeded.ecs.update_container_instances_state(cluster="rack", containerInstances=[arn], status="DRAINING")
    assert update["failures"] == [{"arn": arn, "reason": "INACTIVE"}]
    seeded.pass_time(3601)

    answer = seeded.ecs.describe_container_instances(cluster="rack", containerInstances=[arn])
    assert answer["containerInstances"] == []
    assert answer["failures"] == [{"arn": arn, "reason": "MISSING"}]


def test_an_external_instance_is_described_without_one_of_ec2_s(seeded: Rack) -> None:
    """ECS's guide, external instances: the ID is mi-…, and the attribute ecs.capability.external is there."""
    seeded.world.set_condition("external-instance")
    seeded.pass_time(10)

    documents = [described(seeded, arn) for arn in arns_of(seeded)]

    (external,) = [d for d in documents if d["ec2InstanceId"].startswith("mi-")]
    names = {attribute["name"] for attribute in external["attributes"]}
    assert "ecs.capability.external" in names
    assert "ecs.instance-type" not in names
    assert external["agentConnected"]
    code = refusal(seeded.ec2.describe_instances, InstanceIds=[external["ec2InstanceId"]])[0]
    assert code == "InvalidInstanceID.Malformed"


def test_an_instance_of_a_capacity_provider_names_it(seeded: Rack) -> None:
    """ContainerInstance, capacityProviderName: "The capacity provider … associated with …"."""
    seeded.world.set_condition("managed-draining")
    seeded.autoscaling.set_desired_capacity(AutoScalingGroupName="rack-instances", DesiredCapacity=4)
    seeded.pass_time(90)

    named = [described(seeded, arn).get("capacityProviderName") for arn in arns_of(seeded)]

    assert sorted(named, key=str) == [None, None, None, "rack-instances-provider"]


# Fargate


def on_fargate(rack: Rack, **parameters: Any) -> dict[str, Any]:
    definition = rack.ecs.register_task_definition(
        family="reports",
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        containerDefinitions=[{"name": "reports", "image": "example/reports:1"}],
    )["taskDefinition"]["taskDefinitionArn"]
    network = {"awsvpcConfiguration": {"subnets": list(rack.world.ec2.subnets)[:1]}}
    answer = rack.ecs.create_service(
        cluster="rack", serviceName="reports", taskDefinition=definition, desiredCount=1, networkConfiguration=network,
        **parameters,
    )  # fmt: skip
    found: dict[str, Any] = answer["service"]
    return found


def test_a_service_of_fargate_has_tasks_on_no_container_instance(seeded: Rack) -> None:
    service = on_fargate(seeded, launchType="FARGATE")
    seeded.pass_time(30)

    assert service["launchType"] == "FARGATE"
    arns = seeded.ecs.list_tasks(cluster="rack", launchType="FARGATE")["taskArns"]
    (task,) = seeded.ecs.describe_tasks(cluster="rack", tasks=arns)["tasks"]
    assert (task["launchType"], task["lastStatus"], task["group"]) == ("FARGATE", "RUNNING", "service:reports")
    assert "containerInstanceArn" not in task
    assert seeded.ecs.list_services(cluster="rack", launchType="FARGATE")["serviceArns"] == [service["serviceArn"]]
    statistics = seeded.ecs.describe_clusters(clusters=["rack"], include=["STATISTICS"])["clusters"][0]["statistics"]
    assert {"name": "runningFargateTasksCount", "value": "1"} in statistics


def test_a_service_of_a_fargate_capacity_provider_names_its_strategy_and_no_launch_type(seeded: Rack) -> None:
    """CreateService, capacityProviderStrategy: "… the launchType parameter must be omitted"."""
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1, "base": 0}]
    assert refusal(on_fargate, rack=seeded, capacityProviderStrategy=strategy)[0] == "InvalidParameterException"
    seeded.ecs.put_cluster_capacity_providers(
        cluster="rack", capacityProviders=["FARGATE_SPOT"], defaultCapacityProviderStrategy=[]
    )

    service = on_fargate(seeded, capacityProviderStrategy=strategy)
    seeded.pass_time(30)

    assert service["capacityProviderStrategy"] == strategy
    assert "launchType" not in service
    arns = seeded.ecs.list_tasks(cluster="rack", serviceName="reports")["taskArns"]
    (task,) = seeded.ecs.describe_tasks(cluster="rack", tasks=arns)["tasks"]
    assert (task["launchType"], task["capacityProviderName"]) == ("FARGATE", "FARGATE_SPOT")


def test_fargate_takes_only_task_definitions_that_were_made_for_it(seeded: Rack) -> None:
    """ECS's guide, Fargate task definitions: the network mode awsvpc, CPU and memory at the task level."""
    code, message = refusal(
        seeded.ecs.create_service, cluster="rack", serviceName="x", taskDefinition="web", desiredCount=1,
        launchType="FARGATE",
    )  # fmt: skip
    assert (code, message) == ("InvalidParameterException", "Task definition does not support launch_type FARGATE.")

    containers = [{"name": "x", "image": "x", "memory": 128}]
    register_definition = seeded.ecs.register_task_definition
    made: dict[str, Any] = {"family": "x", "requiresCompatibilities": ["FARGATE"], "containerDefinitions": containers}
    assert "awsvpc" in refusal(register_definition, **made)[1]
    assert "task level" in refusal(register_definition, **made, networkMode="awsvpc")[1]
