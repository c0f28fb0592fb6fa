"""Outdated instances: launched from another version, image or launch configuration than their group launches now."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from rackctl.launches import is_outdated, launch_sources, launched_from
from rackctl.roll.reasons.chosen import Chosen
from rackctl.text import listed

if TYPE_CHECKING:
    from rackctl.model import AutoScalingGroup, GroupInstance, Instance


class Outdated(Chosen):
    """Replaces what was launched from something else than its group launched from when the roll began."""

    def is_old(self, instance: Instance, member: GroupInstance | None) -> bool:
        """Tell whether an instance is outdated; False if that is not known."""
        name = member.auto_scaling_group_name if member else instance.auto_scaling_group_name
        record = self._journal.groups.get(name)
        return record is not None and is_outdated(launched_from(instance, member), record.launches) is True

    def launches_old(self, group: AutoScalingGroup) -> str:
        """Say what a group launches from now, if that has changed since the roll began."""
        record = self._journal.groups[group.auto_scaling_group_name]
        now = self._hold.retrying(partial(launch_sources, self._hold.aws, group))
        if set(now) == set(record.launches):
            return ""
        return f"launches from {listed(map(str, now))} now, and not from {listed(map(str, record.launches))}"
