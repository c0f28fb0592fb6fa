"""The world: its parts, its clock, and its SSH hosts and containers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rackctl.local.world import timing
from rackctl.local.world.autoscaling import AutoScaling
from rackctl.local.world.base import Commons
from rackctl.local.world.conditions import Conditions
from rackctl.local.world.draining import Draining
from rackctl.local.world.ec2 import IMAGE, Ec2
from rackctl.local.world.ecs import Ecs
from rackctl.local.world.parameters import RECOMMENDED, Parameters
from rackctl.local.world.refreshes import Refreshes
from rackctl.local.world.scheduler import Scheduler
from rackctl.local.world.seeds import Seeds
from rackctl.local.world.stacks import Stacks
from rackctl.local.world.warm_pools import WarmPools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.local.world.clusters import Task


@dataclass(frozen=True, slots=True)
class Container:
    """A container as `docker ps` shows it."""

    container_id: str
    image: str
    command: str
    created: float
    started: float
    ports: str
    name: str


@dataclass(frozen=True, slots=True)
class Host:
    """An instance as a machine that accepts SSH."""

    ec2_instance_id: str
    private_ip: str
    hostname: str
    authorized_key: str


class World(Commons):
    """EC2, Auto Scaling and ECS of one region.

    Only `advance` moves its time. It consists of plain values, so it can be pickled; threads that share it must hold a
    lock.
    """

    def __init__(
        self,
        *,
        region: str,
        account_id: str,
        now: float,
        network: str = "127.77",
        speed: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(region, account_id, now=now, speed=speed, seed=seed)
        self.network = network
        self.parameters = Parameters(self, {RECOMMENDED: IMAGE})
        self.ec2 = Ec2(self, network, self.parameters)
        self.ecs = Ecs(self, self.ec2)
        self.autoscaling = AutoScaling(self, self.ec2)
        self.warm_pools = WarmPools(self, self.ec2, self.autoscaling)
        self.refreshes = Refreshes(self, self.autoscaling, self.warm_pools)
        self.scheduler = Scheduler(self, self.ecs)
        self.draining = Draining(self, self.ecs, self.autoscaling)
        self._conditions = Conditions(self, self.ec2, self.autoscaling, self.ecs, self.draining)
        self._seeds = Seeds(self, self.ec2, self.autoscaling, self.ecs, self.scheduler)
        self.set_condition = self._conditions.set
        self.clear_condition = self._conditions.clear
        self.befall = self._conditions.befall
        self.seed = self._seeds.found
        self._stacks = Stacks(self, self.ec2, self.autoscaling, self.ecs, self.draining)
        self.seed_stack = partial(self._stacks.found, self._seeds)
        self.tag_as_stack = self._stacks.tag
        self.seed_service = self._seeds.service

    def advance(self, now: float) -> None:
        """Run the scheduled events up to a time, in order."""
        while due := self.schedule.pop(now):
            self.now = max(self.now, due.at)
            getattr(getattr(self, due.part), due.method)(*due.arguments)
        self.now = max(self.now, now)

    def resume(self, now: float) -> None:
        """Resume after a pause: postpone all scheduled events by its length."""
        self.schedule.put_off(max(0.0, now - self.now))
        self.now = max(self.now, now)

    def move(self, network: str) -> None:
        """Move everything to another network, because the last one has been taken meanwhile."""
        before, self.network = self.network, network
        self.ec2.move(before, network)
        self.changed()

    def next_due(self) -> float | None:
        return self.schedule.next()

    # The view from outside the APIs

    def hosts(self) -> list[Host]:
        """Return the machines whose SSH server is up."""
        return [
            Host(i.instance_id, i.private_ip, i.hostname, i.authorized_key)
            for i in self.ec2.instances.values()
            if i.ssh_up and i.exists
        ]

    def containers(self, instance_id: str) -> list[Container]:
        """Return the Docker containers of an instance, newest first: those of ECS's tasks, and ECS's agent."""
        instance = self.ec2.get(instance_id)
        registrations = [registration for _, registration in self.ecs.registrations_of(instance_id)]
        tasks = [t for registration in registrations for t in registration.live() if t.started is not None]
        agent_started = instance.launched + timing.SSH_UP / self.speed
        agent = Container(
            f"{int(instance_id[-12:], 16):012x}", "amazon/amazon-ecs-agent:latest", '"/agent"',
            agent_started, agent_started, "", "ecs-agent",
        )  # fmt: skip
        return [*(c for t in sorted(tasks, key=_age) for c in _containers_of(t)), agent]

    def running_tasks(self, cluster: str, service: str) -> int:
        """Count the running tasks of a service in the world, whatever the API reports."""
        return sum(
            task.last_status == "RUNNING" and task.service == service
            for task in self.ecs.clusters[cluster].tasks.values()
        )


def _age(task: Task) -> float:
    return -(task.started or 0)


def _containers_of(task: Task) -> Iterator[Container]:
    for container in task.definition.containers:
        ports = ", ".join(
            f"0.0.0.0:{task.host_port(m)}->{m['containerPort']}/tcp" for m in container.get("portMappings", ())
        )
        yield Container(
            task.id[:12],
            container["image"],
            f'"{" ".join(container.get("command", []))}"',
            task.created,
            task.started or task.created,
            ports,
            f"ecs-{task.definition.family}-{task.definition.revision}-{container['name']}-{task.id[12:32]}",
        )
