"""Suspend processes of a roll's groups, and resume those that the roll itself has suspended: journal first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.errors import AccessDenied

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackctl.model import AutoScalingGroup
    from rackctl.roll.hold import Hold
    from rackctl.roll.journal import GroupRecord


class Processes:
    """The processes that a roll suspends."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._autoscaling = hold.aws.autoscaling

    def suspend(self, record: GroupRecord, group: AutoScalingGroup, process: str) -> bool:
        """Suspend a process, and write that to the journal first; return whether it was running."""
        if process in group.suspended_processes:
            return False
        new = process not in record.suspended
        if new:
            record.suspended.append(process)
            self._hold.write()
        name = record.auto_scaling_group_name
        try:
            self._hold.when_not_busy(lambda: self._autoscaling.suspend_processes(name, [process]))
        except AccessDenied:
            if new:  # it was not done, so there is nothing to resume
                record.suspended.remove(process)
                self._hold.write()
            raise
        return new

    def resume(self, record: GroupRecord, processes: Sequence[str]) -> list[str]:
        """Resume those of these processes that the roll has suspended; return them."""
        ours = [process for process in processes if process in record.suspended]
        if ours:
            name = record.auto_scaling_group_name
            resume = self._autoscaling.resume_processes
            self._hold.retrying(lambda: self._hold.when_not_busy(lambda: resume(name, ours)))
            record.suspended = [process for process in record.suspended if process not in ours]
            self._hold.write()
        return ours
