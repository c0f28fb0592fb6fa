"""The initial state of a world: a rack that has been running for an hour."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from rackctl.local.world import timing
from rackctl.local.world.clusters import FARGATE_PROVIDERS, Service
from rackctl.local.world.ec2 import IMAGE
from rackctl.local.world.groups import Group, Member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.world.autoscaling import AutoScaling
    from rackctl.local.world.base import Commons
    from rackctl.local.world.clusters import Cluster
    from rackctl.local.world.ec2 import Ec2
    from rackctl.local.world.ecs import Ecs
    from rackctl.local.world.scheduler import Scheduler
    from rackctl.local.world.templates import LaunchTemplate


class Seeds:
    def __init__(self, world: Commons, ec2: Ec2, autoscaling: AutoScaling, ecs: Ecs, scheduler: Scheduler) -> None:
        self._world = world
        self._ec2 = ec2
        self._autoscaling = autoscaling
        self._ecs = ecs
        self._scheduler = scheduler

    def found(self, name: str, instances: int, *, key_name: str = "", tags: Mapping[str, str] | None = None) -> Cluster:
        """Create a rack: a cluster, a group that has been running for an hour, and its services."""
        cluster = self._ecs.create_cluster(name, tags or {})
        user_data = b64encode(f"#!/bin/bash\necho ECS_CLUSTER={name} >> /etc/ecs/ecs.config\n".encode()).decode()
        data = {
            "ImageId": IMAGE,
            "InstanceType": "t3.small",
            "SecurityGroupIds": [self._ec2.security_group_id],
            "UserData": user_data,
            "IamInstanceProfile": {"Name": "ecsInstanceRole"},
        }
        template = self._ec2.create_template(
            f"{name}-instances", {**data, **({"KeyName": key_name} if key_name else {})}, {}
        )
        group = self._group(name, instances, template)
        self.run(cluster, group, template, instances)
        return cluster

    def run(
        self, cluster: Cluster, group: Group, template: LaunchTemplate, instances: int, *, capacity_provider: str = ""
    ) -> None:
        """Give a group instances that were launched an hour ago, registered with the cluster, with services on them."""
        for number in range(instances):
            self._instance(group, template, number)
        self._autoscaling.add(group)
        self._services(cluster, instances, capacity_provider)

    def _group(self, name: str, instances: int, template: LaunchTemplate) -> Group:
        group_name = f"{name}-instances"
        return Group(
            group_name,
            f"arn:aws:autoscaling:{self._world.region}:{self._world.account_id}:autoScalingGroup:{self._world.ids.uuid()}"
            f":autoScalingGroupName/{group_name}",
            self._world.now - 7200,
            min_size=0,
            max_size=instances + max(2, instances // 10),
            desired=instances,
            subnets=list(self._ec2.subnets),
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

    def _instance(self, group: Group, template: LaunchTemplate, number: int) -> None:
        launched = self._world.now - 3660 + number % 3 * 60
        origin = (template.launch_template_id, template.launch_template_name, 1)
        instance = self._ec2.launch(
            template.versions[1].data,
            subnet=self._ec2.subnets[group.subnets[number % len(group.subnets)]],
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
        self._ecs.register_instance(instance.instance_id, registered_at=launched + timing.ECS_REGISTERED)

    def _services(self, cluster: Cluster, instances: int, provider: str) -> None:
        self.service(
            cluster, "web", "example/web:42", "bin/web",
            desired=min(instances, 2), memory=256, port=3000, capacity_provider=provider,
        )  # fmt: skip
        self.service(
            cluster, "worker", "example/worker:42", "bin/worker",
            desired=min(instances, 1), memory=384, capacity_provider=provider,
        )  # fmt: skip
        self.service(cluster, "log-agent", "example/log-agent:7", "agent", strategy="DAEMON", memory=64)

    def service(
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
        launch_type: str = "EC2",
        capacity_provider: str = "",
    ) -> Service:
        """Create a service whose tasks have been running for an hour.

        With a launch type or a capacity provider of Fargate, its tasks are on no container instance.
        """
        container: dict[str, Any] = {
            "name": name, "image": image, "command": ["sh", "-c", command], "cpu": cpu, "memory": memory,
            "essential": True,
        }  # fmt: skip
        if port:
            container["portMappings"] = [{"containerPort": port, "hostPort": 0, "protocol": "tcp"}]
        definition = self._ecs.register_definition({"family": name, "containerDefinitions": [container]})
        daemon = strategy == "DAEMON"
        on_fargate = capacity_provider in FARGATE_PROVIDERS
        launch_type = "FARGATE" if on_fargate else launch_type
        provider = "" if on_fargate else capacity_provider
        service = Service(
            self._ecs.arn(f"service/{cluster.name}/{name}"),
            name,
            definition,
            strategy,
            0 if daemon else desired,
            minimum_percent if minimum_percent is not None else (0 if daemon else 100),
            maximum_percent if maximum_percent is not None else (100 if daemon else 200),
            self._world.now - 7200,
            f"ecs-svc/{self._world.ids.hex(19)}",
            launch_type=launch_type,
            capacity_provider_strategy=[{"capacityProvider": capacity_provider, "weight": 1, "base": 0}]
            if capacity_provider
            else [],
        )
        everywhere = [r for r in cluster.registrations.values() if r.launch_type == launch_type]
        for number in range(len(everywhere) if daemon else desired):
            registration = (
                everywhere[number] if daemon else self._scheduler.place(cluster, definition, launch_type, provider)
            )
            if registration is not None:
                self._ecs.start_task(
                    cluster,
                    definition,
                    registration,
                    group=f"service:{name}",
                    started_by=service.deployment_id,
                    running_since=self._world.now - 3540,
                )
        self._scheduler.create_service(cluster, service)
        return service
