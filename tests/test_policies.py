"""The least policy for some roles, as a value."""

from __future__ import annotations

import pytest

from rackctl.policies import ROLES, Facts, grants, policy

NAMED = {
    "<region>": ["eu-west-1"],
    "<account>": ["123456789012"],
    "<cluster>": ["prod"],
    "<rack>": ["prod"],
    "<prefix>": ["rackctl/prod"],
    "<group>": ["one", "two"],
    "<launch template>": ["lt-1"],
    "<bucket>": ["b"],
    "<bucket owner>": ["123456789012"],
    "<key>": ["k"],
}


def statements(*roles: str, **changes: list[str]) -> list[dict[str, object]]:
    named = {**NAMED, **{f"<{name.replace('_', ' ')}>": values for name, values in changes.items()}}
    found: list[dict[str, object]] = policy(roles, Facts(named))["Statement"]
    return found


def of(action: str, found: list[dict[str, object]]) -> list[dict[str, object]]:
    return [s for s in found if action in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])]  # type: ignore[operator]


def test_each_name_is_filled_in_with_all_of_its_values() -> None:
    (terminate,) = of("autoscaling:TerminateInstanceInAutoScalingGroup", statements("terminate"))
    (console,) = of("ec2:GetConsoleOutput", statements("ssh"))

    arn = "arn:aws:autoscaling:eu-west-1:123456789012:autoScalingGroup:*:autoScalingGroupName"
    assert terminate["Resource"] == [f"{arn}/one", f"{arn}/two"]
    assert console["Condition"] == {"StringEquals": {"aws:ResourceTag/aws:autoscaling:groupName": ["one", "two"]}}


def test_resources_that_a_rack_lacks_need_no_permission() -> None:
    without = statements("keyroll")
    numbered = statements("keyroll", numbered_template=["lt-1"], instance_role=["*"], tagging_template=["yes"])

    assert of("ec2:RunInstances", without) == of("iam:PassRole", without) == of("kms:GenerateDataKey", without) == []
    assert of("ec2:RunInstances", numbered)[0]["Condition"] == {
        "ArnEquals": {"ec2:LaunchTemplate": "arn:aws:ec2:eu-west-1:123456789012:launch-template/lt-1"}
    }
    assert len(of("ec2:CreateTags", numbered)) == 1
    assert of("kms:GenerateDataKey", statements("keyroll", **{"bucket's key": ["q"]}))


def test_only_a_rack_whose_groups_get_a_new_key_name_may_import_new_key_pairs() -> None:
    renamed = statements("keyroll", new_key_pair=["prod-keypair-<time>"])
    kept = statements("keyroll", key_pair=["ops", "build"])

    pairs = "arn:aws:ec2:eu-west-1:123456789012:key-pair"
    assert [s["Resource"] for s in of("ec2:ImportKeyPair", renamed)] == [f"{pairs}/prod-keypair-*"]
    assert [s["Resource"] for s in of("ec2:CreateTags", renamed)] == [f"{pairs}/prod-keypair-*"]
    assert [s["Resource"] for s in of("ec2:ImportKeyPair", kept)] == [[f"{pairs}/ops", f"{pairs}/build"]]
    assert [s["Resource"] for s in of("ec2:CreateTags", kept)] == [[f"{pairs}/ops", f"{pairs}/build"]]
    # Those of rackctl's own that nothing has any more are deleted either way.
    assert f"{pairs}/prod-keypair-*" in [s["Resource"] for s in of("ec2:DeleteKeyPair", kept)]


def test_an_action_is_not_repeated_where_a_wider_resource_has_it() -> None:
    assert [s["Resource"] for s in of("s3:GetObject", statements("keyroll"))] == ["arn:aws:s3:::b/rackctl/prod/*"]


@pytest.mark.parametrize("role", [role for role in ROLES if ROLES[role].includes])
def test_a_role_has_the_grants_of_those_that_it_includes(role: str) -> None:
    for included in ROLES[role].includes:
        assert set(grants(included)) <= set(grants(role))


def test_the_partition_of_a_rack_is_in_its_arns() -> None:
    found = policy(["list"], Facts(NAMED, "aws-cn"))["Statement"]

    resources = {resource for s in found if (resource := str(s["Resource"])) != "*"}
    assert all(resource.startswith("arn:aws-cn:") for resource in resources)


def test_no_policy_allows_every_action_of_a_service_or_lets_names_stand() -> None:
    every = {name: ["x"] for role in ROLES for grant in grants(role) for name in grant.names}
    text = str(policy(ROLES, Facts(every)))

    assert "<" not in text
    assert ":*'" not in text.replace("arn:", "")
