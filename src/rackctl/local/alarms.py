"""CloudWatch's alarms by moto, made strict: an alarm begins with INSUFFICIENT_DATA, and keeps the state that was set
last.

Alarms are not evaluated: there are no metrics here, and a composite alarm does not follow the alarms of its rule.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from rackctl.local.api import Answer
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.local.signature import Request

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html
_MOST_NAMES: Final = 100
_INITIAL: Final = ("INSUFFICIENT_DATA", "Unchecked: Initial alarm creation")


class Alarms:
    """The checks in front of moto's CloudWatch ``backend``."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def states(self) -> dict[str, tuple[str, str]]:
        """Return the state of each alarm, and the reason for it."""
        return {name: (alarm.state_value, alarm.state_reason) for name, alarm in self._backend.alarms.items()}

    @staticmethod
    def action_of(request: Request) -> str:
        target = request.header("x-amz-target") or ""
        return target.rpartition(".")[2] or dict(_form(request)).get("Action", "")

    @staticmethod
    def parameters(request: Request) -> dict[str, Any]:
        """Return a call's parameters, lists of the query protocol as lists."""
        if request.header("x-amz-target"):
            found = json.loads(request.body or b"{}")
            return found if isinstance(found, dict) else {}
        asked: dict[str, Any] = {}
        for name, value in _form(request):
            before, is_list, _ = name.partition(".member.")
            asked[before] = [*asked.get(before, ()), value] if is_list else value
        return asked

    def respond(self, request: Request, ask: Callable[[Request], Answer]) -> Answer:
        """Carry out a call, mostly by moto. Raises Refused."""
        asked, action = self.parameters(request), self.action_of(request)
        match action:
            case "DescribeAlarms":
                return self._describe(asked, lambda: ask(request))
            case "PutMetricAlarm":
                return self._put(asked, lambda: ask(request))
            case "PutCompositeAlarm":
                return self._put(asked, lambda: self._put_composite(request, asked))
            case _:
                return ask(request)

    def _describe(self, asked: dict[str, Any], ask: Callable[[], Answer]) -> Answer:
        """Describe alarms of the requested types: without AlarmTypes, "only metric alarms are returned"."""
        if len(asked.get("AlarmNames", ())) > _MOST_NAMES:
            raise _invalid(f"at 'alarmNames': Member must have length less than or equal to {_MOST_NAMES}")
        types = asked.get("AlarmTypes") or ["MetricAlarm"]
        if unknown := set(types) - {"MetricAlarm", "CompositeAlarm", "LogAlarm"}:
            raise _invalid(f"at 'alarmTypes': Member must be an alarm type, not {min(unknown)}")
        everything = self._backend.alarms
        self._backend.alarms = {
            name: alarm
            for name, alarm in everything.items()
            if ("MetricAlarm" if alarm.rule is None else "CompositeAlarm") in types
        }
        try:
            return ask()
        finally:
            self._backend.alarms = everything

    def _put(self, asked: dict[str, Any], ask: Callable[[], Answer]) -> Answer:
        """Create an alarm, "immediately set to INSUFFICIENT_DATA", or update one, whose "state is left unchanged"."""
        name = asked.get("AlarmName", "")
        before = self._backend.alarms.get(name)
        answer = ask()
        made = self._backend.alarms.get(name)
        if made is not None and made is not before:
            made.state_value, made.state_reason = (before.state_value, before.state_reason) if before else _INITIAL
        return answer

    def _put_composite(self, request: Request, asked: dict[str, Any]) -> Answer:
        name, rule = asked.get("AlarmName", ""), asked.get("AlarmRule", "")
        if not 0 < len(name) <= 255 or not 0 < len(rule) <= 10240:
            raise _invalid("AlarmName and AlarmRule are required")
        there = self._backend.alarms.get(name)
        if there is not None and there.rule is None:
            raise _invalid(f"The alarm {name} is a metric alarm")
        none: dict[str, Any] = dict.fromkeys(
            (
                "namespace",
                "metric_name",
                "comparison_operator",
                "evaluation_periods",
                "period",
                "threshold",
                "statistic",
            )
        )
        self._backend.put_metric_alarm(
            name=name, description=asked.get("AlarmDescription"), dimensions=[], alarm_actions=[], rule=rule, **none
        )
        if request.header("x-amz-target"):
            return Answer(200, {"Content-Type": "application/x-amz-json-1.0", "x-amzn-RequestId": "composite"}, b"{}")
        body = "<PutCompositeAlarmResponse><ResponseMetadata><RequestId>composite</RequestId></ResponseMetadata>"
        return Answer(200, {"Content-Type": "text/xml"}, f"{body}</PutCompositeAlarmResponse>".encode())


def _form(request: Request) -> list[tuple[str, str]]:
    return parse_qsl(request.body.decode("latin-1")) + parse_qsl(request.query)


def _invalid(message: str) -> Refused:
    return Refused("ValidationError", f"1 validation error detected: {message}", 400)
