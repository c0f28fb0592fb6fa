"""EC2's launch templates and their versions."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class LaunchTemplate:
    launch_template_id: str
    launch_template_name: str
    created: float
    tags: dict[str, str]
    versions: dict[int, LaunchTemplateVersion] = field(default_factory=dict)
    default_version: int = 1
    latest_version: int = 0

    def resolve(self, version: str) -> LaunchTemplateVersion:
        number = {"$Latest": str(max(self.versions)), "$Default": str(self.default_version)}.get(version, version)
        found = self.versions.get(int(number)) if number.isdecimal() else None
        if found is None:
            raise Refused(
                "InvalidLaunchTemplateId.VersionNotFound",
                f"Could not find launch template version {version} for template {self.launch_template_id}.",
            )
        return found


@dataclass
class LaunchTemplateVersion:
    number: int
    data: dict[str, Any]
    created: float
    description: str = ""


def without_snapshots(data: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a launch template's data as `SourceVersion` does: without the snapshots of its block devices."""
    copied = deepcopy(dict(data))
    for mapping in copied.get("BlockDeviceMappings", ()):
        mapping.get("Ebs", {}).pop("SnapshotId", None)
    return copied
