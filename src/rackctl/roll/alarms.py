"""The CloudWatch alarms that stop a roll: what they said last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.roll.observe import Since
from rackctl.roll.view import AlarmSeen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.aws.session import Aws
    from rackctl.roll.hold import Hold
    from rackctl.roll.report import Event

# CloudWatch evaluates an alarm every 10 seconds at most.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html (Period)
_ASKED_EVERY = 10.0


def alarms_now(aws: Aws, names: Sequence[str]) -> tuple[AlarmSeen, ...]:
    """Ask for alarms; one that CloudWatch does not report has no state."""
    reported = {alarm.alarm_name: alarm for alarm in aws.cloudwatch.alarms(names)} if names else {}
    return tuple(
        AlarmSeen(name, alarm.state_value, alarm.state_reason) if (alarm := reported.get(name)) else AlarmSeen(name, "")
        for name in names
    )


class Alarms:
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
