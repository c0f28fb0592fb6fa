"""What is replaced without a new key: outdated instances, all, those of an age, or those that were named.

Nothing has to be prepared for them. Outdated is what was launched from another version, image or launch configuration
than its group launches now.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from rackctl.launches import is_outdated, launch_sources, launched_from
from rackctl.ssh.login import Proof
from rackctl.text import counted, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackctl.launches import LaunchSource
    from rackctl.model import AutoScalingGroup, GroupInstance, Instance
    from rackctl.roll.hold import Hold
    from rackctl.roll.report import Event
    from rackctl.roll.view import Selection


class Chosen:
    """Replaces chosen instances by what their groups launch anyway."""

    proves = "can take tasks"

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._journal = hold.journal
        self.launched_before = hold.journal.launched_before
        self._started = datetime.fromisoformat(hold.journal.started)

    def is_old(self, instance: Instance, member: GroupInstance | None) -> bool:  # noqa: ARG002 - the protocol's
        """Tell whether an instance was chosen."""
        return _is_chosen(self._journal.selection, instance, self._started) and self.is_kept(instance)

    def is_kept(self, instance: Instance) -> bool:
        """Tell whether an instance was there before the roll."""
        return instance.first_launch_time <= self.launched_before

    def prepare(self) -> Iterator[Event]:
        """Do nothing: the groups launch new instances already."""
        yield from ()

    def launches_old(self, group: AutoScalingGroup) -> str:  # noqa: ARG002 - the protocol's
        """Return nothing: whatever is launched now is new."""
        return ""

    def start_proof(self, instance: Instance) -> Callable[[], Proof | None]:  # noqa: ARG002 - the protocol's
        """Take an instance as proven: it is asked for when it can take tasks, and that is all there is to prove."""
        return lambda: Proof("accepted")

    def finish(self) -> Iterator[Event]:
        """Do nothing: the roll has made nothing but instances."""
        yield from ()

    roll_back = clean_up = finish

    def summary(self) -> str:
        """Return how many instances were replaced."""
        return f"replaced {counted(self._hold.progress.done, 'instance')}"


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
        return _is_chosen(self._selection, instance, self._now)

    def is_kept(self, instance: Instance) -> bool:  # noqa: ARG002 - the protocol's
        """Return True: all that is there now is there before the roll."""
        return True


def _is_chosen(selection: Selection, instance: Instance, now: datetime) -> bool:
    """Tell whether a selection of *all*, *age* or *ids* has an instance; its age is that at ``now``."""
    if selection.kind == "ids":
        return instance.ec2_instance_id in selection.ec2_instance_ids
    return selection.kind == "all" or now - instance.first_launch_time >= timedelta(seconds=selection.older_than)
