"""Runs of a command, and the lines of the table that `python -m benchmarks` prints."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Run:
    seconds: float
    peak_mb: float


def run(argv: Sequence[str], environment: Mapping[str, str], stdin: Path | None = None) -> Run:
    """Run a command to its end and discard its output; peak memory is that of its largest process."""
    with open(stdin or os.devnull, "rb") as source:  # noqa: PTH123 - /dev/null is a str
        begun = time.perf_counter()
        process = subprocess.Popen(argv, env=environment, stdin=source, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, argv
    return Run(seconds, usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2))


@dataclass(frozen=True)
class Row:
    """One line of the table. ``goal`` is the bound of ``value``, from above or, with ``at_least``, from below."""

    what: str
    ours: str
    against: str
    theirs: str
    value: float
    goal: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.goal if self.at_least else self.value <= self.goal


def show(rows: Iterable[Row]) -> None:
    """Print rows as a Markdown table for docs/performance.md."""
    cells = [("what", "rackctl", "against", "", "ratio", "goal", "")]
    cells += [
        (
            row.what,
            row.ours,
            row.against,
            row.theirs,
            f"{row.value:.2f}",
            f"{'at least' if row.at_least else 'at most'} {row.goal:g}",
            "met" if row.met else "MISSED",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    lines.insert(1, " | ".join("-" * width for width in widths))
    print("\n".join(f"| {line} |" for line in lines))
