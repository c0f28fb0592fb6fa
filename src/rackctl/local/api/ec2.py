"""EC2's operations."""

from __future__ import annotations

import base64
import re
from itertools import chain
from typing import TYPE_CHECKING, Any

from rackctl.local.api import ec2_documents as documents
from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, Room, Service, derived, tag_documents, tags_from
from rackctl.local.api.paging import page
from rackctl.local.api.wire import Ec2Protocol, Fragments, Raw
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rackctl.local.world import World
    from rackctl.local.world.ec2 import Instance, KeyPair, LaunchTemplate, LaunchTemplateVersion, Subnet

_PAGE = 1000
_MOST_TAGS = 50
_INVALID_TOKEN = Refused("InvalidNextToken", "The specified NextToken is not valid.")


class Ec2Service(Service):
    def __init__(self, world: World, rooms: Sequence[type[Room[Ec2Protocol]]]) -> None:
        super().__init__(world, "ec2", Ec2Protocol, rooms)

    def call(self, name: str, asked: Asked) -> Result:
        if asked.get("DryRun"):
            raise Refused("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)
        return super().call(name, asked)


class Ec2Operations(Room[Ec2Protocol]):
    def __init__(self, world: World, protocol: Ec2Protocol) -> None:
        super().__init__(world, protocol)
        self._ec2 = world.ec2
        self._fragments = Fragments()

    # Instances

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
        limit = _limit(asked, 5, 1000)
        wanted = self._by_id(asked["InstanceIds"]) if asked.get("InstanceIds") else self._ec2.instances.values()
        passes = Filters(asked.get("Filters", []), self._instance_filters(), _tags)
        return page(
            wanted,
            order=lambda instance: instance.instance_id,
            asked=asked,
            limit=limit if not asked.get("InstanceIds") else len(self._ec2.instances),
            invalid_token=_INVALID_TOKEN,
            matches=lambda instance: (everything or instance.state == "running") and passes(instance),
        )

    def _by_id(self, instance_ids: Sequence[str]) -> list[Instance]:
        """Give instances by id. Raises Refused for what is no id, then for those that do not exist."""
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
        return {
            "TerminatingInstances": [
                {
                    "InstanceId": instance.instance_id,
                    "CurrentState": documents.instance_state(instance.state),
                    "PreviousState": documents.instance_state(state),
                }
                for instance, state in zip(instances, before, strict=True)
            ]
        }

    def run_instances(self, asked: Asked) -> Result:
        if not 1 <= asked["MinCount"] <= asked["MaxCount"]:
            raise Refused("InvalidParameterCombination", "MinCount must be at least 1 and not above MaxCount")
        data: Mapping[str, Any] = {}
        origin = None
        if specification := asked.get("LaunchTemplate"):
            template = self._template(specification)
            version = template.resolve(specification.get("Version", "$Default"))
            data = version.data
            origin = (template.launch_template_id, template.launch_template_name, version.number)
        data = _checked_data({**data, **asked})
        if "ImageId" not in data:
            raise Refused("MissingParameter", "The request must contain the parameter ImageId")
        tags = _specified_tags(data, "instance")
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

    def describe_images(self, asked: Asked) -> Result:
        every = [documents.image(image_id, self.world) for image_id in self._ec2.images]
        return {"Images": _chosen(every, asked, "ImageIds", "ImageId", "InvalidAMIID.NotFound")}

    def get_console_output(self, asked: Asked) -> Result:
        instance = self._ec2.get(asked["InstanceId"])
        result = {"InstanceId": instance.instance_id, "Timestamp": self.world.now}
        if instance.console_ready:
            result["Output"] = base64.b64encode(documents.console_output(instance).encode()).decode()
        return result

    def describe_instance_attribute(self, asked: Asked) -> Result:
        instance = self._ec2.get(asked["InstanceId"])
        values: dict[str, tuple[str, Any]] = {
            "disableApiTermination": ("DisableApiTermination", instance.termination_protected),
            "disableApiStop": ("DisableApiStop", False),
            "instanceType": ("InstanceType", instance.instance_type),
            "userData": ("UserData", instance.user_data or None),
            "rootDeviceName": ("RootDeviceName", documents.ROOT_DEVICE),
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
                f"Value ({asked['Attribute']}) for parameter attribute is invalid: the local rack has no such one.",
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
                "InvalidParameterCombination", "The local rack lets only disableApiTermination of instances be changed."
            )
        return {}

    # Key pairs

    def import_key_pair(self, asked: Asked) -> Result:
        tags = _specified_tags(asked, "key-pair")
        pair = self._ec2.import_key_pair(asked["KeyName"], asked["PublicKeyMaterial"], tags)
        return {
            "KeyFingerprint": pair.fingerprint,
            "KeyName": pair.key_name,
            "KeyPairId": pair.key_pair_id,
            "Tags": tag_documents(pair.tags) or None,
        }

    def describe_key_pairs(self, asked: Asked) -> Result:
        pairs = list(self._ec2.key_pairs.values())
        for name in asked.get("KeyNames", ()):
            if name not in self._ec2.key_pairs:
                raise Refused("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
        ids = {pair.key_pair_id for pair in pairs}
        for id_ in asked.get("KeyPairIds", ()):
            if id_ not in ids:
                raise Refused("InvalidKeyPair.NotFound", f"The key pair ID '{id_}' does not exist")
        if asked.get("KeyNames") or asked.get("KeyPairIds"):
            wanted = {*asked.get("KeyNames", ()), *asked.get("KeyPairIds", ())}
            pairs = [pair for pair in pairs if {pair.key_name, pair.key_pair_id} & wanted]
        values: dict[str, Callable[[KeyPair], Iterable[str]]] = {
            "key-name": lambda pair: [pair.key_name],
            "key-pair-id": lambda pair: [pair.key_pair_id],
            "fingerprint": lambda pair: [pair.fingerprint],
        }
        passes = Filters(asked.get("Filters", []), values, _tags)
        return {
            "KeyPairs": [
                {
                    "KeyPairId": pair.key_pair_id,
                    "KeyFingerprint": pair.fingerprint,
                    "KeyName": pair.key_name,
                    "KeyType": pair.key_type,
                    "Tags": tag_documents(pair.tags),
                    "CreateTime": pair.created,
                    "PublicKey": f"{pair.public_key} {pair.key_name}\n" if asked.get("IncludePublicKey") else None,
                }
                for pair in pairs
                if passes(pair)
            ]
        }

    def delete_key_pair(self, asked: Asked) -> Result:
        """Delete a key pair. One that does not exist is no error."""
        if "KeyName" not in asked and "KeyPairId" not in asked:
            raise Refused("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
        for pair in list(self._ec2.key_pairs.values()):
            if asked.get("KeyName") == pair.key_name or asked.get("KeyPairId") == pair.key_pair_id:
                del self._ec2.key_pairs[pair.key_name]
                return {"Return": True, "KeyPairId": pair.key_pair_id}
        return {"Return": True}

    # Launch templates

    def create_launch_template(self, asked: Asked) -> Result:
        if not re.fullmatch(r"[a-zA-Z0-9().\-/_]{3,128}", asked["LaunchTemplateName"]):
            raise Refused(
                "InvalidLaunchTemplateName.MalformedException",
                "A launch template name must be between 3 and 128 characters, and may contain letters, numbers, and "
                "the characters ( ) . - / _",
            )
        tags = _specified_tags(asked, "launch-template")
        data = _checked_data(asked["LaunchTemplateData"])
        template = self._ec2.create_template(asked["LaunchTemplateName"], data, tags)
        template.versions[1].description = asked.get("VersionDescription", "")
        return {"LaunchTemplate": documents.launch_template(template, self.world)}

    def create_launch_template_version(self, asked: Asked) -> Result:
        template = self._template(asked)
        version = self._ec2.add_version(
            template,
            _checked_data(asked["LaunchTemplateData"]),
            source=asked.get("SourceVersion", ""),
            description=asked.get("VersionDescription", ""),
        )
        return {"LaunchTemplateVersion": documents.launch_template_version(template, version, self.world)}

    def describe_launch_templates(self, asked: Asked) -> Result:
        templates = list(self._ec2.templates.values())
        if "LaunchTemplateIds" in asked or "LaunchTemplateNames" in asked:
            templates = [
                *(self._ec2.find_template(id_, None) for id_ in asked.get("LaunchTemplateIds", ())),
                *(self._ec2.find_template(None, name) for name in asked.get("LaunchTemplateNames", ())),
            ]
        values: dict[str, Callable[[LaunchTemplate], Iterable[str]]] = {
            "launch-template-name": lambda template: [template.launch_template_name],
            "create-time": lambda template: [documents.iso_time(template.created)],
        }
        found, token = page(
            templates,
            order=lambda template: template.launch_template_id,
            asked=asked,
            limit=_limit(asked, 1, 200),
            invalid_token=_INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), values, _tags),
        )
        return {"LaunchTemplates": [documents.launch_template(t, self.world) for t in found], "NextToken": token}

    def describe_launch_template_versions(self, asked: Asked) -> Result:
        """Describe versions, newest first; with no template named, $Latest and $Default of all of them."""
        wanted = asked.get("Versions", [])
        if "LaunchTemplateId" in asked or "LaunchTemplateName" in asked:
            versions = self._versions(self._template(asked), asked)
        elif wanted and set(wanted) <= {"$Latest", "$Default"}:
            versions = list(
                chain.from_iterable(self._versions(template, asked) for template in self._ec2.templates.values())
            )
        else:
            raise Refused(
                "MissingParameter",
                "When a launch template is not specified, the versions must be $Latest, $Default, or both.",
            )
        values: dict[str, Callable[[tuple[LaunchTemplate, LaunchTemplateVersion]], Iterable[str]]] = {
            "image-id": lambda v: [v[1].data.get("ImageId", "")],
            "instance-type": lambda v: [v[1].data.get("InstanceType", "")],
            "is-default-version": lambda v: [str(v[1].number == v[0].default_version).lower()],
        }
        found, token = page(
            versions,
            order=lambda v: [v[0].launch_template_id, -v[1].number],
            asked=asked,
            limit=_limit(asked, 1, 200),
            invalid_token=_INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), values),
        )
        return {
            "LaunchTemplateVersions": [documents.launch_template_version(t, v, self.world) for t, v in found],
            "NextToken": token,
        }

    @staticmethod
    def _versions(template: LaunchTemplate, asked: Asked) -> list[tuple[LaunchTemplate, LaunchTemplateVersion]]:
        if asked.get("Versions"):
            numbers = {template.resolve(version).number for version in asked["Versions"]}
        else:
            least = _number(asked, "MinVersion", 1)
            most = _number(asked, "MaxVersion", template.latest_version)
            numbers = {number for number in template.versions if least <= number <= most}
        return [(template, template.versions[number]) for number in numbers]

    def modify_launch_template(self, asked: Asked) -> Result:
        template = self._template(asked)
        if "DefaultVersion" not in asked:
            raise Refused("MissingParameter", "The request must contain the parameter SetDefaultVersion")
        template.default_version = template.resolve(asked["DefaultVersion"]).number
        return {"LaunchTemplate": documents.launch_template(template, self.world)}

    def delete_launch_template(self, asked: Asked) -> Result:
        template = self._template(asked)
        del self._ec2.templates[template.launch_template_id]
        return {"LaunchTemplate": documents.launch_template(template, self.world)}

    def delete_launch_template_versions(self, asked: Asked) -> Result:
        """Delete versions, each for itself: what could not be deleted stands in a list of its own."""
        template = self._template(asked)
        deleted: list[Result] = []
        failed: list[Result] = []
        for version in asked["Versions"]:
            named = {
                "LaunchTemplateId": template.launch_template_id,
                "LaunchTemplateName": template.launch_template_name,
                "VersionNumber": int(version) if version.isdecimal() else None,
            }
            problem = _undeletable(template, version)
            if problem:
                code, message = problem
                failed.append({**named, "ResponseError": {"Code": code, "Message": message}})
            else:
                del template.versions[int(version)]
                deleted.append(named)
        return {
            "SuccessfullyDeletedLaunchTemplateVersions": deleted,
            "UnsuccessfullyDeletedLaunchTemplateVersions": failed,
        }

    def _template(self, named: Mapping[str, Any]) -> LaunchTemplate:
        template_id, name = named.get("LaunchTemplateId"), named.get("LaunchTemplateName")
        if bool(template_id) == bool(name):
            raise Refused(
                "InvalidParameterCombination" if name else "MissingParameter",
                "Either a launch template ID or a launch template name must be specified, and not both.",
            )
        if template_id and not re.fullmatch(r"lt-([0-9a-f]{8}|[0-9a-f]{17})", template_id):
            raise Refused("InvalidLaunchTemplateId.Malformed", f"The launch template ID '{template_id}' is not valid.")
        return self._ec2.find_template(template_id, name)

    # Tags

    def create_tags(self, asked: Asked) -> Result:
        given = tags_from(asked["Tags"])
        _refuse_reserved(given)
        for tags in [self._ec2.tags_of(resource) for resource in asked["Resources"]]:
            if sum(not key.startswith("aws:") for key in {**tags, **given}) > _MOST_TAGS:
                raise Refused("TagLimitExceeded", f"The maximum number of Tags for a resource is {_MOST_TAGS}.")
            tags.update(given)
        return {}

    def delete_tags(self, asked: Asked) -> Result:
        """Delete tags by key, or by key and value; with none given, all but AWS's own."""
        for tags in [self._ec2.tags_of(resource) for resource in asked["Resources"]]:
            given = asked.get("Tags") or [{"Key": key} for key in tags if not key.startswith("aws:")]
            _refuse_reserved(tag["Key"] for tag in given)
            for tag in given:
                if "Value" not in tag or tags.get(tag["Key"]) == tag["Value"]:
                    tags.pop(tag["Key"], None)
        return {}

    def describe_tags(self, asked: Asked) -> Result:
        tagged: list[tuple[str, str, Mapping[str, str]]] = [
            *(("instance", i.instance_id, i.tags) for i in self._ec2.instances.values()),
            *(("key-pair", p.key_pair_id, p.tags) for p in self._ec2.key_pairs.values()),
            *(("launch-template", t.launch_template_id, t.tags) for t in self._ec2.templates.values()),
        ]
        tags = [(kind, id_, key, value) for kind, id_, tags in tagged for key, value in tags.items()]
        values: dict[str, Callable[[tuple[str, str, str, str]], Iterable[str]]] = {
            "resource-type": lambda tag: [tag[0]],
            "resource-id": lambda tag: [tag[1]],
            "key": lambda tag: [tag[2]],
            "value": lambda tag: [tag[3]],
        }
        found, token = page(
            tags,
            order=lambda tag: [tag[1], tag[2]],
            asked=asked,
            limit=_limit(asked, 5, 1000),
            invalid_token=_INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), values),
        )
        return {
            "Tags": [
                {"ResourceType": kind, "ResourceId": id_, "Key": key, "Value": value} for kind, id_, key, value in found
            ],
            "NextToken": token,
        }

    # Networks

    def describe_vpcs(self, asked: Asked) -> Result:
        return {"Vpcs": _chosen([documents.vpc(self.world)], asked, "VpcIds", "VpcId", "InvalidVpcID.NotFound")}

    def describe_subnets(self, asked: Asked) -> Result:
        every = [documents.subnet(subnet, self.world) for subnet in self._ec2.subnets.values()]
        return {"Subnets": _chosen(every, asked, "SubnetIds", "SubnetId", "InvalidSubnetID.NotFound")}

    def describe_security_groups(self, asked: Asked) -> Result:
        every = [documents.security_group(self.world)]
        if names := asked.get("GroupNames"):
            unknown = [name for name in names if name != documents.SECURITY_GROUP]
            if unknown:
                raise Refused("InvalidGroup.NotFound", f"The security group '{unknown[0]}' does not exist")
        return {"SecurityGroups": _chosen(every, asked, "GroupIds", "GroupId", "InvalidGroup.NotFound")}

    def describe_availability_zones(self, asked: Asked) -> Result:
        every = [documents.availability_zone(s.availability_zone, self.world) for s in self._ec2.subnets.values()]
        return {"AvailabilityZones": _chosen(every, asked, "ZoneNames", "ZoneName", "InvalidParameterValue")}

    def describe_regions(self, asked: Asked) -> Result:
        region = self.world.region
        every = [
            {
                "RegionName": region,
                "Endpoint": f"ec2.{region}.amazonaws.com",
                "OptInStatus": "opt-in-not-required",
            }
        ]
        return {"Regions": _chosen(every, asked, "RegionNames", "RegionName", "InvalidParameterValue")}


def _tags(tagged: Instance | KeyPair | LaunchTemplate) -> Mapping[str, str]:
    return tagged.tags


def _limit(asked: Asked, least: int, most: int) -> int:
    given: int = asked.get("MaxResults", most)
    if not least <= given <= most:
        bound = f"greater than or equal to {least}" if given < least else f"less than or equal to {most}"
        raise Refused(
            "InvalidParameterValue",
            f"Value ( {given} ) for parameter maxResults is invalid. Expecting a value {bound}.",
        )
    return given


def _number(asked: Asked, name: str, default: int) -> int:
    text = asked.get(name, str(default))
    if not text.isdecimal():
        raise Refused("InvalidParameterValue", f"Value ({text}) for parameter {name} is invalid. It must be a number.")
    return int(text)


def _specified_tags(asked: Mapping[str, Any], resource_type: str) -> dict[str, str]:
    """Give the tags that a request specifies for what it creates."""
    tags: dict[str, str] = {}
    for specification in asked.get("TagSpecifications", ()):
        if specification.get("ResourceType") == resource_type:
            tags |= tags_from(specification.get("Tags", []))
    _refuse_reserved(tags)
    return tags


def _refuse_reserved(keys: Iterable[str]) -> None:
    if any(key.lower().startswith("aws:") for key in keys):
        raise Refused("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")


def _checked_data(data: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        base64.b64decode(data.get("UserData", ""), validate=True)
    except ValueError:
        raise Refused("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data") from None
    return data


def _undeletable(template: LaunchTemplate, version: str) -> tuple[str, str] | None:
    if not version.isdecimal():
        return "unexpectedError", f"{version} is not a version number."
    if int(version) not in template.versions:
        return (
            "launchTemplateVersionDoesNotExist",
            f"Could not find launch template version {version} for template {template.launch_template_id}.",
        )
    if int(version) == template.default_version:
        return "unexpectedError", f"Version {version} is the default version of the launch template: it stays."
    return None


def _chosen(every: list[Result], asked: Asked, parameter: str, member: str, unknown_code: str) -> list[Result]:
    """Choose documents by id, and by filters named after their members."""
    for id_ in asked.get(parameter, ()):
        if id_ not in {document[member] for document in every}:
            raise Refused(unknown_code, f"The ID '{id_}' does not exist")
    ids = asked.get(parameter) or [document[member] for document in every]
    scalars = {name for document in every for name, value in document.items() if isinstance(value, str | bool)}
    values: dict[str, Callable[[Result], Iterable[str]]] = {
        _filter_name(name): (lambda document, name=name: [_filter_value(document[name])])  # type: ignore[misc]
        for name in scalars
    }
    passes = Filters(asked.get("Filters", []), values, lambda document: tags_from(document.get("Tags", [])))
    return [document for document in every if document[member] in ids and passes(document)]


def _filter_name(member: str) -> str:
    """Give a filter's name: availability-zone for AvailabilityZone."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", member).lower()


def _filter_value(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value
