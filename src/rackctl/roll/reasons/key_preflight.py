"""What forbids a new key, or is to be known before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.errors import RackctlError
from rackctl.keys import is_key_name
from rackctl.roll.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rackctl.keys import KeyStore
    from rackctl.model import AutoScalingGroup, Instance, LaunchTemplate, LaunchTemplateRef
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.observe import Look
    from rackctl.roll.view import RollOptions, View

STACK_TAG = "aws:cloudformation:stack-name"
_MIGRATE_DOCS = "https://docs.aws.amazon.com/autoscaling/ec2/userguide/migrate-to-launch-templates.html"


class KeyPreflight:
    """The checks of one plan of a keyroll. ``instance`` returns what EC2 has said of an instance."""

    def __init__(
        self, rack: Rack, keys: KeyStore, options: RollOptions, instance: Callable[[str], Instance | None]
    ) -> None:
        self._rack = rack
        self._aws = rack.aws
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
        """Yield what forbids a new key, and what is to be known before."""
        if self._rack["bucket"] and self._rack["kms_key"]:
            yield from self._stored(listed)
        yield from self._sharing(looks, everywhere)
        templates = self._templates([look.group for look in looks.values()])
        for name, look in looks.items():
            yield from self._group(look, views[name], templates)

    def _stored(self, listed: Sequence[RackInstance]) -> Iterator[Problem]:
        """See whether the bucket is the one that the rack's keys are stored in."""
        store, prefix = self._rack.store, self._rack["prefix"]
        try:
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
        if not group.launch_templates:
            what = f" {group.launch_configuration_name}" if group.launch_configuration_name else ""
            yield Problem(
                f"group {name} launches from a launch configuration{what}, whose key cannot be changed",
                f"move it to a launch template: {_MIGRATE_DOCS}",
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


def _named(ref: LaunchTemplateRef) -> str:
    return ref.launch_template_name or ref.launch_template_id
