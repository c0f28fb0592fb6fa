"""Measure the figures of the docs: ``python -m benchmarks [--repeats N] [--check] [--only PART]``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import aws, engines, keyroll, pace, ssh
from benchmarks.table import show

PACKAGES = ("awscli", "boto3", "botocore", "click", "paramiko")


# The parts that print a table of their own, without goals.
TABLES = {"keyroll": keyroll.show, "engines": engines.show}
ROWS = "aws", "ssh", "pace"


def main() -> int:
    """Print the tables; with --check, fail when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="runs of each command, of which the median counts")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    parser.add_argument("--only", choices=[*ROWS, *TABLES], help="run this part only")
    asked = parser.parse_args()
    parts = [asked.only] if asked.only else [*ROWS, *TABLES]
    rows = []
    if not {"aws", "ssh"}.isdisjoint(parts):
        if not Path(aws.AWS).exists():
            sys.exit(f"{aws.AWS} is missing: `make bench` installs it")
        rows += aws.rows(asked.repeats) if "aws" in parts else []
        rows += ssh.rows(asked.repeats) if "ssh" in parts else []
        print(f"{datetime.now(UTC):%Y-%m-%d}, medians of {asked.repeats}, load {os.getloadavg()[0]:.1f} at the end.")
        print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()},")
        print(f"{', '.join(f'{name} {version(name)}' for name in PACKAGES)}.\n")
        show(rows)
        print()
    if "pace" in parts:
        paces = list(pace.rows())
        show(paces)
        rows += paces
        print()
    for name, table in TABLES.items():
        if name in parts:
            table()
            print()
    return int(asked.check and not all(row.met for row in rows))


if __name__ == "__main__":
    sys.exit(main())
