"""The world as a whole: its clock, what is wrong with it on purpose, and its first instances."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rackctl.local.world import timing
from rackctl.local.world.autoscaling import AutoScaling, Group, Member
from rackctl.local.world.base import Ids, Schedule, validation_error
from rackctl.local.world.ec2 import IMAGE, INSTANCE_TYPES, Ec2
from rackctl.local.world.ecs import Ecs, Service
from rackctl.local.world.refreshes import Refreshes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rackctl.local.world.ec2 import LaunchTemplate
    from rackctl.local.world.ecs import Cluster, Task

# What can be made to go wrong, by name: the help for people, and what its argument is, if it takes one.
CONDITIONS = {
    "no-capacity": ("EC2 has no instances to give", "ZONE or TYPE"),
    "never-register": ("new instances never register with ECS", ""),
    "register-agent-off": ("new instances register, but their agent never connects", ""),
    "registration-failed": ("new instances register as REGISTRATION_FAILED", "REASON"),
    "stuck-drain": ("tasks that are told to stop do not", ""),
    "key-refused": ("new instances refuse the key of their key pair", ""),
    "slow-boot": ("new instances take this many times longer to boot", "FACTOR"),
    "late-groups": ("Auto Scaling describes its groups as they were so long ago, as it may", "SECONDS"),
    "stack-owned": ("the groups and launch templates belong to a CloudFormation stack", "NAME"),
    "console-late": ("the console output of new instances does not appear", ""),
}
STACK_TAG = "aws:cloudformation:stack-name"
# What can be done to an instance from outside.
INCIDENTS = {
    "vanish": "EC2 takes the instance away, as it does with spot capacity",
    "agent-off": "the instance's ECS agent loses its connection",
    "agent-on": "and has it again",
}


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
    """A machine that accepts SSH: an instance, seen from the network."""

    ec2_instance_id: str
    private_ip: str
    hostname: str
    authorized_key: str


class World:
    """EC2, Auto Scaling and ECS of one region.

    Nothing in it moves but by `advance`. Durations are AWS's, divided by ``speed``; times are epoch seconds.
    It holds nothing but plain values, so it can be pickled; whoever shares it between threads locks it.
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
        self.region = region
        self.account_id = account_id
        self.now = now
        self.network = network
        self.speed = speed
        self.version = 0
        self.conditions: dict[str, str] = {}
        self.ids = Ids(seed)
        self._schedule = Schedule()
        self.ec2 = Ec2(self, network)
        self.autoscaling = AutoScaling(self)
        self.refreshes = Refreshes(self)
        self.ecs = Ecs(self)

    def after(self, seconds: float, part: str, method: str, *arguments: object) -> None:
        """Have ``world.<part>.<method>(*arguments)`` called after so many of AWS's seconds."""
        self._schedule.add(self.now + seconds / self.speed, part, method, arguments)

    def advance(self, now: float) -> None:
        """Let everything happen that is due by a time, in order."""
        while due := self._schedule.pop(now):
            self.now = max(self.now, due.at)
            getattr(getattr(self, due.part), due.method)(*due.arguments)
        self.now = max(self.now, now)

    def resume(self, now: float) -> None:
        """Go on after a time in which nothing happened: what is to come comes as much later."""
        self._schedule.put_off(max(0.0, now - self.now))
        self.now = max(self.now, now)

    def move(self, network: str) -> None:
        """Give everything an address in another network, for one that has been taken meanwhile."""
        before, self.network = self.network, network
        self.ec2.move(before, network)
        self.changed()

    def next_due(self) -> float | None:
        return self._schedule.next()

    def changed(self) -> None:
        self.version += 1
        self.autoscaling.remember()

    # What goes wrong on purpose

    def set_condition(self, name: str, argument: str = "") -> None:
        if name not in CONDITIONS:
            raise validation_error(f"there is no condition {name}")
        zones = {subnet.availability_zone for subnet in self.ec2.subnets.values()}
        if name == "no-capacity" and argument and argument not in zones | INSTANCE_TYPES.keys():
            there_are = ", ".join([*sorted(zones), *INSTANCE_TYPES])
            raise validation_error(f"there is no zone or instance type {argument} here; there are {there_are}")
        if name in {"slow-boot", "late-groups"} and not re.fullmatch(r"\d+(\.\d+)?", argument):
            what = "times" if name == "slow-boot" else "seconds"
            raise validation_error(f'{name} takes a number of {what}, for example 5, not "{argument}"')
        self.conditions[name] = argument
        self._tag_with_stack()
        self.changed()

    def clear_condition(self, name: str) -> None:
        self.conditions.pop(name, None)
        self._tag_with_stack()
        self.changed()

    def _tag_with_stack(self) -> None:
        stack = self.conditions.get("stack-owned")
        for template in self.ec2.templates.values():
            template.tags.pop(STACK_TAG, None)
            if stack is not None:
                template.tags[STACK_TAG] = stack or "stack"
        for group in self.autoscaling.groups.values():
            group.tags = [tag for tag in group.tags if tag["Key"] != STACK_TAG]
            if stack is not None:
                group.tags.append({"Key": STACK_TAG, "Value": stack or "stack", "PropagateAtLaunch": False})

    def befall(self, incident: str, instance_id: str) -> None:
        """Have an incident befall an instance."""
        instance = self.ec2.get(instance_id)
        if incident == "vanish":
            self.ec2.terminate(instance, "Server.SpotInstanceTermination")
        elif incident in {"agent-off", "agent-on"}:
            found = self.ecs.registration_of(instance_id)
            if found is None:
                raise validation_error(f"{instance_id} is not registered with any cluster")
            self.ecs.set_agent(found[1], connected=incident == "agent-on")
        else:
            raise validation_error(f"there is no incident {incident}")

    # What can be seen from outside

    def hosts(self) -> list[Host]:
        """Give the machines whose SSH server is up."""
        return [
            Host(i.instance_id, i.private_ip, i.hostname, i.authorized_key)
            for i in self.ec2.instances.values()
            if i.ssh_up and i.exists
        ]

    def containers(self, instance_id: str) -> list[Container]:
        """Give what runs in Docker on an instance, newest first: ECS's tasks and ECS's agent."""
        instance = self.ec2.get(instance_id)
        found = self.ecs.registration_of(instance_id)
        tasks = [t for t in found[1].live() if t.started is not None] if found else []
        agent_started = instance.launched + timing.SSH_UP / self.speed
        agent = Container(
            f"{int(instance_id[-12:], 16):012x}", "amazon/amazon-ecs-agent:latest", '"/agent"',
            agent_started, agent_started, "", "ecs-agent",
        )  # fmt: skip
        return [*(c for t in sorted(tasks, key=_age) for c in _containers_of(t)), agent]

    def running_tasks(self, cluster: str, service: str) -> int:
        """Count a service's tasks that run, for an observer who trusts nobody's reports."""
        return sum(
            task.last_status == "RUNNING" and task.service == service
            for task in self.ecs.clusters[cluster].tasks.values()
        )

    # The first instances

    def seed(self, name: str, instances: int, *, key_name: str = "", tags: Mapping[str, str] | None = None) -> Cluster:
        """Found a rack: a cluster, a group that has run for an hour, and services on it."""
        cluster = self.ecs.create_cluster(name, tags or {})
        user_data = b64encode(f"#!/bin/bash\necho ECS_CLUSTER={name} >> /etc/ecs/ecs.config\n".encode()).decode()
        data = {
            "ImageId": IMAGE,
            "InstanceType": "t3.small",
            "SecurityGroupIds": [self.ec2.security_group_id],
            "UserData": user_data,
        }
        template = self.ec2.create_template(
            f"{name}-instances", {**data, **({"KeyName": key_name} if key_name else {})}, {}
        )
        group = self._seed_group(name, instances, template)
        for number in range(instances):
            self._seed_instance(group, template, number)
        self.autoscaling.add(group)
        self._seed_services(cluster, instances)
        return cluster

    def _seed_group(self, name: str, instances: int, template: LaunchTemplate) -> Group:
        group_name = f"{name}-instances"
        return Group(
            group_name,
            f"arn:aws:autoscaling:{self.region}:{self.account_id}:autoScalingGroup:{self.ids.uuid()}"
            f":autoScalingGroupName/{group_name}",
            self.now - 7200,
            min_size=0,
            max_size=instances + max(2, instances // 10),
            desired=instances,
            subnets=list(self.ec2.subnets),
            launch_template={
                "LaunchTemplateId": template.launch_template_id,
                "LaunchTemplateName": template.launch_template_name,
                "Version": "1",
            },
            tags=[
                {"Key": "Rack", "Value": name, "PropagateAtLaunch": True},
                {"Key": "Name", "Value": f"{name}-instance", "PropagateAtLaunch": True},
            ],
        )

    def _seed_instance(self, group: Group, template: LaunchTemplate, number: int) -> None:
        launched = self.now - 3660 + number % 3 * 60
        origin = (template.launch_template_id, template.launch_template_name, 1)
        instance = self.ec2.launch(
            template.versions[1].data,
            subnet=self.ec2.subnets[group.subnets[number % len(group.subnets)]],
            tags={**group.tag_values(), "aws:autoscaling:groupName": group.name},
            group=group.name,
            launch_template=origin,
            running_since=launched,
        )
        group.members[instance.instance_id] = Member(
            instance.instance_id,
            instance.subnet.availability_zone,
            instance.instance_type,
            origin,
            launched,
            "InService",
        )
        self.ecs.register_instance(instance.instance_id, registered_at=launched + timing.ECS_REGISTERED)

    def _seed_services(self, cluster: Cluster, instances: int) -> None:
        self.seed_service(cluster, "web", "example/web:42", "bin/web", desired=min(instances, 2), memory=256, port=3000)
        self.seed_service(cluster, "worker", "example/worker:42", "bin/worker", desired=min(instances, 1), memory=384)
        self.seed_service(cluster, "log-agent", "example/log-agent:7", "agent", strategy="DAEMON", memory=64)

    def seed_service(
        self,
        cluster: Cluster,
        name: str,
        image: str,
        command: str,
        *,
        desired: int = 0,
        strategy: str = "REPLICA",
        memory: int = 128,
        cpu: int = 0,
        port: int = 0,
        minimum_percent: int | None = None,
        maximum_percent: int | None = None,
    ) -> Service:
        """Found a service whose tasks have run for an hour already."""
        container: dict[str, Any] = {
            "name": name, "image": image, "command": ["sh", "-c", command], "cpu": cpu, "memory": memory,
            "essential": True,
        }  # fmt: skip
        if port:
            container["portMappings"] = [{"containerPort": port, "hostPort": 0, "protocol": "tcp"}]
        definition = self.ecs.register_definition({"family": name, "containerDefinitions": [container]})
        daemon = strategy == "DAEMON"
        service = Service(
            self.ecs.arn(f"service/{cluster.name}/{name}"),
            name,
            definition,
            strategy,
            0 if daemon else desired,
            minimum_percent if minimum_percent is not None else (0 if daemon else 100),
            maximum_percent if maximum_percent is not None else (100 if daemon else 200),
            self.now - 7200,
            f"ecs-svc/{self.ids.hex(19)}",
        )
        everywhere = list(cluster.registrations.values())
        for number in range(len(everywhere) if daemon else desired):
            registration = everywhere[number] if daemon else self.ecs.place(cluster, definition)
            if registration is not None:
                self.ecs.start_task(
                    cluster,
                    definition,
                    registration,
                    group=f"service:{name}",
                    started_by=service.deployment_id,
                    running_since=self.now - 3540,
                )
        self.ecs.create_service(cluster, service)
        return service


def _age(task: Task) -> float:
    return -(task.started or 0)


def _containers_of(task: Task) -> Iterator[Container]:
    for container in task.definition.containers:
        ports = ", ".join(
            f"0.0.0.0:{m.get('hostPort') or 32768 + int(task.id[:4], 16) % 28000}->{m['containerPort']}/tcp"
            for m in container.get("portMappings", ())
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
