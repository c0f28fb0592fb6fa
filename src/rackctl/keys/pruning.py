"""Find stored generations that no instance can have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.errors import RackctlError
from rackctl.keys import in_order

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from rackctl.keys import KeyStore
    from rackctl.model import Instance
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance


@dataclass(frozen=True, slots=True)
class Verdict:
    """A generation, and the reason to keep it; without a reason it is deleted."""

    key_name: str
    generation: datetime
    kept: str = ""


def examine(rack: Rack, keys: KeyStore, listed: Sequence[RackInstance]) -> list[Verdict]:
    """Return the verdict on each stored generation; ``listed`` are the rack's instances.

    Raises RackctlError if a roll is unfinished, if a stored key cannot be decrypted, or if an instance's key is not
    known.
    """
    if rack.store.get(f"{rack['prefix']}/roll.json") is not None:
        raise RackctlError(
            f'a roll of rack "{rack.name}" is unfinished and needs its keys; nothing was deleted',
            hint="see `rackctl instances keyroll status`, and prune when it has ended",
        )
    if unknown := [i.ec2_instance_id for i in listed if i.instance is None and not i.is_external]:
        raise RackctlError(
            f"{', '.join(unknown)}: registered with the cluster and not described by EC2, so its key is not known; "
            "nothing was deleted",
            hint="try again once `rackctl instances` no longer lists it as gone",
        )
    stored = keys.everything()
    for name in stored:
        keys.public_keys(name)  # a generation that cannot be decrypted must not be the reason to delete another
    instances = [i.instance for i in listed if i.instance]
    # Fetched twice, so that one incomplete answer does not delete a key that is in use.
    for _ in range(2):
        instances += rack.aws.ec2.instances_with_key(list(stored))
    return judge(stored, instances, {pair.key_name for pair in rack.aws.ec2.key_pairs()})


def judge(
    stored: Mapping[str, Sequence[datetime]], instances: Iterable[Instance], pairs: Collection[str]
) -> list[Verdict]:
    """Return the verdicts by the existing instances of any rack, and by EC2's key pairs."""
    used: dict[tuple[str, datetime], str] = {}
    for instance in instances:
        if instance.state != "terminated" and (generations := stored.get(instance.key_name)):
            for generation in in_order(generations, instance.first_launch_time):
                used.setdefault((instance.key_name, generation), f"{instance.ec2_instance_id} may have it")
    return [
        Verdict(name, generation, _kept(name, generation, generations, used, pairs))
        for name, generations in stored.items()
        for generation in generations
    ]


def _kept(
    name: str,
    generation: datetime,
    generations: Sequence[datetime],
    used: Mapping[tuple[str, datetime], str],
    pairs: Collection[str],
) -> str:
    if reason := used.get((name, generation)):
        return reason
    if name not in pairs:
        # A rack of the same name in another region may share the bucket.
        return "EC2 has no key pair of that name in this region"
    return "instances launched now get it" if generation == max(generations) else ""
