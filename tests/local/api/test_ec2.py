from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from rackctl.local.api import Api
from tests.local.api.clients import ED25519, new_world, refusal

if TYPE_CHECKING:
    from tests.local.api.clients import Rack


def instances_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]


def ids_of(answer: dict[str, Any]) -> list[str]:
    return [instance["InstanceId"] for instance in instances_of(answer)]


# Instances


def test_an_instance_is_described_in_full(seeded: Rack) -> None:
    instance = instances_of(seeded.ec2.describe_instances())[0]
    known = seeded.world.ec2.instances[instance["InstanceId"]]
    assert instance["State"] == {"Code": 16, "Name": "running"}
    assert instance["PrivateIpAddress"] == known.private_ip
    assert instance["LaunchTime"].timestamp() == known.launched
    assert instance["Placement"]["AvailabilityZone"] == known.subnet.availability_zone
    assert {"Key": "aws:autoscaling:groupName", "Value": "rack-instances"} in instance["Tags"]
    assert instance["NetworkInterfaces"][0]["PrivateIpAddress"] == known.private_ip
    assert len(instance["BlockDeviceMappings"]) == 1
    assert "PublicIpAddress" not in instance


def test_an_instance_passes_through_its_states_and_loses_its_network_interface_at_the_end(seeded: Rack) -> None:
    first = ids_of(seeded.ec2.describe_instances())[0]

    def described() -> dict[str, Any]:
        return instances_of(seeded.ec2.describe_instances(InstanceIds=[first]))[0]

    answer = seeded.ec2.terminate_instances(InstanceIds=[first])["TerminatingInstances"][0]
    assert (answer["PreviousState"]["Name"], answer["CurrentState"]["Name"]) == ("running", "shutting-down")
    assert described()["State"]["Name"] == "shutting-down"
    assert described()["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    seeded.pass_time(60)
    assert described()["State"] == {"Code": 48, "Name": "terminated"}
    assert "PrivateIpAddress" not in described()
    assert described()["NetworkInterfaces"] == []
    seeded.pass_time(3700)
    assert refusal(seeded.ec2.describe_instances, InstanceIds=[first])[0] == "InvalidInstanceID.NotFound"


def test_a_tag_that_changes_shows_at_once(seeded: Rack) -> None:
    first = ids_of(seeded.ec2.describe_instances())[0]
    seeded.ec2.create_tags(Resources=[first], Tags=[{"Key": "Purpose", "Value": "Build <&>"}])
    found = seeded.ec2.describe_instances(Filters=[{"Name": "tag:Purpose", "Values": ["Build <&>"]}])
    assert ids_of(found) == [first]
    assert {"Key": "Purpose", "Value": "Build <&>"} in instances_of(found)[0]["Tags"]
    seeded.ec2.delete_tags(Resources=[first], Tags=[{"Key": "Purpose"}])
    assert ids_of(seeded.ec2.describe_instances(Filters=[{"Name": "tag-key", "Values": ["Purpose"]}])) == []


@pytest.mark.parametrize(
    ("name", "values", "count"),
    [
        ("tag:Rack", ["rack"], 3),
        ("tag:Rack", ["r?ck", "nothing"], 3),
        ("tag:Name", ["*-instance"], 3),
        ("tag:Name", [r"\*-instance"], 0),
        ("tag:Name", ["Rack-instance"], 0),
        ("tag-key", ["aws:autoscaling:*"], 3),
        ("instance-state-name", ["running", "pending"], 3),
        ("instance-state-name", ["stopped"], 0),
        ("availability-zone", ["us-east-1b"], 1),
        ("private-ip-address", ["127.77.16.*"], 1),
        ("instance-type", ["t3.small"], 3),
        ("key-name", ["none"], 0),
        ("image-id", ["ami-*"], 3),
    ],
)
def test_filters_choose_by_value_and_wildcard(seeded: Rack, name: str, values: list[str], count: int) -> None:
    assert len(ids_of(seeded.ec2.describe_instances(Filters=[{"Name": name, "Values": values}]))) == count


def test_an_unknown_filter_is_refused_even_when_there_are_no_instances(rack: Rack) -> None:
    answer = refusal(rack.ec2.describe_instances, Filters=[{"Name": "Rack", "Values": ["x"]}])
    assert answer == ("InvalidParameterValue", "The filter 'Rack' is invalid")


def test_a_filter_takes_200_values(rack: Rack) -> None:
    values = [f"i-{number:017x}" for number in range(201)]
    assert rack.ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": values[:200]}])["Reservations"] == []
    answer = refusal(rack.ec2.describe_instances, Filters=[{"Name": "instance-id", "Values": values}])
    assert answer[0] == "FilterLimitExceeded"


def test_ids_and_page_sizes_exclude_each_other(seeded: Rack) -> None:
    first = ids_of(seeded.ec2.describe_instances())[0]
    answer = refusal(seeded.ec2.describe_instances, InstanceIds=[first], MaxResults=10)
    assert answer[0] == "InvalidParameterCombination"


@pytest.mark.parametrize("size", [0, 4, 1001])
def test_a_page_holds_5_to_1000_instances(rack: Rack, size: int) -> None:
    code, message = refusal(rack.ec2.describe_instances, MaxResults=size)
    assert code == "InvalidParameterValue"
    assert f"( {size} )" in message


def test_pages_cover_every_instance_once() -> None:
    world = new_world()
    world.seed("rack", 1201)
    api = Api(world)

    def page(token: str = "") -> tuple[list[str], str]:
        # Parsing a thousand full documents takes botocore over a second.
        query = {"Action": "DescribeInstances", "Version": "2016-11-15", **({"NextToken": token} if token else {})}
        body = api.respond("ec2", {}, urlencode(query).encode()).body.decode()
        following = re.search("<nextToken>(.+?)</nextToken>", body)
        return re.findall("<instanceId>(.+?)</instanceId>", body), following[1] if following else ""

    first, token = page()
    second, end = page(token)
    assert (len(first), len(second), end) == (1000, 201, "")
    assert {*first, *second} == world.ec2.instances.keys()


def test_an_item_that_ends_between_two_pages_shifts_no_other(rack: Rack) -> None:
    rack.world.seed("rack", 12)
    first = rack.ec2.describe_instances(MaxResults=5)
    every = sorted(rack.world.ec2.instances)
    del rack.world.ec2.instances[every[2]]
    rest = rack.ec2.describe_instances(MaxResults=10, NextToken=first["NextToken"])
    assert ids_of(first) + ids_of(rest) == every


def test_a_token_is_valid_only_for_the_same_request(seeded: Rack) -> None:
    seeded.world.seed("other", 12)
    token = seeded.ec2.describe_instances(MaxResults=5)["NextToken"]
    running = [{"Name": "instance-state-name", "Values": ["running"]}]
    for parameters in ({"NextToken": token, "Filters": running}, {"NextToken": "AAAA"}, {"NextToken": f"{token}A"}):
        assert refusal(seeded.ec2.describe_instances, **parameters)[0] == "InvalidNextToken"


def test_a_malformed_instance_id_and_an_unknown_one_have_different_errors(seeded: Rack) -> None:
    first = ids_of(seeded.ec2.describe_instances())[0]
    unknown = ["i-00000000000000000", "i-11111111"]
    for call in (seeded.ec2.describe_instances, seeded.ec2.terminate_instances):
        assert refusal(call, InstanceIds=[first, "i-nothex"])[0] == "InvalidInstanceID.Malformed"
        assert refusal(call, InstanceIds=[first, unknown[0]]) == (
            "InvalidInstanceID.NotFound",
            "The instance ID 'i-00000000000000000' does not exist",
        )
        assert refusal(call, InstanceIds=unknown)[1] == f"The instance IDs '{', '.join(unknown)}' do not exist"
    assert len(ids_of(seeded.ec2.describe_instances())) == 3
    assert seeded.world.ec2.instances[first].exists


def test_a_protected_instance_is_not_terminated(seeded: Rack) -> None:
    first, second, _ = ids_of(seeded.ec2.describe_instances())
    seeded.ec2.modify_instance_attribute(InstanceId=second, DisableApiTermination={"Value": True})
    answer = seeded.ec2.describe_instance_attribute(InstanceId=second, Attribute="disableApiTermination")
    assert answer["DisableApiTermination"] == {"Value": True}
    assert refusal(seeded.ec2.terminate_instances, InstanceIds=[first, second])[0] == "OperationNotPermitted"
    assert seeded.world.ec2.instances[first].exists
    seeded.ec2.modify_instance_attribute(InstanceId=second, DisableApiTermination={"Value": False})
    seeded.ec2.terminate_instances(InstanceIds=[second])
    assert not seeded.world.ec2.instances[second].exists


def test_user_data_can_be_read_back(seeded: Rack) -> None:
    first = ids_of(seeded.ec2.describe_instances())[0]
    answer = seeded.ec2.describe_instance_attribute(InstanceId=first, Attribute="userData")
    assert b"ECS_CLUSTER=rack" in base64.b64decode(answer["UserData"]["Value"])


def test_a_dry_run_is_an_error_and_changes_nothing(seeded: Rack) -> None:
    first = ids_of(seeded.ec2.describe_instances())[0]
    assert refusal(seeded.ec2.terminate_instances, InstanceIds=[first], DryRun=True)[0] == "DryRunOperation"
    assert seeded.answers[-1].status == 412
    assert seeded.world.ec2.instances[first].exists


def test_console_output_comes_late_and_carries_the_host_keys(rack: Rack) -> None:
    run = rack.ec2.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1)["Instances"][0]
    assert run["State"]["Name"] == "pending"
    instance = rack.world.ec2.instances[run["InstanceId"]]
    instance.host_keys = (f"{ED25519.decode().rpartition(' ')[0]} root@{instance.hostname}",)
    assert "Output" not in rack.ec2.get_console_output(InstanceId=run["InstanceId"])
    rack.pass_time(120)
    output = rack.ec2.get_console_output(InstanceId=run["InstanceId"])["Output"]
    keys = re.search("-----BEGIN SSH HOST KEY KEYS-----\r\n(.*?)\r\n-----END SSH HOST KEY KEYS-----", output, re.DOTALL)
    assert keys is not None
    assert keys[1] == instance.host_keys[0]
    assert re.search(
        r"BEGIN SSH HOST KEY FINGERPRINTS-----\r\n.* ec2: 256 SHA256:[\w+/]{43} root@ip-\S+ \(ED25519\)\r\n", output
    )


def test_run_instances_takes_a_launch_template(rack: Rack) -> None:
    rack.ec2.create_launch_template(
        LaunchTemplateName="one",
        LaunchTemplateData={
            "ImageId": "ami-1",
            "InstanceType": "m5.large",
            "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "From", "Value": "template"}]}],
        },
    )
    run = rack.ec2.run_instances(LaunchTemplate={"LaunchTemplateName": "one"}, MinCount=2, MaxCount=2)["Instances"]
    assert [instance["InstanceType"] for instance in run] == ["m5.large", "m5.large"]
    assert {"Key": "From", "Value": "template"} in run[0]["Tags"]


def test_status_checks_are_of_running_instances_unless_all_are_included(rack: Rack) -> None:
    rack.ec2.run_instances(ImageId="ami-1", MinCount=1, MaxCount=1)
    assert rack.ec2.describe_instance_status()["InstanceStatuses"] == []
    status = rack.ec2.describe_instance_status(IncludeAllInstances=True)["InstanceStatuses"][0]
    assert status["InstanceState"]["Name"] == "pending"
    rack.pass_time(60)
    assert rack.ec2.describe_instance_status()["InstanceStatuses"][0]["InstanceStatus"]["Status"] == "ok"


# Launch templates


@pytest.fixture
def template(rack: Rack) -> str:
    data = {
        "ImageId": "ami-1",
        "InstanceType": "t3.small",
        "KeyName": "old",
        "UserData": "IyEvYmluL3No",
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 30, "Encrypted": True}}],
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}],
    }
    answer = rack.ec2.create_launch_template(LaunchTemplateName="one", LaunchTemplateData=data)
    template_id: str = answer["LaunchTemplate"]["LaunchTemplateId"]
    return template_id


def test_a_new_version_copies_its_source_and_overrides_the_given_data(rack: Rack, template: str) -> None:
    made = rack.ec2.create_launch_template_version(
        LaunchTemplateId=template, SourceVersion="1", LaunchTemplateData={"KeyName": "new"}, VersionDescription="d"
    )["LaunchTemplateVersion"]
    assert (made["VersionNumber"], made["DefaultVersion"], made["VersionDescription"]) == (2, False, "d")
    first, second = (
        rack.ec2.describe_launch_template_versions(LaunchTemplateId=template, Versions=[n])["LaunchTemplateVersions"][0]
        for n in ("1", "2")
    )
    assert second["LaunchTemplateData"] == {**first["LaunchTemplateData"], "KeyName": "new"}
    assert first["LaunchTemplateData"]["BlockDeviceMappings"][0]["Ebs"] == {"VolumeSize": 30, "Encrypted": True}


def test_a_new_version_without_a_source_has_only_the_given_data(rack: Rack, template: str) -> None:
    made = rack.ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData={"KeyName": "new"})
    assert made["LaunchTemplateVersion"]["LaunchTemplateData"] == {"KeyName": "new"}


def test_latest_default_and_numbers_name_versions(rack: Rack, template: str) -> None:
    for name in ("two", "three"):
        rack.ec2.create_launch_template_version(LaunchTemplateName="one", LaunchTemplateData={"KeyName": name})

    def numbers(**parameters: object) -> list[int]:
        answer = rack.ec2.describe_launch_template_versions(LaunchTemplateId=template, **parameters)
        return [version["VersionNumber"] for version in answer["LaunchTemplateVersions"]]

    assert numbers(Versions=["$Latest"]) == [3]
    assert numbers(Versions=["$Default"]) == [1]
    assert numbers(Versions=["$Default", "2"]) == [2, 1]
    assert numbers() == [3, 2, 1]
    assert numbers(MinVersion="2", MaxVersion="2") == [2]
    answer = rack.ec2.modify_launch_template(LaunchTemplateId=template, DefaultVersion="2")["LaunchTemplate"]
    assert (answer["DefaultVersionNumber"], answer["LatestVersionNumber"]) == (2, 3)
    assert numbers(Versions=["$Default"]) == [2]
    code, _ = refusal(rack.ec2.describe_launch_template_versions, LaunchTemplateId=template, Versions=["9"])
    assert code == "InvalidLaunchTemplateId.VersionNotFound"


def test_versions_are_described_in_pages(rack: Rack, template: str) -> None:
    for _ in range(4):
        rack.ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData={"ImageId": "ami-2"})
    pages = rack.ec2.get_paginator("describe_launch_template_versions").paginate(
        LaunchTemplateId=template, PaginationConfig={"PageSize": 2}
    )
    assert [[v["VersionNumber"] for v in page["LaunchTemplateVersions"]] for page in pages] == [[5, 4], [3, 2], [1]]


def test_versions_of_all_templates_are_only_the_latest_and_the_default(rack: Rack, template: str) -> None:
    rack.ec2.create_launch_template(LaunchTemplateName="two", LaunchTemplateData={"ImageId": "ami-2"})
    rack.ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData={"ImageId": "ami-2"})
    answer = rack.ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"]
    assert {(v["LaunchTemplateName"], v["VersionNumber"]) for v in answer} == {("one", 2), ("two", 1)}
    assert refusal(rack.ec2.describe_launch_template_versions, Versions=["1"])[0] == "MissingParameter"


def test_deleting_versions_reports_each_that_could_not_be_deleted(rack: Rack, template: str) -> None:
    for _ in range(2):
        rack.ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData={"ImageId": "ami-2"})
    answer = rack.ec2.delete_launch_template_versions(LaunchTemplateId=template, Versions=["1", "3", "9"])
    assert [v["VersionNumber"] for v in answer["SuccessfullyDeletedLaunchTemplateVersions"]] == [3]
    assert [
        (v["VersionNumber"], v["ResponseError"]["Code"]) for v in answer["UnsuccessfullyDeletedLaunchTemplateVersions"]
    ] == [(1, "unexpectedError"), (9, "launchTemplateVersionDoesNotExist")]
    # The number of a deleted version is never given again.
    made = rack.ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData={"ImageId": "ami-3"})
    assert made["LaunchTemplateVersion"]["VersionNumber"] == 4


def test_latest_is_the_newest_version_that_is_left(rack: Rack, template: str) -> None:
    for _ in range(2):
        rack.ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData={"ImageId": "ami-2"})
    rack.ec2.delete_launch_template_versions(LaunchTemplateId=template, Versions=["3"])
    assert rack.ec2.describe_launch_templates()["LaunchTemplates"][0]["LatestVersionNumber"] == 2
    answer = rack.ec2.describe_launch_template_versions(LaunchTemplateId=template, Versions=["$Latest"])
    assert answer["LaunchTemplateVersions"][0]["VersionNumber"] == 2


def test_templates_are_found_by_id_name_and_tag(rack: Rack, template: str) -> None:
    rack.ec2.create_tags(Resources=[template], Tags=[{"Key": "Rack", "Value": "prod"}])
    for parameters in (
        {"LaunchTemplateIds": [template]},
        {"LaunchTemplateNames": ["one"]},
        {"Filters": [{"Name": "tag:Rack", "Values": ["prod"]}]},
    ):
        found = rack.ec2.describe_launch_templates(**parameters)["LaunchTemplates"]
        assert [one["LaunchTemplateId"] for one in found] == [template]
    assert refusal(rack.ec2.describe_launch_templates, LaunchTemplateNames=["two"])[0] == (
        "InvalidLaunchTemplateName.NotFoundException"
    )
    unknown = "lt-00000000000000000"
    assert refusal(rack.ec2.delete_launch_template, LaunchTemplateId=unknown)[0] == "InvalidLaunchTemplateId.NotFound"
    assert refusal(rack.ec2.delete_launch_template, LaunchTemplateId="x")[0] == "InvalidLaunchTemplateId.Malformed"
    rack.ec2.delete_launch_template(LaunchTemplateName="one")
    assert rack.ec2.describe_launch_templates()["LaunchTemplates"] == []


def test_a_template_name_is_unique(rack: Rack, template: str) -> None:
    again = {"LaunchTemplateName": "one", "LaunchTemplateData": {"ImageId": "ami-1"}}
    assert refusal(rack.ec2.create_launch_template, **again)[0] == ("InvalidLaunchTemplateName.AlreadyExistsException")


def test_user_data_that_is_not_base64_is_refused(rack: Rack) -> None:
    parameters = {"LaunchTemplateName": "one", "LaunchTemplateData": {"UserData": "#!/bin/sh"}}
    assert refusal(rack.ec2.create_launch_template, **parameters)[0] == "InvalidUserData.Malformed"


# Tags and networks


def test_tags_with_aws_s_own_prefix_are_refused(seeded: Rack) -> None:
    first = ids_of(seeded.ec2.describe_instances())[0]
    tags = [{"Key": "aws:autoscaling:groupName", "Value": "x"}]
    assert refusal(seeded.ec2.create_tags, Resources=[first], Tags=tags)[0] == "InvalidParameterValue"
    assert refusal(seeded.ec2.delete_tags, Resources=[first], Tags=tags)[0] == "InvalidParameterValue"
    seeded.ec2.delete_tags(Resources=[first])
    left = seeded.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [first]}])["Tags"]
    assert {(tag["ResourceType"], tag["Key"].split(":")[0]) for tag in left} == {("instance", "aws")}


def test_tags_of_a_resource_that_does_not_exist_are_refused(rack: Rack) -> None:
    parameters = {"Resources": ["i-00000000000000000"], "Tags": [{"Key": "a", "Value": "b"}]}
    assert refusal(rack.ec2.create_tags, **parameters)[0] == "InvalidInstanceID.NotFound"


def test_the_network_can_be_read(seeded: Rack) -> None:
    vpc = seeded.ec2.describe_vpcs()["Vpcs"][0]
    assert vpc["CidrBlock"] == "127.77.0.0/16"
    subnets = seeded.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]
    assert [subnet["AvailabilityZone"] for subnet in subnets] == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert subnets[0]["AvailableIpAddressCount"] == 4096 - 5 - 1
    in_b = seeded.ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1b"]}])["Subnets"]
    assert [subnet["SubnetId"] for subnet in in_b] == [subnets[1]["SubnetId"]]
    assert seeded.ec2.describe_security_groups()["SecurityGroups"][0]["VpcId"] == vpc["VpcId"]
    zones = seeded.ec2.describe_availability_zones(ZoneNames=["us-east-1a"])["AvailabilityZones"]
    assert [zone["ZoneId"] for zone in zones] == ["use1-az1"]
    assert [region["RegionName"] for region in seeded.ec2.describe_regions()["Regions"]] == ["us-east-1"]
    assert refusal(seeded.ec2.describe_subnets, SubnetIds=["subnet-1"])[0] == "InvalidSubnetID.NotFound"
