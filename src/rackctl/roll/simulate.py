"""Simulate a roll of one group: `decide` on a group in which boots and drains take what is usual. Pure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field, replace

from rackctl.roll.decide import after, decide, replacing_order
from rackctl.roll.view import Done, Drain, EndBatch, Member, Raise, StartDrains, Terminate, View

# What the simulation takes for granted, in seconds: a new instance until it can take tasks, and a drain.
BOOT = 180.0
DRAIN = 90.0
# Each step costs time in proportion to the group. The rest of a large one is extrapolated.
_STEPS_TIMES_INSTANCES = 60_000
_AT_LEAST = 20
# What ends with the pause between two batches, in place of an instance.
_PAUSE = ""


@dataclass(frozen=True, slots=True)
class Simulation:
    """How a roll goes: the old instances in the order in which they go, and for how many seconds."""

    order: tuple[str, ...]
    at_once: int
    seconds: float


@dataclass(slots=True)
class _Group:
    view: View
    now: float = 0.0
    launched: int = 0
    events: list[tuple[float, int, str]] = field(default_factory=list)
    order: dict[str, None] = field(default_factory=dict)
    at_once: int = 0

    def launch(self) -> None:
        """Launch an instance where there are fewest, as Auto Scaling does."""
        zones = self.view.by_zone()
        zone = min(zones, key=lambda zone: (zones[zone], zone)) if zones else ""
        self.launched += 1
        id_ = f"new-{self.launched}"
        member = Member(id_, zone, is_old=False, registration="unknown", is_active=False, agent_connected=False)
        self.view = replace(self.view, members=(*self.view.members, member))
        self.at(self.now + BOOT, id_)

    def at(self, time: float, id_: str) -> None:
        heapq.heappush(self.events, (time, len(self.events), id_))

    def pass_time(self) -> bool:
        """Let the next boots or drains end, all that end at the same time; return False when there is none."""
        if not self.events:
            return False
        self.now = self.events[0][0]
        over: set[str] = set()
        while self.events and self.events[0][0] == self.now:
            over.add(heapq.heappop(self.events)[2])
        if _PAUSE in over:
            self.view = replace(self.view, pause_left=0.0)
        self.view = self.view.with_members(_ended(m) for m in self.view.members if m.ec2_instance_id in over)
        return True


def _ended(member: Member) -> Member:
    if member.drain:
        return replace(member, drain=Drain(0, DRAIN, is_over=True))
    return replace(member, registration="registered", is_active=True, agent_connected=True, lifecycle_state="InService")


def simulate(view: View) -> Simulation:
    """Roll a group from a view of it until nothing is left to do, or nothing happens any more."""
    group = _Group(_undisturbed(view))
    total = len(group.view.old)
    steps = max(_STEPS_TIMES_INSTANCES // max(len(view.members), 1), _AT_LEAST, 2 * view.options.batch)
    for member in group.view.capacity:
        if not member.can_take_tasks and member.registration in {"unknown", "registered"} and member.is_active is False:
            group.at(BOOT, member.ec2_instance_id)
    for _ in range(group.view.missing):
        group.launch()
    for goal in ("replace", "restore"):
        while len(group.order) < steps:
            action = decide(group.view, goal)
            if isinstance(action, Done):
                break
            if action is None:
                if not group.pass_time():
                    break
                continue
            group.view = after(group.view, action)
            _carry_out(group, action)
    done = len(group.order)
    rest = [m for m in group.view.old if m.ec2_instance_id not in group.order]
    order = (*group.order, *(m.ec2_instance_id for m in replacing_order(rest, group.view.by_zone())))
    seconds = group.now * total / done if rest and done else group.now
    return Simulation(order, max(group.at_once, 1) if total else 0, seconds)


def _undisturbed(view: View) -> View:
    """Return a group as it is once what the roll waits for has come."""
    given_up = view.options.include_unregistered
    members = tuple(
        replace(
            m,
            agent_off_for=float("inf") if m.agent_is_off else 0.0,
            is_old=True if m.is_old is None else m.is_old,
            # What is dead or absent will have been confirmed by then.
            is_confirmed=True,
            registration="absent" if given_up and m.is_old and m.registration == "unknown" else m.registration,
        )
        for m in view.members
        if not m.is_terminating
    )
    return replace(view, members=members)


def _carry_out(group: _Group, action: object) -> None:
    match action:
        case Raise(count):
            for _ in range(count):
                group.launch()
        case StartDrains(ids):
            for id_ in ids:
                group.at(group.now + DRAIN, id_)
            old = {m.ec2_instance_id for m in group.view.members if m.is_old}
            group.order.update(dict.fromkeys(id_ for id_ in ids if id_ in old))
            group.at_once = max(group.at_once, sum(bool(m.drain and m.is_old) for m in group.view.members))
        case Terminate(id_, decrement):
            gone = group.view.member(id_)
            if gone and gone.is_old:
                group.order.setdefault(id_)
            group.view = replace(group.view, members=tuple(m for m in group.view.members if m.ec2_instance_id != id_))
            if not decrement:
                group.launch()
        case EndBatch() if group.view.options.pause:
            group.at(group.now + group.view.options.pause, _PAUSE)
