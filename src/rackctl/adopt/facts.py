"""A rack's own names for the policies of `racks policy`: groups, launch templates, bucket, keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.adopt.adoption import default_alias, default_bucket
from rackctl.errors import RackctlError
from rackctl.permissions import facts_of
from rackctl.policies import Facts, grants
from rackctl.roll.groups import belonging, registered_ids
from rackctl.roll.reasons.key_preflight import new_key_name
from rackctl.roll.reasons.launching import launching
from rackctl.roll.reasons.ways import ways_of
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rackctl.instances import Instances
    from rackctl.model import AutoScalingGroup
    from rackctl.rack import Rack
    from rackctl.roll.reasons.ways import KeyWay, Launching

# Names of policies whose values are read from a group's launches, in words.
_FROM_LAUNCHES = {
    "<key pair>": "key pair",
    "<instance role>": "instance role",
    "<tagging template>": "tags of new instances",
    "<image parameter>": "image parameter",
}
# These roles create a store, or find clusters that lack one.
_WITHOUT_STORE = {"adopt", "find"}
_PARAMETER = "resolve:ssm:"


def rack_facts(rack: Rack, instances: Instances, roles: Sequence[str], notify: Callable[[str], None]) -> Facts:
    """Return a rack's names, as far as the policies of some roles need them.

    ``notify`` is called with each part that could not be read, and with the statements that the policy then lacks.
    Raises NotFound for a rack without the store that a role needs.
    """
    named = _names_in(roles)
    if named & {"<bucket>", "<key>"} and not set(roles) <= _WITHOUT_STORE:
        rack.require("bucket")
        rack.require("kms_key")
    groups = _groups(rack, instances) if named & {"<group>", "<image parameter>"} else []
    lacking = [words for name, words in _FROM_LAUNCHES.items() if name in named]

    def explain(unread: str) -> None:
        if lacking:
            notify(f"the policy lacks the statements for {listed(lacking)} of a group: {unread}")

    facts = facts_with_groups(rack, groups, explain)
    cluster = rack.ecs_cluster
    found: dict[str, Sequence[str]] = {
        "<bucket>": [default_bucket(cluster)],
        "<bucket owner>": [cluster.account],
        "<alias>": [default_alias(cluster.name).removeprefix("alias/")],
        **facts.named,
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


def facts_with_groups(rack: Rack, groups: Sequence[AutoScalingGroup], notify: Callable[[str], None]) -> Facts:
    """Return a rack's names and those of groups' launches; ``notify`` is called for a group that cannot be read."""
    facts = facts_of(rack, [group.auto_scaling_group_name for group in groups])
    return Facts({**facts.named, **_launch_facts(rack, groups, notify)}, facts.partition)


def _launch_facts(
    rack: Rack, groups: Sequence[AutoScalingGroup], notify: Callable[[str], None]
) -> dict[str, list[str]]:
    """Return the names of groups' launches, and of the parts that a keyroll changes."""
    launches = list(_launches(rack, groups, notify))
    ways = ways_of(launches, rack["key_name"], "key_name", new_key_name(rack.name))
    renamed = [group for group in groups if _is_renamed(group, ways)]
    changed = dict.fromkeys(ref for group in renamed for ref in group.launch_templates)
    launched = {ref: version.data for launch in launches for ref, version in launch.versions.items()}
    numbered = {ref: launched.get(ref, {}) for ref in changed if ref.version.isdecimal()}
    images = [str(data.get("ImageId", "")) for data in launched.values()]
    return {
        "<key pair>": sorted({name for way in ways.values() for name in way.key_names}),
        "<new key pair>": [new_key_name(rack.name)] if renamed else [],
        "<launch template>": list(dict.fromkeys(ref.launch_template_id for ref in changed)),
        "<numbered template>": list(dict.fromkeys(ref.launch_template_id for ref in numbered)),
        "<tagging template>": ["yes"] if any(data.get("TagSpecifications") for data in numbered.values()) else [],
        # Only IAM knows the role of an instance profile.
        "<instance role>": ["*"] if any(data.get("IamInstanceProfile") for data in numbered.values()) else [],
        "<image parameter>": sorted(
            {image.removeprefix(_PARAMETER).lstrip("/") for image in images if image.startswith(_PARAMETER)}
        ),
    }


def _launches(rack: Rack, groups: Sequence[AutoScalingGroup], notify: Callable[[str], None]) -> Iterator[Launching]:
    """Yield the launches of groups that can be read."""
    for group in groups:
        ids = sorted({ref.launch_template_id for ref in group.launch_templates} - {""})
        try:
            templates = {found.launch_template_id: found for found in rack.aws.ec2.launch_templates(ids)}
            yield launching(rack.aws, rack.name, group, templates)
        except RackctlError as error:
            notify(f"cannot read what group {group.auto_scaling_group_name} launches from: {error}")


def _is_renamed(group: AutoScalingGroup, ways: Mapping[str, KeyWay]) -> bool:
    """Return whether a keyroll renames a group's key pair, or whether that is not known."""
    way = ways.get(group.auto_scaling_group_name)
    return way is None or way.way == "new"


def _explain_missing_key(rack: Rack, notify: Callable[[str], None]) -> None:
    """Notify that the policy lacks the bucket's own KMS key, if the bucket has or may have one."""
    store = rack.store
    try:
        algorithm, key = rack.aws.s3.bucket_settings(store.name, owner=store.owner).encryption()
    except RackctlError as error:
        notify(f"the policy lacks the statements for the KMS key of bucket {store.name}, if it has one: {error}")
        return
    if algorithm.startswith("aws:kms"):
        which = key or "AWS's own key for S3"
        notify(
            f"the policy lacks the statements for the KMS key of bucket {store.name}: {which} could not be described"
        )
