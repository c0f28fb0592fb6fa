"""The ECS clusters of an account and region: their owners, and what each lacks to be a rack."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.errors import NotFound, RackctlError
from rackctl.keys import KeyStore
from rackctl.model import is_ec2_instance_id
from rackctl.owners import owner_of
from rackctl.roll.groups import belonging
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rackctl.aws.session import Aws
    from rackctl.model import AutoScalingGroup, CapacityProvider, EcsCluster, Instance
    from rackctl.owners import Owner
    from rackctl.rack import Rack

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class FoundGroup:
    """An Auto Scaling group of a cluster; ``instances`` are those that are in service."""

    auto_scaling_group_name: str
    instances: int
    owner: Owner | None


@dataclass(frozen=True, slots=True)
class FoundCluster:
    """A cluster, and what it lacks to be a rack.

    ``rack`` is its name as a rack. ``key_names`` are those of its instances, empty for an instance without a key.
    ``unknown`` are the reasons for which something could not be checked.
    """

    cluster_arn: str
    rack: str
    instances: int
    groups: tuple[FoundGroup, ...]
    owner: Owner | None
    key_names: tuple[str, ...]
    lacks: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.cluster_arn.rpartition("/")[2]

    @property
    def is_ready(self) -> bool:
        return not self.lacks and not self.unknown


def find_clusters(aws: Aws, rack_of: Callable[[EcsCluster], Rack]) -> list[FoundCluster]:
    """Return the clusters of an account and region, sorted by name; ``rack_of`` returns a cluster as a rack."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        everywhere = pool.submit(aws.autoscaling.all_groups)
        clusters = sorted(aws.ecs.clusters(aws.ecs.cluster_arns()), key=lambda cluster: cluster.name)
        names = sorted({name for cluster in clusters for name in cluster.capacity_providers})
        providers = pool.submit(_providers, aws, names)
        registered = pool.map(lambda cluster: _registered(aws, cluster) if cluster.registered else [], clusters)
        ids = dict(zip((cluster.cluster_arn for cluster in clusters), registered, strict=True))
        instances = {
            i.ec2_instance_id: i for i in aws.ec2.instances_by_id(sorted({i for of in ids.values() for i in of}))
        }
        seen = _Seen(everywhere.result(), providers.result(), ids, instances)
        return list(pool.map(lambda cluster: _found(cluster, rack_of(cluster), seen), clusters))


@dataclass(frozen=True, slots=True)
class _Seen:
    """AWS's documents of all clusters; ``registered`` are the EC2 instances of each, by the cluster's ARN."""

    groups: Sequence[AutoScalingGroup]
    providers: Mapping[str, CapacityProvider]
    registered: Mapping[str, Sequence[str]]
    instances: Mapping[str, Instance]


def _providers(aws: Aws, names: Sequence[str]) -> dict[str, CapacityProvider]:
    return {provider.name: provider for provider in aws.ecs.capacity_providers(names)}


def _registered(aws: Aws, cluster: EcsCluster) -> list[str]:
    """Return the ids of the EC2 instances that are registered with a cluster, each once."""
    found = (
        registration.ec2_instance_id
        for arns in aws.ecs.container_instance_arns(cluster.cluster_arn)
        for registration in aws.ecs.describe_container_instances(cluster.cluster_arn, arns)
    )
    return sorted({id_ for id_ in found if is_ec2_instance_id(id_)})


def _found(cluster: EcsCluster, rack: Rack, seen: _Seen) -> FoundCluster:
    ids = seen.registered[cluster.cluster_arn]
    providers = [seen.providers[name] for name in cluster.capacity_providers if name in seen.providers]
    of_it = [group for group in seen.groups if belonging(group, rack.name, ids, providers) != "foreign"]
    instances = [seen.instances[id_] for id_ in ids if id_ in seen.instances and not seen.instances[id_].is_terminating]
    unknown: list[str] = []
    return FoundCluster(
        cluster.cluster_arn,
        rack.name,
        len(ids),
        tuple(
            FoundGroup(g.auto_scaling_group_name, sum(m.in_service for m in g.instances), owner_of(g.tags))
            for g in of_it
        ),
        _owner([*(group.tags for group in of_it), cluster.tags]),
        tuple(sorted({instance.key_name for instance in instances})),
        tuple(_lacks(rack, of_it, instances, unknown)),
        tuple(unknown),
    )


def _owner(tagged: Sequence[Mapping[str, str]]) -> Owner | None:
    """Return the stack of the first of some resources that belongs to one; its other resources may name the tool."""
    owners = [owner for tags in tagged if (owner := owner_of(tags))]
    same = [owner for owner in owners if owner.stack == owners[0].stack]
    return next((owner for owner in same if owner.kind != "cloudformation"), same[0]) if same else None


def _lacks(
    rack: Rack, groups: Sequence[AutoScalingGroup], instances: Sequence[Instance], unknown: list[str]
) -> Iterator[str]:
    """Yield what a cluster lacks to be a rack; collect the reasons for which something could not be checked."""
    if not instances:
        yield "instances"
    if instances and not groups:
        yield "an Auto Scaling group"
    missing = []
    for setting, what in (("bucket", "a bucket"), ("kms_key", "a KMS key")):
        try:
            rack.require(setting)
        except NotFound:
            missing.append(what)
        except RackctlError as error:
            unknown.append(str(error))
    yield from missing
    by_key: dict[str, int] = defaultdict(int)
    for instance in instances:
        by_key[instance.key_name] += 1
    if nameless := by_key.pop("", 0):
        yield f"a key on {nameless} of {len(instances)} instances"
    if unknown or not by_key:
        return
    try:
        stored = set(KeyStore(rack).names()) if "a bucket" not in missing else set()
    except RackctlError as error:
        unknown.append(str(error))
        return
    if lost := sorted(by_key.keys() - stored):
        yield f"the private key of {listed(lost, most=3)}"
