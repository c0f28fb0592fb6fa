"""What forbids a roll, or is to be known before it: what a view alone does not show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackctl.errors import NotFound, RackctlError
from rackctl.keys import is_key_name
from rackctl.roll.problems import Problem, in_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rackctl.instances import Instances
    from rackctl.keys import KeyStore
    from rackctl.model import AutoScalingGroup, Instance, LaunchTemplate, LaunchTemplateRef
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.observe import Look
    from rackctl.roll.view import RollOptions, View

STACK_TAG = "aws:cloudformation:stack-name"
_REFRESH_DOCS = "https://docs.aws.amazon.com/autoscaling/ec2/userguide/asg-instance-refresh.html"
_MIGRATE_DOCS = "https://docs.aws.amazon.com/autoscaling/ec2/userguide/migrate-to-launch-templates.html"
# How many instances are looked for in the account's other clusters.
_LOOKED_FOR = 10


class Preflight:
    """The checks of one plan. ``instance`` returns what EC2 has said of an instance."""

    def __init__(
        self,
        rack: Rack,
        instances: Instances,
        keys: KeyStore,
        options: RollOptions,
        instance: Callable[[str], Instance | None],
    ) -> None:
        self._rack = rack
        self._aws = rack.aws
        self._instances = instances
        self._keys = keys
        self._options = options
        self._instance = instance

    def problems(
        self,
        listed: Sequence[RackInstance],
        everywhere: Sequence[AutoScalingGroup],
        looks: Mapping[str, Look],
        views: Mapping[str, View],
    ) -> Iterator[Problem]:
        """Yield what forbids a roll, and what is to be known before."""
        missing = list(self._settings())
        yield from missing or self._store(listed)
        yield from self._sharing(looks, everywhere)
        templates = self._templates([look.group for look in looks.values()])
        for name, look in looks.items():
            yield from self._group(look, views[name], templates)
            yield from in_plan(views[name])
        yield from self._tagged_otherwise(list(views.values()))
        yield from self._elsewhere(list(views.values()))
        for instance in listed:
            if len(instance.registrations) > 1:
                counts = instance.registrations[0].container_instance_arn.rpartition("/")[2]
                yield Problem(
                    f"{instance.ec2_instance_id} has {len(instance.registrations)} registrations with ECS; its "
                    f"status is that of {counts}, and a drain follows the tasks of each whose agent is on",
                    warns=True,
                )

    def _settings(self) -> Iterator[Problem]:
        for setting in ("bucket", "kms_key"):
            try:
                self._rack.require(setting)
            except NotFound as error:
                yield Problem(str(error), error.hint)

    def _store(self, listed: Sequence[RackInstance]) -> Iterator[Problem]:
        """Try the bucket and the KMS key as the roll would use them, and see whether it is the rack's store."""
        store, prefix = self._rack.store, self._rack["prefix"]
        try:
            self._try_kms()
            if not store.try_conditional_write(f"{prefix}/write-check"):
                yield Problem(
                    f"s3://{store.name} ignores If-Match, so that two keyrolls could run at once",
                    "use a bucket of Amazon S3",
                )
            stored = set(self._keys.names())
        except RackctlError as error:
            yield Problem(str(error), error.hint)
            return
        present = {i.instance.key_name: i.ec2_instance_id for i in listed if i.instance and not i.is_terminating}
        lost = sorted(name for name in present if is_key_name(self._rack.name, name) and name not in stored)
        if lost:
            reason = f"key {lost[0]} of {present[lost[0]]} is not stored in s3://{store.name}/{prefix}/keys/"
            if self._rack.is_given("bucket"):
                yield Problem(f"{reason}: rackctl cannot log in to instances that have it", warns=True)
            else:
                yield Problem(
                    f"{reason}, and the bucket is named by a tag alone",
                    "check who changed the cluster's tag rackctl:bucket; if the bucket is right and the key is lost, "
                    f"set RACKCTL_BUCKET={store.name}",
                )

    def _try_kms(self) -> None:
        nonce, context = b"rackctl", {"rackctl:rack": self._rack.name, "rackctl:key-name": "write-check"}
        kms, key = self._aws.kms, self._rack.kms_key
        sealed = kms.encrypt(key, nonce, context, what="the new key")
        if kms.decrypt(sealed, context, what="the new key", kms_key=key) != nonce:
            raise RackctlError(f"KMS key {key} does not decrypt what it has encrypted")

    def _templates(self, groups: Sequence[AutoScalingGroup]) -> dict[str, LaunchTemplate]:
        ids = sorted({ref.launch_template_id for group in groups for ref in group.launch_templates})
        return {t.launch_template_id: t for t in self._aws.ec2.launch_templates([id_ for id_ in ids if id_])}

    def _sharing(self, looks: Mapping[str, Look], everywhere: Sequence[AutoScalingGroup]) -> Iterator[Problem]:
        """Refuse to change what the groups of others launch from."""
        ours = {ref for look in looks.values() for ref in look.group.launch_templates}
        changed = {ref.launch_template_id for ref in ours}
        defaults = {ref.launch_template_id for ref in ours if ref.version == "$Default"}
        for group in everywhere:
            if group.auto_scaling_group_name in looks:
                continue
            for ref in group.launch_templates:
                moves = changed if ref.version == "$Latest" else defaults if ref.version == "$Default" else set()
                if ref.launch_template_id in moves:
                    yield Problem(
                        f"group {group.auto_scaling_group_name}, which is not this rack's, launches from {ref.version} "
                        f"of launch template {_named(ref)} as well: it would get this rack's key",
                        f"have that group name a version by its number, or tag it Rack={self._rack.name} if it is "
                        "the rack's",
                    )

    def _group(self, look: Look, view: View, templates: Mapping[str, LaunchTemplate]) -> Iterator[Problem]:
        group, name = look.group, look.name
        in_service = [m for m in view.capacity if m.in_service]
        if in_service and not any(m.registration in {"registered", "failed"} for m in in_service):
            yield Problem(
                f"none of the instances in service of group {name} is registered with cluster {self._rack.cluster}",
                "check --cluster, --rack and --region",
            )
        if not group.launch_templates:
            what = f" {group.launch_configuration_name}" if group.launch_configuration_name else ""
            yield Problem(
                f"group {name} launches from a launch configuration{what}, whose key cannot be changed",
                f"move it to a launch template: {_MIGRATE_DOCS}",
            )
        counted_in = _counted_in(group)
        if counted_in:
            yield Problem(
                f"group {name} counts its capacity in {counted_in}, not in instances: it cannot be surged by whole "
                "instances",
                f"roll it with an instance refresh: {_REFRESH_DOCS}",
            )
        yield from self._stack(look, templates)
        windows = [
            m.ec2_instance_id for m in view.old if (i := self._instance(m.ec2_instance_id)) and i.platform == "windows"
        ]
        if windows and self._options.key_type != "rsa":
            yield Problem(
                f"{windows[0]} of group {name} runs Windows, and EC2 launches no Windows image with an Ed25519 key",
                "use --key-type rsa",
            )
        if group.warm_pool_size:
            yield Problem(
                f"group {name} has {group.warm_pool_size} instances in its warm pool, which keep the old key: the roll "
                "stops when one enters service",
                warns=True,
            )
        for hook in self._aws.autoscaling.lifecycle_hooks(name):
            if hook.is_terminating:
                yield Problem(
                    f"lifecycle hook {hook.name} of group {name} may hold each terminating instance for up to "
                    f"{hook.heartbeat_timeout} s",
                    warns=True,
                )

    def _stack(self, look: Look, templates: Mapping[str, LaunchTemplate]) -> Iterator[Problem]:
        owned = {
            f"launch template {_named(ref)}": template.tags[STACK_TAG]
            for ref in look.group.launch_templates
            if (template := templates.get(ref.launch_template_id)) and STACK_TAG in template.tags
        }
        if not owned and STACK_TAG in look.group.tags:
            owned = {f"group {look.name}": look.group.tags[STACK_TAG]}
        for what, stack in owned.items():
            reason = f"{what} belongs to CloudFormation stack {stack}, whose next update may bring the old key back"
            if self._options.out_of_band:
                yield Problem(reason, warns=True)
            else:
                yield Problem(reason, "change the key in the stack, or use --out-of-band")

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
        unknown = [m.ec2_instance_id for v in views for m in v.old if m.in_service and m.registration == "unknown"]
        for id_ in unknown[:_LOOKED_FOR]:
            if other := self._instances.registered_elsewhere(id_):
                yield Problem(
                    f"{id_} is registered with cluster {other}, not with {self._rack.cluster}",
                    f"roll the rack of that cluster, or detach {id_} from the group",
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


def _named(ref: LaunchTemplateRef) -> str:
    return ref.launch_template_name or ref.launch_template_id
