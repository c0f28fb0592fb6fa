"""One run of a roll: its events, its safe points, and its hold on the journal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeVar

from rackctl.aws.errors import AwsError
from rackctl.cluster import POLL
from rackctl.errors import SIGNALLED, RackctlError, RollIncomplete
from rackctl.keyroll.groups import Groups
from rackctl.keyroll.journal import InstanceRecord, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from rackctl.clock import Clock
    from rackctl.keyroll.groups import GroupState
    from rackctl.keyroll.journal import Journal, JournalStore, Phase
    from rackctl.model import AutoScalingGroup, Instance
    from rackctl.rack import Rack

T = TypeVar("T")

EventKind = Literal[
    "lock", "key", "template", "processes", "surge", "instance", "waiting", "proof", "problem", "restored", "retired",
    "finished",
]  # fmt: skip
# Old instances wait, drain, terminate and are gone; new ones launch, boot and are ready.
InstancePhase = Literal["waiting", "draining", "drained", "terminating", "gone", "launching", "booting", "ready"]

# A cluster of thousands is looked at less often, so that the calls stay clear of AWS's rate limits.
_INSTANCES_PER_SECOND = 100
_SLICE = 0.5  # how long a request to stop may wait while the roll does
# How long AWS may fail to answer what a roll looks at, as after a laptop's sleep, before the roll stops.
_PATIENCE = 120.0
# How long what AWS describes may be behind what was done, in seconds: its APIs are eventually consistent. Usually
# it is not behind at all; nothing waits for so long that shows what was done.
LAG = 20.0
_ENDED_FOR = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened.

    ``is_new`` says of an instance whether it has the new key, None where that is not known. ``waiting`` is how many
    instances have still to be taken on, ``seconds_left`` an estimate, None where there is none.
    """

    at: datetime
    kind: EventKind
    message: str
    auto_scaling_group_name: str = ""
    ec2_instance_id: str = ""
    phase: InstancePhase | None = None
    tasks_left: int | None = None
    service_event: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    is_new: bool | None = None
    waiting: int = 0
    doing: Phase = "replacing"


class StopRequest:
    """A wish to stop at the next safe point, as a signal handler leaves it: ``signal`` is its number."""

    def __init__(self) -> None:
        self.signal = 0

    def __bool__(self) -> bool:
        return self.signal != 0


class RollStopped(RollIncomplete):
    """A roll that was asked to stop, and did. Its exit code is a shell's: 128 and the signal's number."""

    def __init__(self, message: str, *, signal: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = SIGNALLED + signal


class StopNow(Exception):
    """The way from a safe point out of the roll."""


class GroupDeleted(RackctlError):
    """A group of the roll is not there any more."""


class Run:
    """What every step of a roll works with."""

    def __init__(self, rack: Rack, clock: Clock, store: JournalStore, journal: Journal, stop: StopRequest) -> None:
        self.rack = rack
        self.aws = rack.aws
        self.clock = clock
        self.store = store
        self.journal = journal
        self._stop = stop
        self._groups = Groups(rack)
        self._began = self.silent_since = clock.monotonic()
        self._left: dict[str, int] | None = None
        self._done_before = self._last_done = 0
        self._last_done_at = self._began
        self._ended: dict[str, float] = {}
        self._beat_failing_since: float | None = None

    @property
    def key_name(self) -> str:
        return self.journal.key_name

    # Events

    def event(
        self,
        kind: EventKind,
        message: str,
        *,
        group: str = "",
        ec2_instance_id: str = "",
        phase: InstancePhase | None = None,
        tasks_left: int | None = None,
        service_event: str = "",
    ) -> Event:
        """Make an event. An instance's phase is noted in the journal as well, to be written at the next save."""
        if ec2_instance_id and phase:
            self.note(group, ec2_instance_id, phase)
        self.silent_since = self.clock.monotonic()
        return Event(
            self.clock.now(), kind, message, group, ec2_instance_id, phase, tasks_left, service_event,
            self.done, self.journal.total, self._seconds_left(),
            self._is_new(ec2_instance_id), self._waiting(), self.journal.phase,
        )  # fmt: skip

    def _is_new(self, ec2_instance_id: str) -> bool | None:
        instance = self._groups.seen(ec2_instance_id)
        return instance.key_name == self.key_name if instance else None

    def _waiting(self) -> int:
        if self.journal.phase != "replacing":
            return 0
        taken_on = sum(
            record.phase in {"draining", "drained"} and not self._is_new(id_)
            for id_, record in self.journal.instances.items()
        )
        return max(sum((self._left or {}).values()) - taken_on, 0)

    def note(self, group: str, ec2_instance_id: str, phase: InstancePhase) -> InstanceRecord:
        """Note an instance's phase in the journal, while it is on its way: of the others there may be thousands."""
        record = self.journal.instances.get(ec2_instance_id)
        if record is None or record.phase != phase:
            drained = record is not None and record.drained_by_roll
            record = InstanceRecord(group, phase, timestamp(self.clock.now()), drained)
        if phase in {"waiting", "ready", "gone"}:
            self.journal.instances.pop(ec2_instance_id, None)
        else:
            self.journal.instances[ec2_instance_id] = record
        return record

    @property
    def done(self) -> int:
        """How many instances have been replaced."""
        return 0 if self._left is None else max(self.journal.total - sum(self._left.values()), 0)

    def _seconds_left(self) -> float | None:
        if self.done != self._last_done:
            self._last_done, self._last_done_at = self.done, self.clock.monotonic()
        here = self.done - self._done_before
        if here <= 0 or self.journal.phase != "replacing":
            return None
        each = (self._last_done_at - self._began) / here
        left = each * (self.journal.total - self.done) - (self.clock.monotonic() - self._last_done_at)
        return left if left > 0 else None

    # Looking

    def look(self, name: str, *, at_ecs: bool = True) -> GroupState:
        """Look at a group; without ``at_ecs`` at nothing else. Raises GroupDeleted."""
        look = partial(self._groups.look, [name], at_ecs=at_ecs, ended=self._just_ended())
        state = self.patiently(look).get(name)
        if state is None or not self._is_of_the_roll(state.group):
            raise GroupDeleted(f"group {name} has been deleted")
        self._left = {**(self._left or {}), name: len(state.stale(self.key_name))}
        return state

    def end(self, ec2_instance_id: str) -> None:
        """Take it that an instance is going, also while AWS does not show it yet."""
        self._ended[ec2_instance_id] = self.clock.monotonic()

    def _just_ended(self) -> set[str]:
        now = self.clock.monotonic()
        return {id_ for id_, at in self._ended.items() if now - at < _ENDED_FOR}

    def instance(self, ec2_instance_id: str) -> Instance | None:
        """Ask EC2 for an instance that is up; None for one that is going, or gone."""
        found = self.patiently(lambda: next(iter(self.aws.ec2.instances_by_id([ec2_instance_id])), None))
        return found if found and not found.is_going else None

    def look_at_all(self) -> dict[str, GroupState]:
        """Look at every group of the journal, those that have been deleted apart."""
        looked = self.patiently(partial(self._groups.look, list(self.journal.groups), ended=self._just_ended()))
        states = {name: state for name, state in looked.items() if self._is_of_the_roll(state.group)}
        first = self._left is None
        self._left = {name: len(state.stale(self.key_name)) for name, state in states.items()}
        if first:
            self._done_before = self._last_done = self.done
        return states

    def groups(self) -> list[AutoScalingGroup]:
        """Describe the groups of the journal, those that have been deleted apart."""
        described = self.patiently(partial(self.aws.autoscaling.groups, list(self.journal.groups)))
        return list(filter(self._is_of_the_roll, described))

    def _is_of_the_roll(self, group: AutoScalingGroup) -> bool:
        """Whether it is the group that the roll began with, not given up since, nor another of its name."""
        record = self.journal.groups[group.auto_scaling_group_name]
        return not record.deleted and group.auto_scaling_group_arn == record.auto_scaling_group_arn

    def patiently(self, ask: Callable[[], T]) -> T:
        """Ask AWS, and again for a while when it gives no answer; it is a safe point then.

        Raises what lasts, and what is no matter of waiting.
        """
        since = self.clock.monotonic()
        while True:
            try:
                return ask()
            except AwsError as error:
                if error.refused or self._stop or self.clock.monotonic() - since > _PATIENCE:
                    raise
            self.pause()

    # Safe points

    def save(self) -> None:
        """Write down what is about to be relied on. Nothing is changed in AWS that this has not preceded."""
        self.patiently(lambda: self.store.save(self.journal))

    def hold(self) -> None:
        """Know that the roll is still this process's, before a change that nothing was written down for just now."""
        self.patiently(lambda: self.store.hold(self.journal))

    def checkpoint(self) -> None:
        """Be at a point where the roll may stop. Raises what ends it here."""
        if self._stop:
            raise StopNow
        self._beat()

    def pause(self, instances: int = 0) -> None:
        """Wait until it is time to look again; a request to stop is heard at once."""
        self._beat()
        until = self.clock.monotonic() + max(POLL, instances / _INSTANCES_PER_SECOND)
        while not self._stop and (left := until - self.clock.monotonic()) > 0:
            self.clock.sleep(min(_SLICE, left))
        self.checkpoint()

    def _beat(self) -> None:
        """Show that the roll is at work, unless S3 cannot be asked for once."""
        try:
            self.store.beat(self.journal)
        except AwsError as error:
            now = self.clock.monotonic()
            self._beat_failing_since = self._beat_failing_since or now
            if error.refused or now - self._beat_failing_since > _PATIENCE:
                raise
        else:
            self._beat_failing_since = None

    def wait(self, seconds: float) -> None:
        """Let so much time pass, as `pause` does."""
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            self.pause()

    @property
    def stop_signal(self) -> int:
        return self._stop.signal
