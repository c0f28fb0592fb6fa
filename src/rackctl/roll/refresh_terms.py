"""What a roll asks of an instance refresh, and what an instance refresh cannot do for a roll. Pure.

https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_RefreshPreferences.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from rackctl.roll.problems import Problem
from rackctl.roll.view import RollOptions
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from rackctl.launches import LaunchSource
    from rackctl.model import AutoScalingGroup, LaunchTemplateRef
    from rackctl.roll.journal import GroupRecord
    from rackctl.roll.view import AlarmSeen, Selection, View

# How long Auto Scaling waits after the first instance, in seconds: six logins, ten seconds apart, fit in.
CHECKPOINT_DELAY: Final = 300
# How long after its launch an instance counts as ready, unless its group says otherwise: it registers with ECS in that.
WARMUP: Final = 60
# Options of RollOptions that only rackctl's own engine supports.
_UNHEEDED: Final = {
    "drain_timeout": "--drain-timeout: managed draining waits for tasks for up to 48 hours",
    "force": "--force: managed draining waits for tasks for up to 48 hours",
    "stop_standalone": "--stop-standalone: managed draining waits for tasks of no service to end",
    "pause": "--pause: it does not replace in batches",
    "checked": "--check: it does not replace in batches",
}
# https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-rollback.html
_MOST_ALARMS: Final = 10


def unheeded(options: RollOptions) -> Iterator[Problem]:
    """Yield which options an instance refresh cannot carry out."""
    usual = RollOptions()
    for name, why in _UNHEEDED.items():
        if getattr(options, name) != getattr(usual, name):
            yield Problem(
                f"an instance refresh does not support {why}", "leave that option out, or use --engine rackctl"
            )
    if not options.extra:
        yield Problem(
            "an instance refresh launches new instances before old ones are terminated: it does not support --no-surge",
            "leave that option out, or use --engine rackctl",
        )
    if len(options.alarms) > _MOST_ALARMS:
        yield Problem(
            f"an instance refresh takes {_MOST_ALARMS} alarms at most, not {len(options.alarms)}",
            "combine some of them in a composite alarm",
        )


def without_data(alarms: Sequence[AlarmSeen]) -> Iterator[Problem]:
    """Yield which alarms keep a refresh from starting: "the alarm must be in a compatible state"."""
    for alarm in alarms:
        if alarm.state == "INSUFFICIENT_DATA":
            yield Problem(
                f"alarm {alarm.alarm_name} has insufficient data, and Auto Scaling starts no instance refresh with it",
                "wait until it is OK, have the alarm treat missing data otherwise, or leave it out",
            )


def has_instance_requirements(group: AutoScalingGroup) -> bool:
    """Tell of attribute-based selection, with which neither SkipMatching nor a DesiredConfiguration is supported."""
    policy: Any = group.mixed_instances_policy or {}
    overrides = policy.get("LaunchTemplate", {}).get("Overrides", ())
    return any("InstanceRequirements" in override for override in overrides)


def takes_configuration(group: AutoScalingGroup) -> bool:
    """Tell whether a new launch template version is left to the refresh, which can then be rolled back by AWS.

    "You can only roll back to a previous version of a launch template if the version is a specific numbered version."
    https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-rollback.html
    """
    refs = group.launch_templates
    return bool(refs) and all(ref.version.isdecimal() for ref in refs) and not has_instance_requirements(group)


def new_versions(group: AutoScalingGroup, record: GroupRecord) -> dict[LaunchTemplateRef, str]:
    """Map the templates that a group names to the versions that the roll has made for it, where it leaves them to AWS.

    A group that names those already has nothing left to be configured.
    """
    if not takes_configuration(group):
        return {}
    made = {(t.launch_template_id, t.version): str(t.made) for t in record.templates if t.made}
    found = {ref: made.get((ref.launch_template_id, ref.version), "") for ref in group.launch_templates}
    return {ref: version for ref, version in found.items() if version and version != ref.version}


def skips_matching(group: AutoScalingGroup, record: GroupRecord, selection: Selection) -> bool:
    """Tell whether what is new differs from what is old in its launch: then what matches that can stay."""
    if not group.launch_templates or has_instance_requirements(group):
        return False
    return selection.kind == "outdated" or (selection.kind == "key" and not record.key_names)


def matches_launch(source: LaunchSource | None, launches: Iterable[LaunchSource]) -> bool:
    """Tell whether an instance matches what its group launches, as Auto Scaling compares it: without its image."""
    return source is not None and any(
        (source.launch_template_id, source.version_number) == (one.launch_template_id, one.version_number)
        for one in launches
        if one.launch_template_id
    )


def inexpressible(
    group: AutoScalingGroup, view: View, selection: Selection, matching: Collection[str]
) -> Iterator[Problem]:
    """Yield which selections a refresh cannot make: it replaces all instances, or those that do not match.

    ``matching`` are the instances that match their group's launch by `matches_launch`.
    """
    name, hint = view.group, "use --engine rackctl, or --all"
    if selection.kind in {"ids", "age"}:
        what = "chosen ones" if selection.kind == "ids" else "those of an age"
        yield Problem(
            "an instance refresh replaces all instances of a group, or all of another launch template version, not "
            f"{what}",
            hint,
        )
        return
    kept = [m.ec2_instance_id for m in view.capacity if m.is_old is False]
    if selection.kind != "outdated" or not view.old or not kept:
        return
    if not group.launch_templates or has_instance_requirements(group):
        yield Problem(
            f"an instance refresh would replace all instances of group {name}, also {listed(kept[:5])}, which "
            f"{'are' if len(kept) > 1 else 'is'} not outdated: it can skip instances only in groups that launch from a "
            "launch template without instance requirements",
            hint,
        )
    elif skipped := [m.ec2_instance_id for m in view.old if m.ec2_instance_id in matching]:
        yield Problem(
            f"an instance refresh would skip {listed(skipped[:5])} of group {name}, launched from the current launch "
            "template version with another image",
            hint,
        )


def preferences(group: AutoScalingGroup, options: RollOptions, *, skips: bool, rolls_back: bool) -> dict[str, Any]:
    """Return RefreshPreferences: launch before terminate, and pause after the first instance for its proof.

    "To replace one instance at a time, set both the minimum and maximum healthy percentage to 100 percent." What is
    protected from scale-in is replaced, as by rackctl's own engine, and what is on standby stays. ``rolls_back`` says
    that Auto Scaling can undo the refresh, and is to if an alarm fails it.
    """
    desired = max(group.desired_capacity, 1)
    most = 100 if options.extra == 1 else min(100 + math.ceil(100 * options.extra / desired), 200)
    made: dict[str, Any] = {
        "MinHealthyPercentage": 100,
        "MaxHealthyPercentage": most,
        "SkipMatching": skips,
        "ScaleInProtectedInstances": "Refresh",
        "StandbyInstances": "Ignore",
    }
    if group.default_instance_warmup is None:
        made["InstanceWarmup"] = WARMUP
    if desired > 1:
        made |= {"CheckpointPercentages": [1, 100], "CheckpointDelay": CHECKPOINT_DELAY}
    if options.alarms:
        made |= {"AlarmSpecification": {"Alarms": list(options.alarms)}, "AutoRollback": rolls_back}
    return made


def is_as_asked(described: Any, asked: Any) -> bool:
    """Tell whether a document of AWS's holds what was asked for, whatever AWS adds to that."""
    if isinstance(asked, Mapping):
        return isinstance(described, Mapping) and all(
            name in described and is_as_asked(described[name], value) for name, value in asked.items()
        )
    if isinstance(asked, list | tuple):
        return (
            isinstance(described, list | tuple)
            and len(described) == len(asked)
            and all(is_as_asked(d, a) for d, a in zip(described, asked, strict=True))
        )
    return bool(described == asked)
