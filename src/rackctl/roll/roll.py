"""Roll a rack: every old instance replaced by a new one, without downtime.

The state is in AWS and in the journal. Each step looks first and does what is still to do, so that `resume` is the
roll started again, from any machine, and `abort` undoes what the roll has changed.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rackctl import keys as ssh_keys
from rackctl.clock import LAG
from rackctl.errors import NotFound, RackctlError, UsageError
from rackctl.roll.execution import Execution
from rackctl.roll.groups import belonging, registered_ids
from rackctl.roll.hold import Hold, RollStopped, StopRequest
from rackctl.roll.journal import GroupRecord, Journal, PaceRecord, out_of_bounds
from rackctl.roll.lock import STALE_AFTER, Found, Lock
from rackctl.roll.loop import Loop
from rackctl.roll.owner import Operator, Owner
from rackctl.roll.plan import Planner, PlanRefused
from rackctl.roll.problems import Problem
from rackctl.roll.reasons.chosen import Chosen, Outdated
from rackctl.roll.reasons.key import NewKey
from rackctl.roll.reasons.key_preflight import key_pair_record, new_key_name
from rackctl.roll.reasons.launching import key_names
from rackctl.roll.reasons.templates import Templates
from rackctl.roll.refresh import RefreshSteps, require_none
from rackctl.roll.refreshes import Refreshes
from rackctl.roll.report import Status, status_of
from rackctl.roll.steps import Steps
from rackctl.roll.view import KEYROLL
from rackctl.text import rfc3339, roughly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from rackctl.clock import Clock
    from rackctl.instances import Instances
    from rackctl.keys import KeyStore
    from rackctl.model import Instance
    from rackctl.rack import Rack
    from rackctl.roll.check import Check
    from rackctl.roll.plan import GroupPlan, Plan
    from rackctl.roll.reasons import Reason
    from rackctl.roll.report import Event
    from rackctl.roll.view import Engine, RollOptions, Selection
    from rackctl.ssh.login import Proof


class Roll:
    """The rolls of one rack.

    ``login`` begins a login to an instance with its own key. ``stop`` is asked at each safe point. ``check`` is run
    after each batch, and stops the roll if it fails. `start`, `resume` and `abort` yield what happens, and do nothing
    but while they are iterated.
    """

    def __init__(
        self,
        rack: Rack,
        instances: Instances,
        keys: KeyStore,
        clock: Clock,
        *,
        login: Callable[[Instance, datetime], Callable[[], Proof | None]],
        stop: StopRequest | None = None,
        check: Check | None = None,
    ) -> None:
        self._rack = rack
        self._instances = instances
        self._keys = keys
        self._clock = clock
        self._login = login
        self._stop = StopRequest() if stop is None else stop
        self._check = check

    # What is, and what would be

    def plan(self, options: RollOptions, selection: Selection = KEYROLL) -> Plan:
        """Return what `start` would do. Changes nothing."""
        options = replace(options, checked=self._check is not None)
        plan = Planner(
            self._rack, self._instances, self._keys, self._clock, options=options, selection=selection
        ).plan()
        if self._rack["bucket"]:
            found = Lock(self._rack, self._clock).read()
            if found is not None:
                plan = replace(plan, problems=(self._refusal(found), *plan.problems))
        return plan

    def status(self) -> Status | None:
        """Return where the roll stands; None when there is none."""
        lock = Lock(self._rack, self._clock)
        found = lock.read()
        if found is None:
            return None
        self._require_here(found.journal, lock)
        hold = Hold(self._rack, self._clock, lock, found.journal, self._stop)
        loop = self._loop(hold)
        views = loop.views()
        refreshes = Refreshes(hold)
        shown = {name: refreshes.seen(found.journal.groups[name]) for name in views}
        return status_of(found, views, shown, loop.observer.instance)

    # What changes things

    def start(self, options: RollOptions, selection: Selection = KEYROLL, *, detach: bool = False) -> Iterator[Event]:
        """Roll. Raises PlanRefused, with nothing changed, or RollIncomplete, RollStopped, RackctlError.

        With ``detach`` leave an instance refresh to Auto Scaling as soon as it is started.
        """
        if detach:
            _require_detachable(options.engine, hint="leave out --detach, or use --engine refresh")
        plan = self.plan(options, selection)
        if plan.refusals:
            raise PlanRefused(plan.refusals, selection.noun)
        now = self._clock.now()
        lock = Lock(self._rack, self._clock)
        journal = Journal(
            rack=self._rack.name,
            cluster_arn=self._rack.ecs_cluster.cluster_arn,
            key_name=self._new_key_name(now) if any(_gets_a_new_name(group) for group in plan.groups) else "",
            started=rfc3339(now),
            options=plan.options,
            selection=selection,
            launched_until=plan.launched_until.isoformat(),
            pace=PaceRecord(unsteady=list(plan.unsteady)),
        )
        hold = Hold(self._rack, self._clock, lock, journal, self._stop)
        if selection.kind != "key" and not plan.total:
            yield hold.event("finished", _nothing_of(selection))
            return
        self._record_groups(hold, plan)
        journal.runs_by(self._operator())
        if self._stop:
            raise RollStopped("stopped before anything was changed", signal=self._stop.signal)
        if not hold.retrying(lambda: lock.create(journal, Owner.this_process())):
            other = lock.read()
            refusal = self._refusal(other) if other else Problem("another roll started at the same time")
            raise PlanRefused([refusal], selection.noun)
        where = f'rack "{self._rack.name}" in {self._rack.aws.region}'
        yield hold.event("lock", f"{where}: replacing {journal.total} instances; lock: {lock.url}")
        yield from self._execution(hold, detach=detach).carry_out()

    def _record_groups(self, hold: Hold, plan: Plan) -> None:
        """Note in the journal how the groups are that are to be rolled. Raises RackctlError."""
        is_keyroll = plan.selection.kind == "key"
        planned = {group.auto_scaling_group_name: group for group in plan.groups if group.replace or is_keyroll}
        templates = Templates(hold)
        journal, placeholder = hold.journal, new_key_name(self._rack.name)
        for group in self._rack.aws.autoscaling.groups(list(planned)):
            name = group.auto_scaling_group_name
            if name not in planned:
                continue
            key = planned[name].key
            key_names, lines = (key.key_names, key.lines) if key else ((), ())
            for key_name in key_names:
                if key_name not in journal.key_pairs:
                    journal.key_pairs[key_name] = key_pair_record(self._rack.aws, key_name)
            journal.groups[name] = GroupRecord(
                name,
                group.auto_scaling_group_arn,
                group.desired_capacity,
                len(planned[name].replace),
                templates=templates.record(group) if _gets_a_new_name(planned[name]) else [],
                launches=list(planned[name].launches),
                key_names=list(key_names),
                key_lines=[line.replace(placeholder, journal.key_name) for line in lines],
            )
        if missing := planned.keys() - journal.groups.keys():
            raise RackctlError(
                f"Auto Scaling did not describe group {', '.join(sorted(missing))}; nothing was changed",
                hint="try again in a moment",
            )

    def _new_key_name(self, now: datetime) -> str:
        """Name the new key by the time, or by the next second that no key of this rack is named by."""
        taken = set(self._keys.names())
        while (name := ssh_keys.key_name(self._rack.name, now)) in taken or self._rack.aws.ec2.key_pair(name):
            now += timedelta(seconds=1)
        return name

    def resume(self, *, detach: bool = False, **changed: Any) -> Iterator[Event]:
        """Continue a roll that has stopped or died; ``changed`` are options to change. Raises as `start` does."""
        lock, found = self._dead()
        if found.journal.phase == "aborting":
            raise RackctlError(
                f"this {found.journal.selection.noun} is being aborted and cannot be resumed",
                hint=f"finish the abort with {found.journal.command('abort')}",
            )
        if detach:
            _require_detachable(changed.get("engine", found.journal.options.engine), hint="leave out --detach")
        self._require_engine(lock, found, changed.get("engine", found.journal.options.engine))
        if self._check:
            changed["checked"] = True
        elif found.journal.options.checked and changed.get("checked", True):
            raise RackctlError(
                f"this {found.journal.selection.noun} was started with --check, and the journal does not keep the "
                "command, so that no other machine decides what runs on this one",
                hint=f"give it again: {found.journal.command('resume')}; or continue without it: --no-check",
            )
        hold = self._taken(lock, found, changed)
        yield hold.event("lock", f"resumed the roll started at {hold.journal.started}")
        yield from self._execution(hold, detach=detach).carry_out(blind_for=LAG - found.silent_for)

    def _require_engine(self, lock: Lock, found: Found, engine: Engine) -> None:
        """Raise RackctlError for an engine that cannot go on where the other one has stopped."""
        journal = found.journal
        if engine == journal.options.engine:
            return
        if engine == "refresh":
            raise RackctlError(
                f"this {journal.selection.noun} was started with --engine {journal.options.engine}; an instance "
                "refresh cannot continue it",
                hint=f"resume it without --engine, or {journal.command('abort')} and start again with --engine refresh",
            )
        require_none(Hold(self._rack, self._clock, lock, deepcopy(journal), self._stop))

    def abort(self, **changed: Any) -> Iterator[Event]:
        """Roll back, except for instances that have been replaced. Raises as `start` does."""
        lock, found = self._dead()
        hold = self._taken(lock, found, changed)
        yield hold.event("lock", f"took over the roll started at {hold.journal.started}")
        yield from self._execution(hold).carry_out(backwards=True, blind_for=LAG - found.silent_for)

    def unlock(self, *, force: bool = False) -> Found:
        """Take the journal from its holder, so that `resume` or `abort` can have it; return it as it was found.

        A holder that is running finds out at its next step and stops. Raises RackctlError for a live holder
        unless ``force``, and NotFound when there is no roll.
        """
        lock, found = self._existing()
        if found.is_live and not force:
            raise RackctlError(f"{self._held_by(found)}; still running", hint="use --force to take it anyway")
        taken, owner = deepcopy(found), Owner.this_process()
        if not lock.take(taken, owner):
            raise RackctlError(f"{lock.url} was changed meanwhile: its holder is running")
        if found.journal.owner:
            taken.journal.problem = f"it was unlocked by {owner}"
        lock.release()
        return found

    # The hold

    def _loop(self, hold: Hold) -> Loop:
        reason: Reason
        match hold.journal.selection.kind:
            case "key":
                reason = NewKey(hold, self._instances, self._keys, self._login)
            case "outdated":
                reason = Outdated(hold)
            case _:
                reason = Chosen(hold)
        return Loop(hold, self._instances, reason, self._check)

    def _execution(self, hold: Hold, *, detach: bool = False) -> Execution:
        loop = self._loop(hold)
        is_refresh = hold.journal.options.engine == "refresh"
        steps = RefreshSteps(hold, loop, detach=detach) if is_refresh else Steps(hold, loop)
        return Execution(hold, loop, steps)

    def _existing(self) -> tuple[Lock, Found]:
        """Return the rack's journal. Raises NotFound if there is none, RackctlError for one of another rack."""
        lock = Lock(self._rack, self._clock)
        found = lock.read()
        if found is None:
            raise NotFound(f'there is no roll on rack "{self._rack.name}" ({lock.url} does not exist)')
        self._require_here(found.journal, lock)
        return lock, found

    def _dead(self) -> tuple[Lock, Found]:
        """Return the journal of a roll that no process is running. Raises RackctlError, NotFound."""
        lock, found = self._existing()
        if found.is_live:
            raise RackctlError(
                f"{self._held_by(found)}; still running",
                hint=f"see its progress with {found.journal.command('status')}, or stop it there with Ctrl-C; if it "
                f"has died, it can be taken over after another {STALE_AFTER - found.silent_for:.0f} s of silence, or "
                f"at once after {found.journal.command('unlock --force')}",
            )
        self._require_bounds(found.journal, lock)
        return lock, found

    def _require_here(self, journal: Journal, lock: Lock) -> None:
        """Raise RackctlError for a roll of another rack, cluster, region or account."""
        here, there = self._rack.ecs_cluster.cluster_arn, journal.cluster_arn
        if (journal.rack, there) == (self._rack.name, here):
            return
        region, account = there.split(":")[3:5]
        raise RackctlError(
            f'the roll in {lock.url} is of rack "{journal.rack}", cluster {there.rpartition("/")[2]} in region '
            f'{region} and account {account}; this is rack "{self._rack.name}", cluster '
            f"{here.rpartition('/')[2]} in region {here.split(':')[3]} and account {here.split(':')[4]}",
            hint=f"use --rack {journal.rack} --cluster {there.rpartition('/')[2]} --region {region} and credentials of "
            "that account. Racks that share a bucket need a prefix each (the setting `prefix`)",
        )

    def _require_bounds(self, journal: Journal, lock: Lock) -> None:
        """Raise RackctlError for a journal that would have a roll change what is not this rack's."""
        listed = self._instances.list()
        registered = registered_ids(listed)
        providers = self._rack.aws.ecs.capacity_providers(self._rack.ecs_cluster.capacity_providers)
        everywhere = self._rack.aws.autoscaling.all_groups()
        others = [g for g in everywhere if belonging(g, self._rack.name, registered, providers) == "foreign"]
        ours = [group for group in everywhere if group not in others]
        named = {ref.launch_template_id for group in ours for ref in group.launch_templates}
        foreign = {ref.launch_template_id for group in others for ref in group.launch_templates} - named
        present = {i.instance.key_name for i in listed if i.instance}
        if not journal.key_pairs.keys() <= present:
            present.update(key for group in ours for key in key_names(self._rack.aws, group))
        what = out_of_bounds(journal, {group.auto_scaling_group_arn for group in others}, foreign, present)
        if what:
            raise RackctlError(
                f'{lock.url} names {what}, which is not part of rack "{self._rack.name}"; nothing was done',
                hint=f"if it is the rack's, tag the group Rack={self._rack.name}; otherwise find out who may write to "
                "the bucket",
            )

    def _taken(self, lock: Lock, found: Found, changed: dict[str, Any]) -> Hold:
        journal = found.journal
        if not lock.take(found, Owner.this_process()):
            raise RackctlError("another process has just taken over this roll", hint=f"see {journal.command('status')}")
        journal.runs_by(self._operator())
        journal.options = replace(journal.options, **changed)
        journal.problem = ""
        return Hold(self._rack, self._clock, lock, journal, self._stop)

    def _operator(self) -> Operator:
        """Return who runs a roll from this process. A roll does not depend on STS."""
        try:
            caller_arn = self._rack.aws.sts.caller().arn
        except RackctlError:
            caller_arn = ""
        return Operator(Owner.this_process().who, caller_arn)

    def _held_by(self, found: Found) -> str:
        return (
            f'{found.journal.owner} holds the {found.journal.selection.noun} of rack "{self._rack.name}", started at '
            f"{found.journal.started}, last heartbeat {found.silent_for:.0f} s ago"
        )

    def _refusal(self, found: Found) -> Problem:
        journal = found.journal
        if (journal.rack, journal.cluster_arn) != (self._rack.name, self._rack.ecs_cluster.cluster_arn):
            return Problem(
                f'an unfinished roll of rack "{journal.rack}" ({journal.cluster_arn}), started at '
                f"{journal.started}, has its journal where this rack's would be",
                "give each of the two racks a prefix (the setting `prefix`)",
            )
        if found.is_live:
            return Problem(self._held_by(found), f"see its progress with {journal.command('status')}")
        return Problem(
            f"a {journal.selection.noun} started at {journal.started} has not been finished",
            f"finish it with {' or '.join(map(journal.command, journal.ways_on))}, or see where it stands with "
            f"{journal.command('status')}",
        )


def _require_detachable(engine: Engine, *, hint: str) -> None:
    if engine != "refresh":
        raise UsageError(
            "--detach needs --engine refresh: with --engine rackctl, nothing is replaced once rackctl ends",
            hint=hint,
        )


def _gets_a_new_name(group: GroupPlan) -> bool:
    return group.key is not None and group.key.way == "new"


def _nothing_of(selection: Selection) -> str:
    match selection.kind:
        case "outdated":
            return "nothing to replace: no instance is outdated"
        case "age":
            return f"nothing to replace: no instance is older than {roughly(selection.older_than)}"
        case _:
            return "nothing to replace"
