"""EC2's operations on instances."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from rackctl.local.api.ec2 import documents
from rackctl.local.api.ec2.common import INVALID_TOKEN, checked_data, find_template, page_size, specified_tags, tags_of
from rackctl.local.api.ec2.volumes import ROOT_DEVICE
from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, Room, derived
from rackctl.local.api.paging import page
from rackctl.local.api.wire import Fragments, Raw
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rackctl.local.api.wire_query import Ec2Protocol
    from rackctl.local.world import World
    from rackctl.local.world.ec2 import Instance, Subnet


class Instances(Room["Ec2Protocol"]):
    def __init__(self, world: World, protocol: Ec2Protocol) -> None:
        super().__init__(world, protocol)
        self._ec2 = world.ec2
        self._fragments = Fragments()

    def describe_instances(self, asked: Asked) -> Result:
        found, token = self._instances(asked, everything=True)
        return {"Reservations": [self._reservation(instance) for instance in found], "NextToken": token}

    def describe_instance_status(self, asked: Asked) -> Result:
        found, token = self._instances(asked, everything=asked.get("IncludeAllInstances", False))
        return {"InstanceStatuses": [documents.instance_status(i, self.world) for i in found], "NextToken": token}

    def _instances(self, asked: Asked, *, everything: bool) -> tuple[list[Instance], str | None]:
        if asked.get("InstanceIds") and "MaxResults" in asked:
            raise Refused(
                "InvalidParameterCombination",
                "The parameter instancesSet cannot be used with the parameter maxResults",
            )
        limit = page_size(asked, 5, 1000)
        wanted = self._by_id(asked["InstanceIds"]) if asked.get("InstanceIds") else self._ec2.instances.values()
        passes = Filters(asked.get("Filters", []), self._instance_filters(), tags_of)
        return page(
            wanted,
            order=lambda instance: instance.instance_id,
            asked=asked,
            limit=limit if not asked.get("InstanceIds") else len(self._ec2.instances),
            invalid_token=INVALID_TOKEN,
            matches=lambda instance: (everything or instance.state == "running") and passes(instance),
        )

    def _by_id(self, instance_ids: Sequence[str]) -> list[Instance]:
        """Return instances by id. Raises Refused for invalid ids, then for instances that do not exist."""
        for instance_id in instance_ids:
            if not re.fullmatch(r"i-([0-9a-f]{8}|[0-9a-f]{17})", instance_id):
                raise Refused("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"')
        unknown = [instance_id for instance_id in instance_ids if instance_id not in self._ec2.instances]
        if len(unknown) > 1:
            raise Refused("InvalidInstanceID.NotFound", f"The instance IDs '{', '.join(unknown)}' do not exist")
        return [self._ec2.get(instance_id) for instance_id in dict.fromkeys(instance_ids)]

    def _instance_filters(self) -> Mapping[str, Callable[[Instance], Iterable[str]]]:
        ec2 = self._ec2
        group = ec2.security_group_id
        network = documents.in_network
        return {
            "instance-id": lambda i: [i.instance_id],
            "instance-state-name": lambda i: [i.state],
            "instance-state-code": lambda i: [str(documents.STATE_CODES[i.state])],
            "instance-type": lambda i: [i.instance_type],
            "image-id": lambda i: [i.image_id],
            "key-name": lambda i: [i.key_name] if i.key_name else [],
            "availability-zone": lambda i: [i.subnet.availability_zone],
            "private-ip-address": lambda i: [i.private_ip] if network(i) else [],
            "private-dns-name": lambda i: [documents.private_dns_name(i, self.world)] if network(i) else [],
            "ip-address": lambda _: [],
            "dns-name": lambda _: [],
            "subnet-id": lambda i: [i.subnet.subnet_id] if network(i) else [],
            "vpc-id": lambda i: [ec2.vpc_id] if network(i) else [],
            "instance.group-id": lambda i: [group] if network(i) else [],
            "instance.group-name": lambda i: [documents.SECURITY_GROUP] if network(i) else [],
            "group-id": lambda i: [group] if network(i) else [],
            "architecture": lambda _: ["x86_64"],
            "platform": lambda i: [i.platform] if i.platform else [],
            "root-device-type": lambda _: ["ebs"],
            "virtualization-type": lambda _: ["hvm"],
            "owner-id": lambda _: [self.world.account_id],
            "reservation-id": lambda i: [derived("r-", i.instance_id)],
            "state-reason-code": lambda i: [i.state_reason] if i.state_reason else [],
        }

    def _reservation(self, instance: Instance) -> Raw:
        return self._fragments.get(
            instance.instance_id,
            (instance.version, id(instance)),
            lambda: self.protocol.fragment("Reservation", documents.reservation([instance], self.world)),
        )

    def terminate_instances(self, asked: Asked) -> Result:
        instances = self._by_id(asked["InstanceIds"])
        for instance in instances:
            if instance.termination_protected:
                raise Refused(
                    "OperationNotPermitted",
                    f"The instance '{instance.instance_id}' may not be terminated. Modify its 'disableApiTermination' "
                    "instance attribute and try again.",
                )
        before = [instance.state for instance in instances]
        for instance in instances:
            self._ec2.terminate(instance)
        return {"TerminatingInstances": _state_changes(instances, before)}

    def stop_instances(self, asked: Asked) -> Result:
        instances = self._by_id(asked["InstanceIds"])
        for instance in instances:
            if instance.state not in {"pending", "running", "stopping", "stopped"}:
                raise _incorrect_state(instance, "stopped")
        before = [instance.state for instance in instances]
        for instance in instances:
            self._ec2.stop(instance)
        return {"StoppingInstances": _state_changes(instances, before)}

    def start_instances(self, asked: Asked) -> Result:
        instances = self._by_id(asked["InstanceIds"])
        for instance in instances:
            if instance.state not in {"pending", "running", "stopped"}:
                raise _incorrect_state(instance, "started")
        before = [instance.state for instance in instances]
        for instance in instances:
            if instance.state == "stopped":
                self._ec2.start(instance)
        return {"StartingInstances": _state_changes(instances, before)}

    def run_instances(self, asked: Asked) -> Result:
        if not 1 <= asked["MinCount"] <= asked["MaxCount"]:
            raise Refused("InvalidParameterCombination", "MinCount must be at least 1 and not above MaxCount")
        data: Mapping[str, Any] = {}
        origin = None
        if specification := asked.get("LaunchTemplate"):
            template = find_template(self._ec2, specification)
            version = template.resolve(specification.get("Version", "$Default"))
            data = version.data
            origin = (template.launch_template_id, template.launch_template_name, version.number)
        data = checked_data({**data, **asked})
        if "ImageId" not in data:
            raise Refused("MissingParameter", "The request must contain the parameter ImageId")
        tags = specified_tags(data, "instance")
        subnet = self._subnet(data)
        launched = [
            self._ec2.launch(data, subnet=subnet, tags=tags, launch_template=origin) for _ in range(asked["MaxCount"])
        ]
        return documents.reservation(launched, self.world)

    def _subnet(self, data: Mapping[str, Any]) -> Subnet | None:
        if subnet_id := data.get("SubnetId"):
            if subnet_id not in self._ec2.subnets:
                raise Refused("InvalidSubnetID.NotFound", f"The subnet ID '{subnet_id}' does not exist")
            return self._ec2.subnets[subnet_id]
        zone = data.get("Placement", {}).get("AvailabilityZone")
        subnets = [s for s in self._ec2.subnets.values() if s.availability_zone == zone]
        if zone and not subnets:
            raise Refused("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
        return subnets[0] if subnets else None

    def get_console_output(self, asked: Asked) -> Result:
        instance = self._ec2.get(asked["InstanceId"])
        result = {"InstanceId": instance.instance_id, "Timestamp": self.world.now}
        latest = asked.get("Latest", False) and "console-late" not in self.world.conditions
        buffered = instance.console_ready and "console-latest-only" not in self.world.conditions
        if instance.ssh_up if latest else buffered:
            result["Output"] = base64.b64encode(documents.console_output(instance).encode()).decode()
        return result

    def describe_instance_attribute(self, asked: Asked) -> Result:
        instance = self._ec2.get(asked["InstanceId"])
        values: dict[str, tuple[str, Any]] = {
            "disableApiTermination": ("DisableApiTermination", instance.termination_protected),
            "disableApiStop": ("DisableApiStop", False),
            "instanceType": ("InstanceType", instance.instance_type),
            "userData": ("UserData", instance.user_data or None),
            "rootDeviceName": ("RootDeviceName", ROOT_DEVICE),
            "instanceInitiatedShutdownBehavior": ("InstanceInitiatedShutdownBehavior", "stop"),
            "sourceDestCheck": ("SourceDestCheck", True),
            "ebsOptimized": ("EbsOptimized", False),
            "enaSupport": ("EnaSupport", True),
        }
        if asked["Attribute"] == "groupSet":
            return {"InstanceId": instance.instance_id, "Groups": documents.security_groups(self.world)}
        if asked["Attribute"] not in values:
            raise Refused(
                "InvalidParameterValue",
                f"Value ({asked['Attribute']}) for parameter attribute is invalid: the local rack does not support it.",
            )
        name, value = values[asked["Attribute"]]
        return {"InstanceId": instance.instance_id, name: {"Value": value}}

    def modify_instance_attribute(self, asked: Asked) -> Result:
        instance = self._ec2.get(asked["InstanceId"])
        if "DisableApiTermination" in asked:
            instance.termination_protected = asked["DisableApiTermination"].get("Value", False)
        elif asked.get("Attribute") == "disableApiTermination":
            instance.termination_protected = asked.get("Value", "").lower() == "true"
        else:
            raise Refused(
                "InvalidParameterCombination", "The local rack can change only disableApiTermination of instances."
            )
        return {}


def _state_changes(instances: Sequence[Instance], before: Sequence[str]) -> list[Result]:
    return [
        {
            "InstanceId": instance.instance_id,
            "CurrentState": documents.instance_state(instance.state),
            "PreviousState": documents.instance_state(state),
        }
        for instance, state in zip(instances, before, strict=True)
    ]


def _incorrect_state(instance: Instance, what: str) -> Refused:
    return Refused(
        "IncorrectInstanceState",
        f"The instance '{instance.instance_id}' is not in a state from which it can be {what}.",
    )
