"""Injected faults of the world: lasting conditions, and incidents of one instance."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rackctl.local.world.base import validation_error
from rackctl.local.world.clusters import CapacityProvider
from rackctl.local.world.ec2 import INSTANCE_TYPES

if TYPE_CHECKING:
    from rackctl.local.world.autoscaling import AutoScaling
    from rackctl.local.world.base import Commons
    from rackctl.local.world.draining import Draining
    from rackctl.local.world.ec2 import Ec2
    from rackctl.local.world.ecs import Ecs

# By name: the help text, and the name of its argument, if any.
CONDITIONS: Final = {
    "no-capacity": ("EC2 refuses launches with InsufficientInstanceCapacity", "ZONE or TYPE"),
    "never-register": ("new instances never register with ECS", ""),
    "register-agent-off": ("new instances register, but their agent never connects", ""),
    "registration-failed": ("new instances register as REGISTRATION_FAILED", "REASON"),
    "register-twice": ("new instances have a second, dead registration, with status ACTIVE or another", "STATUS"),
    "register-elsewhere": ("new instances register with another cluster, which is created", "CLUSTER"),
    "external-instance": ("a machine that is not EC2's (mi-…) is registered with each cluster", ""),
    "stuck-drain": ("tasks do not stop when ECS stops them", ""),
    "slow-stop": ("tasks take SECONDS (of AWS's) to stop, as behind a load balancer", "SECONDS"),
    "managed-draining": (
        "ECS holds instances that Auto Scaling terminates until their tasks have stopped, at most 48 hours",
        "",
    ),
    "key-refused": ("new instances refuse the key of their key pair", ""),
    "launch-with-key": ("Auto Scaling launches with this key pair in place of the template's", "KEY-NAME"),
    "key-pairs-late": ("EC2 uses the key pairs of SECONDS (of AWS's) ago", "SECONDS"),
    "snapshots-lost": ("new launch template versions lose all snapshots, even given ones", ""),
    "slow-boot": ("new instances take FACTOR times as long to boot", "FACTOR"),
    "stack-owned": ("the groups and launch templates belong to a CloudFormation stack", "NAME"),
    "console-late": ("the console output of new instances does not appear", ""),
    "ipv6-only": ("EC2 describes all instances with only an IPv6 address, at which no SSH server listens", ""),
    "console-latest-only": ("GetConsoleOutput returns nothing without Latest", ""),
}
INCIDENTS: Final = {
    "vanish": "EC2 terminates the instance, as when it reclaims spot capacity",
    "stop": "the instance is stopped, as by StopInstances",
    "agent-off": "the instance's ECS agent loses its connection",
    "agent-on": "the instance's ECS agent connects again",
    "registered-twice": "a second registration appears, ACTIVE with its agent off, and is listed first",
    "registered-twice-last": "the same, but the dead registration is listed last",
    "registration-failed-twice": "a second registration appears, REGISTRATION_FAILED, and is listed first",
    "re-registered": "the agent registers anew; the old registration stays, agent off, with its tasks",
}
STACK_TAG: Final = "aws:cloudformation:stack-name"
_DEAD: Final = ("ACTIVE", "REGISTRATION_FAILED")


class Conditions:
    def __init__(self, world: Commons, ec2: Ec2, autoscaling: AutoScaling, ecs: Ecs, draining: Draining) -> None:
        self._world = world
        self._ec2 = ec2
        self._autoscaling = autoscaling
        self._ecs = ecs
        self._draining = draining

    def set(self, name: str, argument: str = "") -> None:
        """Put a condition in force. Raises Refused if it is invalid."""
        if name not in CONDITIONS:
            raise validation_error(f"there is no condition {name}")
        self._check(name, argument)
        self._world.conditions[name] = argument
        self._take_effect(name, argument)
        self._world.changed()

    def clear(self, name: str) -> None:
        self._world.conditions.pop(name, None)
        self._take_effect(name, "")
        self._world.changed()

    def _check(self, name: str, argument: str) -> None:
        match name:
            case "no-capacity":
                zones = {subnet.availability_zone for subnet in self._ec2.subnets.values()}
                if argument and argument not in zones | INSTANCE_TYPES.keys():
                    there_are = ", ".join([*sorted(zones), *INSTANCE_TYPES])
                    raise validation_error(
                        f"the local rack has no zone or instance type {argument}; it has {there_are}"
                    )
            case "slow-boot" if not re.fullmatch(r"\d+(\.\d+)?", argument):
                raise validation_error(f'slow-boot takes a number, for example 5, not "{argument}"')
            case "key-pairs-late" if not re.fullmatch(r"\d+(\.\d+)?", argument):
                raise validation_error(f'key-pairs-late takes a number of seconds, for example 10, not "{argument}"')
            case "slow-stop" if not re.fullmatch(r"\d+(\.\d+)?", argument):
                raise validation_error(f'slow-stop takes a number of seconds, for example 60, not "{argument}"')
            case "register-twice" if argument not in {"", *_DEAD}:
                raise validation_error(f'register-twice takes {" or ".join(_DEAD)}, not "{argument}"')
            case "register-elsewhere" if not re.fullmatch(r"[a-zA-Z][\w-]{0,254}", argument):
                raise validation_error(f'register-elsewhere takes the name of a cluster, not "{argument}"')
            case "launch-with-key" if argument not in self._ec2.key_pairs:
                there_are = ", ".join(self._ec2.key_pairs)
                raise validation_error(f'there is no key pair "{argument}"; there are {there_are}')

    def _take_effect(self, name: str, argument: str) -> None:
        match name:
            case "stack-owned":
                self._tag_with_stack()
            case "register-elsewhere" if argument:
                self._ecs.create_cluster(argument, {})
            case "ipv6-only":
                for instance in self._ec2.instances.values():
                    instance.version += 1  # its document changes
            case "external-instance":
                self._register_external()
            case "managed-draining":
                self._manage_draining()

    def _tag_with_stack(self) -> None:
        stack = self._world.conditions.get("stack-owned")
        for template in self._ec2.templates.values():
            template.tags.pop(STACK_TAG, None)
            if stack is not None:
                template.tags[STACK_TAG] = stack or "stack"
        for group in self._autoscaling.groups.values():
            group.tags = [tag for tag in group.tags if tag["Key"] != STACK_TAG]
            if stack is not None:
                group.tags.append({"Key": STACK_TAG, "Value": stack or "stack", "PropagateAtLaunch": False})

    def _register_external(self) -> None:
        wanted = "external-instance" in self._world.conditions
        for cluster in self._ecs.clusters.values():
            there = [r for r in cluster.registrations.values() if r.launch_type == "EXTERNAL"]
            if wanted and not there:
                self._ecs.register_external(cluster)
            for registration in [] if wanted else there:
                self._ecs.deregister(cluster, registration, force=True)

    def _manage_draining(self) -> None:
        """Give each group a capacity provider that drains, in the cluster that its user data or its tag names."""
        wanted = "managed-draining" in self._world.conditions
        for group in self._autoscaling.groups.values():
            name = f"{group.name}-provider"
            cluster = self._ecs.clusters.get(group.tag_values().get("Rack", ""))
            if cluster is None:
                continue
            cluster.capacity_providers = [other for other in cluster.capacity_providers if other != name]
            self._ecs.capacity_providers.pop(name, None)
            if wanted:
                arn = self._ecs.arn(f"capacity-provider/{name}")
                self._ecs.capacity_providers[name] = CapacityProvider(arn, name, group.arn)
                cluster.capacity_providers.append(name)
        self._draining.providers_changed()

    def befall(self, incident: str, instance_id: str) -> None:
        """Inject an incident. Raises Refused."""
        if incident not in INCIDENTS:
            raise validation_error(f"there is no incident {incident}")
        instance = self._ec2.get(instance_id)
        match incident:
            case "vanish":
                self._ec2.terminate(instance, "Server.SpotInstanceTermination")
            case "stop":
                self._ec2.stop(instance)
            case "registered-twice" | "registered-twice-last":
                self._ecs.register_dead(instance_id, first=incident == "registered-twice")
            case "registration-failed-twice":
                self._ecs.register_dead(instance_id, "REGISTRATION_FAILED", first=True)
            case "re-registered":
                self._ecs.register_anew(instance_id)
            case _:
                found = self._ecs.registration_of(instance_id)
                if found is None:
                    raise validation_error(f"{instance_id} is not registered with any cluster")
                self._ecs.set_agent(found[1], connected=incident == "agent-on")
