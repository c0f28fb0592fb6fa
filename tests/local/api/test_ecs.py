from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.local.api.clients import Rack, new_world, refusal

if TYPE_CHECKING:
    from collections.abc import Callable


def arns_of(rack: Rack, **parameters: object) -> list[str]:
    found: list[str] = rack.ecs.list_container_instances(cluster="rack", **parameters)["containerInstanceArns"]
    return found


def described(rack: Rack, arn: str, **parameters: object) -> dict[str, Any]:
    answer = rack.ecs.describe_container_instances(cluster="rack", containerInstances=[arn], **parameters)
    found: dict[str, Any] = answer["containerInstances"][0]
    return found


def resources(document: dict[str, Any], which: str) -> dict[str, Any]:
    return {one["name"]: one.get("stringSetValue", one["integerValue"]) for one in document[which]}


@pytest.fixture
def job(seeded: Rack) -> str:
    """A task definition of 100 CPU units and 200 MiB, by its ARN."""
    container = {"name": "job", "image": "example/job", "cpu": 100, "memory": 200,
                 "portMappings": [{"containerPort": 80, "hostPort": 8080}]}  # fmt: skip
    answer = seeded.ecs.register_task_definition(family="job", containerDefinitions=[container])
    arn: str = answer["taskDefinition"]["taskDefinitionArn"]
    return arn


# Clusters


def test_clusters_are_described_with_the_included_parts(seeded: Rack) -> None:
    seeded.world.ecs.clusters["rack"].tags["rackctl:bucket"] = "b"
    plain = seeded.ecs.describe_clusters(clusters=["rack"])["clusters"][0]
    assert (plain["registeredContainerInstancesCount"], plain["runningTasksCount"]) == (3, 6)
    assert (plain["activeServicesCount"], plain["tags"], plain["statistics"]) == (3, [], [])
    full = seeded.ecs.describe_clusters(clusters=[plain["clusterArn"]], include=["TAGS", "STATISTICS"])["clusters"][0]
    assert full["tags"] == [{"key": "rackctl:bucket", "value": "b"}]
    assert {"name": "activeEC2ServiceCount", "value": "3"} in full["statistics"]


def test_a_cluster_that_does_not_exist_is_a_failure_of_a_describe_and_an_error_elsewhere(seeded: Rack) -> None:
    answer = seeded.ecs.describe_clusters(clusters=["rack", "nothing"])
    assert [cluster["clusterName"] for cluster in answer["clusters"]] == ["rack"]
    assert answer["failures"] == [{"arn": "arn:aws:ecs:us-east-1:123456789012:cluster/nothing", "reason": "MISSING"}]
    with pytest.raises(seeded.ecs.exceptions.ClusterNotFoundException, match="Cluster not found"):
        seeded.ecs.list_container_instances(cluster="nothing")


def test_no_cluster_means_the_one_named_default(rack: Rack) -> None:
    assert rack.ecs.describe_clusters()["failures"][0]["arn"].endswith("cluster/default")
    rack.ecs.create_cluster()
    assert rack.ecs.describe_clusters()["clusters"][0]["clusterName"] == "default"
    assert rack.ecs.list_container_instances()["containerInstanceArns"] == []


def test_creating_a_cluster_twice_gives_the_same_one(rack: Rack) -> None:
    first = rack.ecs.create_cluster(clusterName="one", tags=[{"key": "a", "value": "b"}])["cluster"]
    assert rack.ecs.create_cluster(clusterName="one")["cluster"] == first
    assert rack.ecs.list_clusters()["clusterArns"] == [first["clusterArn"]]
    assert refusal(rack.ecs.create_cluster, clusterName="no good")[0] == "InvalidParameterException"


def test_resources_are_tagged_and_untagged(seeded: Rack) -> None:
    arns = [
        seeded.ecs.list_clusters()["clusterArns"][0],
        arns_of(seeded)[0],
        seeded.ecs.list_services(cluster="rack")["serviceArns"][0],
    ]
    for arn in arns:
        seeded.ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
        seeded.ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
        assert seeded.ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "b", "value": "2"}]
    assert described(seeded, arns[1])["tags"] == []
    assert described(seeded, arns[1], include=["TAGS"])["tags"] == [{"key": "b", "value": "2"}]
    assert refusal(seeded.ecs.list_tags_for_resource, resourceArn=f"{arns[1]}0")[0] == "InvalidParameterException"


# Container instances


def test_a_container_instance_is_described_in_full(seeded: Rack) -> None:
    document = described(seeded, arns_of(seeded)[0])
    instance = seeded.world.ec2.instances[document["ec2InstanceId"]]
    attributes = {attribute["name"]: attribute.get("value") for attribute in document["attributes"]}
    assert len(attributes) >= 40
    assert attributes["ecs.instance-type"] == "t3.small"
    assert attributes["ecs.availability-zone"] == instance.subnet.availability_zone
    assert (document["status"], document["agentConnected"], document["runningTasksCount"]) == ("ACTIVE", True, 2)
    registered, remaining = resources(document, "registeredResources"), resources(document, "remainingResources")
    assert (registered["CPU"], remaining["CPU"]) == (2048, 2048)
    assert registered["MEMORY"] - remaining["MEMORY"] in {64 + 256, 64 + 384}
    assert "22" in registered["PORTS"]
    assert document["registeredAt"].timestamp() > instance.launched
    assert document["versionInfo"]["agentVersion"]


def test_a_change_is_described_at_once(seeded: Rack, job: str) -> None:
    arn = arns_of(seeded)[0]
    before = described(seeded, arn)
    seeded.ecs.start_task(cluster="rack", taskDefinition=job, containerInstances=[arn])
    pending = described(seeded, arn)
    assert (pending["pendingTasksCount"], pending["runningTasksCount"]) == (1, 2)
    assert pending["version"] > before["version"]
    left = resources(pending, "remainingResources")
    assert left["CPU"] == resources(before, "remainingResources")["CPU"] - 100
    assert "8080" in left["PORTS"]
    seeded.pass_time(10)
    assert described(seeded, arn)["runningTasksCount"] == 3
    seeded.world.befall("agent-off", before["ec2InstanceId"])
    assert described(seeded, arn)["agentConnected"] is False


def test_container_instances_are_listed_and_described_100_at_a_time() -> None:
    world = new_world()
    world.seed("rack", 201)
    rack = Rack(world)
    pages = [
        page["containerInstanceArns"]
        for page in rack.ecs.get_paginator("list_container_instances").paginate(cluster="rack")
    ]
    assert [len(page) for page in pages] == [100, 100, 1]
    every = [arn for page in pages for arn in page]
    assert {*every} == world.ecs.clusters["rack"].registrations.keys()
    assert (
        len(rack.ecs.describe_container_instances(cluster="rack", containerInstances=every[:100])["containerInstances"])
        == 100
    )
    answer = refusal(rack.ecs.describe_container_instances, cluster="rack", containerInstances=every[:101])
    assert answer == ("InvalidParameterException", "containerInstances can have at most 100 items.")
    answer = refusal(rack.ecs.list_container_instances, cluster="rack", maxResults=101)
    assert answer[0] == "InvalidParameterException"


def test_a_token_is_valid_only_for_the_same_list(seeded: Rack) -> None:
    token = seeded.ecs.list_container_instances(cluster="rack", maxResults=1)["nextToken"]
    assert len(arns_of(seeded, nextToken=token)) == 2
    code, _ = refusal(seeded.ecs.list_container_instances, cluster="rack", nextToken=token, status="DRAINING")
    assert code == "InvalidParameterException"
    assert refusal(seeded.ecs.list_tasks, cluster="rack", nextToken="made up")[0] == "InvalidParameterException"


def test_container_instances_are_listed_by_status_and_query(seeded: Rack) -> None:
    arns = arns_of(seeded)
    ids = {arn: described(seeded, arn)["ec2InstanceId"] for arn in arns}
    seeded.ecs.update_container_instances_state(cluster="rack", containerInstances=arns[:1], status="DRAINING")
    assert arns_of(seeded, status="DRAINING") == arns[:1]
    assert arns_of(seeded, status="ACTIVE") == arns[1:]
    assert arns_of(seeded) == arns
    assert arns_of(seeded, filter=f"ec2InstanceId == {ids[arns[1]]}") == [arns[1]]
    assert arns_of(seeded, filter=f"ec2InstanceId in [{ids[arns[1]]},{ids[arns[2]]}]") == arns[1:]
    assert arns_of(seeded, filter="attribute:ecs.instance-type == t3.small and agentConnected == true") == arns
    assert arns_of(seeded, filter="task:group == service:worker or runningTasksCount == 0") == [
        t.registration.arn for t in seeded.world.ecs.clusters["rack"].tasks.values() if t.service == "worker"
    ]
    code, message = refusal(seeded.ecs.list_container_instances, cluster="rack", filter="colour == red")
    assert code == "InvalidParameterException"
    assert "unknown subject 'colour'" in message


def test_missing_resources_are_failures_beside_the_existing_ones(seeded: Rack) -> None:
    first = arns_of(seeded)[0]
    unknown = first[:-4] + "0000"
    short = first.rpartition("/")[2]
    answer = seeded.ecs.describe_container_instances(cluster="rack", containerInstances=[short, unknown])
    assert [one["containerInstanceArn"] for one in answer["containerInstances"]] == [first]
    assert answer["failures"] == [{"arn": unknown, "reason": "MISSING"}]


def test_states_are_updated_10_at_a_time_with_failures_apart(rack: Rack) -> None:
    rack.world.seed("rack", 11)
    arns = arns_of(rack)
    update = rack.ecs.update_container_instances_state
    assert refusal(update, cluster="rack", containerInstances=arns, status="DRAINING")[0] == (
        "InvalidParameterException"
    )
    assert refusal(update, cluster="rack", containerInstances=arns[:1], status="INACTIVE")[0] == (
        "InvalidParameterException"
    )
    unknown = arns[0][:-4] + "0000"
    answer = update(cluster="rack", containerInstances=[*arns[:9], unknown], status="DRAINING")
    assert [one["status"] for one in answer["containerInstances"]] == ["DRAINING"] * 9
    assert answer["failures"] == [{"arn": unknown, "reason": "MISSING"}]
    assert described(rack, arns[0])["status"] == "DRAINING"
    assert described(rack, arns[9])["status"] == "ACTIVE"


def test_a_draining_instance_loses_its_tasks_but_daemons_stay_until_the_end(seeded: Rack) -> None:
    arn = next(t.registration.arn for t in seeded.world.ecs.clusters["rack"].tasks.values() if t.service == "worker")
    seeded.ecs.update_container_instances_state(cluster="rack", containerInstances=[arn], status="DRAINING")
    seeded.pass_time(120)
    assert described(seeded, arn)["runningTasksCount"] == 0
    worker = seeded.ecs.describe_services(cluster="rack", services=["worker"])["services"][0]
    assert (worker["runningCount"], worker["desiredCount"]) == (1, 1)
    stopped = seeded.ecs.list_tasks(cluster="rack", containerInstance=arn, desiredStatus="STOPPED")["taskArns"]
    assert len(stopped) == 2


def test_an_instance_with_tasks_is_deregistered_only_by_force(seeded: Rack) -> None:
    arn = arns_of(seeded)[0]
    deregister = seeded.ecs.deregister_container_instance
    assert refusal(deregister, cluster="rack", containerInstance=arn)[0] == "InvalidParameterException"
    answer = deregister(cluster="rack", containerInstance=arn, force=True)["containerInstance"]
    assert (answer["status"], answer["runningTasksCount"]) == ("INACTIVE", 0)
    assert arn not in arns_of(seeded)
    identity = f'{{"instanceId": "{answer["ec2InstanceId"]}"}}'
    again = seeded.ecs.register_container_instance(cluster="rack", instanceIdentityDocument=identity)
    assert again["containerInstance"]["ec2InstanceId"] == answer["ec2InstanceId"]
    assert len(arns_of(seeded)) == 3


def test_a_failed_registration_has_a_reason(rack: Rack) -> None:
    rack.world.set_condition("registration-failed", "no luck")
    rack.world.seed("rack", 1)
    rack.autoscaling.set_desired_capacity(AutoScalingGroupName="rack-instances", DesiredCapacity=2)
    rack.pass_time(120)
    documents = [described(rack, arn) for arn in arns_of(rack)]
    failed = next(document for document in documents if document["status"] == "REGISTRATION_FAILED")
    assert failed["statusReason"] == "no luck"
    answer = rack.ecs.update_container_instances_state(
        cluster="rack", containerInstances=[failed["containerInstanceArn"]], status="DRAINING"
    )
    assert answer["failures"][0]["reason"] == "REGISTRATION_FAILED"


def test_attributes_are_listed_by_name_and_value(seeded: Rack) -> None:
    answer = seeded.ecs.list_attributes(
        cluster="rack",
        targetType="container-instance",
        attributeName="ecs.availability-zone",
        attributeValue="us-east-1b",
    )
    assert [(one["name"], one["value"]) for one in answer["attributes"]] == [("ecs.availability-zone", "us-east-1b")]
    assert answer["attributes"][0]["targetId"] in arns_of(seeded)


# Tasks


def test_tasks_are_listed_by_desired_status_service_and_family(seeded: Rack) -> None:
    def count(**parameters: object) -> int:
        return len(seeded.ecs.list_tasks(cluster="rack", **parameters)["taskArns"])

    assert count() == 6
    assert count(serviceName="web") == 2
    assert count(family="log-agent") == 3
    assert count(containerInstance=arns_of(seeded)[0]) == 2
    assert count(desiredStatus="STOPPED") == 0
    assert count(launchType="FARGATE") == 0
    first = seeded.ecs.list_tasks(cluster="rack", serviceName="worker")["taskArns"][0]
    seeded.ecs.stop_task(cluster="rack", task=first, reason="try")
    assert count(serviceName="worker") == 0
    assert seeded.ecs.list_tasks(cluster="rack", desiredStatus="STOPPED")["taskArns"] == [first]
    refused: list[tuple[str, Callable[[], object]]] = [
        ("ServiceNotFoundException", lambda: count(serviceName="unknown")),
        ("InvalidParameterException", lambda: count(containerInstance="unknown")),
        ("InvalidParameterException", lambda: count(startedBy="me", family="web")),
    ]
    for code, call in refused:
        assert refusal(call)[0] == code


def test_tasks_are_listed_and_described_100_at_a_time(rack: Rack) -> None:
    rack.world.seed("rack", 120)
    pages = [page["taskArns"] for page in rack.ecs.get_paginator("list_tasks").paginate(cluster="rack")]
    assert [len(page) for page in pages] == [100, 23]
    assert len(rack.ecs.describe_tasks(cluster="rack", tasks=pages[0])["tasks"]) == 100
    code, _ = refusal(rack.ecs.describe_tasks, cluster="rack", tasks=[*pages[0], pages[1][0]])
    assert code == "InvalidParameterException"


def test_a_task_is_seen_from_start_to_end(seeded: Rack, job: str) -> None:
    arn = arns_of(seeded)[0]
    started = seeded.ecs.start_task(cluster="rack", taskDefinition="job", containerInstances=[arn], startedBy="me")
    task_arn = started["tasks"][0]["taskArn"]

    def task() -> dict[str, Any]:
        answer = seeded.ecs.describe_tasks(cluster="rack", tasks=[task_arn.rpartition("/")[2], "unknown"])
        assert [failure["reason"] for failure in answer["failures"]] == ["MISSING"]
        found: dict[str, Any] = answer["tasks"][0]
        return found

    assert (task()["lastStatus"], task()["group"], task()["startedBy"]) == ("PROVISIONING", "family:job", "me")
    seeded.pass_time(10)
    assert (task()["lastStatus"], task()["containerInstanceArn"]) == ("RUNNING", arn)
    assert task()["containers"][0]["lastStatus"] == "RUNNING"
    assert seeded.ecs.list_tasks(cluster="rack", startedBy="me")["taskArns"] == [task_arn]
    seeded.ecs.stop_task(cluster="rack", task=task_arn, reason="enough")
    assert (task()["lastStatus"], task()["desiredStatus"]) == ("DEACTIVATING", "STOPPED")
    seeded.pass_time(20)
    assert (task()["lastStatus"], task()["stopCode"], task()["stoppedReason"]) == (
        "STOPPED", "UserInitiated", "enough",
    )  # fmt: skip
    assert task()["stoppedAt"] > task()["startedAt"]
    assert refusal(seeded.ecs.stop_task, cluster="rack", task="unknown")[0] == "InvalidParameterException"


def test_a_task_without_room_is_a_failure_with_its_reason(seeded: Rack, job: str) -> None:
    first, second, third = arns_of(seeded)
    seeded.ecs.start_task(cluster="rack", taskDefinition=job, containerInstances=[first])
    seeded.world.befall("agent-off", described(seeded, second)["ec2InstanceId"])
    answer = seeded.ecs.start_task(cluster="rack", taskDefinition=job, containerInstances=[first, second, "unknown"])
    assert answer["tasks"] == []
    assert [failure["reason"] for failure in answer["failures"]] == ["RESOURCE:PORTS", "AGENT", "MISSING"]
    answer = seeded.ecs.run_task(cluster="rack", taskDefinition=job, count=2)
    assert [task["containerInstanceArn"] for task in answer["tasks"]] == [third]
    assert {failure["reason"] for failure in answer["failures"]} == {"RESOURCE:PORTS", "AGENT"}


def test_unsupported_parameters_of_a_task_are_refused_and_not_ignored(seeded: Rack, job: str) -> None:
    run = seeded.ecs.run_task
    common = {"cluster": "rack", "taskDefinition": job}
    assert (
        refusal(run, **common, overrides={"cpu": "1"})[1]
        == "The local rack does not support overrides for this operation."
    )
    assert refusal(run, **common, launchType="FARGATE")[0] == "InvalidParameterException"
    assert refusal(run, **common, count=11)[0] == "InvalidParameterException"
    assert refusal(run, **common, group="service:web")[0] == "InvalidParameterException"
    assert refusal(run, cluster="rack", taskDefinition="unknown")[0] == "ClientException"


# Services


def test_services_are_listed_10_a_page_and_described_10_at_a_time(seeded: Rack, job: str) -> None:
    for number in range(9):
        seeded.ecs.create_service(cluster="rack", serviceName=f"s{number}", taskDefinition=job, desiredCount=0)
    pages = seeded.ecs.get_paginator("list_services").paginate(cluster="rack")
    arns = [page["serviceArns"] for page in pages]
    assert [len(page) for page in arns] == [10, 2]
    assert len(seeded.ecs.list_services(cluster="rack", maxResults=100)["serviceArns"]) == 12
    assert len(seeded.ecs.list_services(cluster="rack", schedulingStrategy="DAEMON")["serviceArns"]) == 1
    assert len(seeded.ecs.describe_services(cluster="rack", services=arns[0])["services"]) == 10
    code, _ = refusal(seeded.ecs.describe_services, cluster="rack", services=[*arns[0], *arns[1]])
    assert code == "InvalidParameterException"


def test_services_are_described_by_name_or_arn_with_failures_apart(seeded: Rack) -> None:
    answer = seeded.ecs.describe_services(cluster="rack", services=["web", "log-agent", "unknown"])
    web, agent = answer["services"]
    assert (web["desiredCount"], web["runningCount"], web["schedulingStrategy"]) == (2, 2, "REPLICA")
    assert web["deploymentConfiguration"]["minimumHealthyPercent"] == 100
    assert web["deploymentConfiguration"]["maximumPercent"] == 200
    assert (agent["desiredCount"], agent["runningCount"], agent["schedulingStrategy"]) == (3, 3, "DAEMON")
    assert agent["deploymentConfiguration"]["minimumHealthyPercent"] == 0
    assert [failure["reason"] for failure in answer["failures"]] == ["MISSING"]
    by_arn = seeded.ecs.describe_services(cluster="rack", services=[web["serviceArn"]])["services"]
    assert by_arn[0]["serviceName"] == "web"


def test_a_service_is_created_scaled_and_deleted(seeded: Rack, job: str) -> None:
    created = seeded.ecs.create_service(
        cluster="rack",
        serviceName="job",
        taskDefinition="job:1",
        desiredCount=1,
        deploymentConfiguration={"minimumHealthyPercent": 0, "maximumPercent": 100},
        tags=[{"key": "a", "value": "b"}],
    )["service"]
    assert (created["status"], created["runningCount"], created["tags"]) == ("ACTIVE", 0, [{"key": "a", "value": "b"}])

    def service() -> dict[str, Any]:
        found: list[dict[str, Any]] = seeded.ecs.describe_services(cluster="rack", services=["job"])["services"]
        return found[0]

    seeded.pass_time(30)
    assert service()["runningCount"] == 1
    assert "has started 1 tasks" in service()["events"][0]["message"]
    seeded.ecs.update_service(cluster="rack", service="job", desiredCount=2)
    seeded.pass_time(30)
    assert service()["runningCount"] == 2
    assert service()["deploymentConfiguration"]["maximumPercent"] == 100
    assert refusal(seeded.ecs.delete_service, cluster="rack", service="job")[0] == "InvalidParameterException"
    seeded.ecs.delete_service(cluster="rack", service="job", force=True)
    assert service()["status"] == "DRAINING"
    update = {"cluster": "rack", "service": "job", "desiredCount": 1}
    assert refusal(seeded.ecs.update_service, **update)[0] == "ServiceNotActiveException"
    seeded.pass_time(60)
    assert seeded.ecs.describe_services(cluster="rack", services=["job"])["failures"][0]["reason"] == "MISSING"
    assert refusal(seeded.ecs.update_service, **update)[0] == "ServiceNotFoundException"


@pytest.mark.parametrize(
    "parameters",
    [
        {"serviceName": "web", "desiredCount": 1},
        {"serviceName": "x"},
        {"serviceName": "x", "desiredCount": -1},
        {"serviceName": "x", "desiredCount": 1, "schedulingStrategy": "DAEMON"},
        {"serviceName": "x", "desiredCount": 1, "deploymentConfiguration": {"minimumHealthyPercent": 101}},
        {"serviceName": "x", "desiredCount": 1, "loadBalancers": [{"targetGroupArn": "arn:x"}]},
        {"serviceName": "x y", "desiredCount": 1},
    ],
    ids=str,
)
def test_a_service_that_could_not_be_is_refused(seeded: Rack, job: str, parameters: dict[str, Any]) -> None:
    answer = refusal(seeded.ecs.create_service, cluster="rack", taskDefinition=job, **parameters)
    assert answer[0] == "InvalidParameterException"
    assert len(seeded.world.ecs.clusters["rack"].services) == 3


# Task definitions


def test_task_definitions_get_revisions(seeded: Rack, job: str) -> None:
    again = seeded.ecs.register_task_definition(
        family="job", containerDefinitions=[{"name": "job", "image": "example/job:2", "memory": 100}]
    )["taskDefinition"]
    assert (again["revision"], again["status"]) == (2, "ACTIVE")
    describe = seeded.ecs.describe_task_definition
    assert describe(taskDefinition="job")["taskDefinition"]["revision"] == 2
    assert describe(taskDefinition="job:1")["taskDefinition"]["taskDefinitionArn"] == job
    assert describe(taskDefinition=job)["taskDefinition"]["containerDefinitions"][0]["essential"] is True
    for unknown in ("job:3", "nothing", "job:x"):
        assert refusal(describe, taskDefinition=unknown)[0] == "ClientException"
    names = [arn.rpartition("/")[2] for arn in seeded.ecs.list_task_definitions(sort="DESC")["taskDefinitionArns"]]
    assert names == ["worker:1", "web:1", "log-agent:1", "job:2", "job:1"]
    assert seeded.ecs.list_task_definitions(familyPrefix="job")["taskDefinitionArns"] == [
        job, again["taskDefinitionArn"],
    ]  # fmt: skip
    assert seeded.ecs.list_task_definition_families(familyPrefix="w")["families"] == ["web", "worker"]


def test_a_container_needs_memory(rack: Rack) -> None:
    code, message = refusal(
        rack.ecs.register_task_definition, family="x", containerDefinitions=[{"name": "x", "image": "y"}]
    )
    assert code == "ClientException"
    assert "At least one of 'memory' or 'memoryReservation' must be specified" in message


def test_a_tag_may_have_no_value(seeded: Rack) -> None:
    """ECS's model, Tag, value: "The optional part of a key-value pair that make up a tag"."""
    arn = seeded.ecs.describe_clusters(clusters=["rack"])["clusters"][0]["clusterArn"]

    seeded.ecs.tag_resource(resourceArn=arn, tags=[{"key": "team"}, {"key": "empty", "value": ""}])

    tags = seeded.ecs.describe_clusters(clusters=["rack"], include=["TAGS"])["clusters"][0]["tags"]
    assert tags == [{"key": "team"}, {"key": "empty", "value": ""}]
    assert seeded.ecs.list_tags_for_resource(resourceArn=arn)["tags"] == tags
