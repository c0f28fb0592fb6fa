"""The lifecycle of a group's instances: launch, lifecycle hooks, in service, termination."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rackctl.local.world import timing
from rackctl.local.world.base import Refused, validation_error
from rackctl.local.world.groups import Activity, Group, Hold, Member, type_of, weight_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rackctl.local.world.base import Commons
    from rackctl.local.world.ec2 import Ec2, Subnet
    from rackctl.local.world.templates import LaunchTemplate, LaunchTemplateVersion

LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
TERMINATING = "autoscaling:EC2_INSTANCE_TERMINATING"


class Lifecycle:
    def __init__(self, world: Commons, ec2: Ec2) -> None:
        self._world = world
        self._ec2 = ec2
        self.groups: dict[str, Group] = {}
        self.launch_configurations: dict[str, dict[str, Any]] = {}
        world.subscribe("autoscaling", "instance_running", "instance_terminated")

    def group_of(self, instance_id: str) -> Group | None:
        """Return the group of a member or of an instance in a warm pool."""
        return next((g for g in self.groups.values() if instance_id in g.members or instance_id in g.warmed), None)

    # From launch to termination

    def launch(self, group: Group, cause: str, state: str, *, leaving: Collection[str] = ()) -> Member | None:
        """Launch an instance for a group, in the zone with the fewest instances that are not ``leaving``.

        If that fails, record a failed activity and return None.
        """
        world = self._world
        subnet = self._least_filled(group, leaving)
        try:
            data, template, instance_type = self._launch_data(group)
            if "launch-with-key" in world.conditions:
                data = {**data, "KeyName": world.conditions["launch-with-key"]}
            tags = {t["Key"]: t.get("Value", "") for t in group.tags if t.get("PropagateAtLaunch")}
            for specification in data.get("TagSpecifications", ()):
                if specification.get("ResourceType") == "instance":
                    tags |= {t["Key"]: t.get("Value", "") for t in specification["Tags"]}
            instance = self._ec2.launch(
                data,
                subnet=subnet,
                tags={**tags, "aws:autoscaling:groupName": group.name},
                group=group.name,
                launch_template=template,
                instance_type=instance_type,
            )
        except Refused as refusal:
            failed = self.record(group, f"Launching a new EC2 instance.  Status Reason: {refusal.message}", cause)
            self.finish(failed, "Failed", f"{refusal.message.rstrip('.')}. Launching EC2 instance failed.")
            return None
        self.record(group, f"Launching a new EC2 instance: {instance.instance_id}", cause)
        return Member(
            instance.instance_id,
            subnet.availability_zone,
            instance.instance_type,
            template,
            world.now,
            state,
            protected=group.protect_new,
            weight=weight_of(group, instance.instance_type),
            launch_configuration=group.source.launch_configuration,
        )

    def _launch_data(self, group: Group) -> tuple[dict[str, Any], tuple[str, str, int] | None, str]:
        source = group.source
        if source.launch_configuration:
            return self.launch_configurations[source.launch_configuration], None, ""
        assert source.specification is not None
        template, version = self.launched_from(source.specification)
        return (
            version.data,
            (template.launch_template_id, template.launch_template_name, version.number),
            type_of((source.overrides or [{}])[0]),
        )

    def launched_from(self, specification: Mapping[str, str]) -> tuple[LaunchTemplate, LaunchTemplateVersion]:
        """Return the template and the current version of a LaunchTemplateSpecification. Raises Refused."""
        template = self._ec2.find_template(
            specification.get("LaunchTemplateId"), specification.get("LaunchTemplateName")
        )
        return template, template.resolve(specification.get("Version") or "$Default")

    def _least_filled(self, group: Group, leaving: Collection[str]) -> Subnet:
        staying = [m for id_, m in group.members.items() if m.in_capacity and id_ not in leaving]
        filled = Counter(member.availability_zone for member in staying)
        subnets = [self._ec2.subnets[id_] for id_ in group.subnets]
        return min(subnets, key=lambda subnet: filled[subnet.availability_zone])

    def instance_running(self, instance_id: str) -> None:
        group = self.group_of(instance_id)
        if group is None:
            return
        member = group.members.get(instance_id)
        if member is None:
            member = group.warmed[instance_id]
            if member.lifecycle_state == "Warmed:Pending" and not self._hold(
                group, member, LAUNCHING, "Warmed:Pending"
            ):
                self._world.tell("instance_prepared", group.name, instance_id)
        elif member.lifecycle_state == "Pending" and not self._hold(group, member, LAUNCHING, "Pending"):
            self._in_service(group, member)

    def _in_service(self, group: Group, member: Member) -> None:
        member.lifecycle_state, member.in_service_since = "InService", self._world.now
        for activity in group.activities:
            if activity.status == "InProgress" and activity.description.endswith(member.instance_id):
                self.finish(activity)
        self._world.changed()
        self._world.tell("instance_in_service", member.instance_id)

    def instance_terminated(self, instance_id: str) -> None:
        """Drop a member whose instance has terminated; one that terminated unexpectedly is replaced as unhealthy."""
        group = self.group_of(instance_id)
        if group is None:
            return
        member = group.members.get(instance_id)
        if member is not None and not member.is_terminating:
            return  # it is replaced as unhealthy
        group.members.pop(instance_id, None)
        group.warmed.pop(instance_id, None)
        for activity in group.activities:
            if activity.status == "InProgress" and activity.description.endswith(instance_id):
                self.finish(activity)
        self._world.changed()

    def end_member(self, group: Group, member: Member, cause: str) -> Activity:
        activity = self.record(group, f"Terminating EC2 instance: {member.instance_id}", cause)
        instance = self._ec2.instances.get(member.instance_id)
        member.holds.clear()
        if instance is None or not instance.exists or not self._hold(group, member, TERMINATING, "Terminating"):
            self._end(member)
        self._world.changed()
        return activity

    def _end(self, member: Member) -> None:
        if member.lifecycle_state != "Terminating:Proceed":
            member.lifecycle_state = "Terminating"
        instance = self._ec2.instances.get(member.instance_id)
        if instance is None or instance.state == "terminated":
            self.instance_terminated(member.instance_id)
        else:
            self._ec2.terminate(instance)

    # Lifecycle hooks

    def _hold(self, group: Group, member: Member, transition: str, state: str) -> bool:
        """Start the hooks of a transition; return whether there are any."""
        hooks = [hook for hook in group.hooks.values() if hook.transition == transition]
        for hook in hooks:
            now, speed = self._world.now, self._world.speed
            member.holds[hook.name] = Hold(
                hook.default_result, now + hook.heartbeat_timeout / speed, now + hook.global_timeout / speed
            )
            self._await_timeout(group.name, member.instance_id, hook.name)
        if hooks:
            member.lifecycle_state = f"{state}:Wait"
            self._world.changed()
            self._world.tell("lifecycle_action", group.name, member.instance_id)
        return bool(hooks)

    def _await_timeout(self, name: str, instance_id: str, hook: str) -> None:
        found = self._held(name, instance_id, hook)
        if found is not None:
            seconds = (found[1].holds[hook].until - self._world.now) * self._world.speed
            self._world.after(max(seconds, 0), "autoscaling", "time_out_hook", name, instance_id, hook)

    def time_out_hook(self, name: str, instance_id: str, hook: str) -> None:
        found = self._held(name, instance_id, hook)
        if found is None:
            return
        group, member = found
        hold = member.holds[hook]
        if hold.until > self._world.now + 0.001:  # a heartbeat has extended it
            self._await_timeout(name, instance_id, hook)
        else:
            self._complete(group, member, hook, hold.default_result)

    def _held(self, name: str, instance_id: str, hook: str) -> tuple[Group, Member] | None:
        group = self.groups.get(name)
        member = (group.members.get(instance_id) or group.warmed.get(instance_id)) if group else None
        return (group, member) if group and member and hook in member.holds else None

    def record_heartbeat(self, group: Group, hook: str, instance_id: str) -> None:
        """Extend a hold by one heartbeat, within its global timeout."""
        found = self._held(group.name, instance_id, hook)
        if found is None or hook not in group.hooks:
            raise validation_error(f"No active Lifecycle Action found with instance ID {instance_id}")
        hold = found[1].holds[hook]
        hold.until = min(self._world.now + group.hooks[hook].heartbeat_timeout / self._world.speed, hold.limit)

    def complete_hook(self, group: Group, hook: str, instance_id: str, result: str) -> None:
        found = self._held(group.name, instance_id, hook)
        if found is None:
            raise validation_error(f"No active Lifecycle Action found with instance ID {instance_id}")
        self._complete(group, found[1], hook, result)

    def delete_hook(self, group: Group, hook: str) -> None:
        """Delete a hook. Its holds are completed first: abandoned when launching, continued when terminating."""
        for member in [*group.members.values(), *group.warmed.values()]:
            if hook in member.holds:
                self._complete(group, member, hook, "CONTINUE" if member.is_terminating else "ABANDON")
        del group.hooks[hook]
        self._world.changed()

    def _complete(self, group: Group, member: Member, hook: str, result: str) -> None:
        """Complete a hold. After the last one, or after ABANDON, the instance proceeds."""
        del member.holds[hook]
        if result == "ABANDON":
            member.holds.clear()
        if member.holds:
            return
        if member.is_terminating:
            member.lifecycle_state = "Terminating:Proceed"
            self._end(member)
        elif result == "ABANDON":
            self._end(member)
        elif member.lifecycle_state.startswith("Warmed"):
            self._world.tell("instance_prepared", group.name, member.instance_id)
        else:
            self._in_service(group, member)

    # Activities

    def record(self, group: Group, description: str, cause: str) -> Activity:
        activity = Activity(self._world.ids.uuid(), description, cause, self._world.now, "InProgress", 50)
        group.activities.insert(0, activity)
        del group.activities[timing.ACTIVITIES_KEPT :]
        return activity

    def finish(self, activity: Activity, status: str = "Successful", message: str = "") -> None:
        activity.status, activity.progress = status, 100
        activity.end, activity.status_message = self._world.now, message
