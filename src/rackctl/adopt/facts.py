"""What a rack's own names are, for the policies of `racks policy`: groups, launch templates, bucket, keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rackctl.adopt.adoption import default_alias, default_bucket
from rackctl.errors import RackctlError
from rackctl.keys import is_key_name
from rackctl.permissions import facts_of
from rackctl.policies import Facts, grants
from rackctl.roll.groups import belonging, registered_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rackctl.instances import Instances
    from rackctl.model import AutoScalingGroup, LaunchTemplateVersion
    from rackctl.rack import Rack

# They make a store, or look for those that lack one.
_WITHOUT_STORE = {"adopt", "find"}
_PARAMETER = "resolve:ssm:"


def rack_facts(rack: Rack, instances: Instances, roles: Sequence[str], notify: Callable[[str], None]) -> Facts:
    """Return a rack's names, as far as the policies of some roles need them.

    ``notify`` is told what could not be read, so that a policy lacks it. Raises NotFound for a rack without the store
    that a role needs.
    """
    named = _names_in(roles)
    if named & {"<bucket>", "<key>"} and not set(roles) <= _WITHOUT_STORE:
        rack.require("bucket")
        rack.require("kms_key")
    groups = _groups(rack, instances) if named & {"<group>", "<launch template>"} else []
    templates = [(ref.launch_template_id, ref.version) for group in groups for ref in group.launch_templates]
    facts = facts_of(rack, [group.auto_scaling_group_name for group in groups], templates)
    cluster = rack.ecs_cluster
    found: dict[str, Sequence[str]] = {
        "<bucket>": [default_bucket(cluster)],
        "<bucket owner>": [cluster.account],
        "<alias>": [default_alias(cluster.name).removeprefix("alias/")],
        **facts.named,
        **launch_facts(rack, groups, notify),
    }
    if "<bucket's key>" in named and rack["bucket"] and "<bucket's key>" not in found:
        _explain_missing_key(rack, notify)
    return Facts(found, facts.partition)


def _names_in(roles: Iterable[str]) -> set[str]:
    return {name for role in roles for grant in grants(role) for name in grant.names}


def _groups(rack: Rack, instances: Instances) -> list[AutoScalingGroup]:
    registered = registered_ids(instances.list())
    providers = rack.aws.ecs.capacity_providers(rack.ecs_cluster.capacity_providers)
    everywhere = rack.aws.autoscaling.all_groups()
    return [group for group in everywhere if belonging(group, rack.name, registered, providers) == "ours"]


def launch_facts(rack: Rack, groups: Sequence[AutoScalingGroup], notify: Callable[[str], None]) -> dict[str, list[str]]:
    """Return what the groups' launch templates ask of whoever has a group name another version of them.

    ``notify`` is told what could not be read.
    """
    key_names: set[str] = set()
    numbered: list[dict[str, Any]] = []
    for group in groups:
        if group.launch_configuration_name:
            key_names.add(_key_of_configuration(rack, group.launch_configuration_name, notify))
        for ref in group.launch_templates:
            try:
                version: LaunchTemplateVersion = rack.aws.ec2.launch_template_version(ref)
            except RackctlError as error:
                notify(f"cannot read what group {group.auto_scaling_group_name} launches from: {error}")
                continue
            key_names.add(version.key_name)
            if ref.version.isdecimal():
                numbered.append(dict(version.data))
    images = [str(data.get("ImageId", "")) for data in numbered]
    return {
        "<key pair>": sorted(name for name in key_names if name and not is_key_name(rack.name, name)),
        "<tagging template>": ["yes"] if any(data.get("TagSpecifications") for data in numbered) else [],
        # Which role an instance profile holds, only IAM could tell.
        "<instance role>": ["*"] if any(data.get("IamInstanceProfile") for data in numbered) else [],
        "<image parameter>": sorted(
            {image.removeprefix(_PARAMETER).lstrip("/") for image in images if image.startswith(_PARAMETER)}
        ),
    }


def _key_of_configuration(rack: Rack, name: str, notify: Callable[[str], None]) -> str:
    try:
        return rack.aws.autoscaling.launch_configuration_keys().get(name, "")
    except RackctlError as error:
        notify(f"cannot read launch configuration {name}: {error}")
        return ""


def _explain_missing_key(rack: Rack, notify: Callable[[str], None]) -> None:
    """Say why the policy lacks the bucket's own KMS key, unless the bucket has none."""
    store = rack.store
    try:
        algorithm, key = rack.aws.s3.bucket_settings(store.name, owner=store.owner).encryption()
    except RackctlError as error:
        notify(
            f"cannot tell whether bucket {store.name} is encrypted with KMS, so no key of it is in the policy: {error}"
        )
        return
    if algorithm.startswith("aws:kms"):
        which = key or "AWS's own key for S3"
        notify(f"bucket {store.name} is encrypted with {which}, which could not be described; it is not in the policy")
