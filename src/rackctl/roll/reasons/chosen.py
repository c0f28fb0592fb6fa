"""Instances that were chosen: all, those of an age, or those that were named. Nothing has to be prepared for them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from rackctl.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackctl.model import AutoScalingGroup, GroupInstance, Instance
    from rackctl.roll.hold import Hold
    from rackctl.roll.reasons import Proof
    from rackctl.roll.report import Event
    from rackctl.roll.view import Selection


@dataclass(frozen=True, slots=True)
class _Proven:
    outcome: Literal["accepted"] = "accepted"
    detail: str = ""


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
        return is_chosen(self._journal.selection, instance, self._started) and self.is_kept(instance)

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
        return _Proven

    def finish(self) -> Iterator[Event]:
        """Do nothing: the roll has made nothing but instances."""
        yield from ()

    roll_back = clean_up = finish

    def summary(self) -> str:
        """Return how many instances were replaced."""
        return f"replaced {counted(self._hold.progress.done, 'instance')}"


def is_chosen(selection: Selection, instance: Instance, now: datetime) -> bool:
    """Tell whether a selection of *all*, *age* or *ids* has an instance; its age is that at ``now``."""
    if selection.kind == "ids":
        return instance.ec2_instance_id in selection.ec2_instance_ids
    return selection.kind == "all" or now - instance.first_launch_time >= timedelta(seconds=selection.older_than)
