"""Registrations with ECS: several of one instance, ended ones, with another cluster, of external machines."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from rackctl.local.world.base import Refused
from tests.local.world.days import cluster_of, first, group_of, newcomer, registration, runs_on, wait, with_task

if TYPE_CHECKING:
    from rackctl.local.world import World


def states(world: World, instance_id: str) -> list[tuple[str, bool]]:
    """Return status and agent of an instance's registrations, as they are listed: by ARN."""
    found = sorted((r.arn, r) for _, r in world.ecs.registrations_of(instance_id))
    return [(r.status, r.agent_connected) for _, r in found]


@pytest.mark.parametrize("dead_first", [True, False])
def test_an_instance_may_be_registered_twice_and_the_dead_one_listed_first_or_last(
    world: World, dead_first: bool
) -> None:
    """amazon-ecs-agent issue 782, containers-roadmap issue 1901: a retried registration leaves another behind."""
    id_ = first(world)
    alive = registration(world, id_)

    dead = world.ecs.register_dead(id_, first=dead_first)

    expected = [("ACTIVE", False), ("ACTIVE", True)]
    assert states(world, id_) == (expected if dead_first else expected[::-1])
    assert (dead.arn < alive.arn) == dead_first
    assert dead.registered_at < alive.registered_at
    assert registration(world, id_) is alive


def test_an_incident_registers_an_instance_twice_in_either_order(world: World) -> None:
    before, after, failed = group_of(world).members

    world.befall("registered-twice", before)
    world.befall("registered-twice-last", after)
    world.befall("registration-failed-twice", failed)

    assert states(world, before) == [("ACTIVE", False), ("ACTIVE", True)]
    assert states(world, after) == [("ACTIVE", True), ("ACTIVE", False)]
    assert states(world, failed) == [("REGISTRATION_FAILED", False), ("ACTIVE", True)]


def test_an_agent_that_registers_anew_leaves_its_tasks_with_the_old_registration(world: World) -> None:
    """amazon-ecs-agent issue 782: an agent without its state file registers as a new container instance."""
    id_ = with_task(world, "web")
    before, tasks = registration(world, id_), runs_on(world, id_)

    world.befall("re-registered", id_)
    wait(world, 10)

    after = registration(world, id_)
    assert after is not before
    assert (before.status, before.agent_connected) == ("ACTIVE", False)
    assert (after.status, after.agent_connected) == ("ACTIVE", True)
    assert sorted(task.service for task in before.live()) == tasks
    assert after.registered_at > before.registered_at
    containers = {container.name.split("-")[1] for container in world.containers(id_)}
    assert "web" in containers


@pytest.mark.parametrize("status", ["ACTIVE", "REGISTRATION_FAILED"])
def test_new_instances_may_all_be_registered_twice(world: World, status: str) -> None:
    group, before = group_of(world), set(group_of(world).members)
    world.set_condition("register-twice", status)

    world.autoscaling.set_desired(group, 4)
    wait(world, 90)

    member = newcomer(world, before)
    assert member is not None
    assert sorted(states(world, member.instance_id)) == sorted([("ACTIVE", True), (status, False)])


def test_registering_twice_with_an_unknown_status_is_refused(world: World) -> None:
    with pytest.raises(Refused, match='ACTIVE or REGISTRATION_FAILED, not "GONE"'):
        world.set_condition("register-twice", "GONE")


def test_an_ended_registration_is_inactive_for_an_hour(world: World) -> None:
    """ECS's guide, container instance lifecycle: "you can still describe the container instance for one hour"."""
    id_ = first(world)
    ended = registration(world, id_)

    world.ecs.deregister(cluster_of(world), ended, force=True)

    assert ended.arn not in cluster_of(world).registrations
    found = cluster_of(world).registration(ended.arn)
    assert found is not None
    assert (found.status, found.agent_connected) == ("INACTIVE", False)
    wait(world, 3599)
    assert cluster_of(world).registration(ended.arn) is found
    wait(world, 2)
    assert cluster_of(world).registration(ended.arn) is None


def test_an_instance_that_ends_with_its_agent_off_stays_registered(world: World) -> None:
    """DeregisterContainerInstance: "instances with disconnected agents aren't automatically deregistered"."""
    id_ = first(world)
    world.befall("agent-off", id_)

    world.autoscaling.terminate(id_, decrement=False)
    wait(world, 600)

    assert states(world, id_) == [("ACTIVE", False)]


def test_an_instance_registers_with_the_cluster_that_its_user_data_names(world: World) -> None:
    world.ecs.create_cluster("other", {})
    text = b"#!/bin/bash\necho ECS_CLUSTER=other >> /etc/ecs/ecs.config\n"
    instance = world.ec2.launch({"UserData": b64encode(text).decode()})
    wait(world, 60)

    world.autoscaling.update(group_of(world), {"MaxSize": 6})
    world.autoscaling.attach(group_of(world), [instance.instance_id])

    found = world.ecs.registration_of(instance.instance_id)
    assert found is not None
    assert found[0].name == "other"
    assert group_of(world).members[instance.instance_id].lifecycle_state == "InService"


def test_new_instances_may_register_with_another_cluster(world: World) -> None:
    group, before = group_of(world), set(group_of(world).members)
    world.set_condition("register-elsewhere", "other")

    world.autoscaling.set_desired(group, 4)
    wait(world, 90)

    member = newcomer(world, before)
    assert member is not None
    assert [cluster.name for cluster, _ in world.ecs.registrations_of(member.instance_id)] == ["other"]


def test_an_external_machine_may_be_registered(world: World) -> None:
    """ContainerInstance, ec2InstanceId: "For external instances, this is the … Systems Manager …"."""
    world.set_condition("external-instance")
    wait(world, 10)

    external = [r for r in cluster_of(world).registrations.values() if r.launch_type == "EXTERNAL"]
    assert [(r.instance_id[:4], r.agent_connected) for r in external] == [("mi-0", True)]
    assert external[0].instance_id not in world.ec2.instances
    assert not list(external[0].live())

    world.clear_condition("external-instance")
    assert external[0].arn not in cluster_of(world).registrations


def test_a_service_of_launch_type_external_has_its_tasks_there(world: World) -> None:
    world.set_condition("external-instance")
    wait(world, 10)

    world.seed_service(cluster_of(world), "edge", "example/edge:1", "edge", desired=1, launch_type="EXTERNAL")

    (task,) = cluster_of(world).tasks_of(cluster_of(world).services["edge"])
    assert task.registration.instance_id.startswith("mi-")
    assert task.launch_type == "EXTERNAL"


@pytest.mark.parametrize("how", [{"launch_type": "FARGATE"}, {"capacity_provider": "FARGATE_SPOT"}])
def test_tasks_of_fargate_are_on_no_container_instance(world: World, how: dict[str, str]) -> None:
    service = world.seed_service(cluster_of(world), "reports", "example/r:1", "r", desired=2, **how)  # type: ignore[arg-type]
    wait(world, 30)

    tasks = cluster_of(world).tasks_of(service)
    assert [task.registration.arn for task in tasks] == ["", ""]
    assert {task.launch_type for task in tasks} == {"FARGATE"}
    assert world.running_tasks("local", "reports") == 2
    assert all("reports" not in runs_on(world, id_) for id_ in group_of(world).members)


def test_a_fargate_service_replaces_a_task_that_is_stopped(world: World) -> None:
    service = world.seed_service(cluster_of(world), "reports", "example/r:1", "r", desired=1, launch_type="FARGATE")
    task = cluster_of(world).tasks_of(service)[0]

    world.ecs.stop_task(cluster_of(world), task, "test")
    wait(world, 60)

    assert [t.arn for t in cluster_of(world).tasks_of(service)] != [task.arn]
    assert world.running_tasks("local", "reports") == 1


def test_an_instance_that_is_stopped_and_started_keeps_its_registration_and_its_key(world: World) -> None:
    """EC2's guide, stop and start: the instance keeps its ID and address; Instance, LaunchTime: "last launched"."""
    instance = world.ec2.launch(world.ec2.find_template(None, "local-instances").versions[1].data)
    wait(world, 60)
    before, launched, address = registration(world, instance.instance_id), instance.launched, instance.private_ip

    world.ec2.stop(instance)
    wait(world, 30)
    assert (instance.state, instance.ssh_up, before.agent_connected) == ("stopped", False, False)

    world.ec2.start(instance)
    wait(world, 60)
    assert instance.state == "running"
    assert registration(world, instance.instance_id) is before
    assert before.agent_connected
    assert (instance.launched > launched, instance.private_ip) == (True, address)


def test_a_member_that_is_stopped_is_replaced_as_unhealthy(world: World) -> None:
    """Auto Scaling's guide, health checks: an instance in a state other than running is unhealthy."""
    id_ = first(world)

    world.befall("stop", id_)
    wait(world, 120)

    assert id_ not in group_of(world).members
    assert len(group_of(world).members) == 3
