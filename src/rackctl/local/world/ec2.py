"""EC2's part of the world: networks, key pairs, launch templates and instances."""

from __future__ import annotations

import ipaddress
import re
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rackctl.local.world import timing
from rackctl.local.world.base import Refused
from rackctl.local.world.key_pairs import KeyPair, KeyPairs, read_public_key
from rackctl.local.world.templates import LaunchTemplate, LaunchTemplateVersion, without_snapshots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.world.base import Commons
    from rackctl.local.world.parameters import Parameters

# vCPUs and MiB; ECS registers 1,024 CPU units a vCPU, and less memory than this.
INSTANCE_TYPES = {
    "t3.micro": (2, 1024),
    "t3.small": (2, 2048),
    "t3.medium": (2, 4096),
    "t3.large": (2, 8192),
    "m5.large": (2, 8192),
    "m5.xlarge": (4, 16384),
    "c5.large": (2, 4096),
}
IMAGE = "ami-0c0ffee0c0ffee000"
WINDOWS_IMAGE = "ami-0c0ffee0c0ffee111"


@dataclass
class Subnet:
    subnet_id: str
    availability_zone: str
    network: ipaddress.IPv4Network
    used: set[str] = field(default_factory=set)
    taken: int = 0

    def take_address(self) -> str:
        """Return a free address; a released one is reused last."""
        # AWS reserves the first four addresses of a subnet and the last one.
        first, usable = int(self.network.network_address) + 4, self.network.num_addresses - 5
        for _ in range(usable):
            address = str(ipaddress.IPv4Address(first + self.taken % usable))
            self.taken += 1
            if address not in self.used:
                self.used.add(address)
                return address
        raise Refused("InsufficientFreeAddressesInSubnet", f"There are not enough free addresses in {self.subnet_id}.")


@dataclass
class Instance:
    instance_id: str
    instance_type: str
    image_id: str
    key_name: str
    subnet: Subnet
    private_ip: str
    # The times of its first launch and of its latest one: to EC2, a start is a launch.
    first_launched: float
    launched: float
    tags: dict[str, str]
    user_data: str = ""
    launch_template: tuple[str, str, int] | None = None
    group: str = ""
    state: str = "pending"
    state_reason: str = ""
    ssh_up: bool = False
    authorized_key: str = ""
    termination_protected: bool = False
    console_ready: bool = False
    host_keys: tuple[str, ...] = ()
    platform: str = ""
    instance_profile: str = ""
    # The block device mappings of its launch, in addition to the root volume of its image.
    block_devices: list[dict[str, Any]] = field(default_factory=list)
    # The number of its boots; scheduled events of an earlier boot are dropped.
    boot: int = 0
    # Whether it is in a warm pool, by its metadata (autoscaling/target-lifecycle-state).
    is_warm: bool = False
    version: int = 0

    @property
    def hostname(self) -> str:
        return f"ip-{self.private_ip.replace('.', '-')}"

    @property
    def exists(self) -> bool:
        return self.state not in {"shutting-down", "terminated"}


def _launch_template_tags(launch_template: tuple[str, str, int] | None) -> dict[str, str]:
    """Return the tags that EC2 puts on instances launched from a template.

    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/launch-instances-from-launch-template.html
    """
    if launch_template is None:
        return {}
    id_, _, version = launch_template
    return {"aws:ec2launchtemplate:id": id_, "aws:ec2launchtemplate:version": str(version)}


class Ec2:
    def __init__(self, world: Commons, network: str, parameters: Parameters) -> None:
        self._world = world
        self.parameters = parameters
        self.vpc_id = world.ids.ec2("vpc")
        self.cidr = f"{network}.0.0/16"
        self.security_group_id = world.ids.ec2("sg")
        self.subnets = {
            subnet.subnet_id: subnet
            for number, zone in enumerate("abc")
            for subnet in [
                Subnet(
                    world.ids.ec2("subnet"),
                    f"{world.region}{zone}",
                    ipaddress.IPv4Network(f"{network}.{number * 16}.0/20"),
                )
            ]
        }
        self.key_pairs = KeyPairs(world)
        self.templates: dict[str, LaunchTemplate] = {}
        self.instances: dict[str, Instance] = {}
        # The platforms of images; an image that is not here is a Linux.
        self.images = {IMAGE: "", WINDOWS_IMAGE: "windows"}

    def move(self, before: str, after: str) -> None:
        """Move subnets and instances to the same addresses of another network."""
        self.cidr = f"{after}.0.0/16"
        for subnet in self.subnets.values():
            subnet.network = ipaddress.IPv4Network(f"{after}{str(subnet.network).removeprefix(before)}")
            subnet.used = {f"{after}{address.removeprefix(before)}" for address in subnet.used}
        for instance in self.instances.values():
            instance.private_ip = f"{after}{instance.private_ip.removeprefix(before)}"
            instance.version += 1

    # Key pairs

    def import_key_pair(self, key_name: str, public_key: bytes, tags: Mapping[str, str]) -> KeyPair:
        if self.key_pairs.is_taken(key_name):
            raise Refused("InvalidKeyPair.Duplicate", f"The keypair '{key_name}' already exists.")
        key_type, text, fingerprint = read_public_key(public_key)
        pair = KeyPair(
            self._world.ids.ec2("key"), key_name, key_type, text, fingerprint, self._world.second(), dict(tags)
        )
        self.key_pairs.change(key_name, pair)
        return pair

    # Launch templates

    def create_template(self, name: str, data: Mapping[str, Any], tags: Mapping[str, str]) -> LaunchTemplate:
        if any(template.launch_template_name == name for template in self.templates.values()):
            raise Refused("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
        template = LaunchTemplate(self._world.ids.ec2("lt"), name, self._world.now, dict(tags))
        self.templates[template.launch_template_id] = template
        self.add_version(template, data)
        return template

    def add_version(
        self, template: LaunchTemplate, data: Mapping[str, Any], *, source: str = "", description: str = ""
    ) -> LaunchTemplateVersion:
        """Add a version: the data of the source, if any, overridden by the given data.

        The snapshots of a source's block devices are not copied.
        """
        copied = without_snapshots(template.resolve(source).data) if source else {}
        template.latest_version += 1
        made = {**copied, **data}
        if "snapshots-lost" in self._world.conditions:
            made = without_snapshots(made)
        version = LaunchTemplateVersion(template.latest_version, made, self._world.now, description)
        template.versions[version.number] = version
        return version

    def find_template(self, template_id: str | None, name: str | None) -> LaunchTemplate:
        if template_id:
            if template_id in self.templates:
                return self.templates[template_id]
            raise Refused(
                "InvalidLaunchTemplateId.NotFound", f"The launch template '{template_id}' could not be found."
            )
        for template in self.templates.values():
            if template.launch_template_name == name:
                return template
        raise Refused(
            "InvalidLaunchTemplateName.NotFoundException",
            f"At least one of the launch templates specified in the request does not exist: {name}.",
        )

    # Instances

    def launch(
        self,
        data: Mapping[str, Any],
        *,
        subnet: Subnet | None = None,
        tags: Mapping[str, str] | None = None,
        group: str = "",
        launch_template: tuple[str, str, int] | None = None,
        instance_type: str = "",
        running_since: float | None = None,
    ) -> Instance:
        """Launch an instance, or add one that has run since a time in the past.

        Raises Refused if the key pair does not exist or if there is no capacity.
        """
        key_name = data.get("KeyName", "")
        pair = self.key_pairs.to_launch_with(key_name)
        if key_name and pair is None:
            raise Refused("InvalidKeyPair.NotFound", f"The key pair '{key_name}' does not exist")
        image_id = self.parameters.resolve(data.get("ImageId", IMAGE))
        platform = self.images.get(image_id, "")
        if platform == "windows" and pair and pair.key_type == "ed25519":
            raise Refused(
                "Unsupported",
                "ED25519 key pairs are not supported with Windows AMIs. Choose a different key pair type and try "
                "again.",
            )
        subnet = subnet or next(iter(self.subnets.values()))
        chosen_type = instance_type or data.get("InstanceType", "t3.small")
        lacking = self._world.conditions.get("no-capacity")
        if lacking is not None and lacking in {"", subnet.availability_zone, chosen_type}:
            raise Refused(
                "InsufficientInstanceCapacity",
                f"We currently do not have sufficient {chosen_type} capacity in the Availability Zone you requested "
                f"({subnet.availability_zone}). Our system will be working on provisioning additional capacity.",
                500,
            )
        world = self._world
        instance = Instance(
            instance_id=world.ids.ec2("i"),
            instance_type=chosen_type,
            image_id=image_id,
            platform=platform,
            instance_profile=_profile_name(data.get("IamInstanceProfile")),
            block_devices=deepcopy([m for m in data.get("BlockDeviceMappings", ()) if "Ebs" in m]),
            key_name=key_name,
            subnet=subnet,
            private_ip=subnet.take_address(),
            first_launched=world.second(),
            launched=world.second(),
            tags={**(tags or {}), **_launch_template_tags(launch_template)},
            user_data=data.get("UserData", ""),
            launch_template=launch_template,
            group=group,
            termination_protected=bool(data.get("DisableApiTermination")),
            authorized_key=pair.public_key if pair and "key-refused" not in world.conditions else "",
        )
        self.instances[instance.instance_id] = instance
        world.changed()
        if running_since is not None:
            instance.first_launched = instance.launched = running_since
            instance.state, instance.ssh_up, instance.console_ready = "running", True, True
            return instance
        self._boot(instance)
        return instance

    def _boot(self, instance: Instance) -> None:
        world = self._world
        instance.boot += 1
        slower = float(world.conditions.get("slow-boot") or 1)
        for seconds, method in ((timing.INSTANCE_RUNNING, "_run"), (timing.SSH_UP, "_open_ssh")):
            world.after(seconds * slower, "ec2", method, instance.instance_id, instance.boot)
        world.after(timing.CONSOLE_OUTPUT * slower, "ec2", "_show_console", instance.instance_id)
        world.after(timing.ECS_REGISTERED * slower, "ecs", "register_instance", instance.instance_id)

    def get(self, instance_id: str) -> Instance:
        if not re.fullmatch(r"i-([0-9a-f]{8}|[0-9a-f]{17})", instance_id):
            raise Refused("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"')
        if instance_id not in self.instances:
            raise Refused("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
        return self.instances[instance_id]

    def terminate(self, instance: Instance, reason: str = "Client.UserInitiatedShutdown") -> None:
        if not instance.exists:
            return
        self._set_state(instance, "shutting-down")
        instance.state_reason = reason
        instance.ssh_up = False
        self._world.after(timing.INSTANCE_TERMINATED, "ec2", "_end", instance.instance_id)
        self._world.tell("instance_ending", instance.instance_id)

    def stop(self, instance: Instance) -> None:
        """Stop a running instance; it keeps its address and may be started again."""
        if instance.state not in {"pending", "running"}:
            return
        instance.ssh_up = False
        instance.boot += 1  # drops the scheduled events of its boot
        self._set_state(instance, "stopping")
        instance.state_reason = "Client.UserInitiatedShutdown"
        self._world.after(timing.INSTANCE_STOPPED, "ec2", "_stopped", instance.instance_id)
        self._world.tell("instance_stopping", instance.instance_id)

    def start(self, instance: Instance) -> None:
        """Start a stopped instance: its launch time is now, its key that of its first launch."""
        instance.launched, instance.state_reason = self._world.second(), ""
        self._set_state(instance, "pending")
        self._boot(instance)

    def _stopped(self, instance_id: str) -> None:
        instance = self.instances[instance_id]
        if instance.state == "stopping":
            self._set_state(instance, "stopped")

    def _set_state(self, instance: Instance, state: str) -> None:
        instance.state = state
        instance.version += 1
        self._world.changed()

    def _run(self, instance_id: str, boot: int) -> None:
        instance = self.instances[instance_id]
        if instance.state == "pending" and instance.boot == boot:
            self._set_state(instance, "running")
            self._world.tell("instance_running", instance_id)

    def _open_ssh(self, instance_id: str, boot: int) -> None:
        instance = self.instances[instance_id]
        if instance.exists and instance.boot == boot:
            instance.ssh_up = True
            self._world.changed()

    def _show_console(self, instance_id: str) -> None:
        instance = self.instances[instance_id]
        if "console-late" in self._world.conditions:
            self._world.after(timing.CONSOLE_OUTPUT, "ec2", "_show_console", instance_id)
        else:
            instance.console_ready = True

    def _end(self, instance_id: str) -> None:
        instance = self.instances[instance_id]
        instance.subnet.used.discard(instance.private_ip)
        self._set_state(instance, "terminated")
        self._world.tell("instance_terminated", instance_id)
        self._world.after(timing.INSTANCE_FORGOTTEN, "ec2", "_forget", instance_id)

    def _forget(self, instance_id: str) -> None:
        del self.instances[instance_id]
        self._world.changed()

    # Tags

    def tags_of(self, resource_id: str) -> dict[str, str]:
        if resource_id in self.instances:
            # The caller may change them, so serialised parts are out of date.
            self.instances[resource_id].version += 1
            return self.instances[resource_id].tags
        if resource_id in self.templates:
            return self.templates[resource_id].tags
        for pair in self.key_pairs.values():
            if pair.key_pair_id == resource_id:
                return pair.tags
        kind = resource_id.partition("-")[0]
        code = {"i": "InvalidInstanceID.NotFound", "lt": "InvalidLaunchTemplateId.NotFound"}.get(kind, "InvalidID")
        raise Refused(code, f"The ID '{resource_id}' does not exist")


def _profile_name(given: Any) -> str:
    """Return the name of an instance profile: in launch templates a structure of name or ARN, elsewhere a text."""
    named = given.get("Name") or given.get("Arn", "") if isinstance(given, dict) else given or ""
    return str(named).rpartition("/")[2]
