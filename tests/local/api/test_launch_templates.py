"""Versions of launch templates: copied and lost data, images, tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackctl.local.world.ec2 import WINDOWS_IMAGE
from tests.local.api.clients import ED25519, refusal

if TYPE_CHECKING:
    from tests.local.api.clients import Rack

SNAPSHOT = "snap-0123456789abcdef0"
DATA: dict[str, Any] = {
    "ImageId": "ami-0123456789abcdef0",
    "InstanceType": "t3.small",
    "UserData": "IyEvYmluL3NoCg==",
    "BlockDeviceMappings": [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 30, "VolumeType": "gp3", "DeleteOnTermination": True}},
        {"DeviceName": "/dev/xvdb", "Ebs": {"SnapshotId": SNAPSHOT, "Encrypted": True, "Iops": 3000}},
        {"DeviceName": "/dev/xvdc", "VirtualName": "ephemeral0"},
    ],
    "TagSpecifications": [{"ResourceType": "volume", "Tags": [{"Key": "a", "Value": "b"}]}],
    "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    "IamInstanceProfile": {"Name": "ecsInstanceRole"},
    "NetworkInterfaces": [{"DeviceIndex": 0, "Groups": ["sg-1"], "AssociatePublicIpAddress": False}],
    "InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.02"}},
    "CpuOptions": {"CoreCount": 1, "ThreadsPerCore": 1},
    "Monitoring": {"Enabled": True},
    "DisableApiTermination": False,
}


@pytest.fixture
def template(rack: Rack) -> str:
    made = rack.ec2.create_launch_template(LaunchTemplateName="hosts", LaunchTemplateData=DATA)
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def data_of(rack: Rack, template: str, version: int) -> dict[str, Any]:
    answer = rack.ec2.describe_launch_template_versions(LaunchTemplateId=template, Versions=[str(version)])
    found: dict[str, Any] = answer["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    return found


def test_a_version_is_described_with_all_of_its_data(rack: Rack, template: str) -> None:
    """EC2's model: ResponseLaunchTemplateData has every member of RequestLaunchTemplateData, and members of those."""
    assert data_of(rack, template, 1) == DATA


def test_a_version_made_from_another_loses_the_snapshots_of_its_block_devices(rack: Rack, template: str) -> None:
    """CreateLaunchTemplateVersion, SourceVersion: "Snapshots applied to the block device mapping are ignored …"."""
    rack.ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"KeyName": "other"}
    )

    copied = data_of(rack, template, 2)

    mappings = [
        {**mapping, "Ebs": {k: v for k, v in mapping["Ebs"].items() if k != "SnapshotId"}}
        if "Ebs" in mapping
        else mapping
        for mapping in DATA["BlockDeviceMappings"]
    ]
    assert copied == {**DATA, "KeyName": "other", "BlockDeviceMappings": mappings}
    assert data_of(rack, template, 1) == DATA


def test_snapshots_that_are_given_again_stay(rack: Rack, template: str) -> None:
    """CreateLaunchTemplateVersion, SourceVersion: "… ignored … unless they are explicitly included"."""
    again = {"KeyName": "other", "BlockDeviceMappings": DATA["BlockDeviceMappings"]}

    rack.ec2.create_launch_template_version(LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData=again)

    assert data_of(rack, template, 2) == {**DATA, **again}


# Images


def test_an_instance_of_a_windows_image_has_its_platform(rack: Rack) -> None:
    """EC2's model, Instance, Platform: "This value is `windows` for Windows instances; otherwise, empty."."""
    launched = rack.ec2.run_instances(ImageId=WINDOWS_IMAGE, InstanceType="t3.large", MinCount=1, MaxCount=1)

    assert launched["Instances"][0]["Platform"] == "windows"
    assert launched["Instances"][0]["PlatformDetails"] == "Windows"
    assert rack.ec2.describe_images(ImageIds=[WINDOWS_IMAGE])["Images"][0]["Platform"] == "windows"
    linux = rack.ec2.run_instances(ImageId="ami-1", InstanceType="t3.large", MinCount=1, MaxCount=1)
    assert "Platform" not in linux["Instances"][0]


def test_a_windows_instance_is_not_launched_with_an_ed25519_key(rack: Rack) -> None:
    """splunk/attack_range pull request 901 has EC2's answer: Unsupported."""
    rack.ec2.import_key_pair(KeyName="k", PublicKeyMaterial=ED25519)
    launch: Any = {"ImageId": WINDOWS_IMAGE, "InstanceType": "t3.large", "MinCount": 1, "MaxCount": 1, "KeyName": "k"}

    code, message = refusal(rack.ec2.run_instances, **launch)

    assert code == "Unsupported"
    assert message.startswith("ED25519 key pairs are not supported with Windows AMIs.")


def test_a_key_pair_has_the_time_of_its_creation(rack: Rack) -> None:
    """EC2's model, KeyPairInfo, CreateTime: "If you imported an existing key pair", its import."""
    rack.ec2.import_key_pair(KeyName="k", PublicKeyMaterial=ED25519)
    imported = rack.world.now
    rack.pass_time(60)

    assert rack.ec2.describe_key_pairs()["KeyPairs"][0]["CreateTime"].timestamp() == imported


def test_an_image_that_a_parameter_names_is_shown_as_it_is_named_and_resolved_on_request(rack: Rack) -> None:
    """DescribeLaunchTemplateVersions, ResolveAlias: "If true … the AMI ID is displayed … If false … the parameter"."""
    rack.ssm.put_parameter(Name="/ops/image", Value="ami-0123456789abcdef0", Type="String")
    made = rack.ec2.create_launch_template(
        LaunchTemplateName="by-parameter", LaunchTemplateData={"ImageId": "resolve:ssm:/ops/image"}
    )
    id_ = made["LaunchTemplate"]["LaunchTemplateId"]

    def image(*, resolve: bool) -> str:
        answer = rack.ec2.describe_launch_template_versions(LaunchTemplateId=id_, Versions=["1"], ResolveAlias=resolve)
        return str(answer["LaunchTemplateVersions"][0]["LaunchTemplateData"]["ImageId"])

    assert image(resolve=False) == "resolve:ssm:/ops/image"
    assert image(resolve=True) == "ami-0123456789abcdef0"


def test_an_instance_launched_from_a_template_is_tagged_with_it(rack: Rack, template: str) -> None:
    """EC2's user guide, "Launch instances from a launch template": two tags are assigned by EC2 itself."""
    rack.ec2.import_key_pair(KeyName="k", PublicKeyMaterial=ED25519)
    launched = rack.ec2.run_instances(LaunchTemplate={"LaunchTemplateId": template}, MinCount=1, MaxCount=1)

    tags = {tag["Key"]: tag["Value"] for tag in launched["Instances"][0]["Tags"]}
    assert tags["aws:ec2launchtemplate:id"] == template
    assert tags["aws:ec2launchtemplate:version"] == "1"


def test_a_parameter_is_overwritten_only_with_overwrite_and_aws_s_own_never(rack: Rack) -> None:
    """SSM's model: PutParameter, Overwrite; names that begin with /aws are reserved."""
    rack.ssm.put_parameter(Name="/ops/image", Value="ami-1", Type="String")

    again = {"Name": "/ops/image", "Value": "ami-2", "Type": "String"}

    assert refusal(rack.ssm.put_parameter, **again)[0] == "ParameterAlreadyExists"
    assert rack.ssm.put_parameter(**again, Overwrite=True)["Version"] == 2
    assert rack.ssm.get_parameter(Name="/ops/image")["Parameter"]["Value"] == "ami-2"
    assert refusal(rack.ssm.put_parameter, **{**again, "Name": "/aws/x"})[0] == "AccessDeniedException"
