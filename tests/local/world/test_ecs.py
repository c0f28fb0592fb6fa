from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rackctl.local.world.base import Refused
from tests.local.world.days import (
    cluster_of,
    first,
    group_of,
    later,
    newcomer,
    registration,
    runs_on,
    service_of,
    wait,
    with_task,
)

if TYPE_CHECKING:
    from rackctl.local.world import World


def _drain(world: World, instance_id: str) -> None:
    world.ecs.set_status(registration(world, instance_id), "DRAINING")


def test_a_drain_moves_the_tasks_and_keeps_the_service_at_its_minimum(world: World) -> None:
    id_ = with_task(world, "web")
    _drain(world, id_)
    lowest = min(world.running_tasks("local", "web") for _ in later(world, 60))
    assert lowest == 2
    assert runs_on(world, id_) == []


def test_a_drain_never_runs_more_than_the_maximum_percent(world: World) -> None:
    service = service_of(world)
    service.minimum_percent, service.maximum_percent = 50, 100
    id_ = with_task(world, "web")
    _drain(world, id_)
    counts = []
    for _ in later(world, 60):
        live = [t for t in cluster_of(world).tasks_of(service) if t.desired_status == "RUNNING"]
        counts.append((len(live), world.running_tasks("local", "web")))
    assert max(live for live, _ in counts) == 2
    assert min(running for _, running in counts) == 1
    assert "web" not in runs_on(world, id_)


def test_a_drain_of_a_service_that_may_neither_shrink_nor_grow_never_ends(world: World) -> None:
    service = service_of(world)
    service.minimum_percent = service.maximum_percent = 100
    id_ = with_task(world, "web")
    _drain(world, id_)
    wait(world, 300)
    assert "web" in runs_on(world, id_)
    assert "unable to stop or start tasks" in service.events[0][2]


def test_a_drain_without_room_elsewhere_is_in_the_service_s_events(world: World) -> None:
    service = service_of(world)
    id_ = with_task(world, "web")
    for other in cluster_of(world).registrations.values():
        if other.instance_id != id_:
            other.memory = 1
    _drain(world, id_)
    wait(world, 120)
    assert "web" in runs_on(world, id_)
    assert "unable to place a task" in service.events[0][2]


def test_a_drained_instance_takes_tasks_again_when_it_is_active(world: World) -> None:
    id_ = with_task(world, "web")
    _drain(world, id_)
    wait(world, 60)
    world.ecs.set_status(registration(world, id_), "ACTIVE")
    service_of(world).desired = 9
    wait(world, 60)
    assert "web" in runs_on(world, id_)


def test_daemon_tasks_stay_until_the_others_have_gone(world: World) -> None:
    id_ = with_task(world, "web")
    _drain(world, id_)
    for _ in later(world, 60):
        services = runs_on(world, id_)
        if "log-agent" not in services:
            break
    assert services == []


def test_a_task_of_no_service_stays_through_a_drain(world: World) -> None:
    id_ = first(world)
    found = registration(world, id_)
    task = world.ecs.start_task(cluster_of(world), service_of(world).definition, found)
    _drain(world, id_)
    wait(world, 300)
    assert task.last_status == "RUNNING"


def test_a_stopping_task_is_in_neither_count(world: World) -> None:
    task = cluster_of(world).tasks_of(service_of(world))[0]
    world.ecs.stop_task(cluster_of(world), task, "by hand")
    states = [task.last_status]
    for _ in later(world, 20):
        if task.last_status != states[-1]:
            states.append(task.last_status)
    assert states == ["DEACTIVATING", "STOPPING", "STOPPED"]


def test_a_stuck_drain_never_stops_its_tasks(world: World) -> None:
    world.set_condition("stuck-drain")
    id_ = with_task(world, "web")
    _drain(world, id_)
    wait(world, 300)
    assert "web" in runs_on(world, id_)
    world.clear_condition("stuck-drain")
    wait(world, 60)
    assert "web" not in runs_on(world, id_)


def test_tasks_that_are_slow_to_stop_take_their_time(world: World) -> None:
    """As with a container's stopTimeout, or behind a load balancer that still has connections to drain.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/load-balancer-connection-draining.html
    """
    world.set_condition("slow-stop", "60")
    id_ = with_task(world, "web")
    _drain(world, id_)
    wait(world, 60)
    assert "web" in runs_on(world, id_)
    wait(world, 30)
    assert "web" not in runs_on(world, id_)


def test_tasks_under_an_agent_that_is_off_are_not_moved(world: World) -> None:
    id_ = with_task(world, "web")
    world.befall("agent-off", id_)
    _drain(world, id_)
    wait(world, 300)
    assert "web" in runs_on(world, id_)
    world.befall("agent-on", id_)
    wait(world, 60)
    assert "web" not in runs_on(world, id_)


def test_an_instance_that_never_registers_still_runs(world: World) -> None:
    before = set(group_of(world).members)
    world.set_condition("never-register")
    world.autoscaling.set_desired(group_of(world), 4)
    wait(world, 300)
    member = newcomer(world, before)
    assert member is not None
    assert world.ec2.instances[member.instance_id].ssh_up
    assert world.ecs.registration_of(member.instance_id) is None


def test_an_instance_may_register_with_its_agent_off(world: World) -> None:
    before = set(group_of(world).members)
    world.set_condition("register-agent-off")
    world.autoscaling.set_desired(group_of(world), 4)
    wait(world, 300)
    member = newcomer(world, before)
    assert member is not None
    assert not registration(world, member.instance_id).agent_connected


def test_a_failed_registration_has_its_reason(world: World) -> None:
    before = set(group_of(world).members)
    world.set_condition("registration-failed", "no IAM role")
    world.autoscaling.set_desired(group_of(world), 4)
    wait(world, 300)
    member = newcomer(world, before)
    assert member is not None
    found = registration(world, member.instance_id)
    assert (found.status, found.status_reason, found.agent_connected) == ("REGISTRATION_FAILED", "no IAM role", False)


def test_an_instance_whose_user_data_names_no_cluster_does_not_register(world: World) -> None:
    instance = world.ec2.launch({"InstanceType": "t3.small"})
    wait(world, 120)
    assert world.ecs.registration_of(instance.instance_id) is None


def test_deregistering_an_instance_with_tasks_needs_force(world: World) -> None:
    found = registration(world, first(world))
    with pytest.raises(Refused, match="running tasks"):
        world.ecs.deregister(cluster_of(world), found, force=False)
    world.ecs.deregister(cluster_of(world), found, force=True)
    assert found.arn not in cluster_of(world).registrations


def test_static_host_ports_keep_two_tasks_apart(world: World) -> None:
    definition = world.ecs.register_definition(
        {
            "family": "edge",
            "containerDefinitions": [
                {"name": "edge", "image": "edge", "memory": 8, "portMappings": [{"containerPort": 80, "hostPort": 80}]}
            ],
        }
    )
    found = registration(world, first(world))
    assert found.has_room_for(definition)
    world.ecs.start_task(cluster_of(world), definition, found)
    assert not found.has_room_for(definition)
