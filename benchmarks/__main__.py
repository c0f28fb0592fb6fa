"""Measure what docs/ claims: ``python -m benchmarks [--repeats N] [--check] [--only aws|ssh|keyroll|pace]``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import aws, keyroll, pace, ssh
from benchmarks.table import Row, show

PACKAGES = ("awscli", "boto3", "botocore", "click", "paramiko")


def main() -> int:
    """Print the table; with --check, fail when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="runs of each command, of which the median counts")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    parser.add_argument("--only", choices=["aws", "ssh", "keyroll", "pace"], help="leave the others out")
    asked = parser.parse_args()
    if asked.only == "keyroll":
        keyroll.show()
        return 0
    if asked.only == "pace":
        met = all(row.met for row in show_paces())
        return int(asked.check and not met)
    if not Path(aws.AWS).exists():
        sys.exit(f"{aws.AWS} is missing: `make bench` installs it")
    rows = aws.rows(asked.repeats) if asked.only != "ssh" else []
    if asked.only != "aws":
        rows += ssh.rows(asked.repeats)
    print(f"{datetime.now(UTC):%Y-%m-%d}, medians of {asked.repeats}, load {os.getloadavg()[0]:.1f} at the end.")
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()},")
    print(f"{', '.join(f'{name} {version(name)}' for name in PACKAGES)}.\n")
    show(rows)
    if asked.only is None:
        print()
        keyroll.show()
        print()
        rows += show_paces()
    return int(asked.check and not all(row.met for row in rows))


def show_paces() -> list[Row]:
    rows = list(pace.rows())
    show(rows)
    return rows


if __name__ == "__main__":
    sys.exit(main())
