"""The policies of `racks policy` against AWS's service authorization reference, as the package policy_sentry has it.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

import pytest
from policy_sentry.querying.actions import get_action_data

from rackctl.policies import ROLES, grants


class Row(NamedTuple):
    action: str
    resource: str
    condition: str


ROWS = sorted(
    {
        Row(action, grant.resource, grant.condition_key)
        for role in ROLES
        for grant in grants(role)
        for action in grant.actions
    }
)
# Of keys for several regions, of keys that are created with a policy or with tags: rackctl's are neither.
# https://docs.aws.amazon.com/kms/latest/APIReference/API_CreateKey.html ("Required permissions")
NOT_NEEDED = {"iam:CreateServiceLinkedRole", "kms:PutKeyPolicy", "kms:TagResource"}
# A launch needs an image, an instance, a network interface and more: one statement on all of them. Composite alarms are
# described only to those who may describe all alarms (botocore's model of CloudWatch, DescribeAlarms).
ON_ALL = {"ec2:RunInstances", "cloudwatch:DescribeAlarms"}


@cache
def reference(action: str) -> list[dict[str, Any]]:
    """Return the reference's entries for an action, one for each type of resource; empty for an unknown one."""
    service, name = action.split(":")
    found = get_action_data(service, name)
    return list(found[service]) if found else []


def named(row: Row) -> str:
    return f"{row.action} on {row.resource}"


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_each_action_exists(row: Row) -> None:
    assert [found["action"] for found in reference(row.action)][:1] == [row.action]


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_each_action_is_on_a_resource_of_a_type_that_it_takes(row: Row) -> None:
    types = {re.sub(r"\$\{\w+\}", "*", found["resource_arn_format"]) for found in reference(row.action)} - {"*"}
    resource = re.sub(r"<[^>]+>", "*", row.resource).replace("arn:aws:", "arn:*:")

    if resource == "*":
        assert not types or row.action in ON_ALL, f"can be narrowed to one of {sorted(types)}"
    else:
        assert any(fnmatchcase(resource, type_) for type_ in types), f"takes {sorted(types) or '*'}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.condition], ids=named)
def test_each_condition_is_one_that_the_action_has(row: Row) -> None:
    keys = {key for found in reference(row.action) for key in found["condition_keys"]}

    assert any(fnmatchcase(row.condition, re.sub(r"\$\{\w+\}", "*", key)) for key in keys), sorted(keys)


def test_each_action_that_another_depends_on_is_in_the_policies() -> None:
    needed = {action for row in ROWS for found in reference(row.action) for action in found["dependent_actions"]}

    assert needed - {row.action for row in ROWS} == NOT_NEEDED
