"""Pure worlds for `decide`: what Auto Scaling, ECS and people may do, as states and the steps between them.

Written from AWS's documentation and without `rackctl.roll.simulate`, so that the two do not share a belief. Nothing
here has a clock: in every state, everything that may happen next may happen.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from rackctl.roll.decide import REBALANCING, decide
from rackctl.roll.problems import in_roll
from rackctl.roll.view import (
    Done,
    Drain,
    EndBatch,
    Goal,
    LowerByMissing,
    Member,
    Prove,
    Raise,
    Reactivate,
    Registration,
    RollOptions,
    StartDrains,
    SuspendRebalancing,
    Terminate,
    Unsteady,
    View,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from rackctl.roll.view import Action

# Launched and not registered yet; takes tasks and has some; DRAINING with tasks, and without; registered with no agent
# that could move its tasks; in service and registered with another cluster; REGISTRATION_FAILED; terminating.
State = Literal["booting", "active", "draining", "drained", "foreign", "failed", "terminating"]
_REGISTRATION: dict[str, Registration] = {"failed": "failed", "foreign": "absent"}
MISREAD = ("unregistered", "unknown key", "no tasks", "dead registration alone")


class Unsafe(AssertionError):
    """The roll has done what it must not do in any state."""


@dataclass(frozen=True, order=True)
class Instance:
    zone: str
    is_old: bool
    state: State
    followed: bool = False
    is_kept: bool = False


@dataclass(frozen=True)
class World:
    """A group, the roll's journal of it, and what may still go wrong.

    ``promised`` is how many instances must be able to take tasks, as long as no other caller removes some. If a service
    ``settles``, it is ``settling`` from each termination of an old instance on until it is steady again. ``begun`` is
    how many old instances the batch has taken on, and ``pausing`` whether the pause after one lasts.
    """

    instances: tuple[Instance, ...]
    desired: int
    max_size: int = field(compare=False)
    options: RollOptions = field(compare=False)
    goal: Goal = "replace"
    original: int = 0
    surge: int = 0
    promised: int = 0
    rebalancing: bool = True
    proven: bool = False
    over: bool = False
    settles: bool = field(default=False, compare=False)
    settling: bool = False
    begun: int = 0
    pausing: bool = False
    crashes: int = 0
    acts: int = 0
    misreads: int = 0

    def having(self, instances: tuple[Instance, ...], **more: object) -> World:
        # Instances that are alike are alike: which of them is which makes no other state.
        return replace(self, instances=tuple(sorted(instances)), **more)  # type: ignore[arg-type]

    def changed(self, n: int, **more: object) -> tuple[Instance, ...]:
        return (*self.instances[:n], replace(self.instances[n], **more), *self.instances[n + 1 :])  # type: ignore[arg-type]

    def without(self, n: int) -> tuple[Instance, ...]:
        return (*self.instances[:n], *self.instances[n + 1 :])

    @property
    def able(self) -> int:
        return sum(i.state == "active" for i in self.instances)


def group(
    zones: str, *, room: int = 9, options: RollOptions | None = None, crashes: int = 0, acts: int = 0, misreads: int = 0
) -> World:
    """Make a group of instances that take tasks, one a letter, which names its zone: old, or in capitals kept."""
    count = len(zones)
    instances = (
        Instance(zone.lower(), is_old=zone.islower(), state="active", is_kept=zone.isupper()) for zone in zones
    )
    return World(
        tuple(sorted(instances)), count, count + room,
        options or RollOptions(), original=count, promised=count, crashes=crashes, acts=acts, misreads=misreads,
    )  # fmt: skip


# The view of the roll


def view(world: World, misread: tuple[str, int] | None = None) -> View:
    kind, wrong = misread or ("", -1)
    members = [
        _member(n, instance, kind if n == wrong else "")
        for n, instance in enumerate(world.instances)
        if not (kind == "left out" and n == wrong)
    ]
    kept = min(world.surge, max(world.desired - world.original, 0))
    return View(
        "group", world.desired, world.max_size, members=tuple(members), zones=("a", "b"),
        suspended={} if world.rebalancing else {REBALANCING: 60.0}, remaining_surge=kept, is_proven=world.proven,
        options=world.options, begun=world.begun, pause_left=60.0 if world.pausing else 0.0,
        unsteady=(Unsteady("api", "1 of 2 tasks running"),) if world.settling else (),
    )  # fmt: skip


def _member(n: int, instance: Instance, misread: str) -> Member:
    state = instance.state
    registered = state in {"active", "draining", "drained"} and misread not in {"unregistered", MISREAD[3]}
    registration = "registered" if registered else _REGISTRATION.get(state, "unknown")
    # The roll searches other clusters for an instance before it terminates it; that is not decided here.
    if misread == MISREAD[3] and state != "foreign":
        registration = "failed"
    drain = None
    if instance.followed:
        # The tasks that were seen are followed; ECS's own count must agree before a drain is over.
        drain = Drain(int(state != "drained"), 60.0, 60.0, is_over=state == "drained" and registered)
    return Member(
        f"i-{n:03}",
        instance.zone,
        "Terminating" if state == "terminating" else "Pending" if state == "booting" else "InService",
        is_old=None if misread == "unknown key" else instance.is_old,
        registration=registration,
        is_confirmed=state in _REGISTRATION,
        unready_for=1000.0 if state == "foreign" else 0.0,
        is_active=state == "active",
        agent_connected=registered,
        tasks=0 if misread == "no tasks" else int(state in {"active", "draining"}),
        is_terminating=state == "terminating",
        is_kept=instance.is_kept,
        is_ours=not instance.is_old and not instance.is_kept,
        drain=drain,
    )


# Events


def steps(world: World) -> Iterator[World]:
    """Yield every state that may come next. Raises Unsafe for what the roll must not do."""
    if world.over:
        return
    seen = view(world)
    if any(not problem.warns for problem in in_roll(seen, world.goal)):
        # The roll stops, with everything running, and says what to do: nothing more happens by it.
        yield replace(crash(world), crashes=world.crashes, over=True)
        return
    yield act(world, decide(seen, world.goal))
    if world.misreads:
        for n in range(len(world.instances)):
            for kind in MISREAD:
                misled = replace(world, misreads=world.misreads - 1)
                yield act(misled, decide(view(world, (kind, n)), world.goal))
    yield from _by_itself(world)
    if world.crashes:
        yield crash(world)
        yield replace(crash(world), goal="restore")
    if world.acts:
        yield from _by_an_operator(replace(world, acts=world.acts - 1))


def _by_itself(world: World) -> Iterator[World]:
    for n, instance in enumerate(world.instances):
        if instance.state == "booting":
            yield world.having(world.changed(n, state="active"))
        elif instance.state == "draining":
            yield world.having(world.changed(n, state="drained"))
        elif instance.state == "terminating":
            yield world.having(world.without(n))
    if world.settling:
        yield replace(world, settling=False)
    if world.pausing:
        yield replace(world, pausing=False)
    alive = [i for i in world.instances if i.state != "terminating"]
    if len(alive) < world.desired:
        counts = {zone: sum(i.zone == zone for i in alive) for zone in ("a", "b")}
        zone = min(counts, key=lambda zone: (counts[zone], zone))
        yield world.having((*world.instances, Instance(zone, is_old=False, state="booting")))


def crash(world: World) -> World:
    """Let the process die and another one resume or abort: what was followed and proven is forgotten."""
    instances = tuple(
        replace(i, state="active" if i.followed and i.state in {"draining", "drained"} else i.state, followed=False)
        for i in world.instances
    )
    return world.having(instances, proven=False, crashes=world.crashes - 1)


def _by_an_operator(world: World) -> Iterator[World]:
    fewer = max(world.promised - 1, 0)
    if world.desired < world.max_size:
        yield replace(world, desired=world.desired + 1, original=world.original + 1)
    for n, instance in enumerate(world.instances):
        if instance.state in {"active", "draining", "drained"} and world.desired:
            # DetachInstances with ShouldDecrementDesiredCapacity: the group is smaller by that.
            yield world.having(
                world.without(n), desired=world.desired - 1, original=max(world.original - 1, 0), promised=fewer
            )
        if instance.state in {"draining", "drained"}:
            yield world.having(world.changed(n, state="active"))
        if instance.state == "active":
            # A spot interruption, or a TerminateInstances of another caller.
            yield world.having(world.changed(n, state="terminating"), promised=fewer)
            yield world.having(world.changed(n, state="failed"), promised=fewer)


# Actions of the roll


def act(world: World, action: Action | None) -> World:  # noqa: C901 - a case for each action
    """Carry out what the roll has decided. Raises Unsafe."""
    match action:
        case None:
            return world
        case SuspendRebalancing():
            return replace(world, rebalancing=False)
        case Raise(count):
            if world.desired + count > world.max_size:
                raise Unsafe("the desired capacity was raised over the maximum size")
            if world.surge + count > world.options.extra:
                raise Unsafe(f"the surge is {world.surge + count}")
            return replace(world, desired=world.desired + count, surge=world.surge + count)
        case LowerByMissing():
            alive = sum(i.state != "terminating" for i in world.instances)
            count = min(world.surge, world.desired - alive)
            return replace(world, desired=world.desired - count, surge=world.surge - count)
        case Prove(id_):
            instance = world.instances[_n(id_)]
            if instance.is_old or instance.is_kept or instance.state != "active":
                raise Unsafe(f"{instance} was proven")
            return replace(world, proven=True)
        case StartDrains(ids):
            return _drained(world, [_n(id_) for id_ in ids])
        case Reactivate(ids):
            for id_ in ids:
                world = replace(world, instances=world.changed(_n(id_), state="active", followed=False))
            return world.having(world.instances)
        case Terminate(id_, decrement):
            return _terminated(world, _n(id_), decrement=decrement)
        case EndBatch():
            return _batch_ended(world)
        case Done():
            if world.goal == "replace" and world.begun:
                raise Unsafe("the last batch was not ended")
            if world.goal == "replace":
                return replace(world, goal="restore")
            return _ended(world)


def _n(id_: str) -> int:
    return int(id_.removeprefix("i-"))


def _drained(world: World, ns: list[int]) -> World:
    if world.rebalancing and world.goal == "replace":
        raise Unsafe("something was drained while Auto Scaling may even the zones")
    is_new = not all(world.instances[n].followed for n in ns)
    takes_back = world.goal == "restore" or (world.surge > 0 and not world.options.extra)
    if is_new and not takes_back:
        _check_pace(world)
    begun = world.begun + sum(world.instances[n].is_old and not world.instances[n].followed for n in ns)
    world = replace(world, begun=begun if world.options.ends_batches else 0)
    if world.begun > world.options.batch and not takes_back:
        raise Unsafe(f"{world.begun} are taken on by one batch")
    for n in ns:
        instance = world.instances[n]
        if instance.state not in {"active", "draining", "drained"} or (instance.is_kept and world.goal == "replace"):
            raise Unsafe(f"{instance} was drained")
        state = "draining" if instance.state == "active" else instance.state
        world = replace(world, instances=world.changed(n, state=state, followed=True))
    under_way = sum(i.followed and i.is_old for i in world.instances)
    if under_way > world.options.batch:
        raise Unsafe(f"{under_way} are drained at once")
    if is_new:  # what is drained again did not count before either
        _check_capacity(world)
    return world.having(world.instances)


def _check_pace(world: World) -> None:
    """Raise Unsafe when more tasks are moved before those moved last have settled, or before the next batch."""
    if world.settling:
        raise Unsafe("more tasks were moved while a service was not steady")
    if world.pausing:
        raise Unsafe("a batch began while the pause after the one before lasted")


def _batch_ended(world: World) -> World:
    if not world.begun or any(i.is_old and i.followed for i in world.instances):
        raise Unsafe("a batch was ended that was not over")
    if world.settling:
        raise Unsafe("a batch was ended while a service was not steady")
    return replace(world, begun=0, pausing=world.options.pause > 0)


def _check_capacity(world: World) -> None:
    """Raise Unsafe when fewer instances can take tasks than before the roll, or than that less the batch."""
    short = 0 if world.surge else world.options.batch
    if world.able < world.promised - short:
        raise Unsafe(f"{world.able} can take tasks of {world.promised}")


def _terminated(world: World, n: int, *, decrement: bool) -> World:
    instance = world.instances[n]
    # The evidence: an instance that runs tasks, or may run unseen ones, is never terminated.
    launched_and_never_registered = instance.state == "booting" and not instance.is_old
    given_up = instance.state == "foreign" and world.options.include_unregistered
    if not (instance.state in {"drained", "failed"} or launched_and_never_registered or given_up):
        raise Unsafe(f"{instance} was terminated")
    if decrement and not world.surge:
        raise Unsafe("the group was made smaller than it was")
    taken = int(decrement)
    begun = world.begun + int(instance.is_old and not instance.followed)
    return world.having(
        world.changed(n, state="terminating", followed=False),
        desired=world.desired - taken,
        surge=world.surge - taken,
        settling=world.settling or (world.settles and instance.is_old),
        begun=begun if world.options.ends_batches else 0,
    )


def _ended(world: World) -> World:
    if world.desired != world.original:
        raise Unsafe(f"the desired capacity is {world.desired} and was {world.original}")
    if any(i.followed for i in world.instances):
        raise Unsafe("something is left draining")
    return replace(world, over=True)


def step(world: World, chance: random.Random) -> World:
    """Let one of the things that may happen next happen. Raises Unsafe."""
    trouble = chance.random()
    if world.misreads and trouble < 0.1:
        n, kind = chance.randrange(max(len(world.instances), 1)), chance.choice(MISREAD)
        return act(replace(world, misreads=world.misreads - 1), decide(view(world, (kind, n)), world.goal))
    if world.crashes and trouble < 0.13:
        return chance.choice([crash(world), replace(crash(world), goal="restore")])
    if world.acts and trouble < 0.16:
        return chance.choice([*_by_an_operator(replace(world, acts=world.acts - 1)), world])
    if trouble < 0.5 and (itself := list(_by_itself(world))):
        return chance.choice(itself)
    return next(steps(world), world)
