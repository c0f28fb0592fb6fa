"""Auto Scaling's operations on instance refreshes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rackctl.local.api.autoscaling.common import INVALID_TOKEN, page_size, policy_document, policy_of, specification
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.api.paging import page
from rackctl.local.world.base import validation_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.api.wire_query import AutoScalingProtocol
    from rackctl.local.world import World
    from rackctl.local.world.refreshing import Refresh

# RefreshPreferences, with the bounds of its numbers.
_NUMBERS: Final = {
    "MinHealthyPercentage": (0, 100),
    "MaxHealthyPercentage": (100, 200),
    "InstanceWarmup": (0, 2**31 - 1),
    "CheckpointDelay": (0, 172800),
    "BakeTime": (0, 172800),
}
_CHOICES: Final = {
    "ScaleInProtectedInstances": {"Refresh", "Ignore", "Wait"},
    "StandbyInstances": {"Terminate", "Ignore", "Wait"},
}
_KNOWN: Final = {
    *_NUMBERS, *_CHOICES, "CheckpointPercentages", "SkipMatching", "AutoRollback", "AlarmSpecification",
}  # fmt: skip
_MOST_ALARMS: Final = 10


class InstanceRefreshes(Room["AutoScalingProtocol"]):
    def __init__(self, world: World, protocol: AutoScalingProtocol) -> None:
        super().__init__(world, protocol)
        self._scaling = world.autoscaling
        self._refreshes = world.refreshes

    def start_instance_refresh(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        preferences = asked.get("Preferences", {})
        known = {"AutoScalingGroupName", "Preferences", "DesiredConfiguration"} | _KNOWN
        known |= {"Strategy"} if asked.get("Strategy") == "Rolling" else set()
        if unknown := sorted({*asked, *preferences} - known):
            raise validation_error(f"The local rack does not support {unknown[0]} of instance refreshes.")
        _check(preferences)
        wanted = self._desired(asked["DesiredConfiguration"]) if "DesiredConfiguration" in asked else None
        return {"InstanceRefreshId": self._refreshes.start(group, preferences, wanted).refresh_id}

    def _desired(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if ("LaunchTemplate" in given) == ("MixedInstancesPolicy" in given):
            raise validation_error("DesiredConfiguration must have either a LaunchTemplate or a MixedInstancesPolicy.")
        if "LaunchTemplate" in given:
            return {"LaunchTemplate": specification(self.world.ec2, given["LaunchTemplate"])}
        return {"MixedInstancesPolicy": policy_of(self.world.ec2, given["MixedInstancesPolicy"])}

    def cancel_instance_refresh(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        wait = asked.get("WaitForTransitioningInstances", True)
        return {"InstanceRefreshId": self._refreshes.cancel(group, wait=wait).refresh_id}

    def rollback_instance_refresh(self, asked: Asked) -> Result:
        # The model does not require the group's name; the operation does.
        if "AutoScalingGroupName" not in asked:
            raise self.protocol.missing("autoScalingGroupName")
        group = self._scaling.get(asked["AutoScalingGroupName"])
        return {"InstanceRefreshId": self._refreshes.roll_back(group).refresh_id}

    def describe_instance_refreshes(self, asked: Asked) -> Result:
        name = self._scaling.get(asked["AutoScalingGroupName"]).name
        ids = asked.get("InstanceRefreshIds")
        found, token = page(
            self._refreshes.of(name),
            order=lambda refresh: [-refresh.started, refresh.refresh_id],
            asked=asked,
            limit=page_size(asked, 50, 100),
            invalid_token=INVALID_TOKEN,
            matches=lambda refresh: not ids or refresh.refresh_id in ids,
        )
        return {"InstanceRefreshes": [_refresh(refresh) for refresh in found], "NextToken": token}


def _check(preferences: Mapping[str, Any]) -> None:
    """Raise Refused for preferences that RefreshPreferences does not allow."""
    for name, (least, most) in _NUMBERS.items():
        if name in preferences and not least <= preferences[name] <= most:
            raise validation_error(f"{name} must be between {least} and {most}.")
    for name, choices in _CHOICES.items():
        if name in preferences and preferences[name] not in choices:
            raise validation_error(f"{name} must be one of {', '.join(sorted(choices))}.")
    if "MaxHealthyPercentage" in preferences:
        minimum = preferences.get("MinHealthyPercentage")
        if minimum is None or preferences["MaxHealthyPercentage"] - minimum > 100:
            raise validation_error(
                "MaxHealthyPercentage needs a MinHealthyPercentage that is less by no more than 100."
            )
    if len(preferences.get("AlarmSpecification", {}).get("Alarms", ())) > _MOST_ALARMS:
        raise validation_error(f"AlarmSpecification takes at most {_MOST_ALARMS} alarms.")
    percentages = preferences.get("CheckpointPercentages", [])
    if "CheckpointDelay" in preferences and not percentages:
        raise validation_error("CheckpointDelay needs CheckpointPercentages.")
    if percentages != sorted(set(percentages)) or not all(1 <= p <= 100 for p in percentages):
        raise validation_error("CheckpointPercentages must be unique, ascending and between 1 and 100.")


def _refresh(refresh: Refresh) -> Result:
    wanted = refresh.desired_configuration
    rollback = refresh.rollback
    return {
        "InstanceRefreshId": refresh.refresh_id,
        "AutoScalingGroupName": refresh.group,
        "Status": refresh.status,
        "StatusReason": refresh.reason or None,
        "StartTime": refresh.started,
        "EndTime": refresh.ended,
        "PercentageComplete": refresh.percentage,
        "InstancesToUpdate": refresh.left + refresh.warm_left,
        "ProgressDetails": _progress(refresh),
        "Preferences": refresh.preferences,
        "DesiredConfiguration": wanted
        and {
            name: policy_document(value) if name == "MixedInstancesPolicy" else value for name, value in wanted.items()
        },
        "RollbackDetails": rollback
        and {
            "RollbackReason": rollback.reason,
            "RollbackStartTime": rollback.started,
            "PercentageCompleteOnRollback": rollback.percentage,
            "InstancesToUpdateOnRollback": rollback.left,
        },
        "Strategy": "Rolling",
    }


def _progress(refresh: Refresh) -> Result | None:
    """Describe the progress of a refresh; only groups with a warm pool have these details."""
    if not refresh.warm_total:
        return None

    def pool(left: int, total: int) -> Result:
        return {"PercentageComplete": 100 * (total - left) // total if total else 100, "InstancesToUpdate": left}

    return {
        "LivePoolProgress": pool(refresh.left, refresh.total),
        "WarmPoolProgress": pool(refresh.warm_left, refresh.warm_total),
    }
