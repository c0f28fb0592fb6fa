"""The calls of a keyroll: whole rolls on the local rack over HTTP, counted from its log.

Time runs faster here, and the roll reads AWS more often by the same factor: rates are in AWS's time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.local_rack import LocalRackProcess

from rackctl.local.state import Options

ROOT = Path(__file__).parents[1]
SPEED = 6.0
BATCH = 10
SIZES = (25, 50, 100, 200)


def show() -> None:
    """Print a Markdown table for docs/keyroll.md."""
    columns = f"instances, {BATCH} at a time", "minutes", "calls", "changes", "calls a second", "the most frequent call"
    print(f"| {' | '.join(columns)} |")
    print("| --- | --- | --- | --- | --- | --- |")
    for instances in SIZES:
        print(_row(instances), flush=True)


def _row(instances: int) -> str:
    with tempfile.TemporaryDirectory() as directory:
        rack = LocalRackProcess(Path(directory) / "rack", Options(instances=instances, speed=SPEED))
        try:
            (group,) = rack.aws.autoscaling.all_groups()
            rack.seed_service("api", desired=instances, memory=128)
            rack.client("autoscaling").update_auto_scaling_group(
                AutoScalingGroupName=group.auto_scaling_group_name, MaxSize=instances + BATCH
            )
            before, began = rack.calls()[-1]["number"], time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "tests.local.fast", f"{SPEED}", "instances", "keyroll", "--batch", f"{BATCH}"],
                env=rack.environment, cwd=ROOT, check=True, capture_output=True,
            )  # fmt: skip
            seconds = (time.monotonic() - began) * SPEED
            calls = rack.calls(since=before)
        finally:
            rack.down()
    changes = sum(call["mutating"] for call in calls)
    (call, times), *_ = Counter(f"{c['service']}:{c['action']}" for c in calls).most_common(1)
    return (
        f"| {instances} | {seconds / 60:.0f} | {len(calls):,} | {changes:,} | {len(calls) / seconds:.1f} | "
        f"{call}, {times / seconds:.1f} a second |"
    )


if __name__ == "__main__":
    show()
