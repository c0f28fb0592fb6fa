"""Auto Scaling's part of the world: groups that keep their desired capacity."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rackctl.local.world import timing
from rackctl.local.world.base import Refused, validation_error
from rackctl.local.world.groups import Activity, Group, Member, weight_of
from rackctl.local.world.lifecycle import Lifecycle

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


PROCESSES = (
    "Launch", "Terminate", "AddToLoadBalancer", "AlarmNotification", "AZRebalance", "HealthCheck",
    "InstanceRefresh", "ReplaceUnhealthy", "ScheduledActions",
)  # fmt: skip
_ASKED = "A user asked for it."


class AutoScaling(Lifecycle):
    def add(self, group: Group) -> None:
        self.groups[group.name] = group
        self._world.after(0, "autoscaling", "reconcile", group.name)

    def get(self, name: str) -> Group:
        if name not in self.groups:
            raise validation_error(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
        return self.groups[name]

    def _group_with(self, instance_id: str) -> Group:
        group = self.group_of(instance_id)
        if group is None or instance_id not in group.members:
            raise validation_error(f"Instance Id not found - No managed instance found for instance ID {instance_id}")
        return group

    def set_desired(self, group: Group, desired: int) -> None:
        if desired < group.min_size:
            raise validation_error(
                f"New SetDesiredCapacity value {desired} is below min value {group.min_size} for the AutoScalingGroup."
            )
        if desired > group.max_size:
            raise validation_error(
                f"New SetDesiredCapacity value {desired} is above max value {group.max_size} for the AutoScalingGroup."
            )
        group.desired = desired
        self._soon(group)

    def terminate(self, instance_id: str, *, decrement: bool) -> Activity:
        """Terminate a member by id; scale-in protection does not prevent it."""
        group = self._group_with(instance_id)
        member = group.members[instance_id]
        if member.is_terminating:
            raise validation_error(f"Instance Id not found - {instance_id} is already being terminated")
        if "Terminate" in group.suspended:
            raise Refused(
                "ScalingActivityInProgress", f"The Terminate process of {group.name} is suspended; cannot terminate."
            )
        if decrement:
            self._decrement(group, member.weight)
        return self.end_member(group, member, "At a user's request an instance was taken out of service.")

    def launch_for_refresh(self, group: Group, leaving: Collection[str]) -> bool:
        """Launch a replacement for one of the ``leaving`` instances, beyond the desired capacity.

        Return whether the launch succeeded. No AWS document says that the maximum size bounds this.
        """
        before = group.capacity
        cause = "An instance was launched by an instance refresh."
        launched = group.no_launch_before <= self._world.now and self._launch(group, cause, leaving=leaving)
        if launched:
            group.refresh_surplus += group.capacity - before
        else:
            self._put_off_launches(group)
        return launched

    def terminate_for_refresh(self, group: Group, member: Member) -> None:
        """Terminate a member for an instance refresh; the group launches its replacement unless the refresh has."""
        if member.in_capacity:
            group.refresh_surplus = max(group.refresh_surplus - member.weight, 0)
        self.end_member(group, member, "An instance was taken out of service by an instance refresh.")

    @staticmethod
    def _decrement(group: Group, weight: int) -> None:
        if group.desired - weight < group.min_size:
            raise validation_error(
                f"Currently, desiredSize equals minSize ({group.min_size}). Terminating instance without "
                "replacement will violate group's min size constraint. Either set shouldDecrementDesiredCapacity "
                "flag to false or lower group's min size."
            )
        group.desired -= weight

    def detach(self, group: Group, instance_id: str, *, decrement: bool) -> Activity:
        if instance_id not in group.members:
            raise validation_error(f"The instance {instance_id} is not part of Auto Scaling group {group.name}.")
        if decrement:
            self._decrement(group, group.members[instance_id].weight)
        del group.members[instance_id]
        self._ec2.instances[instance_id].tags.pop("aws:autoscaling:groupName", None)
        self._ec2.instances[instance_id].version += 1
        self._ec2.instances[instance_id].group = ""
        self._soon(group)
        activity = self.record(group, f"Detaching EC2 instance: {instance_id}", _ASKED)
        self.finish(activity)
        return activity

    def attach(self, group: Group, instance_ids: Sequence[str]) -> None:
        """Attach running instances; the desired capacity rises by their number. Raises Refused."""
        instances = [self._ec2.get(instance_id) for instance_id in instance_ids]
        zones = {self._ec2.subnets[id_].availability_zone for id_ in group.subnets}
        for instance in instances:
            other = self.group_of(instance.instance_id)
            if other is not None:
                raise validation_error(
                    f"Instance {instance.instance_id} is already part of AutoScalingGroup:{other.name}."
                )
            if instance.state != "running":
                raise validation_error(
                    f"Invalid Instance ID(s): [{instance.instance_id}] specified. The instance is not in running state."
                )
            if instance.subnet.availability_zone not in zones:
                raise validation_error(
                    f"The instance {instance.instance_id} is in {instance.subnet.availability_zone}, where "
                    f"AutoScalingGroup:{group.name} has no subnet."
                )
        weights = [weight_of(group, instance.instance_type) for instance in instances]
        if group.desired + sum(weights) > group.max_size:
            raise validation_error(
                f"AutoScalingGroup {group.name} has min-size={group.min_size}, max-size={group.max_size}, and "
                f"desired-size={group.desired}. To attach {len(instances)} more instance, please update the "
                "AutoScalingGroup sizes appropriately."
            )
        for instance, weight in zip(instances, weights, strict=True):
            group.desired += weight
            instance.group = group.name
            instance.tags["aws:autoscaling:groupName"] = group.name
            instance.version += 1
            group.members[instance.instance_id] = Member(
                instance.instance_id, instance.subnet.availability_zone, instance.instance_type,
                instance.launch_template, self._world.now, "InService", protected=group.protect_new, weight=weight,
            )  # fmt: skip
            activity = self.record(group, f"Attaching an existing EC2 instance: {instance.instance_id}", _ASKED)
            self.finish(activity)
        self._soon(group)

    def set_standby(self, group: Group, instance_id: str, *, standby: bool, decrement: bool = False) -> Activity:
        member = group.members.get(instance_id)
        if member is None:
            raise validation_error(f"The instance {instance_id} is not part of Auto Scaling group {group.name}.")
        wanted = "InService" if standby else "Standby"
        if member.lifecycle_state != wanted:
            raise validation_error(f"The instance {instance_id} is not in {wanted}.")
        if standby and decrement:
            self._decrement(group, member.weight)
        elif not standby:
            if group.desired + member.weight > group.max_size:
                raise validation_error(f"Moving {instance_id} out of Standby would exceed the group's max size.")
            group.desired += member.weight
        member.lifecycle_state = "Standby" if standby else "InService"
        self._soon(group)
        way = "to Standby" if standby else "out of Standby"
        activity = self.record(group, f"Moving EC2 instance {way}: {instance_id}", _ASKED)
        self.finish(activity)
        return activity

    def reconcile(self, name: str) -> None:
        """Run one periodic step: replace unhealthy members, launch, scale in, rebalance."""
        group = self.groups.get(name)
        if group is None:
            return
        self._replace_unhealthy(group)
        if group.capacity < group.desired:
            self._launch_missing(group)
        elif group.capacity > group.desired + group.refresh_surplus:
            self._scale_in(group)
        elif group.capacity == group.desired:
            self._rebalance(group)
        if group.deleting and not group.members and not group.warmed:
            del self.groups[name]
            return
        self._world.after(timing.GROUP_RECONCILED, "autoscaling", "reconcile", name)

    def _soon(self, group: Group) -> None:
        self._world.changed()
        self._world.after(1, "autoscaling", "_act", group.name)

    def _act(self, name: str) -> None:
        group = self.groups.get(name)
        if group and group.capacity > group.desired + group.refresh_surplus:
            self._scale_in(group)
        elif group and group.capacity < group.desired:
            self._launch_missing(group)

    def _replace_unhealthy(self, group: Group) -> None:
        for member in list(group.members.values()):
            instance = self._ec2.instances.get(member.instance_id)
            alive = instance is not None and instance.state in {"pending", "running"}
            if "HealthCheck" not in group.suspended and not alive and member.lifecycle_state != "Standby":
                member.healthy = False
            if member.healthy or member.is_terminating or "ReplaceUnhealthy" in group.suspended:
                continue
            if "Terminate" not in group.suspended:
                self.end_member(group, member, "An instance was taken out of service in response to a health check.")

    def _launch_missing(self, group: Group) -> None:
        if "Launch" in group.suspended or group.no_launch_before > self._world.now or group.deleting:
            return
        while group.capacity < group.desired:
            cause = "An instance was started in response to a difference between desired and actual."
            if not self._launch_warmed(group, cause) and not self._launch(group, cause):
                self._put_off_launches(group)
                return

    def _put_off_launches(self, group: Group) -> None:
        if group.no_launch_before <= self._world.now:
            group.no_launch_before = self._world.now + timing.LAUNCH_RETRIED / self._world.speed

    def _launch(self, group: Group, cause: str, *, leaving: Collection[str] = ()) -> bool:
        member = self.launch(group, cause, "Pending", leaving=leaving)
        if member is not None:
            group.members[member.instance_id] = member
        return member is not None

    def _launch_warmed(self, group: Group, cause: str) -> bool:
        """Move a prepared instance of the warm pool into service; return whether one was ready."""
        ready = ("Warmed:Stopped", "Warmed:Hibernated", "Warmed:Running")
        for member in group.warmed.values():
            instance = self._ec2.instances[member.instance_id]
            if member.lifecycle_state in ready and instance.state in {"stopped", "running"} and not group.deleting:
                break
        else:
            return False
        del group.warmed[member.instance_id]
        group.members[member.instance_id] = member
        member.lifecycle_state, member.joined, member.protected = "Pending", self._world.now, group.protect_new
        instance.is_warm = False
        self.record(group, f"Launching a new EC2 instance from warm pool: {member.instance_id}", cause)
        if instance.state == "stopped":
            self._ec2.start(instance)
        else:
            self.instance_running(member.instance_id)
        return True

    def _scale_in(self, group: Group) -> None:
        if "Terminate" in group.suspended:
            return
        while group.capacity > group.desired + group.refresh_surplus:
            spare = group.capacity - group.desired - group.refresh_surplus
            free = [m for m in group.members.values() if m.in_capacity and not m.protected and m.weight <= spare]
            if not free:
                return
            filled = Counter(member.availability_zone for member in free)
            most = max(filled.values())
            # The default termination policy: the fullest zone first, there the oldest.
            victim = min((m for m in free if filled[m.availability_zone] == most), key=lambda m: m.joined)
            cause = "An instance was taken out of service to reach the desired capacity."
            if ((group.warm_pool or {}).get("InstanceReusePolicy") or {}).get("ReuseOnScaleIn"):
                self._return_to_warm_pool(group, victim, cause)
            else:
                self.end_member(group, victim, cause)

    def _return_to_warm_pool(self, group: Group, member: Member, cause: str) -> None:
        """Return a member to the warm pool; its key and its volumes stay as they are."""
        del group.members[member.instance_id]
        group.warmed[member.instance_id] = member
        member.lifecycle_state = "Warmed:Pending"
        self._ec2.instances[member.instance_id].is_warm = True
        self.finish(self.record(group, f"Returning EC2 instance to warm pool: {member.instance_id}", cause))
        self._world.tell("instance_prepared", group.name, member.instance_id)

    def _rebalance(self, group: Group) -> None:
        """If zones differ by two instances or more, launch in the emptiest one; scaling in takes from the fullest."""
        if group.suspended.keys() & {"AZRebalance", "Launch", "Terminate"} or group.desired >= group.max_size:
            return
        if any(m.lifecycle_state != "InService" for m in group.members.values()):
            return
        zones = Counter({self._ec2.subnets[id_].availability_zone: 0 for id_ in group.subnets})
        zones.update(m.availability_zone for m in group.members.values() if m.in_capacity)
        if zones and max(zones.values()) - min(zones.values()) >= 2:
            self._launch(group, "Instances were launched to balance instances in zones.")

    def delete(self, group: Group, *, force: bool) -> None:
        if (group.members or group.warmed) and not force:
            raise Refused(
                "ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances still in it."
            )
        group.desired = group.min_size = 0
        group.deleting = True
        for member in list(group.members.values()):
            if not member.is_terminating:
                self.end_member(group, member, "The group is being deleted.")
        for member in group.warmed.values():
            self._ec2.terminate(self._ec2.instances[member.instance_id])
        if not group.members and not group.warmed:
            del self.groups[group.name]

    def update(self, group: Group, changes: Mapping[str, Any]) -> None:
        """Change the given settings; a MixedInstancesPolicy replaces a launch template, and the reverse."""
        if group.refreshed_from and changes.keys() & {
            "LaunchTemplate",
            "MixedInstancesPolicy",
            "LaunchConfigurationName",
        }:
            # https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-overview.html, Limitations
            raise validation_error(
                "An active instance refresh with a desired configuration exists. All configuration options derived "
                "from the desired configuration are not available for update while the instance refresh is active."
            )
        minimum = changes.get("MinSize", group.min_size)
        maximum = changes.get("MaxSize", group.max_size)
        # If the bounds move past the desired capacity, it follows, unless the request sets it.
        desired = changes.get("DesiredCapacity", min(max(group.desired, minimum), maximum))
        if not 0 <= minimum <= maximum:
            raise validation_error("Max bound must be greater than or equal to Min bound")
        if not minimum <= desired <= maximum:
            raise validation_error("Desired capacity must be between the specified min size and max size")
        if "LaunchTemplate" in changes:
            group.launch_template, group.mixed_instances_policy = changes["LaunchTemplate"], None
            group.launch_configuration = ""
        if policy := changes.get("MixedInstancesPolicy"):
            group.mixed_instances_policy = _merged(group.mixed_instances_policy or {}, policy)
            group.launch_template, group.launch_configuration = None, ""
        if "LaunchConfigurationName" in changes:
            group.launch_configuration = changes["LaunchConfigurationName"]
            group.launch_template = group.mixed_instances_policy = None
        group.min_size, group.max_size, group.desired = minimum, maximum, desired
        if kind := changes.get("DesiredCapacityType"):
            group.desired_capacity_type = kind
            for member in group.members.values():
                member.weight = weight_of(group, member.instance_type)
        if "NewInstancesProtectedFromScaleIn" in changes:
            group.protect_new = changes["NewInstancesProtectedFromScaleIn"]
        if zones := changes.get("VPCZoneIdentifier"):
            group.subnets = [id_.strip() for id_ in zones.split(",")]
        self._soon(group)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a policy into the current one: AWS keeps the members that an update leaves out."""
    merged = dict(old)
    for key, value in new.items():
        merged[key] = _merged(old[key], value) if isinstance(value, dict) and isinstance(old.get(key), dict) else value
    return merged
