"""Roll a rack's SSH key: every instance replaced by one with a new key, and nobody notices.

The state is in AWS and in the journal. Each step looks first and does what is still to do, so that `resume` is the
roll begun again, from any machine, and `abort` undoes what is found to be the roll's doing.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from signal import Signals
from typing import TYPE_CHECKING, Any

from rackctl import keys as ssh_keys
from rackctl.aws.errors import AwsError
from rackctl.errors import NotFound, RackctlError, RollIncomplete
from rackctl.keyroll.journal import (
    STALE_AFTER,
    GroupRecord,
    Journal,
    JournalLost,
    JournalStore,
    Owner,
    RollOptions,
    timestamp,
)
from rackctl.keyroll.plan import PlanRefused, Refusal, make_plan
from rackctl.keyroll.replace import KeyNotProven, Replacer
from rackctl.keyroll.run import RollStopped, Run, StopNow, StopRequest
from rackctl.keyroll.templates import Templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from rackctl.clock import Clock
    from rackctl.cluster import Cluster
    from rackctl.keyroll.groups import GroupState, Member
    from rackctl.keyroll.plan import Plan
    from rackctl.keyroll.replace import Proof
    from rackctl.keyroll.run import Event, InstancePhase
    from rackctl.keys import KeyStore
    from rackctl.model import Instance, KeyPair
    from rackctl.rack import Rack

# Auto Scaling would end instances, undrained, to balance zones that a roll puts out of balance for a while.
_SUSPENDED = "AZRebalance"
# How long to wait at the end for what was terminated to be gone, so that its key can be retired, in seconds.
_GOING_FOR = 120.0
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
_NO_TEMPLATE = {
    "InvalidLaunchTemplateId.NotFound",
    "InvalidLaunchTemplateId.VersionNotFound",
    "InvalidLaunchTemplateName.NotFoundException",
}


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """How far a group is: its instances with the old key, with the new one, and those of the new that count."""

    auto_scaling_group_name: str
    desired_capacity: int
    original_desired_capacity: int
    surge: int
    old: int
    draining: int
    new: int
    ready: int


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """An instance of a group; ``since`` is when its phase began, empty where the journal does not say."""

    ec2_instance_id: str
    auto_scaling_group_name: str
    key_name: str
    phase: InstancePhase
    since: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """Where a roll stands, as the journal and the instances say."""

    journal: Journal
    live: bool
    silent_for: float
    groups: tuple[GroupStatus, ...]
    instances: tuple[InstanceStatus, ...] = ()

    @property
    def old(self) -> int:
        return sum(group.old for group in self.groups)


class Keyroll:
    """The rolls of one rack.

    ``prove`` logs in to an instance with the new key. ``stop`` is asked at each safe point. `start`, `resume` and
    `abort` yield what happens, and do nothing but while they are iterated.
    """

    def __init__(
        self,
        rack: Rack,
        cluster: Cluster,
        keys: KeyStore,
        clock: Clock,
        *,
        prove: Callable[[Instance], Proof],
        stop: StopRequest | None = None,
    ) -> None:
        self._rack = rack
        self._cluster = cluster
        self._keys = keys
        self._clock = clock
        self._prove = prove
        self._stop = StopRequest() if stop is None else stop

    # What is, and what would be

    def plan(self, options: RollOptions) -> Plan:
        """Say what `start` would do. Changes nothing."""
        plan = make_plan(self._rack, self._cluster, options)
        if self._rack["bucket"]:
            journal = self._store().read()
            if journal is not None:
                plan = replace(plan, refusals=(self._refusal(journal), *plan.refusals))
        return plan

    def status(self) -> Status | None:
        """Say where the roll stands; None when there is none."""
        store = self._store()
        journal = store.read()
        if journal is None:
            return None
        states = Run(self._rack, self._clock, store, journal, self._stop).look_at_all()
        now = self._clock.now()
        return Status(
            journal=journal,
            live=journal.is_live(now),
            silent_for=journal.silent_for(now).total_seconds(),
            groups=tuple(
                _group_status(state, journal.groups[name], journal.key_name) for name, state in states.items()
            ),
            instances=tuple(_instance_status(m, journal) for state in states.values() for m in state.members),
        )

    # What changes things

    def start(self, options: RollOptions) -> Iterator[Event]:
        """Roll. Raises PlanRefused, with nothing changed, or RollIncomplete, RollStopped, RackctlError."""
        plan = self.plan(options)
        if plan.refusals:
            raise PlanRefused(plan.refusals)
        now = self._clock.now()
        store = self._store()
        journal = Journal(
            rack=self._rack.name,
            key_name=self._new_key_name(now),
            started=timestamp(now),
            options=options,
            total=plan.total,
        )
        run = Run(self._rack, self._clock, store, journal, self._stop)
        templates = Templates(self._rack, journal, run.save)
        names = [group.auto_scaling_group_name for group in plan.groups]
        for group in self._rack.aws.autoscaling.groups(names):
            journal.groups[group.auto_scaling_group_name] = GroupRecord(
                group.auto_scaling_group_name,
                group.desired_capacity,
                suspended_before=sorted(group.suspended_processes),
                templates=templates.record(group),
            )
        if self._stop:
            raise RollStopped("stopped before anything was changed", signal=self._stop.signal)
        if not store.create(journal, Owner.this_process()):
            other = store.read()
            raise PlanRefused([self._refusal(other) if other else Refusal("another keyroll began at the same time")])
        yield run.event("lock", f"holding {store.url}")
        yield from self._held(run, self._forwards)

    def _new_key_name(self, now: datetime) -> str:
        """Name the new key by the time, or by the next second that no key of this rack is named by."""
        taken = set(self._keys.names())
        while (name := ssh_keys.key_name(self._rack.name, now)) in taken or self._rack.aws.ec2.key_pair(name):
            now += timedelta(seconds=1)
        return name

    def resume(self, **changed: Any) -> Iterator[Event]:
        """Go on with a roll that has stopped or died; ``changed`` are options to change. Raises as `start` does."""
        store, journal = self._dead()
        if journal.phase == "aborting":
            raise RackctlError(
                "this roll is being aborted: it cannot go forwards again",
                hint=f"finish that with {self._command('abort')}",
            )
        run = self._taken(store, journal, changed)
        yield run.event("lock", f"went on with the roll begun at {journal.started}")
        yield from self._held(run, self._forwards)

    def abort(self, **changed: Any) -> Iterator[Event]:
        """Give the rack back as it was, but for instances that have been replaced. Raises as `start` does."""
        store, journal = self._dead()
        run = self._taken(store, journal, changed)
        yield run.event("lock", f"took the roll begun at {journal.started}")
        yield from self._held(run, self._backwards)

    def unlock(self, *, force: bool = False) -> Journal:
        """Take the journal from its holder, so that somebody can `resume` or `abort`.

        A holder that is at work finds out at its next step and stops. Raises RackctlError for a live holder
        unless ``force``, and NotFound when there is no roll.
        """
        store = self._store()
        journal = self._existing(store)
        if journal.is_live(self._clock.now()) and not force:
            raise RackctlError(
                f"{self._held_by(journal)}: it is at work", hint="take it away all the same with --force"
            )
        if not store.take(journal, Owner.this_process()):
            raise RackctlError(f"{store.url} was changed meanwhile: its holder is at work")
        store.release(journal)
        return journal

    # The hold

    def _store(self) -> JournalStore:
        return JournalStore(self._rack, self._clock)

    def _existing(self, store: JournalStore) -> Journal:
        journal = store.read()
        if journal is None:
            raise NotFound(f'no keyroll is under way on rack "{self._rack.name}" ({store.url} does not exist)')
        return journal

    def _dead(self) -> tuple[JournalStore, Journal]:
        """Give the journal of a roll that nobody is at work on. Raises RackctlError, NotFound."""
        store = self._store()
        journal = self._existing(store)
        if journal.is_live(self._clock.now()):
            left = max(STALE_AFTER - journal.silent_for(self._clock.now()).total_seconds(), 0)
            raise RackctlError(
                f"{self._held_by(journal)}",
                hint=f"it counts as dead when nothing is heard of it for another {left:.0f} s; if you know that it is, "
                f"{self._command('unlock --force')}",
            )
        return store, journal

    def _taken(self, store: JournalStore, journal: Journal, changed: dict[str, Any]) -> Run:
        if not store.take(journal, Owner.this_process()):
            raise RackctlError("somebody else has just taken this roll", hint=f"see {self._command('status')}")
        journal.options = replace(journal.options, **changed)
        journal.problem = ""
        return Run(self._rack, self._clock, store, journal, self._stop)

    def _held_by(self, journal: Journal) -> str:
        silent = journal.silent_for(self._clock.now()).total_seconds()
        return (
            f'{journal.owner} holds the keyroll of rack "{self._rack.name}", begun at {journal.started}, '
            f"last heard of {silent:.0f} s ago"
        )

    def _refusal(self, journal: Journal) -> Refusal:
        if journal.is_live(self._clock.now()):
            return Refusal(self._held_by(journal), f"see how far it is with {self._command('status')}")
        way = "abort" if journal.phase == "aborting" else "resume"
        return Refusal(
            f"a keyroll begun at {journal.started} has not been finished",
            f"finish it with {self._command(way)}, or see where it stands with {self._command('status')}",
        )

    def _command(self, word: str) -> str:
        return f"`rackctl instances keyroll {word} --rack {self._rack.name}`"

    def _held(self, run: Run, steps: Callable[[Run, Replacer], Iterator[Event]]) -> Iterator[Event]:
        """Do the steps of a roll whose journal is held, and leave everything running if they do not get through."""
        replacer = Replacer(run, self._cluster, self._prove)
        try:
            run.look_at_all()
            yield from steps(run, replacer)
        except StopNow:
            self._leave(run, replacer, "it was asked to stop")
            name = Signals(run.stop_signal).name
            raise RollStopped(
                f"stopped by {name}. {self._so_far(run)}", signal=run.stop_signal, hint=self._way_on(run)
            ) from None
        except JournalLost:
            raise
        except RackctlError as error:
            untouched = run.journal.phase == "preparing" or isinstance(error, KeyNotProven)
            if untouched and not run.journal.anything_drained:
                yield from self._undo(run, replacer, error)
            self._leave(run, replacer, str(error))
            hint = f"{error.hint}\n  {self._way_on(run)}" if error.hint else self._way_on(run)
            raise RollIncomplete(f"{error}. {self._so_far(run)}", hint=hint) from error
        except Exception as error:
            with suppress(JournalLost):
                self._leave(run, replacer, f"an error in rackctl itself: {error}")
            raise

    def _undo(self, run: Run, replacer: Replacer, error: RackctlError) -> Iterator[Event]:
        """Give the rack back because of an error before any instance was drained, and raise that error."""
        yield run.event("problem", f"{error}; giving the rack back")
        try:
            yield from self._backwards(run, replacer)
        except StopNow:
            self._leave(run, replacer, str(error))
            raise RollStopped(
                f"stopped while giving the rack back because of this: {error}",
                signal=run.stop_signal,
                hint=self._way_on(run),
            ) from None
        except JournalLost:
            raise
        except RackctlError as another:
            self._leave(run, replacer, str(another))
            raise RollIncomplete(
                f"{error}. The rack could not be given back: {another}", hint=self._way_on(run)
            ) from error
        given_back = RackctlError(f"{error}. Nothing was drained, and the rack is as it was", hint=error.hint)
        given_back.exit_code = error.exit_code
        raise given_back from error

    def _leave(self, run: Run, replacer: Replacer, problem: str) -> None:
        """Leave everything running, as far as AWS still lets us: nothing but JournalLost may hide why it is left.

        Raises JournalLost, with nothing changed: what drains may be another process's by now.
        """
        run.journal.problem = problem
        try:
            run.store.hold(run.journal)
        except JournalLost:
            raise
        except RackctlError:
            pass  # whether it is held is not known, which is no reason to leave an instance draining
        with suppress(RackctlError):
            replacer.reactivate()
        with suppress(RackctlError):
            run.store.release(run.journal)

    def _so_far(self, run: Run) -> str:
        total, left = run.journal.total, run.journal.total - run.done
        if run.journal.phase == "preparing":
            return f"No instance was touched; all {total} are still to be replaced"
        if run.journal.phase == "aborting":
            return "The rack has been given back in part"
        return f"{run.done} of {total} instances have been replaced, {left} are left; everything is running"

    def _way_on(self, run: Run) -> str:
        if run.journal.phase == "aborting":
            return f"go on with {self._command('abort')}"
        return f"go on with {self._command('resume')}, or give the rack back with {self._command('abort')}"

    # The steps

    def _forwards(self, run: Run, replacer: Replacer) -> Iterator[Event]:
        # One with another key may have come back into service meanwhile, as from standby, into a group that was done.
        while run.journal.phase != "finishing" or any(s.stale(run.key_name) for s in run.look_at_all().values()):
            yield from self._prepare(run)
            for record in self._existing_groups(run):
                yield from replacer.replace_all(record)
                yield from replacer.give_surge_back(record)
            run.journal.phase = "finishing"
        yield from self._finish(run, replacer)

    def _prepare(self, run: Run) -> Iterator[Event]:
        run.checkpoint()
        yield from self._make_key(run)
        run.checkpoint()
        for change in Templates(self._rack, run.journal, run.save).give_new_key():
            yield run.event("template", change)
        yield from self._hold_processes(run)
        run.journal.phase = "replacing"
        run.save()

    def _make_key(self, run: Run) -> Iterator[Event]:
        """Make, store and import the key, as far as that is still to do."""
        name, options = run.key_name, run.journal.options
        public_key = self._keys.public_key(name)
        there = run.aws.ec2.key_pair(name)
        if public_key is None and there and run.journal.phase != "preparing":
            # Another key by its name would look like the one that instances were launched with, and open none of them.
            raise RackctlError(
                f"key {name} has been deleted from the store, and with it the way to the instances that have it",
                hint="abort this roll and begin another, which replaces them too",
            )
        if public_key is None and not there:
            key = ssh_keys.generate(name, created=self._clock.now(), key_type=options.key_type, reason=options.reason)
            self._keys.store(key)
            public_key = key.public_key
            yield run.event("key", f"key {name} is stored, sealed by KMS")
        if there is None:
            assert public_key is not None
            tags = {"rackctl:rack": self._rack.name, "Rack": self._rack.name}
            if options.reason:
                tags["rackctl:reason"] = options.reason[:256]
            run.aws.ec2.import_key_pair(name, public_key, tags)
            yield run.event("key", f"key pair {name} is imported into EC2")
        elif there.public_key != public_key:
            raise RackctlError(f"EC2 has another key pair by the name of {name}; nothing was overwritten")

    def _hold_processes(self, run: Run) -> Iterator[Event]:
        for group in run.aws.autoscaling.groups(list(run.journal.groups)):
            name = group.auto_scaling_group_name
            record = run.journal.groups[name]
            self._resume_launch(run, record)
            if _SUSPENDED in group.suspended_processes:
                continue
            if _SUSPENDED not in record.suspended:
                record.suspended.append(_SUSPENDED)
                run.save()
            run.aws.autoscaling.suspend_processes(name, [_SUSPENDED])
            yield run.event("processes", f"group {name}: {_SUSPENDED} suspended", group=name)

    def _resume_launch(self, run: Run, record: GroupRecord) -> None:
        """Resume Launch if a roll died in the moment it had it suspended."""
        if "Launch" in record.suspended:
            run.aws.autoscaling.resume_processes(record.auto_scaling_group_name, ["Launch"])
            record.suspended.remove("Launch")
            run.save()

    def _existing_groups(self, run: Run) -> list[GroupRecord]:
        """Give the groups of the roll that nobody has deleted meanwhile."""
        existing = {g.auto_scaling_group_name for g in run.aws.autoscaling.groups(list(run.journal.groups))}
        return [record for name, record in run.journal.groups.items() if name in existing]

    def _release_processes(self, run: Run) -> Iterator[Event]:
        for record in self._existing_groups(run):
            name = record.auto_scaling_group_name
            if record.suspended:
                run.aws.autoscaling.resume_processes(name, record.suspended)
                yield run.event("processes", f"group {name}: {', '.join(record.suspended)} resumed", group=name)
            record.suspended = []
        run.save()

    def _finish(self, run: Run, replacer: Replacer) -> Iterator[Event]:
        run.save()
        for record in self._existing_groups(run):
            self._resume_launch(run, record)
            yield from replacer.give_surge_back(record)
        yield from self._release_processes(run)
        yield from self._retire(run, self._old_keys(run))
        run.store.delete(run.journal)
        yield run.event("finished", f"every instance has the key {run.key_name}")

    def _backwards(self, run: Run, replacer: Replacer) -> Iterator[Event]:
        if run.journal.phase in {"replacing", "finishing"} and not any(
            state.stale(run.key_name) for state in run.look_at_all().values()
        ):
            yield run.event("problem", "every instance has been replaced already: finishing is all that is left")
            run.journal.phase = "finishing"
            yield from self._finish(run, replacer)
            return
        run.journal.phase = "aborting"
        run.save()
        for id_ in replacer.reactivate():
            yield run.event("restored", f"{id_}: ACTIVE again", ec2_instance_id=id_)
        for change in Templates(self._rack, run.journal, run.save).give_back():
            yield run.event("restored", change)
        for record in self._existing_groups(run):
            self._resume_launch(run, record)
            yield from replacer.give_surge_back(record)
        yield from self._release_processes(run)
        yield from self._retire(run, [*self._old_keys(run), run.key_name])
        run.store.delete(run.journal)
        yield run.event("restored", "the rack is as it was, but for the instances that have been replaced")

    def _old_keys(self, run: Run) -> list[str]:
        """Name the rack's keys that are rackctl's own and older than this roll, unless they are to be kept."""
        if run.journal.options.keep_old_keys:
            return []
        ours = {pair.key_name for pair in run.aws.ec2.key_pairs_tagged({"rackctl:rack": self._rack.name})}
        return sorted({*self._keys.names(), *ours} - {run.key_name})

    def _retire(self, run: Run, names: Sequence[str]) -> Iterator[Event]:
        """Delete those of these keys that no instance and no group's launch template names."""
        used = self._used(run, names)
        for name in names:
            if name in used:
                yield run.event("retired", f"key {name} is kept: {used[name]} has it")
                continue
            run.checkpoint()
            pair, stored = run.aws.ec2.key_pair(name), self._keys.public_key(name)
            if pair is None and name not in {run.key_name, *run.journal.retiring}:
                # A rack of the same name in another region may share the bucket, and have this key's pair.
                yield run.event(
                    "retired", f"stored key {name} is kept: EC2 has no key pair by that name in this region"
                )
                continue
            if name not in run.journal.retiring:
                run.journal.retiring.append(name)
                run.save()
            if pair is None or self._is_ours(pair, stored):
                run.aws.ec2.delete_key_pair(name)
            else:
                yield run.event("retired", f"EC2's key pair {name} is kept: it is none of rackctl's making")
            self._keys.delete(name)
            yield run.event("retired", f"key {name} is deleted: nothing has it any more")

    def _is_ours(self, pair: KeyPair, stored: str | None) -> bool:
        """Whether EC2's key pair is the stored key or, where none is stored, was tagged as one of this rack's."""
        return pair.public_key == stored if stored else pair.tags.get("rackctl:rack") == self._rack.name

    def _used(self, run: Run, names: Sequence[str]) -> dict[str, str]:
        """Map those of these keys that something still names to what does."""
        used: dict[str, str] = {}
        for group in run.aws.autoscaling.all_groups():
            for ref in group.launch_templates:
                try:
                    key = run.aws.ec2.launch_template_version(ref).key_name
                except AwsError as error:
                    if error.code not in _NO_TEMPLATE:
                        raise
                    continue  # a group, of whomever, that names what does not exist names no key
                if key in names:
                    used[key] = f"group {group.auto_scaling_group_name}"
        deadline = self._clock.monotonic() + _GOING_FOR
        while True:
            existing = [i for i in run.aws.ec2.instances_with_key(list(names)) if not i.is_going]
            members = run.aws.autoscaling.members([i.ec2_instance_id for i in existing])
            going = [id_ for id_, member in members.items() if member.is_going]
            if not going or self._clock.monotonic() >= deadline:
                used.update((i.key_name, i.ec2_instance_id) for i in existing)
                return used
            run.pause()


def _instance_status(member: Member, journal: Journal) -> InstanceStatus:
    registered = member.container_instance
    phase: InstancePhase
    if member.is_going:
        phase = "terminating"
    elif member.key_name == journal.key_name:
        phase = "ready" if member.counts else "booting" if member.in_service else "launching"
    else:
        phase = "draining" if registered and registered.status == "DRAINING" else "waiting"
    record = journal.instances.get(member.ec2_instance_id)
    return InstanceStatus(
        member.ec2_instance_id,
        member.group_instance.auto_scaling_group_name,
        member.key_name,
        phase,
        record.since if record and record.phase == phase else "",
    )


def _group_status(state: GroupState, record: GroupRecord, key_name: str) -> GroupStatus:
    fresh = state.fresh(key_name)
    registered = [m.container_instance for m in state.stale(key_name) if m.container_instance]
    return GroupStatus(
        auto_scaling_group_name=state.name,
        desired_capacity=state.desired_capacity,
        original_desired_capacity=record.desired_capacity,
        surge=record.surge,
        old=len(state.stale(key_name)),
        draining=sum(r.status == "DRAINING" for r in registered),
        new=len(fresh),
        ready=sum(m.counts for m in fresh),
    )
