"""Auto Scaling's operations on lifecycle hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.autoscaling.common import make_hook
from rackctl.local.api.operations import Asked, Result, Room
from rackctl.local.world.base import validation_error

if TYPE_CHECKING:
    from rackctl.local.api.wire_query import AutoScalingProtocol
    from rackctl.local.world import World
    from rackctl.local.world.groups import Group, Hook


class LifecycleHooks(Room["AutoScalingProtocol"]):
    def __init__(self, world: World, protocol: AutoScalingProtocol) -> None:
        super().__init__(world, protocol)
        self._scaling = world.autoscaling

    def put_lifecycle_hook(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        name = asked["LifecycleHookName"]
        group.hooks[name] = make_hook(asked, group.hooks.get(name))
        return {}

    def describe_lifecycle_hooks(self, asked: Asked) -> Result:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        names = asked.get("LifecycleHookNames") or list(group.hooks)
        return {
            "LifecycleHooks": [
                {
                    "LifecycleHookName": hook.name,
                    "AutoScalingGroupName": group.name,
                    "LifecycleTransition": hook.transition,
                    "HeartbeatTimeout": int(hook.heartbeat_timeout),
                    "GlobalTimeout": int(hook.global_timeout),
                    "DefaultResult": hook.default_result,
                    "NotificationTargetARN": hook.notification_target or None,
                    "RoleARN": hook.role or None,
                    "NotificationMetadata": hook.metadata or None,
                }
                for hook in group.hooks.values()
                if hook.name in names
            ]
        }

    def delete_lifecycle_hook(self, asked: Asked) -> Result:
        group, hook = self._hook_of(asked)
        self._scaling.delete_hook(group, hook.name)
        return {}

    def record_lifecycle_action_heartbeat(self, asked: Asked) -> Result:
        group, hook = self._hook_of(asked)
        if "InstanceId" not in asked:
            raise validation_error("The local rack gives no lifecycle action tokens: name the action by InstanceId.")
        self._scaling.record_heartbeat(group, hook.name, asked["InstanceId"])
        return {}

    def complete_lifecycle_action(self, asked: Asked) -> Result:
        group, hook = self._hook_of(asked)
        if "InstanceId" not in asked:
            raise validation_error("The local rack gives no lifecycle action tokens: name the action by InstanceId.")
        if asked["LifecycleActionResult"] not in {"CONTINUE", "ABANDON"}:
            raise validation_error("Lifecycle action result must be CONTINUE or ABANDON.")
        self._scaling.complete_hook(group, hook.name, asked["InstanceId"], asked["LifecycleActionResult"])
        return {}

    def _hook_of(self, asked: Asked) -> tuple[Group, Hook]:
        group = self._scaling.get(asked["AutoScalingGroupName"])
        hook = group.hooks.get(asked["LifecycleHookName"])
        if hook is None:
            raise validation_error(f"No Lifecycle Hook found with name {asked['LifecycleHookName']}")
        return group, hook
