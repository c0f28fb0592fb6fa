"""A cluster as a CloudFormation stack creates it, without rackctl's tags.

Names and settings are those of a CDK app with a launch template and an AsgCapacityProvider: the group names the
version by its number, new instances are protected from scale-in, and managed scaling decides the desired capacity.
https://docs.aws.amazon.com/cdk/api/v2/docs/aws-cdk-lib.aws_ecs.AsgCapacityProvider.html
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from rackctl.local.world.clusters import CapacityProvider
from rackctl.local.world.ec2 import IMAGE
from rackctl.local.world.groups import Group

if TYPE_CHECKING:
    from rackctl.local.world.autoscaling import AutoScaling
    from rackctl.local.world.base import Commons, Ids
    from rackctl.local.world.clusters import Cluster
    from rackctl.local.world.draining import Draining
    from rackctl.local.world.ec2 import Ec2
    from rackctl.local.world.ecs import Ecs
    from rackctl.local.world.seeds import Seeds

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_SCALING = {
    "status": "ENABLED",
    "targetCapacity": 100,
    "minimumScalingStepSize": 1,
    "maximumScalingStepSize": 10000,
    "instanceWarmupPeriod": 300,
}


def foreign_cluster(stack: str, ids: Ids) -> str:
    """Return a cluster's name as CloudFormation generates it: stack, logical id and twelve random characters."""
    return f"{stack.capitalize()}-ClusterEB0386A7-{_suffix(ids)}"


def _suffix(ids: Ids) -> str:
    number = int(ids.hex(16), 16)
    return "".join(_ALPHABET[number // 36**n % 36] for n in range(12))


class Stacks:
    def __init__(self, world: Commons, ec2: Ec2, autoscaling: AutoScaling, ecs: Ecs, draining: Draining) -> None:
        self._world = world
        self._ec2 = ec2
        self._autoscaling = autoscaling
        self._ecs = ecs
        self._draining = draining

    def found(self, seeds: Seeds, cluster_name: str, instances: int, *, key_name: str) -> Cluster:
        """Create a cluster, a group that has been running for an hour, and its services.

        A stack owns all but the instances.
        """
        stack = cluster_name.partition("-")[0]
        cluster = self._ecs.create_cluster(cluster_name, self._tags(stack, "ClusterEB0386A7"))
        user_data = f"#!/bin/bash\necho ECS_CLUSTER={cluster_name} >> /etc/ecs/ecs.config\n"
        data = {
            "ImageId": IMAGE,
            "InstanceType": "t3.small",
            "KeyName": key_name,
            "SecurityGroupIds": [self._ec2.security_group_id],
            "UserData": b64encode(user_data.encode()).decode(),
            "IamInstanceProfile": {"Name": "ecsInstanceRole"},
            "MetadataOptions": {"HttpTokens": "required"},
        }
        template = self._ec2.create_template(f"{stack}Hosts", data, self._tags(stack, "HostsTemplateCF05DD87"))
        group = self._group(stack, instances, template.launch_template_id, template.launch_template_name)
        provider = self._provide(stack, cluster, group)
        seeds.run(cluster, group, template, instances, capacity_provider=provider)
        self._draining.providers_changed()
        return cluster

    def tag(self, kind: str, physical_id: str, stack: str, logical_id: str) -> None:
        """Tag a cluster, a launch template or a group as a stack's, with tags that no request can set."""
        tags = self._tags(stack, logical_id)
        if kind == "cluster":
            self._ecs.cluster(physical_id).tags.update(tags)
        elif kind == "template":
            self._ec2.templates[physical_id].tags.update(tags)
        else:
            group = self._autoscaling.groups[physical_id]
            group.tags += [{"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in tags.items()]
            for member in group.members:
                self._ec2.instances[member].tags.update(tags)
        self._world.changed()

    def _tags(self, stack: str, logical_id: str) -> dict[str, str]:
        arn = f"arn:aws:cloudformation:{self._world.region}:{self._world.account_id}:stack/{stack}"
        return {
            "aws:cloudformation:stack-name": stack,
            "aws:cloudformation:stack-id": f"{arn}/{self._world.ids.uuid()}",
            "aws:cloudformation:logical-id": logical_id,
        }

    def _group(self, stack: str, instances: int, template_id: str, template_name: str) -> Group:
        logical_id = f"HostsASG{self._world.ids.hex(8).upper()}"
        name = f"{stack}-{logical_id}-{_suffix(self._world.ids)}"
        arn = f"arn:aws:autoscaling:{self._world.region}:{self._world.account_id}:autoScalingGroup"
        tags = {"Name": f"{stack}/Hosts", **self._tags(stack, logical_id)}
        return Group(
            name,
            f"{arn}:{self._world.ids.uuid()}:autoScalingGroupName/{name}",
            self._world.now - 7200,
            min_size=0,
            max_size=instances + max(2, instances // 10),
            desired=instances,
            subnets=list(self._ec2.subnets),
            launch_template={
                "LaunchTemplateId": template_id,
                "LaunchTemplateName": template_name,
                "Version": "1",
            },
            tags=[{"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in tags.items()],
            protect_new=True,
        )

    def _provide(self, stack: str, cluster: Cluster, group: Group) -> str:
        name = f"{stack}-HostsProvider-{_suffix(self._world.ids)}"
        switches = {"managedTerminationProtection": "ENABLED", "managedDraining": "ENABLED"}
        self._ecs.capacity_providers[name] = CapacityProvider(
            self._ecs.arn(f"capacity-provider/{name}"), name, group.arn, dict(_SCALING), switches
        )
        cluster.capacity_providers = [name]
        cluster.default_strategy = [{"capacityProvider": name, "weight": 1, "base": 0}]
        return name
