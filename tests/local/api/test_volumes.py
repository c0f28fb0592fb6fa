"""The volumes of instances: which of them came from a snapshot, and which are empty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.local.api.clients import refusal

if TYPE_CHECKING:
    from tests.local.api.clients import Rack

SNAPSHOT = "snap-0123456789abcdef0"
MAPPINGS = [{"DeviceName": "/dev/xvdb", "Ebs": {"SnapshotId": SNAPSHOT, "VolumeSize": 100, "VolumeType": "gp3"}}]


def volumes_of(rack: Rack, instance_id: str) -> dict[str, dict[str, Any]]:
    filters = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    found = rack.ec2.describe_volumes(Filters=filters)["Volumes"]
    return {volume["Attachments"][0]["Device"]: volume for volume in found}


def launched(rack: Rack, version: str) -> str:
    template = {"LaunchTemplateName": "data", "Version": version}
    return str(rack.ec2.run_instances(LaunchTemplate=template, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"])


def test_an_instance_of_a_version_that_lost_its_snapshot_has_an_empty_volume(rack: Rack) -> None:
    """aws-cli issue 4297: a version made with SourceVersion loses the snapshots of its block devices."""
    data = {"ImageId": "ami-1", "InstanceType": "t3.small", "BlockDeviceMappings": MAPPINGS}
    rack.ec2.create_launch_template(LaunchTemplateName="data", LaunchTemplateData=data)
    rack.ec2.create_launch_template_version(
        LaunchTemplateName="data", SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.large"}
    )

    before, after = volumes_of(rack, launched(rack, "1")), volumes_of(rack, launched(rack, "2"))

    assert before["/dev/xvdb"]["SnapshotId"] == SNAPSHOT
    assert after["/dev/xvdb"]["SnapshotId"] == ""
    assert [v["/dev/xvdb"]["Size"] for v in (before, after)] == [100, 100]
    assert before["/dev/xvda"]["SnapshotId"] == after["/dev/xvda"]["SnapshotId"] != ""


def test_volumes_are_those_that_the_instance_names(seeded: Rack) -> None:
    instance = seeded.ec2.describe_instances()["Reservations"][0]["Instances"][0]
    (named,) = [mapping["Ebs"]["VolumeId"] for mapping in instance["BlockDeviceMappings"]]

    (volume,) = seeded.ec2.describe_volumes(VolumeIds=[named])["Volumes"]

    assert volume["Attachments"][0]["InstanceId"] == instance["InstanceId"]
    unknown = ["vol-00000000000000000"]
    assert refusal(seeded.ec2.describe_volumes, VolumeIds=unknown)[0] == "InvalidVolume.NotFound"
