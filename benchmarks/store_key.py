"""Store a new key under the name that every instance of `benchmarks.server` was launched with; print its public key."""

from __future__ import annotations

from datetime import UTC, datetime

from benchmarks.server import KEY_NAME
from rackctl.cli.invocation import Invocation
from rackctl.keys import generate

if __name__ == "__main__":
    key = generate(KEY_NAME, created=datetime.now(UTC))
    Invocation().keys.store(key)
    print(key.public_key)
