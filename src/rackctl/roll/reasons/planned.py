"""What would be old if a roll began now, before there is a journal of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rackctl.launches import is_outdated, launched_from
from rackctl.roll.reasons.chosen import is_chosen

if TYPE_CHECKING:
    from rackctl.launches import LaunchSource
    from rackctl.model import GroupInstance, Instance
    from rackctl.roll.view import Selection


class Planned:
    """The criterion of a plan. ``launches`` maps each group to what it launches from, where that is asked for."""

    launched_before = datetime.max.replace(tzinfo=UTC)

    def __init__(self, selection: Selection, now: datetime) -> None:
        self._selection = selection
        self._now = now
        self.launches: dict[str, tuple[LaunchSource, ...]] = {}

    def is_old(self, instance: Instance, member: GroupInstance | None) -> bool:
        """Tell whether the roll would replace an instance: a keyroll replaces each."""
        if self._selection.kind == "key":
            return True
        if self._selection.kind == "outdated":
            group = member.auto_scaling_group_name if member else instance.auto_scaling_group_name
            return is_outdated(launched_from(instance, member), self.launches.get(group, ())) is True
        return is_chosen(self._selection, instance, self._now)

    def is_kept(self, instance: Instance) -> bool:  # noqa: ARG002 - the protocol's
        """Return True: all that is there now is there before the roll."""
        return True
