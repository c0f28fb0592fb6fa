from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# rackctl leaves a signal ignored that was so when it began, as nohup and a shell's background jobs have it. Its tests
# send signals, and may themselves be run so.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_xdist_auto_num_workers() -> int:
    """Run three workers for two cores: tests of local racks and servers wait for more time than they compute."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + cores // 2


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many states of a roll were explored, and how many rolls were disturbed."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    states = [value for report in reports for name, value in report.user_properties if name == "states"]
    disturbed = sum(value for report in reports for name, value in report.user_properties if name == "disturbed")
    if disturbed:
        terminalreporter.write_line(f"rolls disturbed at random or killed: {disturbed:,}")
    if states:
        terminalreporter.write_line(f"rolls explored exhaustively: {len(states)}, with {sum(states):,} states")
