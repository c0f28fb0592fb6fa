"""The processes of a group that a roll suspends for a while, and only those that nobody else has suspended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackctl.keyroll.journal import GroupRecord
    from rackctl.keyroll.run import Run
    from rackctl.model import AutoScalingGroup


def suspend(run: Run, record: GroupRecord, group: AutoScalingGroup, process: str) -> bool:
    """Suspend a process, written down first; tell whether that was still to do."""
    if process in group.suspended_processes:
        return False
    new = process not in record.suspended
    if new:
        record.suspended.append(process)
        run.save()
    run.aws.autoscaling.suspend_processes(group.auto_scaling_group_name, [process])
    return new


def resume(run: Run, record: GroupRecord, processes: Sequence[str]) -> list[str]:
    """Resume those of these processes that the roll has suspended; give them."""
    ours = [process for process in processes if process in record.suspended]
    if ours:
        run.hold()
        run.patiently(lambda: run.aws.autoscaling.resume_processes(record.auto_scaling_group_name, ours))
        record.suspended = [process for process in record.suspended if process not in ours]
        run.save()
    return ours
