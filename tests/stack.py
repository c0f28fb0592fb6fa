"""CloudFormation stacks on a local rack: what of a template makes instances, created with AWS's own client.

The templates in tests/stacks are CDK's (tools/cdk), and one written by hand. What leads to the network and to the roles
stands for the local rack's own; functions and topics are left out, so that a hook of theirs is never completed.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.local_rack import LocalRackProcess

TEMPLATES = Path(__file__).parent / "stacks"
# The suffix of names that CloudFormation generates.
SUFFIX = "A1B2C3D4E5F6"


@dataclass
class Stack:
    """A stack. ``physical`` maps logical ids to what Ref gives, ``attributes`` to what Fn::GetAtt does."""

    rack: LocalRackProcess
    name: str
    template: Mapping[str, Any]
    physical: dict[str, str] = field(default_factory=dict)
    attributes: dict[tuple[str, str], str] = field(default_factory=dict)

    @cached_property
    def clients(self) -> dict[str, Any]:
        return {name: self.rack.client(name) for name in ("ecs", "ec2", "autoscaling", "ssm")}

    def of_type(self, kind: str) -> str:
        """Return the physical id of the one resource of a type."""
        (found,) = [i for i, r in self.template["Resources"].items() if r["Type"] == kind and i in self.physical]
        return self.physical[found]

    @property
    def cluster(self) -> str:
        return self.of_type("AWS::ECS::Cluster")

    @property
    def group(self) -> str:
        return self.of_type("AWS::AutoScaling::AutoScalingGroup")

    def definition(self) -> dict[str, Any]:
        """Return AWS's documents of the stack's groups and launch templates, to detect a change."""
        autoscaling, ec2 = self.clients["autoscaling"], self.clients["ec2"]
        (group,) = autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.group])["AutoScalingGroups"]
        running = ("Instances", "SuspendedProcesses", "WarmPoolSize", "PredictedCapacity")
        found: dict[str, Any] = {"group": {k: v for k, v in group.items() if k not in running}}
        if "LaunchConfigurationName" in group:
            named = [group["LaunchConfigurationName"]]
            answer = autoscaling.describe_launch_configurations(LaunchConfigurationNames=named)
            found["launch configurations"] = answer["LaunchConfigurations"]
        else:
            id_ = self.of_type("AWS::EC2::LaunchTemplate")
            answer = ec2.describe_launch_templates(LaunchTemplateIds=[id_])
            versions = ec2.describe_launch_template_versions(LaunchTemplateId=id_)
            found |= {"template": answer["LaunchTemplates"], "versions": versions["LaunchTemplateVersions"]}
        return found

    # Deploying

    def deploy(self) -> Stack:
        """Create the resources, each after those that it names."""
        resources: dict[str, Any] = dict(self.template["Resources"])
        waiting = {
            name: set(_named_by(resource.get("Properties", {}))) & resources.keys()
            for name, resource in resources.items()
        }
        while waiting:
            ready = [name for name, needed in waiting.items() if needed <= self.physical.keys()]
            assert ready, f"resources that name each other: {sorted(waiting)}"
            for name in ready:
                self.physical[name] = self._create(name, resources[name])
                del waiting[name]
        return self

    def _create(self, name: str, resource: Mapping[str, Any]) -> str:
        create: Callable[[str, Any], str] | None = {
            "AWS::ECS::Cluster": self._cluster,
            "AWS::ECS::TaskDefinition": self._task_definition,
            "AWS::ECS::Service": self._service,
            "AWS::ECS::CapacityProvider": self._capacity_provider,
            "AWS::ECS::ClusterCapacityProviderAssociations": self._associations,
            "AWS::EC2::LaunchTemplate": self._launch_template,
            "AWS::AutoScaling::LaunchConfiguration": self._launch_configuration,
            "AWS::AutoScaling::AutoScalingGroup": self._auto_scaling_group,
            "AWS::AutoScaling::LifecycleHook": self._lifecycle_hook,
            "AWS::EC2::Subnet": self._subnet,
        }.get(resource["Type"])
        if create is None:
            return f"{self.name}-{name}-{SUFFIX}"
        return create(name, self._resolved(resource.get("Properties", {})))

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(item) for item in value]
        if not isinstance(value, dict):
            return value
        match value:
            case {"Ref": str(name)}:
                return self._ref(name)
            case {"Fn::GetAtt": [name, attribute]}:
                other = "sg-0123456789abcdef0" if attribute == "GroupId" else f"arn:aws:iam::123456789012:role/{name}"
                return self.attributes.get((name, attribute), other)
            case {"Fn::Join": [separator, parts]}:
                return separator.join(map(str, self._resolved(parts)))
            case {"Fn::Base64": text}:
                return base64.b64encode(self._resolved(text).encode()).decode()
            case _:
                return {key: self._resolved(item) for key, item in value.items()}

    def _ref(self, name: str) -> str:
        if name in self.physical:
            return self.physical[name]
        parameter = self.template.get("Parameters", {}).get(name)
        if parameter is None:
            return {"AWS::Region": "us-east-1", "AWS::StackName": self.name, "AWS::Partition": "aws"}.get(name, name)
        if parameter["Type"].startswith("AWS::SSM::Parameter::Value"):
            found = self.clients["ssm"].get_parameter(Name=parameter["Default"])
            return str(found["Parameter"]["Value"])
        return str(parameter["Default"])

    def _physical_name(self, name: str) -> str:
        return f"{self.name}-{name}-{SUFFIX}"

    def _cluster(self, name: str, _: Any) -> str:
        made = self._physical_name(name)
        self.clients["ecs"].create_cluster(clusterName=made)
        self._own("cluster", made, name)
        return made

    def _task_definition(self, _: str, properties: Any) -> str:
        answer = self.clients["ecs"].register_task_definition(**_camel(properties))
        return str(answer["taskDefinition"]["taskDefinitionArn"])

    def _service(self, name: str, properties: Any) -> str:
        given = _camel(properties)
        given.get("deploymentConfiguration", {}).pop("alarms", None)
        given.pop("enableECSManagedTags", None)
        answer = self.clients["ecs"].create_service(serviceName=self._physical_name(name), **given)
        return str(answer["service"]["serviceArn"])

    def _capacity_provider(self, name: str, properties: Any) -> str:
        given = _camel(properties)["autoScalingGroupProvider"]
        groups = self.clients["autoscaling"].describe_auto_scaling_groups(
            AutoScalingGroupNames=[given["autoScalingGroupArn"]]
        )["AutoScalingGroups"]
        given["autoScalingGroupArn"] = groups[0]["AutoScalingGroupARN"]
        made = self._physical_name(name)
        self.clients["ecs"].create_capacity_provider(name=made, autoScalingGroupProvider=given)
        return made

    def _associations(self, _: str, properties: Any) -> str:
        self.clients["ecs"].put_cluster_capacity_providers(**_camel(properties))
        return str(properties["Cluster"])

    def _launch_template(self, name: str, properties: Any) -> str:
        answer = self.clients["ec2"].create_launch_template(
            LaunchTemplateName=properties.get("LaunchTemplateName", f"{name}_{SUFFIX}"),
            LaunchTemplateData=properties["LaunchTemplateData"],
            TagSpecifications=properties.get("TagSpecifications", []),
        )
        made = answer["LaunchTemplate"]
        self.attributes[name, "LatestVersionNumber"] = str(made["LatestVersionNumber"])
        self.attributes[name, "LaunchTemplateId"] = made["LaunchTemplateId"]
        self._own("template", made["LaunchTemplateId"], name)
        return str(made["LaunchTemplateId"])

    def _launch_configuration(self, name: str, properties: Any) -> str:
        made = self._physical_name(name)
        # boto3 encodes it itself here, unlike in a launch template.
        given = {**properties, "UserData": base64.b64decode(properties["UserData"]).decode()}
        self.clients["autoscaling"].create_launch_configuration(LaunchConfigurationName=made, **given)
        return made

    def _auto_scaling_group(self, name: str, properties: Any) -> str:
        made = properties.pop("AutoScalingGroupName", self._physical_name(name))
        for size in ("MinSize", "MaxSize", "DesiredCapacity"):
            properties[size] = int(properties[size])
        zones = ",".join(properties.pop("VPCZoneIdentifier"))
        self.clients["autoscaling"].create_auto_scaling_group(
            AutoScalingGroupName=made, VPCZoneIdentifier=zones, **properties
        )
        self._own("group", made, name)
        return str(made)

    def _lifecycle_hook(self, name: str, properties: Any) -> str:
        given = {k: v for k, v in properties.items() if k not in {"NotificationTargetARN", "RoleARN"}}
        made = self._physical_name(name)
        self.clients["autoscaling"].put_lifecycle_hook(LifecycleHookName=made, **given)
        return made

    def _subnet(self, name: str, _: Any) -> str:
        subnets = sorted(s["SubnetId"] for s in self.clients["ec2"].describe_subnets()["Subnets"])
        named = sorted(i for i, r in self.template["Resources"].items() if r["Type"] == "AWS::EC2::Subnet")
        return str(subnets[named.index(name) % len(subnets)])

    def _own(self, kind: str, physical_id: str, name: str) -> None:
        """Have AWS's own tags say whose a resource is, which only CloudFormation can set."""
        self.rack.control("tag_as_stack", kind=kind, physical_id=physical_id, stack=self.name, logical_id=name)


def deploy(rack: LocalRackProcess, template: str, name: str = "") -> Stack:
    """Deploy a template of tests/stacks."""
    text = (TEMPLATES / f"{template}.template.json").read_text()
    return Stack(rack, name or template, json.loads(text)).deploy()


def _named_by(value: Any) -> list[str]:
    if isinstance(value, list):
        return [name for item in value for name in _named_by(item)]
    if not isinstance(value, dict):
        return []
    match value:
        case {"Ref": str(name)} | {"Fn::GetAtt": [str(name), _]}:
            return [name]
        case _:
            return _named_by(list(value.values()))


def _camel(value: Any) -> Any:
    """Spell the properties of ECS's resources as its API does."""
    if isinstance(value, list):
        return [_camel(item) for item in value]
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _camel(item) for key, item in value.items()}
    return value
