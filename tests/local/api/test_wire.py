from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from rackctl.local.api import Api
from rackctl.local.world.base import Refused
from tests.local.api.clients import new_world, refusal

if TYPE_CHECKING:
    from rackctl.local.api import Answer
    from tests.local.api.clients import Rack

TARGET = "AmazonEC2ContainerServiceV20141113"


@pytest.fixture
def api() -> Api:
    return Api(new_world())


def query(api: Api, service: str, **parameters: str) -> tuple[int, str]:
    """Send a query; give the status, and the error code or an empty text."""
    answer = api.respond(service, {}, urlencode(parameters).encode())
    code = re.search(r"<Code>(.+?)</Code>", answer.body.decode())
    return answer.status, code[1] if code else ""


def ecs(api: Api, action: str, body: bytes) -> Answer:
    return api.respond("ecs", {"x-amz-target": f"{TARGET}.{action}"}, body)


def error(answer: Answer) -> str:
    code: str = json.loads(answer.body)["__type"]
    return code


def test_the_action_of_a_request_is_known_before_it_is_carried_out(api: Api) -> None:
    assert api.action_of("ec2", {}, b"Action=DescribeInstances&Version=2016-11-15") == "DescribeInstances"
    assert api.action_of("ecs", {"X-AMZ-TARGET": f"{TARGET}.ListTasks"}, b"{}") == "ListTasks"
    assert api.action_of("autoscaling", {}, b"") == ""
    assert api.action_of("ecs", {"X-Amz-Target": "DynamoDB.ListTables"}, b"{}") == ""
    assert api.action_of("ec2", {}, b"\xff\x00&&==") == ""


def test_every_operation_is_one_of_the_services_own(api: Api) -> None:
    assert {"DescribeInstances", "CreateLaunchTemplateVersion"} <= api.operations("ec2")
    assert {"SetDesiredCapacity", "CreateOrUpdateTags"} <= api.operations("autoscaling")
    assert {"UpdateContainerInstancesState", "ListTasks"} <= api.operations("ecs")
    assert {"call", "methods"} & frozenset().union(*map(api.operations, api.SERVICES)) == set()


@pytest.mark.parametrize(("service", "action"), [("ec2", "CreateVpc"), ("autoscaling", "PutScalingPolicy")])
def test_an_unknown_action_is_refused_as_unsupported(api: Api, service: str, action: str) -> None:
    answer = api.respond(service, {}, urlencode({"Action": action}).encode())
    assert answer.status == 400
    assert b"<Code>InvalidAction</Code>" in answer.body
    assert b"local rack" in answer.body
    assert query(api, service) == (400, "MissingAction")


def test_an_unknown_ecs_operation_is_refused_as_unsupported(rack: Rack) -> None:
    assert refusal(rack.ecs.put_account_setting_default, name="x", value="y") == (
        "UnknownOperationException",
        "The local rack does not support operation PutAccountSettingDefault.",
    )
    assert error(rack.api.respond("ecs", {}, b"{}")) == "MissingAuthenticationTokenException"


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"Action": "DescribeInstances", "Colour": "red"}, "UnknownParameter"),
        ({"Action": "DescribeInstances", "InstanceIds.1": "i-1"}, "UnknownParameter"),
        ({"Action": "DescribeInstances", "InstanceId.x": "i-1"}, "UnknownParameter"),
        ({"Action": "DescribeInstances", "InstanceId.1.Name": "i-1"}, "UnknownParameter"),
        ({"Action": "DescribeInstances", "Filter.1": "i-1"}, "InvalidParameterValue"),
        ({"Action": "DescribeInstances", "MaxResults": "many"}, "InvalidParameterValue"),
        ({"Action": "DescribeInstances", "DryRun": "maybe"}, "InvalidParameterValue"),
        ({"Action": "TerminateInstances"}, "MissingParameter"),
        ({"Action": "ImportKeyPair", "KeyName": "a"}, "MissingParameter"),
        ({"Action": "ImportKeyPair", "KeyName": "a", "PublicKeyMaterial": "***"}, "InvalidParameterValue"),
        ({"Action": "DescribeInstanceAttribute", "InstanceId": "i-1", "Attribute": "x"}, "InvalidParameterValue"),
    ],
    ids=str,
)
def test_a_request_to_ec2_that_is_not_as_its_model_has_it_is_refused(
    api: Api, parameters: dict[str, str], code: str
) -> None:
    assert query(api, "ec2", **parameters) == (400, code)


@pytest.mark.parametrize(
    "parameters",
    [
        {"Action": "DescribeAutoScalingGroups", "Colour": "red"},
        {"Action": "DescribeAutoScalingGroups", "AutoScalingGroupNames.1": "x"},
        {"Action": "DescribeAutoScalingGroups", "AutoScalingGroupNames.member.1": ""},
        {"Action": "DescribeAutoScalingGroups", "MaxRecords": "1.5"},
        {"Action": "SetDesiredCapacity", "AutoScalingGroupName": "x"},
        {"Action": "SetDesiredCapacity", "AutoScalingGroupName": "x" * 256, "DesiredCapacity": "1"},
    ],
    ids=lambda parameters: str(parameters)[:80],
)
def test_a_request_to_auto_scaling_that_is_not_as_its_model_has_it_is_refused(
    api: Api, parameters: dict[str, str]
) -> None:
    assert query(api, "autoscaling", **parameters) == (400, "ValidationError")


@pytest.mark.parametrize(
    ("action", "body", "code"),
    [
        ("ListTasks", b"{", "SerializationException"),
        ("ListTasks", b"[]", "SerializationException"),
        ("ListTasks", b'{"maxResults": "many"}', "InvalidParameterException"),
        ("ListTasks", b'{"colour": "red"}', "InvalidParameterException"),
        ("ListTasks", b'{"desiredStatus": "GONE"}', "InvalidParameterException"),
        ("StopTask", b"{}", "InvalidParameterException"),
        ("StopTask", b'{"task": null}', "InvalidParameterException"),
        ("DescribeTasks", b'{"tasks": "one"}', "InvalidParameterException"),
        ("DescribeTasks", b'{"tasks": []}', "InvalidParameterException"),
        ("ListTasks", b"", "ClusterNotFoundException"),
    ],
    ids=str,
)
def test_a_request_to_ecs_that_is_not_as_its_model_has_it_is_refused(
    api: Api, action: str, body: bytes, code: str
) -> None:
    answer = ecs(api, action, body)
    assert (answer.status, error(answer)) == (400, code)
    assert answer.headers["x-amzn-ErrorType"] == code


@pytest.mark.parametrize(("service", "call"), [
    ("ec2", "describe_instances"), ("autoscaling", "describe_auto_scaling_groups"), ("ecs", "list_clusters"),
])  # fmt: skip
def test_any_error_can_be_written_in_a_services_own_format(
    rack: Rack, monkeypatch: pytest.MonkeyPatch, service: str, call: str
) -> None:
    throttled = Refused("ThrottlingException", "Rate <exceeded>", 400)
    monkeypatch.setattr(rack.api, "respond", lambda service, *_: rack.api.refuse(service, throttled))
    assert refusal(getattr(getattr(rack, service), call)) == ("ThrottlingException", "Rate <exceeded>")


def test_answers_carry_a_request_id_and_their_type(seeded: Rack) -> None:
    for call in (seeded.ec2.describe_vpcs, seeded.autoscaling.describe_account_limits, seeded.ecs.list_clusters):
        answer: Any = call()
        assert re.fullmatch(r"[0-9a-f-]{36}", answer["ResponseMetadata"]["RequestId"])
    assert [answer.headers["Content-Type"] for answer in seeded.answers] == [
        "text/xml;charset=UTF-8",
        "text/xml",
        "application/x-amz-json-1.1",
    ]


def test_a_request_that_is_sent_again_is_carried_out_once(seeded: Rack) -> None:
    """As botocore does when it has had no answer: the same client token, the same parameters."""
    template = seeded.ec2.describe_launch_templates()["LaunchTemplates"][0]["LaunchTemplateId"]
    asked = {"LaunchTemplateId": template, "ClientToken": "one", "LaunchTemplateData": {"ImageId": "ami-1"}}
    create = seeded.ec2.create_launch_template_version
    assert [create(**asked)["LaunchTemplateVersion"]["VersionNumber"] for _ in range(2)] == [2, 2]
    assert create(**{**asked, "ClientToken": "two"})["LaunchTemplateVersion"]["VersionNumber"] == 3
    assert refusal(create, **{**asked, "SourceVersion": "1"})[0] == "IdempotentParameterMismatch"
    run = {"cluster": "rack", "taskDefinition": "worker", "clientToken": "one"}
    assert seeded.ecs.run_task(**run)["tasks"] == seeded.ecs.run_task(**run)["tasks"]
    assert refusal(seeded.ecs.run_task, **run, count=2)[0] == "ConflictException"


def test_a_request_that_was_refused_can_be_sent_again(rack: Rack) -> None:
    asked = {"LaunchTemplateName": "one", "ClientToken": "one", "LaunchTemplateData": {"UserData": "***"}}
    for _ in range(2):
        assert refusal(rack.ec2.create_launch_template, **asked)[0] == "InvalidUserData.Malformed"


def test_only_changing_operations_mark_the_world_as_changed(seeded: Rack) -> None:
    before = seeded.world.version
    seeded.ec2.describe_instances()
    seeded.ecs.list_clusters()
    seeded.ec2.get_console_output(InstanceId=next(iter(seeded.world.ec2.instances)))
    assert seeded.world.version == before
    seeded.autoscaling.suspend_processes(AutoScalingGroupName="rack-instances")
    assert seeded.world.version > before


def test_text_that_xml_cannot_hold_does_not_break_an_answer(seeded: Rack) -> None:
    first = next(iter(seeded.world.ec2.instances.values()))
    first.tags["odd"] = "a\x00b\U0001f600<>&\"'"
    first.version += 1
    answer = seeded.ec2.describe_instances(InstanceIds=[first.instance_id])
    tags = {tag["Key"]: tag["Value"] for tag in answer["Reservations"][0]["Instances"][0]["Tags"]}
    assert tags["odd"] == "a\ufffdb\U0001f600<>&\"'"
