"""docs/permissions.md against AWS's service authorization reference, as the package policy_sentry has it.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from policy_sentry.querying.actions import get_action_data

PAGE = (Path(__file__).parents[2] / "docs" / "permissions.md").read_text(encoding="utf-8")
ROW = re.compile(r"\| `(?P<action>[\w-]+:\w+)` \| `(?P<resource>[^`]+)` \| (?:`(?P<condition>[^`]+)` )?\|")
ROWS = [match.groupdict() for match in map(ROW.fullmatch, PAGE.splitlines()) if match]
# A launch needs an image, an instance, a network interface and more: one statement on all of them.
ON_ALL = {"ec2:RunInstances"}


@cache
def reference(action: str) -> list[dict[str, Any]]:
    """What the reference says of an action, once for each type of resource; empty for none of that name."""
    service, name = action.split(":")
    found = get_action_data(service, name)
    return list(found[service]) if found else []


def named(row: dict[str, str]) -> str:
    return f"{row['action']} on {row['resource']}"


def test_every_row_of_the_page_is_looked_at() -> None:
    written = [line for line in PAGE.splitlines() if line.startswith("| `")]

    assert len(ROWS) == len(written)


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_each_action_exists(row: dict[str, str]) -> None:
    assert [found["action"] for found in reference(row["action"])][:1] == [row["action"]]


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_each_action_is_on_a_resource_of_a_type_that_it_takes(row: dict[str, str]) -> None:
    types = {re.sub(r"\$\{\w+\}", "*", found["resource_arn_format"]) for found in reference(row["action"])} - {"*"}
    resource = re.sub(r"<[^>]+>", "*", row["resource"]).replace("arn:aws:", "arn:*:")

    if resource == "*":
        assert not types or row["action"] in ON_ALL, f"can be narrowed to one of {sorted(types)}"
    else:
        assert any(fnmatchcase(resource, type_) for type_ in types), f"takes {sorted(types) or '*'}"


@pytest.mark.parametrize("row", [row for row in ROWS if row["condition"]], ids=named)
def test_each_condition_is_one_that_the_action_has(row: dict[str, str]) -> None:
    keys = {key for found in reference(row["action"]) for key in found["condition_keys"]}

    assert any(fnmatchcase(row["condition"], re.sub(r"\$\{\w+\}", "*", key)) for key in keys), sorted(keys)


def test_each_action_that_another_depends_on_is_on_the_page() -> None:
    needed = {action for row in ROWS for found in reference(row["action"]) for action in found["dependent_actions"]}

    assert needed - {row["action"] for row in ROWS} == set()
