"""What an unfinished roll has to do with instances that something else is about to drain, or to set to ACTIVE.

The journal is read for display here, its seal unchecked: it can keep a command from doing something, and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.roll.lock import Lock
from rackctl.roll.problems import Problem
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.clock import Clock
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.lock import Found


def unfinished_roll(rack: Rack, clock: Clock) -> Found | None:
    """Return the journal of the rack's unfinished roll; None if there is none, or no bucket to keep one in."""
    found = Lock(rack, clock).read() if rack["bucket"] else None
    return found if found and found.journal.cluster_arn == rack.ecs_cluster.cluster_arn else None


def conflicts(found: Found, instances: Sequence[RackInstance], *, drain: bool) -> Iterator[Problem]:
    """Yield what refuses, or warns of, draining instances, or setting them to ACTIVE, beside an unfinished roll."""
    journal = found.journal
    roll = f"the roll started at {journal.started}"
    ids = [instance.ec2_instance_id for instance in instances]
    under_way = [id_ for id_ in ids if id_ in journal.instances]
    if not found.is_live:
        drained = [id_ for id_ in under_way if journal.instances[id_].drained_by_roll]
        if drain and drained:
            yield Problem(
                f"{roll} is not finished and had drained {listed(drained)}: `resume` and `abort` will set "
                f"{'it' if len(drained) == 1 else 'them'} to ACTIVE",
                warns=True,
            )
    elif under_way:
        yield Problem(
            f"{roll} is running ({journal.owner}) and is replacing {listed(under_way)}: it would undo this",
            f"see its progress with {journal.command('status')}; wait for its end, or stop it there with Ctrl-C",
        )
    members = [i.member for i in instances if i.member and i.ec2_instance_id not in under_way]
    rolled = sorted({m.auto_scaling_group_name for m in members if m.auto_scaling_group_name in journal.groups})
    # Auto Scaling goes on with an instance refresh though no process watches it.
    if drain and rolled and (found.is_live or journal.options.engine == "refresh"):
        yield Problem(
            f"{roll} works in group {listed(rolled)}, and waits for instances that cannot take tasks",
            warns=True,
        )
