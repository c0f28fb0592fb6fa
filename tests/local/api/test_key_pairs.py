"""EC2's key pairs, and which public key an instance has.

The texts are those of botocore's model of EC2 (DescribeKeyPairs, KeyPairInfo, DeleteKeyPair, Instance) and of
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/create-key-pairs.html. Where stock moto does the same, it is asked
as well: it has been made by others from the same texts.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

from tests.local.api.clients import ED25519, NOW, Rack, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ test"


@pytest.fixture(params=["the local rack", "stock moto"])
def ec2(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "the local rack":
        yield request.getfixturevalue("rack").ec2
        return
    with mock_aws():
        yield boto3.client("ec2", "us-east-1", aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret")


def shown(ec2: Any, name: str) -> dict[str, Any]:
    (pair,) = ec2.describe_key_pairs(KeyNames=[name], IncludePublicKey=True)["KeyPairs"]
    return {**pair, "PublicKey": pair["PublicKey"].split()[1]}


def test_a_key_pair_is_imported_once(rack: Rack) -> None:
    pair = rack.ec2.import_key_pair(
        KeyName="one",
        PublicKeyMaterial=ED25519,
        TagSpecifications=[{"ResourceType": "key-pair", "Tags": [{"Key": "a", "Value": "b"}]}],
    )
    assert re.fullmatch("[A-Za-z0-9+/]{43}=", pair["KeyFingerprint"])
    assert pair["Tags"] == [{"Key": "a", "Value": "b"}]
    answer = refusal(rack.ec2.import_key_pair, KeyName="one", PublicKeyMaterial=ED25519)
    assert answer == ("InvalidKeyPair.Duplicate", "The keypair 'one' already exists.")
    assert refusal(rack.ec2.import_key_pair, KeyName="two", PublicKeyMaterial=b"no key")[0] == "InvalidKey.Format"


def test_key_pairs_are_found_by_name_id_and_filter(rack: Rack) -> None:
    ids = [rack.ec2.import_key_pair(KeyName=n, PublicKeyMaterial=ED25519)["KeyPairId"] for n in ("one", "two")]

    def names(**parameters: object) -> list[str]:
        return [pair["KeyName"] for pair in rack.ec2.describe_key_pairs(**parameters)["KeyPairs"]]

    assert names() == ["one", "two"]
    assert names(KeyNames=["two"]) == ["two"]
    assert names(KeyPairIds=ids[:1]) == ["one"]
    assert names(Filters=[{"Name": "key-name", "Values": ["t*"]}]) == ["two"]
    assert "PublicKey" not in rack.ec2.describe_key_pairs()["KeyPairs"][0]
    shown = rack.ec2.describe_key_pairs(KeyNames=["one"], IncludePublicKey=True)["KeyPairs"][0]
    assert shown["PublicKey"].split()[:2] == ED25519.decode().split()[:2]
    assert refusal(rack.ec2.describe_key_pairs, KeyNames=["one", "three"])[0] == "InvalidKeyPair.NotFound"


def test_deleting_a_key_pair_that_does_not_exist_is_no_error(rack: Rack) -> None:
    rack.ec2.import_key_pair(KeyName="one", PublicKeyMaterial=ED25519)
    rack.ec2.delete_key_pair(KeyName="one")
    assert rack.ec2.delete_key_pair(KeyName="one")["Return"] is True
    assert rack.ec2.describe_key_pairs()["KeyPairs"] == []


def test_a_name_can_be_reused_for_another_pair(ec2: Any) -> None:
    first = ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=ED25519)["KeyPairId"]
    assert refusal(ec2.import_key_pair, KeyName="ops", PublicKeyMaterial=OTHER)[0] == "InvalidKeyPair.Duplicate"
    ec2.delete_key_pair(KeyName="ops")
    assert refusal(ec2.describe_key_pairs, KeyNames=["ops"])[0] == "InvalidKeyPair.NotFound"

    second = ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=OTHER)["KeyPairId"]

    assert re.fullmatch("key-[0-9a-f]{17}", second)
    assert second != first
    found = shown(ec2, "ops")
    assert (found["KeyPairId"], found["PublicKey"]) == (second, OTHER.decode().split()[1])
    assert isinstance(found["CreateTime"], datetime)


def test_an_id_deletes_no_later_pair_of_the_same_name(rack: Rack) -> None:
    first = rack.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=ED25519)["KeyPairId"]
    rack.ec2.delete_key_pair(KeyName="ops")
    second = rack.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=OTHER)["KeyPairId"]

    rack.ec2.delete_key_pair(KeyPairId=first)

    assert shown(rack.ec2, "ops")["KeyPairId"] == second


def test_ec2_reports_times_in_whole_seconds(rack: Rack) -> None:
    """Its documentation's examples have `.000Z` throughout: CreateTime of key pairs, LaunchTime of instances."""
    rack.pass_time(0.7)
    rack.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=ED25519)
    rack.world.ec2.launch({"KeyName": "ops"})

    assert shown(rack.ec2, "ops")["CreateTime"] == datetime.fromtimestamp(NOW, UTC)
    (instance,) = rack.ec2.describe_instances()["Reservations"][0]["Instances"]
    assert instance["LaunchTime"] == datetime.fromtimestamp(NOW, UTC)


def test_an_instance_that_is_started_again_keeps_its_key_and_the_time_its_interface_was_attached(rack: Rack) -> None:
    """Instance, LaunchTime: "The time that the instance was last launched. To determine the time that instance was
    first launched, see the attachment time for the primary network interface."
    """
    rack.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=ED25519)
    id_ = rack.world.ec2.launch({"KeyName": "ops"}).instance_id
    rack.pass_time(100)
    rack.ec2.stop_instances(InstanceIds=[id_])
    rack.pass_time(100)
    rack.ec2.delete_key_pair(KeyName="ops")
    rack.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=OTHER)
    rack.ec2.start_instances(InstanceIds=[id_])
    rack.pass_time(100)

    (instance,) = rack.ec2.describe_instances()["Reservations"][0]["Instances"]
    assert instance["LaunchTime"] == datetime.fromtimestamp(NOW + 200, UTC)
    (interface,) = instance["NetworkInterfaces"]
    assert interface["Attachment"]["DeviceIndex"] == 0
    assert interface["Attachment"]["AttachTime"] == datetime.fromtimestamp(NOW, UTC)
    (host,) = rack.world.hosts()
    assert host.authorized_key.split()[1] == ED25519.decode().split()[1]


def test_a_group_launches_with_the_key_that_the_name_has_then(seeded: Rack) -> None:
    seeded.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=ED25519)
    seeded.autoscaling.create_launch_configuration(
        LaunchConfigurationName="old-style", ImageId="ami-1", InstanceType="t3.small", KeyName="ops"
    )
    group = {"AutoScalingGroupName": "rack-instances"}
    seeded.autoscaling.update_auto_scaling_group(**group, LaunchConfigurationName="old-style", DesiredCapacity=4)
    seeded.pass_time(60)
    seeded.ec2.delete_key_pair(KeyName="ops")
    seeded.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=OTHER)
    seeded.autoscaling.set_desired_capacity(**group, DesiredCapacity=5)
    seeded.pass_time(60)

    keys = [host.authorized_key.split()[1] for host in seeded.world.hosts() if host.authorized_key]
    assert keys == [key.decode().split()[1] for key in (ED25519, OTHER)]


def test_a_group_whose_key_pair_is_gone_fails_to_launch_until_it_is_back(seeded: Rack) -> None:
    """https://docs.aws.amazon.com/autoscaling/ec2/userguide/ts-as-instancelaunchfailure.html: "The key pair <key pair
    associated with your EC2 instance> does not exist. Launching EC2 instance failed."
    """
    seeded.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=ED25519)
    template = seeded.world.autoscaling.groups["rack-instances"].launch_template
    assert template
    made = seeded.ec2.create_launch_template_version(
        LaunchTemplateId=template["LaunchTemplateId"], SourceVersion="1", LaunchTemplateData={"KeyName": "ops"}
    )["LaunchTemplateVersion"]["VersionNumber"]
    group = {"AutoScalingGroupName": "rack-instances"}
    seeded.autoscaling.update_auto_scaling_group(
        **group, LaunchTemplate={"LaunchTemplateId": template["LaunchTemplateId"], "Version": str(made)}
    )
    seeded.ec2.delete_key_pair(KeyName="ops")
    seeded.autoscaling.set_desired_capacity(**group, DesiredCapacity=4)
    seeded.pass_time(60)

    failed = seeded.autoscaling.describe_scaling_activities(**group)["Activities"][0]
    assert failed["StatusCode"] == "Failed"
    assert failed["StatusMessage"] == "The key pair 'ops' does not exist. Launching EC2 instance failed."
    seeded.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=OTHER)
    seeded.pass_time(120)
    assert len(seeded.world.autoscaling.groups["rack-instances"].members) == 4


def test_a_late_key_pair_is_used_late_and_described_by_every_other_call(rack: Rack) -> None:
    """https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html: a command "might not immediately be
    visible to all subsequent commands".
    """
    first = rack.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=ED25519)["KeyPairId"]
    rack.world.set_condition("key-pairs-late", "10")
    rack.pass_time(60)
    rack.ec2.delete_key_pair(KeyName="ops")
    assert refusal(rack.ec2.import_key_pair, KeyName="ops", PublicKeyMaterial=OTHER)[0] == "InvalidKeyPair.Duplicate"
    rack.pass_time(11)
    second = rack.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=OTHER)["KeyPairId"]

    def seen() -> set[str]:
        return {pair["KeyPairId"] for _ in range(4) for pair in rack.ec2.describe_key_pairs()["KeyPairs"]}

    assert seen() == {second}
    assert refusal(rack.ec2.describe_key_pairs, KeyNames=["ops"])[0] == "InvalidKeyPair.NotFound"
    rack.pass_time(11)
    assert (seen(), shown(rack.ec2, "ops")["KeyPairId"]) == ({second}, second)
    assert first != second


@pytest.mark.parametrize(("after", "expected"), [(5, ED25519), (15, OTHER)])
def test_a_launch_shortly_after_a_change_gets_the_old_key(rack: Rack, after: float, expected: bytes) -> None:
    rack.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=ED25519)
    rack.pass_time(60)
    rack.ec2.delete_key_pair(KeyName="ops")
    rack.ec2.import_key_pair(KeyName="ops", PublicKeyMaterial=OTHER)
    rack.world.set_condition("key-pairs-late", "10")
    rack.pass_time(after)

    launched = rack.world.ec2.launch({"KeyName": "ops"})

    assert launched.authorized_key.split()[1] == expected.decode().split()[1]
