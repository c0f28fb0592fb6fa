"""EC2's response documents."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rackctl.local.api.ec2.volumes import ROOT_DEVICE, block_devices
from rackctl.local.api.operations import Result, derived, tag_documents
from rackctl.local.world.ec2 import INSTANCE_TYPES, Instance, Subnet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackctl.local.world import World
    from rackctl.local.world.templates import LaunchTemplate, LaunchTemplateVersion

STATE_CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
SECURITY_GROUP = "default"

# A platform's details and usage operation.
_PLATFORMS = {"": ("Linux/UNIX", "RunInstances"), "windows": ("Windows", "RunInstances:0002")}
_REASONS = {
    "Client.UserInitiatedShutdown": "User initiated shutdown",
    "Server.SpotInstanceTermination": "Spot instance termination",
}


def iso_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def in_network(instance: Instance) -> bool:
    """Return whether an instance still has its network interface, which a terminated one has not."""
    return instance.state != "terminated"


def private_dns_name(instance: Instance, world: World) -> str:
    domain = "ec2.internal" if world.region == "us-east-1" else f"{world.region}.compute.internal"
    return f"{instance.hostname}.{domain}"


def zone_id(zone: str, region: str) -> str:
    """Return a zone's id: use1-az1 for us-east-1a."""
    area, *directions, number = region.split("-")
    initials = "".join(
        part[0] for direction in directions for part in re.findall("north|south|east|west|central|gov", direction)
    )
    return f"{area}{initials}{number}-az{ord(zone[-1]) - ord('a') + 1}"


def security_groups(world: World) -> list[Result]:
    return [{"GroupId": world.ec2.security_group_id, "GroupName": SECURITY_GROUP}]


def instance_state(name: str) -> Result:
    return {"Code": STATE_CODES[name], "Name": name}


def reservation(instances: Sequence[Instance], world: World) -> Result:
    return {
        "ReservationId": derived("r-", instances[0].instance_id),
        "OwnerId": world.account_id,
        "RequesterId": derived("", instances[0].group, 12) if instances[0].group else None,
        "Groups": [],
        "Instances": [_instance(instance, world) for instance in instances],
    }


def _instance(instance: Instance, world: World) -> Result:
    zone = instance.subnet.availability_zone
    placed = in_network(instance)
    dns = private_dns_name(instance, world)
    reason = instance.state_reason
    cpus, _ = INSTANCE_TYPES.get(instance.instance_type, (2, 2048))
    document: dict[str, Any] = {
        "InstanceId": instance.instance_id,
        "ImageId": instance.image_id,
        "State": instance_state(instance.state),
        "PrivateDnsName": dns if placed else "",
        "PublicDnsName": "",
        "StateTransitionReason": "User initiated" if reason.startswith("Client.") else reason,
        "KeyName": instance.key_name or None,
        "AmiLaunchIndex": 0,
        "ProductCodes": [],
        "InstanceType": instance.instance_type,
        "LaunchTime": instance.launched,
        "Placement": {
            "AvailabilityZone": zone,
            "AvailabilityZoneId": zone_id(zone, world.region),
            "GroupName": "",
            "Tenancy": "default",
        },
        "Monitoring": {"State": "disabled"},
        "Architecture": "x86_64",
        "BlockDeviceMappings": block_devices(instance) if placed else [],
        "ClientToken": derived("", instance.instance_id, 32),
        "EbsOptimized": False,
        "IamInstanceProfile": (
            instance.instance_profile
            and {
                "Arn": f"arn:aws:iam::{world.account_id}:instance-profile/{instance.instance_profile}",
                "Id": derived("AIPA", instance.instance_profile, 17).upper(),
            }
        )
        or None,
        "EnaSupport": True,
        "Hypervisor": "xen",
        "NetworkInterfaces": [_network_interface(instance, dns, world)] if placed else [],
        "RootDeviceName": ROOT_DEVICE,
        "RootDeviceType": "ebs",
        "SecurityGroups": security_groups(world) if placed else [],
        "StateReason": {"Code": reason, "Message": f"{reason}: {_REASONS.get(reason, reason)}"} if reason else None,
        "Tags": tag_documents(instance.tags) or None,
        "VirtualizationType": "hvm",
        "CpuOptions": {"CoreCount": max(1, cpus // 2), "ThreadsPerCore": 2},
        "CapacityReservationSpecification": {"CapacityReservationPreference": "open"},
        "HibernationOptions": {"Configured": False},
        "MetadataOptions": {
            "State": "pending" if instance.state == "pending" else "applied",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 2,
            "HttpEndpoint": "enabled",
            "HttpProtocolIpv6": "disabled",
            "InstanceMetadataTags": "disabled",
        },
        "EnclaveOptions": {"Enabled": False},
        "BootMode": "uefi-preferred",
        "Platform": instance.platform or None,
        "PlatformDetails": _PLATFORMS[instance.platform][0],
        "UsageOperation": _PLATFORMS[instance.platform][1],
        "UsageOperationUpdateTime": instance.launched,
        "MaintenanceOptions": {"AutoRecovery": "default"},
        "CurrentInstanceBootMode": "legacy-bios",
    }
    if placed:
        document |= {
            **_addresses(instance, world),
            "SubnetId": instance.subnet.subnet_id,
            "VpcId": world.ec2.vpc_id,
            "SourceDestCheck": True,
            "PrivateDnsNameOptions": {
                "HostnameType": "ip-name",
                "EnableResourceNameDnsARecord": False,
                "EnableResourceNameDnsAAAARecord": False,
            },
        }
    return document


def ipv6(instance: Instance, world: World) -> str:
    """Return the IPv6 address of an instance that has no IPv4 address; else nothing."""
    digits = "".join(f"{int(part):02x}" for part in instance.private_ip.split("."))
    return f"fd00:ec2::{digits[:4]}:{digits[4:]}" if "ipv6-only" in world.conditions else ""


def _addresses(instance: Instance, world: World) -> Result:
    address = ipv6(instance, world)
    return {"Ipv6Address": address} if address else {"PrivateIpAddress": instance.private_ip}


def _network_interface(instance: Instance, dns: str, world: World) -> Result:
    mac = hashlib.sha256(instance.instance_id.encode()).hexdigest()
    return {
        "Attachment": {
            "AttachTime": instance.first_launched,
            "AttachmentId": derived("eni-attach-0", instance.instance_id, 16),
            "DeleteOnTermination": True,
            "DeviceIndex": 0,
            "Status": "attaching" if instance.state == "pending" else "attached",
            "NetworkCardIndex": 0,
        },
        "Description": "",
        "Groups": security_groups(world),
        "Ipv6Addresses": [{"Ipv6Address": address, "IsPrimaryIpv6": True}]
        if (address := ipv6(instance, world))
        else [],
        # Locally administered addresses, as EC2's are.
        "MacAddress": ":".join(["0a", *(mac[at : at + 2] for at in range(0, 10, 2))]),
        "NetworkInterfaceId": derived("eni-0", instance.instance_id, 16),
        "OwnerId": world.account_id,
        "PrivateDnsName": dns,
        "PrivateIpAddress": None if address else instance.private_ip,
        "PrivateIpAddresses": []
        if address
        else [{"Primary": True, "PrivateDnsName": dns, "PrivateIpAddress": instance.private_ip}],
        "SourceDestCheck": True,
        "Status": "in-use",
        "SubnetId": instance.subnet.subnet_id,
        "VpcId": world.ec2.vpc_id,
        "InterfaceType": "interface",
    }


def image(image_id: str, world: World) -> Result:
    platform = world.ec2.images[image_id]
    return {
        "ImageId": image_id,
        "Name": f"ecs-optimized-{platform or 'linux'}",
        "State": "available",
        "OwnerId": "591542846629",  # the account of Amazon's ECS-optimized images
        "Public": True,
        "Architecture": "x86_64",
        "ImageType": "machine",
        "Platform": platform or None,
        "PlatformDetails": _PLATFORMS[platform][0],
        "UsageOperation": _PLATFORMS[platform][1],
        "RootDeviceName": ROOT_DEVICE,
        "RootDeviceType": "ebs",
        "VirtualizationType": "hvm",
        "Hypervisor": "xen",
    }


def instance_status(instance: Instance, world: World) -> Result:
    zone = instance.subnet.availability_zone
    if instance.state != "running":
        health: Result = {"Status": "not-applicable"}
    elif instance.ssh_up:
        health = {"Status": "ok", "Details": [{"Name": "reachability", "Status": "passed"}]}
    else:
        health = {"Status": "initializing", "Details": [{"Name": "reachability", "Status": "initializing"}]}
    return {
        "AvailabilityZone": zone,
        "AvailabilityZoneId": zone_id(zone, world.region),
        "InstanceId": instance.instance_id,
        "InstanceState": instance_state(instance.state),
        "InstanceStatus": health,
        "SystemStatus": health,
        "AttachedEbsStatus": health,
    }


def console_output(instance: Instance) -> str:
    """Return the console output of Amazon Linux 2 at its first boot, which includes the host keys."""
    stamp = datetime.fromtimestamp(instance.launched + 18, UTC).strftime("<14>%b %d %H:%M:%S ec2: ")
    rule = "#" * 61
    lines = [
        "[    0.000000] Linux version 5.10.220-209.867.amzn2.x86_64 (mockbuild@ip-10-0-40-137) (gcc10-gcc)",
        f"[    0.000000] Command line: BOOT_IMAGE=/boot/vmlinuz root={ROOT_DEVICE}1 ro console=ttyS0,115200n8",
        "[    1.872003] systemd[1]: Detected virtualization kvm.",
        "[    8.214519] cloud-init[2210]: Cloud-init v. 19.3-46.amzn2 running 'modules:config'",
        "",
        "Amazon Linux 2",
        "Kernel 5.10.220-209.867.amzn2.x86_64 on an x86_64",
        "",
        f"{instance.hostname} login: {stamp}",
        f"{stamp}{rule}",
        f"{stamp}-----BEGIN SSH HOST KEY FINGERPRINTS-----",
        *(f"{stamp}{_fingerprint_line(key)}" for key in instance.host_keys),
        f"{stamp}-----END SSH HOST KEY FINGERPRINTS-----",
        f"{stamp}{rule}",
        "-----BEGIN SSH HOST KEY KEYS-----",
        *(key.strip() for key in instance.host_keys),
        "-----END SSH HOST KEY KEYS-----",
        "[   19.706711] cloud-init[2401]: Cloud-init v. 19.3-46.amzn2 finished. Datasource DataSourceEc2.",
        "",
    ]
    return "\r\n".join(lines)


def _fingerprint_line(host_key: str) -> str:
    """Write a host key's fingerprint as `ssh-keygen -lf` does."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    kind, blob, *comment = host_key.split()
    key = load_ssh_public_key(f"{kind} {blob}".encode())
    bits = key.key_size if isinstance(key, RSAPublicKey) else 256
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(blob)).digest()).decode().rstrip("=")
    name = {"ssh-ed25519": "ED25519", "ssh-rsa": "RSA"}.get(kind, "ECDSA")
    return f"{bits} SHA256:{digest} {' '.join(comment) or 'no comment'} ({name})"


def launch_template(template: LaunchTemplate, world: World) -> Result:
    return {
        "LaunchTemplateId": template.launch_template_id,
        "LaunchTemplateName": template.launch_template_name,
        "CreateTime": template.created,
        "CreatedBy": f"arn:aws:iam::{world.account_id}:root",
        "DefaultVersionNumber": template.default_version,
        "LatestVersionNumber": max(template.versions),
        "Tags": tag_documents(template.tags) or None,
    }


def launch_template_version(
    template: LaunchTemplate, version: LaunchTemplateVersion, world: World, *, resolve_alias: bool = False
) -> Result:
    data = version.data
    if resolve_alias and "ImageId" in data:
        data = {**data, "ImageId": world.parameters.resolve(data["ImageId"])}
    return {
        "LaunchTemplateId": template.launch_template_id,
        "LaunchTemplateName": template.launch_template_name,
        "VersionNumber": version.number,
        "VersionDescription": version.description or None,
        "CreateTime": version.created,
        "CreatedBy": f"arn:aws:iam::{world.account_id}:root",
        "DefaultVersion": version.number == template.default_version,
        "LaunchTemplateData": data,
    }


def vpc(world: World) -> Result:
    return {
        "VpcId": world.ec2.vpc_id,
        "State": "available",
        "CidrBlock": world.ec2.cidr,
        "CidrBlockAssociationSet": [
            {
                "AssociationId": derived("vpc-cidr-assoc-0", world.ec2.vpc_id, 16),
                "CidrBlock": world.ec2.cidr,
                "CidrBlockState": {"State": "associated"},
            }
        ],
        "DhcpOptionsId": derived("dopt-0", world.ec2.vpc_id, 16),
        "InstanceTenancy": "default",
        "IsDefault": True,
        "OwnerId": world.account_id,
    }


def subnet(subnet_: Subnet, world: World) -> Result:
    zone = subnet_.availability_zone
    return {
        "SubnetId": subnet_.subnet_id,
        "SubnetArn": f"arn:aws:ec2:{world.region}:{world.account_id}:subnet/{subnet_.subnet_id}",
        "VpcId": world.ec2.vpc_id,
        "State": "available",
        "CidrBlock": str(subnet_.network),
        "AvailabilityZone": zone,
        "AvailabilityZoneId": zone_id(zone, world.region),
        # AWS reserves five addresses of each subnet.
        "AvailableIpAddressCount": subnet_.network.num_addresses - 5 - len(subnet_.used),
        "DefaultForAz": True,
        "MapPublicIpOnLaunch": False,
        "AssignIpv6AddressOnCreation": False,
        "OwnerId": world.account_id,
    }


def security_group(world: World) -> Result:
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "UserIdGroupPairs": []}
    return {
        "GroupId": world.ec2.security_group_id,
        "GroupName": SECURITY_GROUP,
        "Description": "default VPC security group",
        "VpcId": world.ec2.vpc_id,
        "OwnerId": world.account_id,
        "IpPermissions": [everything],
        "IpPermissionsEgress": [everything],
    }


def availability_zone(zone: str, world: World) -> Result:
    return {
        "ZoneName": zone,
        "ZoneId": zone_id(zone, world.region),
        "ZoneType": "availability-zone",
        "State": "available",
        "RegionName": world.region,
        "GroupName": world.region,
        "NetworkBorderGroup": world.region,
        "OptInStatus": "opt-in-not-required",
    }
