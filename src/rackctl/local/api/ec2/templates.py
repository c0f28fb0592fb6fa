"""EC2's operations on launch templates."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

from rackctl.local.api.ec2 import documents
from rackctl.local.api.ec2.common import INVALID_TOKEN, checked_data, find_template, page_size, specified_tags, tags_of
from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rackctl.local.api.wire_query import Ec2Protocol
    from rackctl.local.world import World
    from rackctl.local.world.templates import LaunchTemplate, LaunchTemplateVersion


class LaunchTemplates(Room["Ec2Protocol"]):
    def __init__(self, world: World, protocol: Ec2Protocol) -> None:
        super().__init__(world, protocol)
        self._ec2 = world.ec2

    def create_launch_template(self, asked: Asked) -> Result:
        if not re.fullmatch(r"[a-zA-Z0-9().\-/_]{3,128}", asked["LaunchTemplateName"]):
            raise Refused(
                "InvalidLaunchTemplateName.MalformedException",
                "A launch template name must be between 3 and 128 characters, and may contain letters, numbers, and "
                "the characters ( ) . - / _",
            )
        tags = specified_tags(asked, "launch-template")
        data = checked_data(asked["LaunchTemplateData"])
        template = self._ec2.create_template(asked["LaunchTemplateName"], data, tags)
        template.versions[1].description = asked.get("VersionDescription", "")
        return {"LaunchTemplate": documents.launch_template(template, self.world)}

    def create_launch_template_version(self, asked: Asked) -> Result:
        template = find_template(self._ec2, asked)
        version = self._ec2.add_version(
            template,
            checked_data(asked["LaunchTemplateData"]),
            source=asked.get("SourceVersion", ""),
            description=asked.get("VersionDescription", ""),
        )
        return {"LaunchTemplateVersion": documents.launch_template_version(template, version, self.world)}

    def describe_launch_templates(self, asked: Asked) -> Result:
        templates = list(self._ec2.templates.values())
        if "LaunchTemplateIds" in asked or "LaunchTemplateNames" in asked:
            templates = [
                *(self._ec2.find_template(id_, None) for id_ in asked.get("LaunchTemplateIds", ())),
                *(self._ec2.find_template(None, name) for name in asked.get("LaunchTemplateNames", ())),
            ]
        values: dict[str, Callable[[LaunchTemplate], Iterable[str]]] = {
            "launch-template-name": lambda template: [template.launch_template_name],
            "create-time": lambda template: [documents.iso_time(template.created)],
        }
        found, token = page(
            templates,
            order=lambda template: template.launch_template_id,
            asked=asked,
            limit=page_size(asked, 1, 200),
            invalid_token=INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), values, tags_of),
        )
        return {"LaunchTemplates": [documents.launch_template(t, self.world) for t in found], "NextToken": token}

    def describe_launch_template_versions(self, asked: Asked) -> Result:
        """Describe versions, newest first; without a template, $Latest and $Default of all templates."""
        wanted = asked.get("Versions", [])
        if "LaunchTemplateId" in asked or "LaunchTemplateName" in asked:
            versions = self._versions(find_template(self._ec2, asked), asked)
        elif wanted and set(wanted) <= {"$Latest", "$Default"}:
            versions = list(
                chain.from_iterable(self._versions(template, asked) for template in self._ec2.templates.values())
            )
        else:
            raise Refused(
                "MissingParameter",
                "When a launch template is not specified, the versions must be $Latest, $Default, or both.",
            )
        values: dict[str, Callable[[tuple[LaunchTemplate, LaunchTemplateVersion]], Iterable[str]]] = {
            "image-id": lambda v: [v[1].data.get("ImageId", "")],
            "instance-type": lambda v: [v[1].data.get("InstanceType", "")],
            "is-default-version": lambda v: [str(v[1].number == v[0].default_version).lower()],
        }
        found, token = page(
            versions,
            order=lambda v: [v[0].launch_template_id, -v[1].number],
            asked=asked,
            limit=page_size(asked, 1, 200),
            invalid_token=INVALID_TOKEN,
            matches=Filters(asked.get("Filters", []), values),
        )
        return {
            "LaunchTemplateVersions": [
                documents.launch_template_version(t, v, self.world, resolve_alias=bool(asked.get("ResolveAlias")))
                for t, v in found
            ],
            "NextToken": token,
        }

    @staticmethod
    def _versions(template: LaunchTemplate, asked: Asked) -> list[tuple[LaunchTemplate, LaunchTemplateVersion]]:
        if asked.get("Versions"):
            numbers = {template.resolve(version).number for version in asked["Versions"]}
        else:
            least = number(asked, "MinVersion", 1)
            most = number(asked, "MaxVersion", template.latest_version)
            numbers = {number for number in template.versions if least <= number <= most}
        return [(template, template.versions[number]) for number in numbers]

    def modify_launch_template(self, asked: Asked) -> Result:
        template = find_template(self._ec2, asked)
        if "DefaultVersion" not in asked:
            raise Refused("MissingParameter", "The request must contain the parameter SetDefaultVersion")
        template.default_version = template.resolve(asked["DefaultVersion"]).number
        return {"LaunchTemplate": documents.launch_template(template, self.world)}

    def delete_launch_template(self, asked: Asked) -> Result:
        template = find_template(self._ec2, asked)
        del self._ec2.templates[template.launch_template_id]
        return {"LaunchTemplate": documents.launch_template(template, self.world)}

    def delete_launch_template_versions(self, asked: Asked) -> Result:
        """Delete versions one by one; the answer lists failures separately."""
        template = find_template(self._ec2, asked)
        deleted: list[Result] = []
        failed: list[Result] = []
        for version in asked["Versions"]:
            named = {
                "LaunchTemplateId": template.launch_template_id,
                "LaunchTemplateName": template.launch_template_name,
                "VersionNumber": int(version) if version.isdecimal() else None,
            }
            problem = _undeletable(template, version)
            if problem:
                code, message = problem
                failed.append({**named, "ResponseError": {"Code": code, "Message": message}})
            else:
                del template.versions[int(version)]
                deleted.append(named)
        return {
            "SuccessfullyDeletedLaunchTemplateVersions": deleted,
            "UnsuccessfullyDeletedLaunchTemplateVersions": failed,
        }


def number(asked: Asked, name: str, default: int) -> int:
    text = asked.get(name, str(default))
    if not text.isdecimal():
        raise Refused("InvalidParameterValue", f"Value ({text}) for parameter {name} is invalid. It must be a number.")
    return int(text)


def _undeletable(template: LaunchTemplate, version: str) -> tuple[str, str] | None:
    if not version.isdecimal():
        return "unexpectedError", f"{version} is not a version number."
    if int(version) not in template.versions:
        return (
            "launchTemplateVersionDoesNotExist",
            f"Could not find launch template version {version} for template {template.launch_template_id}.",
        )
    if int(version) == template.default_version:
        return "unexpectedError", f"Version {version} is the default version of the launch template: it stays."
    return None
