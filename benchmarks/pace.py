"""The time of a roll, compared with the time of its boots and drains alone.

Whole rolls of the local rack over HTTP, with a boot of 3 minutes and a drain of 90 seconds. Time runs faster here.
"""

from __future__ import annotations

import heapq
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.local_rack import LocalRackProcess

from benchmarks.table import Row
from rackctl.local.state import Options
from rackctl.local.world.timing import AGENT_CONNECTED, ECS_REGISTERED, SERVICE_RECONCILED, TASK_RUNNING, TASK_STOPPING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SPEED = 10.0
INSTANCES = 50
BOOT, DRAIN = 180.0, 90.0
# Instances at a time, and extra ones.
PACES = ((5, 5), (5, 10), (5, 15), (10, 10))
GOAL = 1.15
# From the launch until the agent is connected.
_BOOT_FACTOR = (BOOT - (AGENT_CONNECTED - ECS_REGISTERED)) / ECS_REGISTERED
# From DRAINING until the task is STOPPED: ECS notices, runs another one, notices that it runs, and stops this one.
_STOP = DRAIN - 2 * SERVICE_RECONCILED - TASK_RUNNING - TASK_STOPPING


def rows() -> Iterator[Row]:
    """Measure a roll at each pace."""
    for batch, surge in PACES:
        ideal = ideal_seconds(batch, surge)
        took = _seconds(batch, surge)
        yield Row(
            f"{INSTANCES} instances, --batch {batch} --surge {surge}", _minutes(took), "boots and drains alone",
            _minutes(ideal), took / ideal, GOAL,
        )  # fmt: skip


def ideal_seconds(batch: int, surge: int) -> float:
    """Return the seconds of a roll in which only boots and drains take time.

    An old instance drains as soon as an extra one has booted for it and there is a place in the batch; its replacement
    boots from the end of its drain, as long as more are needed. This uses no code of rackctl's.
    """
    extra, places = [BOOT] * min(surge, INSTANCES), [0.0] * batch
    to_launch, end = INSTANCES - len(extra), 0.0
    for _ in range(INSTANCES):
        end = max(heapq.heappop(extra), heapq.heappop(places)) + DRAIN
        heapq.heappush(places, end)
        if to_launch:
            heapq.heappush(extra, end + BOOT)
            to_launch -= 1
    return max(places)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


def _seconds(batch: int, surge: int) -> float:
    with tempfile.TemporaryDirectory() as directory:
        rack = LocalRackProcess(Path(directory) / "rack", Options(instances=INSTANCES, speed=SPEED))
        try:
            (group,) = rack.aws.autoscaling.all_groups()
            rack.seed_service("api", desired=INSTANCES, memory=128)
            rack.client("autoscaling").update_auto_scaling_group(
                AutoScalingGroupName=group.auto_scaling_group_name, MaxSize=INSTANCES + surge
            )
            rack.set_condition("slow-boot", f"{_BOOT_FACTOR}")
            rack.set_condition("slow-stop", f"{_STOP}")
            command = ["instances", "keyroll", "--batch", f"{batch}", "--surge", f"{surge}"]
            began = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "tests.local.fast", f"{SPEED}", *command],
                env=rack.environment, cwd=ROOT, check=True, capture_output=True,
            )  # fmt: skip
            return (time.monotonic() - began) * SPEED
        finally:
            rack.down()
