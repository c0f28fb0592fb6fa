"""Decide what a roll does next in one group. Pure: the same view always gives the same action.

The rules, in the order in which they matter:

- An instance is terminated only on evidence: it is seen DRAINING and each of its tasks STOPPED, it could not register,
  or an option says that what runs on it may be lost. What is unknown is waited for.
- Old instances go only while the group keeps the capacity that it had before the surge, in instances that can take
  tasks; without a surge it may lack the batch. What cannot take tasks is paced by the batch as well.
- Nothing is drained before a new instance has proven itself, unless no new instance can come without that.
- Nothing more is drained until the services whose tasks were moved are steady again. If something comes between two
  batches, one is over before the next begins.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rackctl.clock import LAG
from rackctl.roll.view import (
    FORCE,
    INCLUDE_UNREGISTERED,
    Done,
    Drain,
    EndBatch,
    LowerByMissing,
    Prove,
    Raise,
    Reactivate,
    StartDrains,
    SuspendRebalancing,
    Terminate,
    is_even,
)
from rackctl.text import counted, roughly

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rackctl.roll.view import Action, Goal, Member, RollOptions, Unsteady, View

# Auto Scaling would end instances, undrained, to balance zones that a roll puts out of balance for a while.
REBALANCING = "AZRebalance"
# Auto Scaling retries a launch without end. After so many failures in a row, the next one would fail too.
LAUNCHES_FAILED = 3
# An agent reconnects by itself every now and then, which takes seconds.
AGENT_OFF_FOR = 120.0
# A boot takes some minutes at most. What has not come by then does not hold up that a group is made smaller.
_COMES_WITHIN = 300.0


def decide(view: View, goal: Goal) -> Action | None:
    """Return the next action towards a goal, or None while something has to be waited for.

    *replace*: no old instance is left, and every instance can take tasks. *restore*: the desired capacity is the one
    before the surge, and nothing is drained that stays.
    """
    return _replace(view) if goal == "replace" else _restore(view)


def after(view: View, action: Action) -> View:
    """Return what a view is expected to become by an action, so that the next one can be decided in the same turn."""
    match action:
        case SuspendRebalancing():
            return replace(view, suspended={**view.suspended, REBALANCING: 0.0})
        case Raise(count):
            return replace(
                view, desired_capacity=view.desired_capacity + count, remaining_surge=view.remaining_surge + count
            )
        case LowerByMissing():
            count = min(view.remaining_surge, view.missing)
            return replace(
                view, desired_capacity=view.desired_capacity - count, remaining_surge=view.remaining_surge - count
            )
        case Prove():
            return replace(view, is_proven=True)
        case StartDrains(ids):
            members = [m for m in view.members if m.ec2_instance_id in ids]
            begun = view.begun + sum(bool(m.is_old) and m.drain is None for m in members)
            view = replace(view, begun=begun if view.options.ends_batches else 0)
            return view.with_members(replace(m, drain=Drain(m.tasks), is_active=False) for m in members)
        case Reactivate(ids):
            members = [m for m in view.members if m.ec2_instance_id in ids]
            return view.with_members(replace(m, drain=None, is_active=True) for m in members)
        case Terminate(id_, decrement):
            members = [m for m in view.members if m.ec2_instance_id == id_]
            begun = view.begun + sum(bool(m.is_old) and m.drain is None for m in members)
            view = replace(view, begun=begun if view.options.ends_batches else 0)
            view = view.with_members(replace(m, is_terminating=True, drain=None) for m in members)
            taken = int(decrement)
            return replace(
                view, desired_capacity=view.desired_capacity - taken, remaining_surge=view.remaining_surge - taken
            )
        case EndBatch():
            return replace(view, begun=0, pause_left=view.options.pause)
        case Done():
            return view


def evidence(member: Member, options: RollOptions) -> str:
    """Return why an instance may be terminated now; empty while nothing shows that it may."""
    if member.drain and member.drain.is_over and (not member.abandoned or options.force):
        return FORCE if member.abandoned else "it is DRAINING and its tasks are STOPPED"
    if member.registration == "failed" and member.is_confirmed:
        return "it could not register with ECS, so that no task was ever placed on it"
    if member.registration == "absent":
        if options.include_unregistered:
            return INCLUDE_UNREGISTERED
        return "this roll launched it, and it never registered with ECS" if member.is_ours else ""
    timed_out = member.drain and member.drain.elapsed >= options.drain_timeout
    if options.force and (timed_out or (not member.drain and member.agent_off_for >= AGENT_OFF_FOR)):
        return FORCE
    return ""


def surge_of(desired: int, max_size: int, to_replace: int, options: RollOptions) -> tuple[int, str]:
    """Return by how many instances a group is to grow while some of it are replaced, and why by so many."""
    wanted = min(options.extra, to_replace)
    room = max(max_size - desired, 0)
    if not to_replace:
        return 0, "nothing is to be replaced"
    if not wanted:
        return 0, "--no-surge"
    if not room:
        return 0, f"the group is at its maximum size of {max_size}, which is never raised"
    if room < wanted:
        return room, f"the group's maximum size of {max_size} allows no more"
    return wanted, "new instances launch before old ones are terminated"


def replacing_order(old: Sequence[Member], filled: Mapping[str, int]) -> list[Member]:
    """Order the instances to replace, the zones of their group being filled so.

    What cannot take tasks goes first: to replace it costs no capacity. Then one from each zone in turn, so that those
    that are left, and with them those that have come, are as even over the zones as all of them are; where zones are
    alike, from the one that has fewest, since Auto Scaling launches there, and leaves the zone of the surge for the
    end, when the surge is taken back.
    """
    zones: dict[str, list[Member]] = {}
    for member in sorted(old, key=lambda m: (m.can_take_tasks, m.ec2_instance_id), reverse=True):
        zones.setdefault(member.availability_zone, []).append(member)
    ordered = []
    while left := [zone for zone in zones.items() if zone[1]]:
        _, members = min(
            left, key=lambda zone: (zone[1][-1].can_take_tasks, -len(zone[1]), filled.get(zone[0], 0), zone[0])
        )
        ordered.append(members.pop())
    return ordered


def _replace(view: View) -> Action | None:
    options = view.options
    if view.remaining_surge and not options.extra:
        return _restore(view)
    ready = [m for m in view.capacity if m.is_new and m.can_take_tasks]
    is_whole = not view.missing and all(m.can_take_tasks for m in view.capacity)
    if is_whole and all(m.is_old is False for m in view.capacity):
        if ready and not view.is_proven:
            return Prove(ready[0].ec2_instance_id)
        return _end_batch(view) if view.begun else Done()
    if REBALANCING not in view.suspended:
        return SuspendRebalancing()
    count, _ = surge_of(view.desired_capacity, view.max_size, max(len(view.old) - view.remaining_surge, 0), options)
    if (count := min(count, options.extra - view.remaining_surge)) > 0:
        return Raise(count)
    if ready and not view.is_proven:
        return Prove(ready[0].ec2_instance_id)
    return _terminate_old(view) or _drain_again(view) or _end_batch(view) or _drain_old(view)


def _terminate_old(view: View) -> Action | None:
    """Terminate what is drained, taking the surge back with the last ones."""
    if len(view.old) <= view.remaining_surge and view.missing and not cannot_launch(view):
        # The surge stands in for those that are left, once it is seen in which zones it makes the group uneven.
        return None
    for member in sorted(view.old, key=lambda m: m.ec2_instance_id):
        if member.drain and (why := evidence(member, view.options)):
            return Terminate(member.ec2_instance_id, _needs_no_replacement(member, view), why)
    return None


def _drain_again(view: View) -> Action | None:
    """Drain what something else has set to ACTIVE again, and which gets tasks since."""
    undone = [m.ec2_instance_id for m in view.capacity if m.drain and m.is_active and m.drain.asked > LAG]
    return StartDrains(tuple(undone)) if undone else None


def _end_batch(view: View) -> Action | None:
    """End a batch of which nothing is under way; without a surge, the replacements belong to it."""
    if not view.begun or any(m.drain for m in view.capacity) or _settling(view):
        return None
    if not view.remaining_surge and (view.missing or any(not m.can_take_tasks and not m.is_old for m in view.capacity)):
        return None
    return EndBatch()


def _settling(view: View) -> list[Unsteady]:
    """Return the services that have to be steady before more tasks are moved; --force waits no longer than a drain."""
    options = view.options
    return [u for u in view.unsteady if not options.force or u.lasting < options.drain_timeout]


def _drain_old(view: View) -> Action | None:
    """Start as many drains as may be under way now, or terminate what has nothing to be drained."""
    options = view.options
    if view.pause_left > 0 or _settling(view):
        return None
    on_the_way = [m for m in view.capacity if m.drain]
    coming = [m for m in view.capacity if not m.can_take_tasks and not m.is_old]
    # Until a new instance is proven, nothing goes that could be kept: only where none is coming, one has to.
    if not view.is_proven and (
        on_the_way or view.missing or any(not m.is_old and not m.is_kept for m in view.capacity)
    ):
        return None
    able = sum(m.can_take_tasks for m in view.capacity)
    enough = view.desired_capacity - view.remaining_surge - (0 if view.remaining_surge else options.batch)
    slots = options.batch - max(len(on_the_way), view.begun)
    if not view.is_proven:
        slots = min(slots, 1)
    idle_slots = options.batch - len(on_the_way) - len(coming) - view.missing
    chosen: list[str] = []
    candidates = [m for m in view.old if m.in_service and m.drain is None]
    for member in replacing_order(candidates, view.by_zone()):
        if len(chosen) >= slots or (member.can_take_tasks and able - 1 < enough):
            break
        if not member.can_take_tasks and len(chosen) >= idle_slots:
            continue
        if _can_drain(member, options):
            chosen.append(member.ec2_instance_id)
            able -= member.can_take_tasks
        elif not chosen and (why := evidence(member, options)):
            return Terminate(member.ec2_instance_id, _needs_no_replacement(member, view), why)
    return StartDrains(tuple(chosen)) if chosen else None


def _can_drain(member: Member, options: RollOptions) -> bool:
    """Tell whether ECS can move its tasks; those of a registration without an agent are given up by --force alone."""
    return member.registration == "registered" and member.agent_connected and (not member.abandoned or options.force)


def _needs_no_replacement(member: Member, view: View) -> bool:
    """Tell whether the surge stands in for an old instance, which is then taken out of the desired capacity.

    That is so for as many as the surge has, at the end; but zones that were then uneven would make Auto Scaling
    move instances, undrained, once it may again.
    """
    old = {m.ec2_instance_id for m in view.old}
    # What is launched in the place of the last one may not be seen yet, nor in which zone.
    if len(old) > view.remaining_surge or view.missing:
        return False
    return is_even(view.by_zone(without=old)) or member.availability_zone in _fullest_zones(view)


def _restore(view: View) -> Action | None:
    under_way = [m for m in view.capacity if m.drain]
    if not view.remaining_surge:
        return Reactivate(tuple(m.ec2_instance_id for m in under_way)) if under_way else Done()
    if view.missing:
        return None if _waits_for_missing(view) else LowerByMissing()
    for member in sorted(under_way, key=lambda m: m.ec2_instance_id):
        if why := evidence(member, view.options):
            return Terminate(member.ec2_instance_id, decrement=True, evidence=why)
    if again := _drain_again(view):
        return again
    if view.remaining_surge > len(under_way) and (surplus := _surplus(view, {m.ec2_instance_id for m in under_way})):
        if why := evidence(surplus, view.options):
            return Terminate(surplus.ec2_instance_id, decrement=True, evidence=why)
        return StartDrains((surplus.ec2_instance_id,)) if surplus.registration == "registered" else None
    return None


def _waits_for_missing(view: View) -> bool:
    """Tell whether a zone waits for an instance that is still to be launched, which then makes another one surplus.

    Without it the zones would be uneven, and Auto Scaling would even them, undrained, once it may again. What
    cannot be launched is not waited for: then Auto Scaling cannot do that either.
    """
    return "Launch" not in view.suspended and not cannot_launch(view) and not is_even(view.by_zone())


def cannot_launch(view: View) -> bool:
    """Tell whether what a group lacks is not about to come."""
    return len(view.launch_failures) >= LAUNCHES_FAILED or view.missing_for > view.options.boot_timeout


def _surplus(view: View, under_way: Collection[str]) -> Member | None:
    """Return what the group can best do without: in the zone that has most, where that leaves enough capacity.

    A new one rather than an old one, what has no tasks rather than what has, and the fewer the better. None while all
    that could go are needed until others can take tasks.
    """

    def cost(member: Member) -> tuple[bool, bool, bool, int, str]:
        idle = not member.can_take_tasks and not member.tasks
        return not member.is_new, not idle, member.agent_is_off, member.tasks, member.ec2_instance_id

    def best(members: Collection[Member]) -> Member | None:
        # One whose zone is the fullest; where all that are there are on standby, the next best.
        most = max((zones[m.availability_zone] for m in members), default=0)
        return min((m for m in members if zones[m.availability_zone] == most), key=cost, default=None)

    zones = view.by_zone(without=under_way)
    left = [
        m
        for m in view.capacity
        if m.ec2_instance_id not in under_way and (m.registration != "absent" or evidence(m, view.options))
    ]
    member = best(left)
    able = sum(m.can_take_tasks for m in view.capacity)
    if member is None or not member.can_take_tasks or able > view.desired_capacity - view.remaining_surge:
        return member
    if any(_is_coming(m) for m in view.capacity):
        return None
    return best([m for m in left if not m.can_take_tasks])


def _is_coming(member: Member) -> bool:
    """Tell whether an instance may be about to take tasks."""
    if member.can_take_tasks or member.drain or member.registration == "failed":
        return False
    return max(member.unready_for, member.agent_off_for) < _COMES_WITHIN


def _fullest_zones(view: View) -> set[str]:
    zones = view.by_zone()
    most = max(zones.values(), default=0)
    return {zone for zone, count in zones.items() if count == most}


def waits_for(view: View, goal: Goal) -> list[str]:
    """Return what a group waits for, one phrase for each thing that has to happen before the next action."""
    return [*_waits_of_members(view), *_waits_of_group(view, goal)]


def _waits_of_members(view: View) -> Iterable[str]:
    for member in view.members:
        id_ = member.ec2_instance_id
        if member.is_terminating:
            held = f", held by lifecycle hook {' or '.join(view.hooks)}" if view.hooks and _is_held(member) else ""
            yield f"{id_} to terminate ({member.lifecycle_state}{held})"
        elif member.on_standby:
            continue
        elif member.drain and not member.drain.is_over:
            yield f"{id_} to drain ({counted(member.drain.left, 'task')} left)"
        elif member.is_old is None:
            yield f"EC2 to report {id_}"
        elif member.registration == "unknown" and member.in_service:
            yield f"ECS to report {id_}"
        elif member.registration == "absent":
            yield f"{id_} to register with ECS"
        elif not member.can_take_tasks and not member.drain:
            yield f"{id_} to take tasks ({member.described})"


def _is_held(member: Member) -> bool:
    return member.lifecycle_state in {"Terminating:Wait", "Terminating"}


def _waits_of_group(view: View, goal: Goal) -> Iterable[str]:
    if view.missing:
        yield f"{counted(view.missing, 'instance')} to launch"
    if goal == "restore" and view.missing and _waits_for_missing(view):
        yield "the Availability Zones to be even"
    if goal == "replace":
        yield from (f"service {u.service_name} to be steady again ({u.why})" for u in _settling(view))
        if view.pause_left > 0:
            yield f"the end of the pause between batches ({roughly(view.pause_left)} left)"
