"""An instance's console output, profile and addresses, as EC2 describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.local.api.test_ec2 import ids_of, instances_of

if TYPE_CHECKING:
    from tests.local.api.clients import Rack


def outputs(rack: Rack, instance_id: str) -> tuple[bool, bool]:
    """Return whether there is any console output: as it was buffered, and the latest."""
    ask = rack.ec2.get_console_output
    return "Output" in ask(InstanceId=instance_id), "Output" in ask(InstanceId=instance_id, Latest=True)


def launched(rack: Rack) -> str:
    answer = rack.ec2.run_instances(ImageId="ami-1", InstanceType="t3.small", MinCount=1, MaxCount=1)
    return str(answer["Instances"][0]["InstanceId"])


def test_the_latest_console_output_is_there_before_the_buffered_one(rack: Rack) -> None:
    """GetConsoleOutput, Latest: "When enabled, retrieves the latest console output for the instance"."""
    id_ = launched(rack)
    assert outputs(rack, id_) == (False, False)

    rack.pass_time(25)
    assert outputs(rack, id_) == (False, True)

    rack.pass_time(60)
    assert outputs(rack, id_) == (True, True)


def test_an_old_instance_may_have_nothing_but_its_latest_output(seeded: Rack) -> None:
    """EC2's guide: without it, output is "posted shortly after an instance transition state", and kept for an hour."""
    (id_, *_) = ids_of(seeded.ec2.describe_instances())
    assert outputs(seeded, id_) == (True, True)

    seeded.world.set_condition("console-latest-only")

    assert outputs(seeded, id_) == (False, True)


def test_late_output_is_late_with_and_without_latest(rack: Rack) -> None:
    rack.world.set_condition("console-late")
    id_ = launched(rack)

    rack.pass_time(90)

    assert outputs(rack, id_) == (False, False)


def test_an_instance_has_the_profile_of_its_template(seeded: Rack) -> None:
    """Instance, IamInstanceProfile: "The IAM instance profile associated with the instance, if applicable"."""
    instance: dict[str, Any] = instances_of(seeded.ec2.describe_instances())[0]

    assert instance["IamInstanceProfile"]["Arn"] == "arn:aws:iam::123456789012:instance-profile/ecsInstanceRole"
    plain = seeded.ec2.run_instances(ImageId="ami-1", InstanceType="t3.small", MinCount=1, MaxCount=1)["Instances"][0]
    assert "IamInstanceProfile" not in plain


def test_an_instance_may_have_an_ipv6_address_alone(seeded: Rack) -> None:
    """Instance, Ipv6Address; EC2's guide: an instance in an IPv6-only subnet has no IPv4 address."""
    seeded.world.set_condition("ipv6-only")

    instance = instances_of(seeded.ec2.describe_instances())[0]

    assert instance["Ipv6Address"].startswith("fd00:ec2::")
    assert instance["NetworkInterfaces"][0]["Ipv6Addresses"][0]["Ipv6Address"] == instance["Ipv6Address"]
    assert "PrivateIpAddress" not in instance
    seeded.world.clear_condition("ipv6-only")
    assert "Ipv6Address" not in instances_of(seeded.ec2.describe_instances())[0]
