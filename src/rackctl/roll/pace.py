"""What comes between a roll and its next drains: services that settle, the end of a batch, alarms."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from rackctl.clock import LAG
from rackctl.roll.check import run_check
from rackctl.roll.observe import Since
from rackctl.roll.view import AlarmSeen, Unsteady
from rackctl.text import listed, rfc3339, roughly

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rackctl.aws.session import Aws
    from rackctl.model import Service
    from rackctl.roll.check import Check
    from rackctl.roll.hold import Hold
    from rackctl.roll.report import Event
    from rackctl.roll.view import View

# CloudWatch evaluates an alarm every 10 seconds at most.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html (Period)
_ASKED_EVERY = 10.0


class Pace:
    """The pace of one process's roll. What it waits for is in the journal, so that `resume` waits for it as well."""

    def __init__(self, hold: Hold, check: Check | None) -> None:
        self._hold = hold
        self._options = hold.journal.options
        self._record = hold.journal.pace
        self._check = check
        self._alarms = _Alarms(hold)
        self._since = Since(hold.clock)
        self._unsteady: tuple[Unsteady, ...] = ()
        self._said: set[str] = set()
        self._excused: set[str] = set()
        self._pause_ends = self._hold.clock.monotonic() + self._pause_left_by_journal()
        self._is_behind = False

    # Seeing

    @property
    def is_behind(self) -> bool:
        """Whether more is to be asked for before tasks are moved."""
        return self._is_behind or self._alarms.is_due

    def poll(self) -> Iterator[Event]:
        """Ask for the alarms, and for the services whose tasks were moved, and report what is news."""
        yield from self._alarms.poll()
        yield from self._poll_services()

    def _poll_services(self) -> Iterator[Event]:
        self._is_behind = False
        names = sorted(self._record.settling)
        if not names:
            self._unsteady = ()
            return
        cluster = self._hold.rack.cluster
        found = self._hold.retrying(partial(self._hold.aws.ecs.describe_services, cluster, names))
        reported = {service.service_name: service for service in found}
        unsteady = []
        for name in names:
            why = self._why_unsteady(name, reported.get(name))
            lasting = self._since.lasting(name, bool(why))
            if why and name in self._record.unsteady:
                self._record.settling.remove(name)
                if name not in self._excused:
                    self._excused.add(name)
                    said = f"service {name} was not steady before the roll ({why}): not waiting for it"
                    yield self._hold.event("service", said)
            elif why:
                unsteady.append(Unsteady(name, why, lasting))
            else:
                self._settled(name)
        self._unsteady = tuple(unsteady)
        if new := {service.service_name for service in unsteady} - self._said:
            whys = listed([f"{u.service_name} ({u.why})" for u in unsteady if u.service_name in new], most=5)
            yield self._hold.event("waiting", f"waiting for services to be steady again: {whys}")
        self._said = {service.service_name for service in unsteady}

    def _why_unsteady(self, name: str, service: Service | None) -> str:
        if service:
            self._since.lasting(f"missing {name}", holds=False)
            return service.unsteady
        # Asked for by name, ECS reports a service that was deleted for a while, and then no more.
        return "ECS does not report it" if self._since.lasting(f"missing {name}") <= LAG else ""

    def _settled(self, name: str) -> None:
        self._record.settling.remove(name)
        if name in self._record.unsteady:
            self._record.unsteady.remove(name)

    def on(self, view: View) -> View:
        """Return a view with what its next drains wait for."""
        return replace(
            view,
            begun=len(self._record.begun) if self._options.ends_batches else 0,
            pause_left=max(self._pause_ends - self._hold.clock.monotonic(), 0.0),
            unsteady=self._unsteady,
            alarms=self._alarms.seen,
        )

    def _pause_left_by_journal(self) -> float:
        """Return how much of a pause is left that another process has begun, whose clock may be another one."""
        if not self._record.ended:
            return 0.0
        passed = (self._hold.clock.now() - datetime.fromisoformat(self._record.ended)).total_seconds()
        return min(self._options.pause, self._options.pause - passed)

    # Doing

    def take_on(self, ec2_instance_ids: Iterable[str]) -> None:
        """Count old instances as taken on by the batch under way; the journal is written with what comes next."""
        if self._options.ends_batches:
            self._record.begun += sorted(set(ec2_instance_ids) - set(self._record.begun))

    def moved(self, services: Iterable[str]) -> None:
        """Take tasks of some services as moved; the journal is written with what comes next."""
        new = set(services) - set(self._record.settling)
        self._record.settling += sorted(new)
        self._is_behind |= bool(new)

    def end_batch(self, view: View) -> Iterator[Event]:
        """Run the check, and begin the pause. Raises what stops the roll."""
        if self._check and self._options.checked:
            yield from run_check(self._hold, self._check, view.group, self._record.begun)
        clock = self._hold.clock
        self._record.begun.clear()
        self._record.ended = rfc3339(clock.now()) if self._options.pause else ""
        self._pause_ends = clock.monotonic() + self._options.pause
        self._hold.write()
        if self._options.pause and self._hold.progress.waiting:
            yield self._hold.event(
                "pause", f"pausing for {roughly(self._options.pause)} before the next batch", group=view.group
            )


def alarms_now(aws: Aws, names: Sequence[str]) -> tuple[AlarmSeen, ...]:
    """Ask for alarms; one that CloudWatch does not report has no state."""
    reported = {alarm.alarm_name: alarm for alarm in aws.cloudwatch.alarms(names)} if names else {}
    return tuple(
        AlarmSeen(name, alarm.state_value, alarm.state_reason) if (alarm := reported.get(name)) else AlarmSeen(name, "")
        for name in names
    )


class _Alarms:
    """The alarms of one roll. A call that gets no answer is repeated for a while, as any other."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._names = hold.journal.options.alarms
        self._since = Since(hold.clock)
        self._asked = float("-inf")
        self.seen: tuple[AlarmSeen, ...] = ()

    @property
    def is_due(self) -> bool:
        """Whether it is time to ask for them."""
        return bool(self._names) and self._hold.clock.monotonic() - self._asked >= _ASKED_EVERY

    def poll(self) -> Iterator[Event]:
        """Ask for the alarms if it is time, and report those whose state is another one."""
        if not self.is_due:
            return
        before = {alarm.alarm_name: alarm.state for alarm in self.seen} or dict.fromkeys(self._names, "OK")
        found = self._hold.retrying(lambda: alarms_now(self._hold.aws, self._names))
        self._asked = self._hold.clock.monotonic()
        self.seen = tuple(
            AlarmSeen(a.alarm_name, a.state, a.reason, self._since.lasting(a.alarm_name, not a.state)) for a in found
        )
        for alarm in self.seen:
            if alarm.state != before[alarm.alarm_name]:
                state = f"is in state {alarm.state}" if alarm.state else "is not reported by CloudWatch"
                reason = f": {alarm.reason}" if alarm.state not in {"", "OK"} and alarm.reason else ""
                yield self._hold.event("alarm", f"alarm {alarm.alarm_name} {state}{reason}")
