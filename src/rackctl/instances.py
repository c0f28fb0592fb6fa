"""The instances of a rack: list, find, terminate, and wait for a replacement."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.aws.errors import AwsError
from rackctl.clock import POLL, wait_until
from rackctl.errors import NotFound, RackctlError, Timeout, UsageError
from rackctl.model import is_ec2_instance_id
from rackctl.rack_instance import RackInstance, rack_instance
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rackctl.clock import Clock
    from rackctl.model import AutoScalingGroup, ContainerInstance, GroupInstance, Instance
    from rackctl.rack import Rack

_START_OF_ID = re.compile(r"i-[0-9a-f]*")
_SHORTEST_START = len("i-") + 4
_OLD_ID = len("i-") + 8
_DESCRIBES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Replacement:
    """The progress of a terminated instance's replacement; ``instance`` is None before its launch.

    ``problem`` is Auto Scaling's message about a launch that failed.
    """

    instance: RackInstance | None = None
    problem: str = ""

    @property
    def is_ready(self) -> bool:
        return bool(self.instance and self.instance.can_take_tasks)

    def describe(self) -> str:
        """Return the progress in a few words."""
        if self.instance is None:
            return self.problem or "not launched yet"
        return f"{self.instance.ec2_instance_id}: {self.instance.describe()}"


class Instances:
    """The instances of one rack."""

    def __init__(self, rack: Rack, clock: Clock) -> None:
        self._rack = rack
        self._aws = rack.aws
        self._clock = clock

    def list(self) -> list[RackInstance]:
        """Return every instance of the rack, sorted by id.

        These are the instances that are tagged ``Rack=<name>`` or registered with the cluster, except those tagged
        ``Purpose=Build``. Raises NotFound if the cluster does not exist.
        """
        with ThreadPoolExecutor(_DESCRIBES_AT_ONCE) as pool:
            tagged = pool.submit(lambda: list(self._aws.ec2.instances_tagged({"Rack": self._rack.name})))
            described = [
                pool.submit(self._aws.ecs.describe_container_instances, self._rack.cluster, arns)
                for arns in self._aws.ecs.container_instance_arns(self._rack.cluster)
            ]
            registered: dict[str, list[ContainerInstance]] = {}
            for found in (found for page in described for found in page.result() if found.ec2_instance_id):
                registered.setdefault(found.ec2_instance_id, []).append(found)
            instances = {instance.ec2_instance_id: instance for instance in tagged.result()}
        # EC2 does not describe the machines of ECS Anywhere.
        untagged = sorted(id_ for id_ in registered.keys() - instances.keys() if is_ec2_instance_id(id_))
        instances.update((i.ec2_instance_id, i) for i in self._aws.ec2.instances_by_id(untagged))
        return [
            rack_instance(id_, instance, registered.get(id_, ()))
            for id_ in sorted(registered.keys() | instances.keys())
            if not ((instance := instances.get(id_)) and instance.tags.get("Purpose") == "Build")
        ]

    def instances(self) -> Sequence[Instance]:
        """Return the rack's instances that EC2 knows and that are not terminating."""
        return [listed.instance for listed in self.list() if listed.instance and not listed.instance.is_terminating]

    def find(self, ec2_instance_id: str) -> Instance:
        """Return an instance of the rack by its whole id.

        An instance that is being terminated is still found. Raises UsageError for an invalid id, NotFound for an
        instance that does not exist or is not this rack's.
        """
        require_ec2_instance_id(ec2_instance_id)
        return self._own(ec2_instance_id, next(self._aws.ec2.instances_by_id([ec2_instance_id]), None))

    def _own(self, ec2_instance_id: str, instance: Instance | None) -> Instance:
        if instance is None:
            raise NotFound(f"there is no instance {ec2_instance_id}{self._here}", hint=self._see_list)
        if instance.tags.get("Rack") != self._rack.name and not self.registrations(ec2_instance_id):
            tag = instance.tags.get("Rack")
            raise NotFound(
                f'{ec2_instance_id} is not an instance of rack "{self._rack.name}"'
                + (f": it is tagged Rack={tag}" if tag else ""),
                hint=f"`rackctl instances --rack {tag}` lists that rack's" if tag else self._see_list,
            )
        return instance

    def match(self, name: str) -> Instance:
        """Return the one instance that matches a text.

        The text is an id, the start of an id (at least four characters after ``i-``), a private, public or IPv6
        address, a DNS name, or a Name tag. Raises UsageError if several match, naming them, or if the start of an id is
        too short; NotFound if none matches.
        """
        return self.match_all([name])[0]

    def match_all(self, names: Sequence[str]) -> Sequence[Instance]:
        """Return the instances that match some texts, each once, by the rules of `match`.

        The instances, or the list, are fetched once for all texts. Raises as `match` does, for the first text that
        fails.
        """
        for name in names:
            _check_start_of_id(name)
        whole = [name for name in names if is_ec2_instance_id(name)]
        known = {i.ec2_instance_id: i for i in self._aws.ec2.instances_by_id(whole)} if whole else {}
        # Eight digits are a whole id of the old form, or the start of one of the new form.
        listed_names = [n for n in names if n not in known and (n not in whole or len(n) == _OLD_ID)]
        listed = [i.instance for i in self.list() if i.instance] if listed_names else []
        matched = [
            self._named(name, listed) if name in listed_names else self._own(name, known.get(name)) for name in names
        ]
        return list({instance.ec2_instance_id: instance for instance in matched}.values())

    def _named(self, name: str, present: Sequence[Instance]) -> Instance:
        by_id = _START_OF_ID.fullmatch(name)
        if by_id:
            matching = [i for i in present if i.ec2_instance_id.startswith(name)]
        else:
            matching = [i for i in present if _is_called(i, name)]
            # An instance that is terminating and its replacement have the same Name.
            matching = [i for i in matching if not i.is_terminating] or matching
        if len(matching) > 1:
            ids = listed((i.ec2_instance_id for i in matching), most=10)
            raise UsageError(
                f"{name} matches {len(matching)} instances: {ids}",
                hint="give more characters of its id" if by_id else "give its id",
            )
        if not matching:
            raise NotFound(
                f"no instance's id starts with {name}{self._here}"
                if by_id
                else f"no instance has {name} as its address, DNS name or Name tag{self._here}",
                hint=self._see_list,
            )
        return matching[0]

    def registrations(self, ec2_instance_id: str) -> Sequence[ContainerInstance]:
        """Return the registrations of an instance with the rack's cluster; there may be several, or none."""
        filter_ = f"ec2InstanceId == {ec2_instance_id}"
        return [
            found
            for arns in self._aws.ecs.container_instance_arns(self._rack.cluster, filter=filter_)
            for found in self._aws.ecs.describe_container_instances(self._rack.cluster, arns)
        ]

    def registered_elsewhere(self, ec2_instance_id: str) -> str:
        """Return the name of another cluster of the region that an instance is registered with, empty for none."""
        filter_ = f"ec2InstanceId == {ec2_instance_id}"
        for cluster_arn in self._aws.ecs.cluster_arns():
            is_other = cluster_arn != self._rack.ecs_cluster.cluster_arn
            if is_other and any(self._aws.ecs.container_instance_arns(cluster_arn, filter=filter_)):
                return cluster_arn.rpartition("/")[2]
        return ""

    def describe(self, instance: Instance) -> RackInstance:
        """Return an instance as EC2, ECS and Auto Scaling describe it now."""
        id_ = instance.ec2_instance_id
        return rack_instance(id_, instance, self.registrations(id_), self.member(id_))

    def describe_all(self, instances: Sequence[Instance]) -> Sequence[RackInstance]:
        """Return instances as the three services describe them now; for several, ECS's whole list is fetched once."""
        ids = [instance.ec2_instance_id for instance in instances]
        listed = {i.ec2_instance_id: i.registrations for i in self.list()} if len(ids) > 1 else {}
        members = self._aws.autoscaling.members(ids)
        return [
            rack_instance(id_, instance, listed.get(id_) or self.registrations(id_), members.get(id_))
            for id_, instance in zip(ids, instances, strict=True)
        ]

    def member(self, ec2_instance_id: str) -> GroupInstance | None:
        """Return an instance as its Auto Scaling group describes it; None if it is in no group."""
        return self._aws.autoscaling.members([ec2_instance_id]).get(ec2_instance_id)

    def terminate(self, instance: Instance, *, notify: Callable[[str], None] = lambda _: None) -> bool:
        """Have an instance's Auto Scaling group terminate and replace it; return False if it was terminating already.

        The desired capacity stays the same. If a scaling activity has to end first, ``notify`` is called. Raises
        RackctlError for an instance of no group: it would not be replaced.
        """
        id_ = instance.ec2_instance_id
        member = self.member(id_)
        if instance.is_terminating or (member and member.is_terminating):
            return False
        if member is None:
            raise not_in_a_group(id_)

        def terminated() -> bool | None:
            try:
                self._aws.autoscaling.terminate_instance(id_, decrement_desired_capacity=False)
            except AwsError as error:
                if error.busy:
                    return None
                # If the answer to a call that worked is lost, the retried call is refused: the instance is terminating
                # already.
                if not self.is_terminating(id_):
                    raise
            return True

        return wait_until(
            terminated,
            clock=self._clock,
            timeout=60,
            interval=5,
            what=lambda: f"the scaling activity in progress in group {member.auto_scaling_group_name} to end",
            notify=notify,
        )

    def is_terminating(self, ec2_instance_id: str) -> bool:
        """Return whether EC2 or its group reports that an instance is terminating or has terminated."""
        instance = next(self._aws.ec2.instances_by_id([ec2_instance_id]), None)
        if instance and instance.is_terminating:
            return True
        member = self.member(ec2_instance_id)
        return member is not None and member.is_terminating

    def group(self, name: str) -> AutoScalingGroup:
        """Describe an Auto Scaling group. Raises NotFound."""
        for group in self._aws.autoscaling.groups([name]):
            return group
        raise NotFound(f"there is no Auto Scaling group {name}")

    def replacement(self, before: AutoScalingGroup, *, timeout: float) -> Iterator[Replacement]:
        """Wait until a group that has lost an instance has a new one that can take tasks, yielding each change.

        ``before`` is the group as it was. A failed launch is reported as ``problem`` and does not end the wait, since
        Auto Scaling launches again. Raises Timeout, naming the last state.
        """
        known = {member.ec2_instance_id for member in before.instances}
        name = before.auto_scaling_group_name
        past = {activity.activity_id for activity in self._aws.autoscaling.activities(name)}
        deadline = self._clock.monotonic() + timeout
        last: Replacement | None = None
        while True:
            progress = self._newcomer(name, known)
            if not progress.instance:
                failed = [
                    activity.status_message
                    for activity in self._aws.autoscaling.activities(name)
                    if activity.status_code == "Failed" and activity.activity_id not in past
                ]
                progress = Replacement(problem=failed[0]) if failed else progress
            if progress != last:
                yield progress
                last = progress
            if progress.is_ready:
                return
            if self._clock.monotonic() >= deadline:
                raise Timeout(
                    f"gave up after {timeout:g} s waiting for the replacement in group {name}: {progress.describe()}",
                    hint="the instance was terminated; `rackctl instances` shows its replacement once it has launched",
                )
            self._clock.sleep(POLL)

    def _newcomer(self, group_name: str, known: set[str]) -> Replacement:
        """Return the new member of a group that is closest to taking tasks; an empty Replacement if there is none."""
        members = [m for m in self.group(group_name).instances if m.ec2_instance_id not in known]
        newcomers = [
            rack_instance(id_, None, self.registrations(id_), member)
            for member in members
            if not member.is_terminating
            for id_ in [member.ec2_instance_id]
        ]
        return Replacement(
            max(
                newcomers,
                key=lambda n: (n.can_take_tasks, n.agent_connected, bool(n.registrations), n.member.in_service),  # type: ignore[union-attr]
                default=None,
            )
        )

    @property
    def _here(self) -> str:
        return f' in rack "{self._rack.name}"'

    @property
    def _see_list(self) -> str:
        return f"`rackctl instances --rack {self._rack.name}` lists them"


def not_in_a_group(ec2_instance_id: str) -> RackctlError:
    """Return the error for an instance of no group, which would not be replaced."""
    return RackctlError(
        f"{ec2_instance_id} belongs to no Auto Scaling group and would not be replaced; it was not terminated",
        hint=f"to terminate it for good: `aws ec2 terminate-instances --instance-ids {ec2_instance_id}`",
    )


def _check_start_of_id(name: str) -> None:
    if not name.strip():
        require_ec2_instance_id(name)
    if _START_OF_ID.fullmatch(name) and len(name) < _SHORTEST_START:
        raise UsageError(
            f'"{name}" is too short for an instance id',
            hint=f'give at least {_SHORTEST_START - len("i-")} characters after "i-"',
        )


def _is_called(instance: Instance, name: str) -> bool:
    """Return whether a text is an address, a DNS name or the Name tag of an instance."""
    # DNS names are case-insensitive; a dot at the end stands for the root (RFC 1034, section 3.1).
    as_dns = name.lower().removesuffix(".")
    return (
        _as_address(name) in {instance.private_ip, instance.public_ip, _as_address(instance.ipv6_address)} - {""}
        or as_dns in {instance.private_dns_name.lower(), instance.public_dns_name.lower()} - {""}
        or name == instance.tags.get("Name")
    )


def _as_address(text: str) -> str:
    """Return an IPv6 address in the form of RFC 5952, and any other text as it is."""
    import ipaddress

    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        return text


def require_ec2_instance_id(text: str) -> None:
    """Raise UsageError unless a text is a whole EC2 instance id."""
    if not text.strip():
        raise UsageError("the instance id is empty", hint="is a variable in your script unset?")
    if not is_ec2_instance_id(text):
        raise UsageError(f'"{text}" is not an instance id', hint="an id looks like i-0a321c8b or i-0123456789abcdef0")
