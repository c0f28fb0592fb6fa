"""CloudWatch: the states of alarms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.model import Alarm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rackctl.aws.client import Client, Document

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html
_ALARMS_PER_DESCRIBE = 100
# Without AlarmTypes the response has metric alarms only.
_TYPES = ["MetricAlarm", "CompositeAlarm"]


class CloudWatch:
    def __init__(self, call: Client) -> None:
        self._call = call

    def alarms(self, names: Sequence[str]) -> list[Alarm]:
        """Describe metric and composite alarms. Alarms that do not exist are left out.

        Composite alarms are also left out if the caller may not describe all alarms (``*``).
        """
        return [
            alarm
            for start in range(0, len(names), _ALARMS_PER_DESCRIBE)
            for page in self._call.pages(
                "describe_alarms",
                _alarms,
                AlarmNames=list(names[start : start + _ALARMS_PER_DESCRIBE]),
                AlarmTypes=_TYPES,
            )
            for alarm in page
        ]


def _alarms(page: Document) -> list[Alarm]:
    return [
        Alarm(str(document["AlarmName"]), str(document["StateValue"]), str(document.get("StateReason", "")))
        for document in (*page.get("MetricAlarms", ()), *page.get("CompositeAlarms", ()))
    ]
