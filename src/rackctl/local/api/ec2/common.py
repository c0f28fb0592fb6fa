"""Functions that EC2's operations share."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, tags_from
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rackctl.local.world.ec2 import Ec2, Instance
    from rackctl.local.world.key_pairs import KeyPair
    from rackctl.local.world.templates import LaunchTemplate

INVALID_TOKEN = Refused("InvalidNextToken", "The specified NextToken is not valid.")


def tags_of(tagged: Instance | KeyPair | LaunchTemplate) -> Mapping[str, str]:
    return tagged.tags


def page_size(asked: Asked, least: int, most: int) -> int:
    given: int = asked.get("MaxResults", most)
    if not least <= given <= most:
        bound = f"greater than or equal to {least}" if given < least else f"less than or equal to {most}"
        raise Refused(
            "InvalidParameterValue",
            f"Value ( {given} ) for parameter maxResults is invalid. Expecting a value {bound}.",
        )
    return given


def find_template(ec2: Ec2, named: Mapping[str, Any]) -> LaunchTemplate:
    template_id, name = named.get("LaunchTemplateId"), named.get("LaunchTemplateName")
    if bool(template_id) == bool(name):
        raise Refused(
            "InvalidParameterCombination" if name else "MissingParameter",
            "Either a launch template ID or a launch template name must be specified, and not both.",
        )
    if template_id and not re.fullmatch(r"lt-([0-9a-f]{8}|[0-9a-f]{17})", template_id):
        raise Refused("InvalidLaunchTemplateId.Malformed", f"The launch template ID '{template_id}' is not valid.")
    return ec2.find_template(template_id, name)


def specified_tags(asked: Mapping[str, Any], resource_type: str) -> dict[str, str]:
    """Return a request's tags for the resource that it creates."""
    tags: dict[str, str] = {}
    for specification in asked.get("TagSpecifications", ()):
        if specification.get("ResourceType") == resource_type:
            tags |= tags_from(specification.get("Tags", []))
    refuse_reserved(tags)
    return tags


def refuse_reserved(keys: Iterable[str]) -> None:
    if any(key.lower().startswith("aws:") for key in keys):
        raise Refused("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")


def checked_data(data: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        base64.b64decode(data.get("UserData", ""), validate=True)
    except ValueError:
        raise Refused("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data") from None
    return data


def chosen(every: list[Result], asked: Asked, parameter: str, member: str, unknown_code: str) -> list[Result]:
    """Select documents by id, and by filters named after their members."""
    for id_ in asked.get(parameter, ()):
        if id_ not in {document[member] for document in every}:
            raise Refused(unknown_code, f"The ID '{id_}' does not exist")
    ids = asked.get(parameter) or [document[member] for document in every]
    scalars = {name for document in every for name, value in document.items() if isinstance(value, str | bool)}
    values: dict[str, Callable[[Result], Iterable[str]]] = {
        _filter_name(name): (lambda document, name=name: [_filter_value(document[name])])  # type: ignore[misc]
        for name in scalars
    }
    passes = Filters(asked.get("Filters", []), values, lambda document: tags_from(document.get("Tags", [])))
    return [document for document in every if document[member] in ids and passes(document)]


def _filter_name(member: str) -> str:
    """Return a filter's name: availability-zone for AvailabilityZone."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", member).lower()


def _filter_value(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value
