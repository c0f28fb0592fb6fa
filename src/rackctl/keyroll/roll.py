"""Roll a rack's SSH key: every instance replaced by one with a new key, and nobody notices.

The state is in AWS and in the journal. Each step looks first and does what is still to do, so that `resume` is the
roll begun again, from any machine, and `abort` undoes what is found to be the roll's doing.
"""

from __future__ import annotations

from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from signal import Signals
from typing import TYPE_CHECKING, Any

from rackctl import keys as ssh_keys
from rackctl.aws.errors import Throttled
from rackctl.errors import NotFound, RackctlError, RollIncomplete
from rackctl.keyroll.journal import (
    STALE_AFTER,
    Found,
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
from rackctl.keyroll.run import LAG, RollStopped, Run, StopNow, StopRequest
from rackctl.keyroll.status import Status, status_of
from rackctl.keyroll.steps import Steps, as_it_was
from rackctl.keyroll.templates import Templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from rackctl.clock import Clock
    from rackctl.cluster import Cluster
    from rackctl.keyroll.plan import Plan
    from rackctl.keyroll.replace import Proof
    from rackctl.keyroll.run import Event
    from rackctl.keys import KeyStore
    from rackctl.model import Instance
    from rackctl.rack import Rack


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
            found = self._store().read()
            if found is not None:
                plan = replace(plan, refusals=(self._refusal(found), *plan.refusals))
        return plan

    def status(self) -> Status | None:
        """Say where the roll stands; None when there is none."""
        store = self._store()
        found = store.read()
        if found is None:
            return None
        self._require_here(found.journal, store)
        states = Run(self._rack, self._clock, store, found.journal, self._stop).look_at_all()
        return status_of(found, states)

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
        )
        run = Run(self._rack, self._clock, store, journal, self._stop)
        templates = Templates(run)
        total = {group.auto_scaling_group_name: len(group.replace) for group in plan.groups}
        for group in self._rack.aws.autoscaling.groups(list(total)):
            journal.groups[group.auto_scaling_group_name] = GroupRecord(
                group.auto_scaling_group_name,
                group.auto_scaling_group_arn,
                group.desired_capacity,
                total[group.auto_scaling_group_name],
                suspended_before=sorted(group.suspended_processes),
                templates=templates.record(group),
            )
        if self._stop:
            raise RollStopped("stopped before anything was changed", signal=self._stop.signal)
        owner = Owner.this_process()
        if not run.patiently(lambda: store.create(journal, owner)):
            other = store.read()
            raise PlanRefused([self._refusal(other) if other else Refusal("another keyroll began at the same time")])
        where = f'rack "{self._rack.name}" in {self._rack.aws.region}'
        yield run.event("lock", f"{where}: {journal.total} to replace; holding {store.url}")
        yield from self._held(run, Steps.forwards)

    def _new_key_name(self, now: datetime) -> str:
        """Name the new key by the time, or by the next second that no key of this rack is named by."""
        taken = set(self._keys.names())
        while (name := ssh_keys.key_name(self._rack.name, now)) in taken or self._rack.aws.ec2.key_pair(name):
            now += timedelta(seconds=1)
        return name

    def resume(self, **changed: Any) -> Iterator[Event]:
        """Go on with a roll that has stopped or died; ``changed`` are options to change. Raises as `start` does."""
        store, found = self._dead()
        if found.journal.phase == "aborting":
            raise RackctlError(
                "this roll is being aborted: it cannot go forwards again",
                hint=f"finish that with {self._command('abort')}",
            )
        run = self._taken(store, found, changed)
        yield run.event("lock", f"went on with the roll begun at {run.journal.started}")
        yield from self._held(run, Steps.forwards, blind_for=LAG - found.silent_for)

    def abort(self, **changed: Any) -> Iterator[Event]:
        """Give the rack back as it was, but for instances that have been replaced. Raises as `start` does."""
        store, found = self._dead()
        run = self._taken(store, found, changed)
        yield run.event("lock", f"took the roll begun at {run.journal.started}")
        yield from self._held(run, Steps.backwards, blind_for=LAG - found.silent_for)

    def unlock(self, *, force: bool = False) -> Found:
        """Take the journal from its holder, so that somebody can `resume` or `abort`; give it as it was found.

        A holder that is at work finds out at its next step and stops. Raises RackctlError for a live holder
        unless ``force``, and NotFound when there is no roll.
        """
        store = self._store()
        found = self._existing(store)
        if found.is_live and not force:
            raise RackctlError(f"{self._held_by(found)}: it is at work", hint="take it away all the same with --force")
        taken, owner = replace(found, journal=deepcopy(found.journal)), Owner.this_process()
        taken.journal.problem = f"it was unlocked by {owner}"
        if not store.take(taken, owner):
            raise RackctlError(f"{store.url} was changed meanwhile: its holder is at work")
        store.release(taken.journal)
        return found

    # The hold

    def _store(self) -> JournalStore:
        return JournalStore(self._rack, self._clock)

    def _existing(self, store: JournalStore) -> Found:
        found = store.read()
        if found is None:
            raise NotFound(f'no keyroll is under way on rack "{self._rack.name}" ({store.url} does not exist)')
        return found

    def _dead(self) -> tuple[JournalStore, Found]:
        """Give the journal of a roll that nobody is at work on. Raises RackctlError, NotFound."""
        store = self._store()
        found = self._existing(store)
        self._require_here(found.journal, store)
        if found.is_live:
            raise RackctlError(
                f"{self._held_by(found)}: it is at work",
                hint=f"see how far it is with {self._command('status')}, or stop it there with Ctrl-C; should it have "
                f"died, it counts as dead when nothing is heard of it for another "
                f"{STALE_AFTER - found.silent_for:.0f} s, or at once after {self._command('unlock --force')}",
            )
        return store, found

    def _require_here(self, journal: Journal, store: JournalStore) -> None:
        """Raise RackctlError for a roll of another region or account, whose groups cannot be seen from here."""
        arns = {record.auto_scaling_group_arn for record in journal.groups.values()}
        here = self._rack.aws.autoscaling.groups(list(journal.groups))
        if arns and arns.isdisjoint(group.auto_scaling_group_arn for group in here):
            region, account = min(arns).split(":")[3:5]
            raise RackctlError(
                f"none of the groups of the keyroll in {store.url} is here: it is one of region {region} and account "
                f"{account}, and this is region {self._rack.aws.region}",
                hint=f"go on with it there, as with --region {region}; give each of two racks of one name that share a "
                "bucket a prefix of its own. If its groups have been deleted, there is nothing to go on with: delete "
                f"{store.url}",
            )

    def _taken(self, store: JournalStore, found: Found, changed: dict[str, Any]) -> Run:
        journal = found.journal
        if not store.take(found, Owner.this_process()):
            raise RackctlError("somebody else has just taken this roll", hint=f"see {self._command('status')}")
        journal.options = replace(journal.options, **changed)
        journal.problem = ""
        return Run(self._rack, self._clock, store, journal, self._stop)

    def _held_by(self, found: Found) -> str:
        return (
            f'{found.journal.owner} holds the keyroll of rack "{self._rack.name}", begun at {found.journal.started}, '
            f"last heard of {found.silent_for:.0f} s ago"
        )

    def _refusal(self, found: Found) -> Refusal:
        journal = found.journal
        if journal.region != self._rack.aws.region:
            return Refusal(
                f"a keyroll of the rack of the same name in {journal.region}, begun at {journal.started}, has not been "
                "finished, and has its journal where this rack's would be",
                "give each of the two racks a prefix of its own (the setting `prefix`)",
            )
        if found.is_live:
            return Refusal(self._held_by(found), f"see how far it is with {self._command('status')}")
        way = "abort" if journal.phase == "aborting" else "resume"
        return Refusal(
            f"a keyroll begun at {journal.started} has not been finished",
            f"finish it with {self._command(way)}, or see where it stands with {self._command('status')}",
        )

    def _command(self, word: str) -> str:
        return f"`rackctl instances keyroll {word} --rack {self._rack.name}`"

    def _held(self, run: Run, way: Callable[[Steps], Iterator[Event]], *, blind_for: float = 0) -> Iterator[Event]:
        """Do the steps of a roll whose journal is held, and leave everything running if they do not get through.

        ``blind_for`` is for how many seconds what another process did last may not be seen yet.
        """
        replacer = Replacer(run, self._cluster, self._prove)
        steps = Steps(run, self._cluster, self._keys, replacer)
        try:
            run.look_at_all()
            if blind_for > 0:
                yield run.event("lock", f"waiting {blind_for:.0f} s for AWS to show what was done last")
                run.wait(blind_for)
            yield from way(steps)
        except StopNow:
            left = self._leave(run, replacer, "it was asked to stop")
            name = Signals(run.stop_signal).name + (" (Ctrl-C)" if run.stop_signal == Signals.SIGINT else "")
            raise RollStopped(
                f"stopped by {name}. {self._so_far(run, left)}", signal=run.stop_signal, hint=self._way_on(run)
            ) from None
        except JournalLost:
            raise
        except RackctlError as error:
            groups = run.journal.groups.values()
            untouched = isinstance(error, KeyNotProven) or not any(group.surge or group.pending for group in groups)
            if untouched and not run.journal.anything_drained and run.journal.phase in {"preparing", "replacing"}:
                yield from self._undo(run, steps, replacer, error)
            left = self._leave(run, replacer, str(error))
            # "Run it again", as for a throttled call, is no remedy here: it would be refused.
            remedy = f"{error.hint}\n  " if error.hint and not isinstance(error, Throttled) else ""
            raise RollIncomplete(
                f"{_sentence(error)} {self._so_far(run, left)}", hint=f"{remedy}{self._way_on(run)}"
            ) from error
        except Exception as error:
            with suppress(JournalLost):
                self._leave(run, replacer, f"an error in rackctl itself: {error}")
            raise

    def _undo(self, run: Run, steps: Steps, replacer: Replacer, error: RackctlError) -> Iterator[Event]:
        """Give the rack back because of an error before any instance was drained, and raise that error."""
        yield run.event("problem", f"{error}; giving the rack back")
        try:
            yield from steps.backwards(may_finish=False)
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
                f"{_sentence(error)} The rack could not be given back: {another}", hint=self._way_on(run)
            ) from error
        except Exception as bug:
            with suppress(JournalLost):
                self._leave(run, replacer, f"an error in rackctl itself: {bug}")
            raise
        given_back = RackctlError(f"{_sentence(error)} Nothing was drained, and {as_it_was(run)}", hint=error.hint)
        given_back.exit_code = error.exit_code
        raise given_back from error

    def _leave(self, run: Run, replacer: Replacer, problem: str) -> list[str]:
        """Leave everything running, as far as AWS still lets us: nothing but JournalLost may hide why it is left.

        Give the instances that may have been left DRAINING. Raises JournalLost, with nothing changed: what drains may
        be another process's by now.
        """
        run.journal.problem = problem
        try:
            run.store.hold(run.journal)
        except JournalLost:
            raise
        except RackctlError:
            pass  # whether it is held is not known, which is no reason to leave an instance draining
        with suppress(RackctlError, StopNow):
            replacer.reactivate()
        for record in run.journal.groups.values():
            if "Launch" in record.suspended and not record.deleted:
                with suppress(RackctlError, StopNow):
                    run.aws.autoscaling.resume_processes(record.auto_scaling_group_name, ["Launch"])
                    record.suspended.remove("Launch")
        draining = [id_ for id_, record in run.journal.instances.items() if record.drained_by_roll]
        with suppress(RackctlError):
            run.store.release(run.journal)
        return draining

    def _so_far(self, run: Run, draining: Sequence[str]) -> str:
        total, left = run.journal.total, run.journal.total - run.done
        if run.journal.phase == "preparing":
            return f"No instance was touched; all {total} are still to be replaced"
        if run.journal.phase == "aborting":
            named = f"; {', '.join(draining)} may still be DRAINING" if draining else ""
            return f"The rack has been given back in part{named}"
        running = f"{', '.join(draining)} may still be DRAINING" if draining else "nothing is left draining"
        return f"{run.done} of {total} instances have been replaced, {left} are left; {running}"

    def _way_on(self, run: Run) -> str:
        """Say what of the rack is changed until somebody goes on, and how to."""
        meanwhile = "".join(f"until then {what}\n  " for what in map(_changed, run.journal.groups.values()) if what)
        if run.journal.phase == "aborting":
            return f"{meanwhile}go on with {self._command('abort')}"
        return f"{meanwhile}go on with {self._command('resume')}, or give the rack back with {self._command('abort')}"


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."


def _changed(record: GroupRecord) -> str:
    """Say what of a group is the roll's doing at the moment."""
    what = []
    if record.surge:
        what.append(f"a desired capacity raised by {record.surge} from {record.desired_capacity}")
    if record.suspended:
        what.append(f"{', '.join(record.suspended)} suspended")
    if any(template.made for template in record.templates):
        what.append("the new key in its launch template")
    return f"group {record.auto_scaling_group_name} has {', '.join(what)}" if what and not record.deleted else ""
