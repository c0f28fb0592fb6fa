"""The CloudFormation stack that owns a resource, by the tags of CloudFormation, CDK and convox. Pure.

Terraform sets no such tag: a resource without an owner here may be one of Terraform's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-resource-tags.html
STACK_TAG = "aws:cloudformation:stack-name"
_LOGICAL_ID_TAG = "aws:cloudformation:logical-id"
# The eight digits of a hash that CDK ends its logical ids with.
# https://docs.aws.amazon.com/cdk/v2/guide/identifiers.html#identifiers-logical-ids
_OF_CDK = re.compile(r"[A-Za-z0-9]+[0-9A-F]{8}")

OwnerKind = Literal["cloudformation", "cdk", "convox"]


@dataclass(frozen=True, slots=True)
class Owner:
    """The CloudFormation stack that a resource belongs to, and the tool that wrote its template."""

    kind: OwnerKind
    stack: str

    def __str__(self) -> str:
        match self.kind:
            case "convox":
                return f"convox rack {self.stack}"
            case "cdk":
                return f"stack {self.stack} (CDK)"
            case _:
                return f"stack {self.stack}"


def owner_of(tags: Mapping[str, str]) -> Owner | None:
    """Return the stack that a resource belongs to by its tags; None if they name none."""
    stack = tags.get(STACK_TAG, "")
    if not stack:
        return None
    # convox tags its stacks, and CloudFormation passes the tags on to their resources; older versions of convox write
    # the key in upper case.
    if "convox" in {tags.get("system"), tags.get("System")}:
        return Owner("convox", stack)
    return Owner("cdk" if _OF_CDK.fullmatch(tags.get(_LOGICAL_ID_TAG, "")) else "cloudformation", stack)
