"""The files of the local rack's state directory are read only if no other user can write them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from rackctl.errors import UsageError
from rackctl.local.state import StateDir


class Planted:
    """Code that runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("way", ["writable", "link"])
def test_a_snapshot_that_another_user_can_write_is_not_unpickled(tmp_path: Path, way: str) -> None:
    state, ran = StateDir(tmp_path), tmp_path / "ran"
    state.make()
    planted = state.snapshot if way == "writable" else tmp_path / "elsewhere"
    planted.write_bytes(pickle.dumps(Planted(ran)))
    if way == "writable":
        planted.chmod(0o666)
    else:
        state.snapshot.symlink_to(planted)

    with pytest.raises(UsageError, match=r"snapshot (can be written by other users|is a symbolic link)"):
        state.load()

    assert not ran.exists()


def test_the_description_and_the_lock_are_not_read_through_links(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.make()
    (tmp_path / "elsewhere").touch()
    (tmp_path / "local" / "lock").symlink_to(tmp_path / "elsewhere")

    for look in (state.holder, state.described):
        with pytest.raises(UsageError, match="lock is a symbolic link"):
            look()
    with pytest.raises(OSError, match="symbolic links"):
        state.acquire()
