"""How long a roll takes, against what it would take if nothing but boots and drains took time.

Whole rolls of the local rack over HTTP, with a boot of 3 minutes and a drain of 90 seconds. Time runs faster here.
"""

from __future__ import annotations

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
from rackctl.roll.simulate import BOOT, DRAIN, simulate
from rackctl.roll.view import Member, RollOptions, View

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SPEED = 10.0
INSTANCES = 50
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
    """Return what a roll takes in which each instance boots and drains as soon as it may, and all else takes no time.

    That is the earliest time at which extra instances and places in the batch allow it; in three zones as in one.
    """
    members = tuple(Member(f"i-{n:03}", "a") for n in range(INSTANCES))
    options = RollOptions(batch=batch, surge=surge)
    view = View("group", INSTANCES, INSTANCES + surge, members=members, is_proven=True, options=options)
    return simulate(view).seconds


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
