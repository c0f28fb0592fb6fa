"""The same roll by rackctl itself and by Auto Scaling's instance refresh, each on its own local rack over HTTP.

The racks are alike: instances with managed draining, a service that must run at least half of its tasks and at most
all, and services that must run all. Running tasks and existing instances are sampled from the local rack itself, and
calls are counted from its log. The pace of Auto Scaling is that of the local rack's model: AWS publishes no times.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from tests.local_rack import LocalRackProcess

from rackctl.local.state import Options

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
SPEED = 20.0
INSTANCES = 20
WAYS: dict[str, Sequence[Sequence[str]]] = {
    "rackctl, `--batch 2`": (("keyroll", "--batch", "2"),),
    "rackctl, `--batch 2 --surge 6`": (("keyroll", "--batch", "2", "--surge", "6"),),
    "refresh, `--batch 2`": (("keyroll", "--engine", "refresh", "--batch", "2"),),
    "refresh, `--batch 2 --detach`": (
        ("keyroll", "--engine", "refresh", "--batch", "2", "--detach"),
        ("keyroll", "resume"),
    ),
    "refresh, `--batch 6`": (("keyroll", "--engine", "refresh", "--batch", "6"),),
}
# A boot of 3 minutes, and tasks that take a minute and more to stop, as behind a load balancer.
SLOW = {"slow-boot": "3.6", "slow-stop": "70"}
_SAMPLED_EVERY = 0.1


@dataclass
class Watch:
    """Samples a rack. Times are AWS's, in seconds."""

    rack: LocalRackProcess
    instance_seconds: float = 0.0
    lowest: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    _stop: Event = field(default_factory=Event)

    def __enter__(self) -> Watch:
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        at = time.monotonic()
        while not self._stop.wait(_SAMPLED_EVERY):
            now = time.monotonic()
            self.instance_seconds += len(self.rack.ids()) * (now - at) * SPEED
            at = now
            for name, service in self.rack.services().items():
                if service["strategy"] == "REPLICA" and service["desired"]:
                    promised = math.ceil(service["desired"] * service["minimum_percent"] / 100)
                    seen = (service["running"], service["desired"], promised)
                    self.lowest[name] = min(self.lowest.get(name, seen), seen)

    def headroom(self) -> str:
        """Return the lowest number of tasks beyond the minimum of the service that dipped most."""
        for name, (running, _, promised) in self.lowest.items():
            assert running >= promised, f"{name} ran {running} tasks of {promised} that it has to run"
        running, desired, promised = min(self.lowest.values(), key=lambda lowest: lowest[0] / lowest[1])
        return f"{running - promised} of {desired - promised} tasks"


def show() -> None:
    """Print a Markdown table for docs/engines.md."""
    print(f"| {INSTANCES} instances | minutes | calls | of them changes | extra instance-hours | lowest headroom |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, commands in WAYS.items():
        print(_row(name, commands), flush=True)


def _row(name: str, commands: Sequence[Sequence[str]]) -> str:
    with tempfile.TemporaryDirectory() as directory:
        rack = LocalRackProcess(Path(directory) / "rack", Options(instances=INSTANCES, speed=SPEED))
        try:
            (group,) = rack.aws.autoscaling.all_groups()
            rack.client("autoscaling").update_auto_scaling_group(
                AutoScalingGroupName=group.auto_scaling_group_name, MaxSize=2 * INSTANCES
            )
            rack.set_condition("managed-draining")
            for condition, argument in SLOW.items():
                rack.set_condition(condition, argument)
            rack.seed_service("api", desired=2 * INSTANCES, memory=128, minimum_percent=50, maximum_percent=100)
            rack.seed_service("front", desired=INSTANCES, memory=128)
            before, began, asked = rack.calls()[-1]["number"], time.monotonic(), 0
            with Watch(rack) as watch:
                for words in commands:
                    _run(rack, words)
                    if "--detach" in words:
                        asked = _wait_for_refresh(rack, group.auto_scaling_group_name)
            seconds = (time.monotonic() - began) * SPEED
            calls = rack.calls(since=before)
        finally:
            rack.down()
    extra = (watch.instance_seconds - INSTANCES * seconds) / 3600
    changes = sum(call["mutating"] for call in calls)
    return f"| {name} | {seconds / 60:.0f} | {len(calls) - asked:,} | {changes:,} | {extra:.1f} | {watch.headroom()} |"


def _run(rack: LocalRackProcess, words: Sequence[str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.local.fast", f"{SPEED}", "instances", *words],
        env=rack.environment, cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip


def _wait_for_refresh(rack: LocalRackProcess, group: str) -> int:
    """Wait for the end of a group's refresh; return the number of calls of the wait, which are not the roll's."""
    client, asked = rack.client("autoscaling"), 0
    while True:
        asked += 1
        (refresh, *_) = client.describe_instance_refreshes(AutoScalingGroupName=group)["InstanceRefreshes"]
        if "EndTime" in refresh:
            return asked
        time.sleep(1)


if __name__ == "__main__":
    show()
