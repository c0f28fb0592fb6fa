"""Replace the instances of one group, never with less capacity than it had; and take back what the roll added.

Every step begins with a look at the group and does what is to be done next, so that it is the same whether the roll
has just begun, has been interrupted anywhere, or has found that somebody else changed the group meanwhile.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from rackctl.cluster import drain_timeout
from rackctl.errors import RackctlError
from rackctl.keyroll.capacity import Capacity
from rackctl.keyroll.groups import is_even
from rackctl.keyroll.plan import replacing_order, surge_of
from rackctl.keyroll.processes import suspend
from rackctl.keyroll.watch import Departure, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Mapping

    from rackctl.cluster import Cluster
    from rackctl.keyroll.groups import GroupState, Member
    from rackctl.keyroll.journal import GroupRecord, InstanceRecord
    from rackctl.keyroll.run import Event, Run
    from rackctl.model import AutoScalingGroup, ContainerInstance, Instance

# How long a drain may stand still before its services are asked what the matter is, in seconds.
_STUCK = 30.0
# Auto Scaling would end instances, undrained, to balance zones that a roll puts out of balance for a while.
_REBALANCING = "AZRebalance"
_PROOFS = 6
_PROVE_AGAIN = 10.0


_DEPARTED: Mapping[Departure, str] = {
    "terminated": "gone",
    "vanished": "vanished",
    "detached": "no longer in its group",
    "set aside": "on standby",
}


class Proof(Protocol):
    """How a login with the new key went; ``detail`` says why it did not work."""

    @property
    def outcome(self) -> Literal["accepted", "refused", "unreachable"]: ...
    @property
    def detail(self) -> str: ...


class KeyNotProven(RackctlError):
    """The first new instance refused the new key, or could not be asked although it had to be."""


class Replacer:
    """Works on one group at a time. ``prove`` logs in to an instance with the key that EC2 says it has."""

    def __init__(self, run: Run, cluster: Cluster, prove: Callable[[Instance], Proof]) -> None:
        self._run = run
        self._options = run.journal.options
        self._clock = run.clock
        self._cluster = cluster
        self._prove = prove
        self._watch = Watch(run)
        self._capacity = Capacity(run)
        self._drains = cluster.drains(stop_standalone=self._options.stop_standalone, patience=_STUCK)
        self._drain_began: dict[str, float] = {}
        self._drained: set[str] = set()
        self._reactivated: set[str] = set()

    # Forwards

    def replace_all(self, record: GroupRecord) -> Iterator[Event]:
        """Replace every instance of a group that carries another key, and wait until what is new counts."""
        name = record.auto_scaling_group_name
        self._watch.begin(name)
        if record.surge and not self._options.surge:
            yield from self.give_surge_back(record)
        while True:
            state = yield from self._look(record)
            stale = state.stale(self._run.key_name)
            is_whole = len(state.alive) >= state.desired_capacity and all(m.counts for m in state.alive)
            if not stale and is_whole:
                yield from self._prove_key(record, state)
                return
            yield from self._watch.check(state)
            yield from self.hold_still(record, state.group)
            if (surge := self._surge(record, state, len(stale))) > 0:
                yield self._capacity.raise_by(record, state, surge)
                continue
            yield from self._prove_key(record, state)
            self._drain_more(record, state)
            yield from self._advance(record, state)
            yield from self._watch.remind()
            self._run.pause(len(state.members))

    def hold_still(self, record: GroupRecord, group: AutoScalingGroup) -> Iterator[Event]:
        """Keep Auto Scaling from ending instances, undrained, to balance zones that a roll puts out of balance."""
        if suspend(self._run, record, group, _REBALANCING):
            name = group.auto_scaling_group_name
            yield self._run.event("processes", f"group {name}: {_REBALANCING} suspended", group=name)

    def _look(self, record: GroupRecord) -> Generator[Event, None, GroupState]:
        """Look at a group, again until AWS answers; count the surge by it, and tell what is new."""
        name = record.auto_scaling_group_name
        self._run.checkpoint()
        state = self._capacity.look(record)
        yield from self._watch.tell(state)
        for id_, departure in self._watch.departed(state):
            self._forget(id_)
            if departure in {"detached", "set aside"}:
                yield from self._let_go(name, id_, _DEPARTED[departure])
            yield self._run.event(
                "instance", f"{id_}: {_DEPARTED[departure]}", group=name, ec2_instance_id=id_, phase="gone"
            )
        return state

    def _forget(self, id_: str) -> None:
        self._drains.forget(id_)
        self._drained.discard(id_)

    def _surge(self, record: GroupRecord, state: GroupState, stale: int) -> int:
        """Say by how much the desired capacity is to be raised now."""
        share = self._capacity.share(record, state)
        wanted, _ = surge_of(state.group, max(stale - share, 0), self._options)
        return min(wanted, self._options.batch - share)

    def _prove_key(self, record: GroupRecord, state: GroupState) -> Iterator[Event]:
        """Log in to the first new instance of the group. Raises KeyNotProven."""
        ready = [m for m in state.fresh(self._run.key_name) if m.counts and m.instance]
        if record.proof or not ready:
            return
        instance = ready[0].instance
        assert instance is not None
        id_, name = instance.ec2_instance_id, state.name
        # A login may come before the instance is done with its first boot.
        for attempt in range(1, _PROOFS + 1):
            proof = self._prove(instance)
            if proof.outcome == "accepted" or attempt == _PROOFS:
                break
            yield self._run.event(
                "instance",
                f"{id_}: new, login with the new key {proof.outcome} ({proof.detail}), attempt {attempt} of {_PROOFS}",
                group=name,
                ec2_instance_id=id_,
                phase="booting",
            )
            self._run.wait(_PROVE_AGAIN)
            if self._run.instance(id_) is None:
                return  # it has vanished: the next one is asked
        if proof.outcome == "refused":
            raise KeyNotProven(
                f"{id_}, the first new instance of group {name}, refuses the new key: {proof.detail}",
                hint="its image may not take this type of key (try --key-type rsa), or not take EC2's key at all",
            )
        if proof.outcome == "unreachable" and self._options.require_ssh:
            raise KeyNotProven(
                f"{id_}, the first new instance of group {name}, cannot be reached: {proof.detail}",
                hint="--require-ssh asks for that; check the way to the instances with `rackctl instances ssh`",
            )
        record.proof = proof.outcome
        self._run.save()
        if proof.outcome == "accepted":
            yield self._run.event("proof", f"{id_} accepts the new key", group=name, ec2_instance_id=id_)
        else:
            yield self._run.event(
                "proof",
                f"{id_} cannot be reached from here ({proof.detail}): whether it accepts the new key is not known; "
                "going on",
                group=name,
                ec2_instance_id=id_,
            )

    def _drain_more(self, record: GroupRecord, state: GroupState) -> None:
        """Begin to drain as many instances as may be on their way out now."""
        key, share = self._run.key_name, self._capacity.share(record, state)
        on_their_way = {*self._drains.ec2_instance_ids, *self._drained}
        stale = state.stale(key)
        counting = sum(m.counts for m in state.alive if m.ec2_instance_id not in on_their_way)
        enough = state.desired_capacity - share - (0 if share else self._options.batch)
        candidates = [m for m in stale if m.in_service and m.ec2_instance_id not in on_their_way]
        for member in replacing_order(candidates, state.zones()):
            # Until the key is proven, nothing goes that could be kept: where no new instance is on its way, one has to.
            coming = state.fresh(key) or len(state.alive) < state.desired_capacity
            unproven = not record.proof and (on_their_way or coming)
            if unproven or len(on_their_way) >= self._options.batch:
                return
            if member.counts and counting - 1 < enough:
                return
            if not self._may_go(member):
                continue
            self._start_drain(member, state.name)
            on_their_way.add(member.ec2_instance_id)
            counting -= member.counts

    def _may_go(self, member: Member) -> bool:
        """Whether an old instance can be taken on: not while it is still booting, or its agent is away."""
        if member.container_instance is None:
            launched = member.instance.launch_time if member.instance else self._clock.now()
            age = (self._clock.now() - launched).total_seconds()
            return max(age, self._watch.lasting(f"unregistered {member.ec2_instance_id}")) > self._options.boot_timeout
        return not member.agent_is_off or self._options.force

    def _start_drain(self, member: Member, group: str) -> None:
        id_, registered = member.ec2_instance_id, member.container_instance
        record = self._run.note(group, id_, "draining")
        self._run.journal.anything_drained = True
        if registered is None or member.registration_failed or member.agent_is_off:
            # There is nothing to wait for: no tasks, or nobody who could move them.
            if registered and self._is_active(registered):
                record.drained_by_roll = True
                self._run.save()
                self._cluster.set_status([registered], "DRAINING")
            self._drained.add(id_)
            return
        self._follow(registered, record)

    def _follow(self, registered: ContainerInstance, record: InstanceRecord) -> None:
        """Drain an instance, and follow its tasks from now on."""
        if self._is_active(registered):
            record.drained_by_roll = True
            self._run.save()
        self._run.patiently(partial(self._drains.start, registered))
        self._drain_began[registered.ec2_instance_id] = self._clock.monotonic()

    def _is_active(self, registered: ContainerInstance) -> bool:
        """Whether it is the roll that drains it: also when ECS has yet to show that the roll has set it to ACTIVE."""
        return registered.status == "ACTIVE" or registered.ec2_instance_id in self._reactivated

    def _advance(self, record: GroupRecord, state: GroupState) -> Iterator[Event]:
        """Go on with what is draining, and terminate what is drained, taking the surge back with the last ones."""
        yield from self._follow_drains(state)
        for id_ in sorted(self._drained):
            latest = self._capacity.look(record, at_ecs=False)
            member = latest.member(id_)
            if member is None or member.is_going or member.is_set_aside:
                continue  # the next look tells
            share = self._capacity.share(record, latest)
            decrement = self._needs_no_replacement(member, latest, share)
            if (yield from self._capacity.terminate(record, latest, id_, decrement=decrement)):
                self._drained.discard(id_)

    def _follow_drains(self, state: GroupState) -> Iterator[Event]:
        """Find out which drains are over. Raises Timeout for one that takes too long, unless that is forced."""
        limit = self._options.drain_timeout
        for id_, progress in self._run.patiently(self._drains.poll).items():
            yield from self._watch.tell_drain(progress, state.name)
            if progress.tasks:
                if self._clock.monotonic() - self._drain_began[id_] < limit:
                    continue
                if not self._options.force:
                    raise drain_timeout(progress, limit, self._past_a_drain(state, id_))
                count = len(progress.tasks)
                what = f"{id_} still has {count} task{'s' * (count > 1)} after {limit:g} s; going on, as --force says"
                yield self._run.event("problem", what, group=state.name, ec2_instance_id=id_)
            self._drains.forget(id_)
            self._drained.add(id_)

    def _past_a_drain(self, state: GroupState, id_: str) -> str:
        """Say what helps when the drain of an instance does not end, and what else is to be known."""
        ways = (
            "make room for its tasks elsewhere, stop them (`aws ecs stop-task`), or go on with a longer "
            "--drain-timeout or with --force, which ends them"
        )
        others = sorted({*self._drains.ec2_instance_ids} - {id_})
        if others:
            ways = f"{', '.join(others)} {'are' if len(others) > 1 else 'is'} being drained as well; {ways}"
        member = state.member(id_)
        if member and member.agent_is_off:
            ways = f"its agent is off, so that ECS cannot move its tasks: restart it; or {ways}"
        return ways

    def _needs_no_replacement(self, member: Member, state: GroupState, share: int) -> bool:
        """Whether the surge stands in for an old instance, which is then taken out of the desired capacity.

        That is so for as many as the surge has, at the end; but zones that were then uneven would make Auto Scaling
        move instances, undrained, once it may again.
        """
        stale = {m.ec2_instance_id for m in state.stale(self._run.key_name)}
        # What is launched in the place of the last one may not be seen yet, nor in which zone.
        if len(stale) > share or len(state.alive) < state.desired_capacity:
            return False
        return is_even(state.zones(without=stale)) or member.availability_zone in _fullest_zones(state)

    # Backwards

    def reactivate(self) -> list[str]:
        """Set what the roll has drained, and has not terminated, to ACTIVE again; give the ids.

        Raises RackctlError, and then what is DRAINING is still known to be the roll's doing.
        """
        drained = [id_ for id_, record in self._run.journal.instances.items() if record.drained_by_roll]
        # One that was told to go, and may be going although AWS's answer was an error, must get no tasks.
        drained = [id_ for id_ in drained if not self._capacity.is_undecided(id_)]
        if not drained:
            return []
        members = {m.ec2_instance_id: m for state in self._run.look_at_all().values() for m in state.members}
        # Whether ECS shows it as DRAINING is no matter: it may not yet.
        restored = [
            registered
            for id_ in drained
            for member in [members.get(id_)]
            if (registered := member.container_instance if member else self._registration_of_one_that_is_up(id_))
            and not (member and member.is_going)
            and registered.status in {"ACTIVE", "DRAINING"}
        ]
        self._cluster.set_status(restored, "ACTIVE")
        self._reactivated.update(registered.ec2_instance_id for registered in restored)
        for registered in restored:
            if (member := members.get(registered.ec2_instance_id)) is None or member.is_set_aside:
                self._watch.count_out(registered.ec2_instance_id)
        for id_ in drained:
            self._run.note("", id_, "waiting")
            self._forget(id_)
        return [registered.ec2_instance_id for registered in restored]

    def _registration_of_one_that_is_up(self, id_: str) -> ContainerInstance | None:
        return self._cluster.registration(id_) if self._run.instance(id_) else None

    def let_go_of(self, record: GroupRecord) -> Iterator[Event]:
        """Set to ACTIVE what was drained of a group that has been deleted, if it is still up, and forget the group."""
        name = record.auto_scaling_group_name
        for id_, instance in list(self._run.journal.instances.items()):
            if instance.auto_scaling_group_name == name:
                yield from self._let_go(name, id_, "its group has been deleted")
                self._run.journal.instances.pop(id_, None)
                self._forget(id_)

    def give_surge_back(self, record: GroupRecord) -> Iterator[Event]:
        """Lower the desired capacity by what is left of the roll's share, without ending an instance that has tasks."""
        name = record.auto_scaling_group_name
        while True:
            state = yield from self._look(record)
            if not self._capacity.share(record, state):
                self.reactivate()
                for id_ in [*self._drains.ec2_instance_ids, *self._drained]:
                    self._run.note(name, id_, "waiting")
                    self._forget(id_)
                return
            if len(state.alive) < state.desired_capacity:
                if not self._needs_what_is_missing(state):
                    yield from self._capacity.lower_by_what_is_missing(record, state)
                    continue
                yield from self._watch.failed_launches(name)
                yield from self._watch.remind()
                self._run.pause(len(state.members))
                continue
            self._watch.is_over(f"missing surplus {name}")
            self._watch.check_processes(state, "Terminate")
            if self._capacity.share(record, state) > len(self._drains) + len(self._drained):
                self._drain_surplus(state)
            yield from self._follow_drains(state)
            yield from self._terminate_surplus(record)
            if self._drains or self._drained:
                yield from self._watch.remind()
                self._run.pause(len(state.members))

    def _needs_what_is_missing(self, state: GroupState) -> bool:
        """Whether a zone waits for an instance that is still to be launched, which then makes another one surplus.

        Without it the zones would be uneven, and Auto Scaling would even them, undrained, once it may again. What
        cannot be launched is not waited for: then Auto Scaling cannot do that either.
        """
        cannot = "Launch" in state.group.suspended_processes or self._watch.cannot_launch(
            f"missing surplus {state.name}"
        )
        return not cannot and not is_even(state.zones())

    def _drain_surplus(self, state: GroupState) -> None:
        """Choose what the group can best do without, in the zone that has most.

        A new one rather than an old one, what has no tasks rather than what has, and the fewer the better.
        """
        key, on_their_way = self._run.key_name, {*self._drains.ec2_instance_ids, *self._drained}

        def cost(member: Member) -> tuple[bool, bool, bool, int, str]:
            idle = not member.counts and not member.tasks
            return member.key_name != key, not idle, member.agent_is_off, member.tasks, member.ec2_instance_id

        left = [m for m in state.alive if m.ec2_instance_id not in on_their_way]
        # One whose zone is the fullest; where all that are there are set aside, the next best.
        zones = state.zones(without=on_their_way)
        most = max(zones[m.availability_zone] for m in left)
        member = min((m for m in left if zones[m.availability_zone] == most), key=cost)
        registered = member.container_instance
        record = self._run.note(state.name, member.ec2_instance_id, "draining")
        cannot_drain = member.agent_is_off and (self._options.force or not member.tasks)
        if registered is None or member.registration_failed or cannot_drain:
            self._drained.add(member.ec2_instance_id)
            return
        self._follow(registered, record)

    def _terminate_surplus(self, record: GroupRecord) -> Iterator[Event]:
        for id_ in sorted(self._drained):
            state = self._capacity.look(record, at_ecs=False)
            member = state.member(id_)
            if member is None or member.is_going or member.is_set_aside:
                continue  # the next look tells
            if not self._capacity.share(record, state):
                return  # somebody else has lowered the desired capacity meanwhile
            if (yield from self._capacity.terminate(record, state, id_, decrement=True)):
                self._drained.discard(id_)

    def _let_go(self, group: str, id_: str, why: str) -> Iterator[Event]:
        """Set what the roll was draining to ACTIVE when somebody has taken it out of service and it is still up."""
        record = self._run.journal.instances.get(id_)
        if record is None or not record.drained_by_roll:
            return
        self._run.hold()
        registered = self._registration_of_one_that_is_up(id_)
        if registered and registered.status in {"ACTIVE", "DRAINING"}:
            self._cluster.set_status([registered], "ACTIVE")
            yield self._run.event("restored", f"{id_}: {why}; ACTIVE again, and left alone", group=group)
        self._run.note(group, id_, "waiting")


def _fullest_zones(state: GroupState, *, without: Collection[str] = ()) -> set[str]:
    zones = state.zones(without=without)
    most = max(zones.values(), default=0)
    return {zone for zone, count in zones.items() if count == most}
