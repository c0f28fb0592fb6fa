"""What forbids a roll, or is to be known before it: what a view alone does not show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackctl.errors import NotFound, RackctlError
from rackctl.roll.problems import Problem, about, in_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rackctl.instances import Instances
    from rackctl.model import AutoScalingGroup, Instance
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.observe import Look
    from rackctl.roll.view import View

_REFRESH_DOCS = "https://docs.aws.amazon.com/autoscaling/ec2/userguide/asg-instance-refresh.html"
# How many instances are looked for in the account's other clusters.
_LOOKED_FOR = 10
# An instance that could not register with the rack's cluster may have registered with another one since.
_NOT_HERE = {"unknown", "failed"}


class Preflight:
    """The checks of one plan. ``instance`` returns what EC2 has said of an instance."""

    def __init__(
        self,
        rack: Rack,
        instances: Instances,
        instance: Callable[[str], Instance | None],
    ) -> None:
        self._rack = rack
        self._aws = rack.aws
        self._instances = instances
        self._instance = instance

    def problems(
        self,
        listed: Sequence[RackInstance],
        looks: Mapping[str, Look],
        views: Mapping[str, View],
    ) -> Iterator[Problem]:
        """Yield what forbids a roll, and what is to be known before."""
        yield from about("store", self._settings() or self._store())
        for name, look in looks.items():
            yield from about("groups", self._group(look, views[name]))
            yield from about("hooks", self._hooks(name))
            yield from in_plan(views[name])
        of_members = (*self._tagged_otherwise(list(views.values())), *self._elsewhere(list(views.values())))
        yield from about("registrations", (*of_members, *_registered_twice(listed)))

    def _settings(self) -> list[Problem]:
        missing = []
        for setting in ("bucket", "kms_key"):
            try:
                self._rack.require(setting)
            except NotFound as error:
                missing.append(Problem(str(error), error.hint))
        return missing

    def _store(self) -> Iterator[Problem]:
        """Try the bucket and the KMS key as the roll would use them."""
        store, prefix = self._rack.store, self._rack["prefix"]
        try:
            self._try_kms()
            if not store.try_conditional_write(f"{prefix}/write-check"):
                yield Problem(
                    f"s3://{store.name} ignores If-Match, so that two rolls could run at once",
                    "use a bucket of Amazon S3",
                )
        except RackctlError as error:
            yield Problem(str(error), error.hint)

    def _try_kms(self) -> None:
        nonce, context = b"rackctl", {"rackctl:rack": self._rack.name, "rackctl:key-name": "write-check"}
        kms, key = self._aws.kms, self._rack.kms_key
        sealed = kms.encrypt(key, nonce, context, what="the journal's seal")
        if kms.decrypt(sealed, context, what="the journal's seal", kms_key=key) != nonce:
            raise RackctlError(f"KMS key {key} does not decrypt what it has encrypted")

    def _group(self, look: Look, view: View) -> Iterator[Problem]:
        group, name = look.group, look.name
        in_service = [m for m in view.capacity if m.in_service]
        if in_service and not any(m.registration in {"registered", "failed"} for m in in_service):
            yield Problem(
                f"none of the instances in service of group {name} is registered with cluster {self._rack.cluster}",
                "check --cluster, --rack and --region",
            )
        counted_in = _counted_in(group)
        if counted_in:
            yield Problem(
                f"group {name} counts its capacity in {counted_in}, not in instances: it cannot be surged by whole "
                "instances",
                f"roll it with an instance refresh: {_REFRESH_DOCS}",
            )
        if group.warm_pool_size:
            yield Problem(
                f"group {name} has {group.warm_pool_size} instances in its warm pool, which stay as they are: the roll "
                "stops when an old one enters service",
                warns=True,
            )

    def _hooks(self, name: str) -> Iterator[Problem]:
        for hook in self._aws.autoscaling.lifecycle_hooks(name):
            if hook.is_terminating:
                yield Problem(
                    f"lifecycle hook {hook.name} of group {name} may hold each terminating instance for up to "
                    f"{hook.heartbeat_timeout} s",
                    warns=True,
                )

    def _tagged_otherwise(self, views: Sequence[View]) -> Iterator[Problem]:
        """Refuse instances whose own tag names another rack, whatever their group's says."""
        for view in views:
            for member in view.old:
                instance = self._instance(member.ec2_instance_id)
                tag = instance.tags.get("Rack", self._rack.name) if instance else self._rack.name
                if tag != self._rack.name:
                    yield Problem(
                        f"{member.ec2_instance_id} of group {view.group} is tagged Rack={tag}",
                        f"tag it Rack={self._rack.name} if it is this rack's, or detach it from the group",
                    )

    def _elsewhere(self, views: Sequence[View]) -> Iterator[Problem]:
        """Refuse instances that are registered with another cluster, which no option lifts."""
        unknown = [m.ec2_instance_id for v in views for m in v.old if m.in_service and m.registration in _NOT_HERE]
        for id_ in unknown[:_LOOKED_FOR]:
            if other := self._instances.registered_elsewhere(id_):
                yield Problem(
                    f"{id_} is registered with cluster {other}, not with {self._rack.cluster}",
                    f"roll the rack of that cluster, or detach {id_} from the group",
                )


def _registered_twice(listed: Sequence[RackInstance]) -> Iterator[Problem]:
    for instance in listed:
        if len(instance.registrations) > 1:
            counts = instance.registrations[0].container_instance_arn.rpartition("/")[2]
            yield Problem(
                f"{instance.ec2_instance_id} has {len(instance.registrations)} registrations with ECS; its "
                f"status is that of {counts}; a drain follows the tasks of each registration with a connected agent",
                warns=True,
            )


def _counted_in(group: AutoScalingGroup) -> str:
    """Return in what a group counts its capacity, empty where that is instances.

    https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CreateAutoScalingGroup.html (DesiredCapacityType)
    """
    if group.desired_capacity_type not in {"", "units"}:
        return group.desired_capacity_type
    policy: Any = group.mixed_instances_policy or {}
    overrides = policy.get("LaunchTemplate", {}).get("Overrides", ())
    weighted = any(override.get("WeightedCapacity", "1") != "1" for override in overrides)
    return "weights of its instance types" if weighted else ""
