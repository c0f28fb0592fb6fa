"""Discovery of the local rack."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from rackctl.aws.session import Credentials
from rackctl.errors import UsageError
from rackctl.local_rack import LocalRack, find_local_rack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_a_local_rack_is_found_while_its_daemon_runs(tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    described = {
        "version": 1,
        "name": "local",
        "endpoint_url": "http://127.0.0.1:1",
        "region": "us-east-1",
        "access_key_id": "A",
        "secret_access_key": "secret",
        "proxy_command": None,
        "pid": os.getpid(),
    }
    (tmp_path / "local" / "rack.json").write_text(json.dumps(described))
    with (tmp_path / "local" / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        found = find_local_rack(tmp_path)

    assert found == LocalRack("local", "http://127.0.0.1:1", "us-east-1", Credentials("A", "secret"))
    assert "secret" not in repr(found)


def test_a_local_rack_whose_daemon_is_dead_is_not_found(tmp_path: Path) -> None:
    assert find_local_rack(tmp_path) is None
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "rack.json").write_text(json.dumps({"pid": os.getpid()}))
    assert find_local_rack(tmp_path) is None

    (tmp_path / "local" / "lock").touch()

    assert find_local_rack(tmp_path) is None


@contextmanager
def up(state: Path, description: bytes) -> Iterator[Path]:
    """Make a state directory as a daemon that is up keeps it."""
    (state / "local").mkdir()
    path = state / "local" / "rack.json"
    path.write_bytes(description)
    with (state / "local" / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


@pytest.mark.parametrize(
    "description",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b"[" * 20_000,
        b'{"name":1,"endpoint_url":"x","region":"x","access_key_id":"x","secret_access_key":"x"}',
    ],
    ids=["empty", "no text", "a list", "null", "a string", "no fields", "nested", "a number"],
)
def test_a_damaged_description_is_named(tmp_path: Path, description: bytes) -> None:
    with up(tmp_path, description) as path, pytest.raises(UsageError, match=f"{path} is damaged"):
        find_local_rack(tmp_path)


@pytest.mark.parametrize("name", ["", "local", "local/lock", "local/rack.json"])
def test_a_local_rack_that_others_can_write_is_refused(tmp_path: Path, name: str) -> None:
    """The description may name a proxy_command, which is run."""
    state = tmp_path / "state"
    state.mkdir()
    with up(state, b"{}"):
        (state / name).chmod(0o777)
        with pytest.raises(UsageError, match=f"{(state / name)} can be written by other users"):
            find_local_rack(state)


@pytest.mark.parametrize("name", ["", "local", "local/lock", "local/rack.json"])
def test_a_symbolic_link_to_a_local_rack_is_not_followed(tmp_path: Path, name: str) -> None:
    real, state = tmp_path / "real", tmp_path / "state"
    real.mkdir()
    with up(real, b"{}"):
        for part in ("", "local", "local/lock", "local/rack.json"):
            if part == name:
                (state / part).symlink_to(real / part)
                break
            if part == "local/lock":
                os.link(real / part, state / part)
            else:
                (state / part).mkdir()
        with pytest.raises(UsageError, match=f"{state / name} is a symbolic link"):
            find_local_rack(state)
