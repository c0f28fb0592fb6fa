"""rackctl's files: their paths, owners and modes."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import UsageError
from rackctl.files import (
    config_file,
    make_own_directory,
    read_own,
    require_own_directory,
    state_dir,
    write_private,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def test_the_environment_sets_the_paths_of_files() -> None:
    assert str(config_file({"RACKCTL_CONFIG": "/x/c.toml"})) == "/x/c.toml"
    assert str(state_dir({"RACKCTL_STATE_DIR": "/x"})) == "/x"


@pytest.mark.parametrize(("variable", "give"), [("RACKCTL_STATE_DIR", state_dir), ("RACKCTL_CONFIG", config_file)])
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_path_in_the_environment_is_refused(
    variable: str, give: Callable[[Mapping[str, str]], Path], value: str
) -> None:
    with pytest.raises(UsageError, match=f"{variable} is empty"):
        give({variable: value})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_files_and_directories_of_another_user_are_refused(tmp_path: Path) -> None:
    """OpenSSH refuses ~/.ssh/config so, with "Bad owner or permissions" (readconf.c)."""
    path, directory = tmp_path / "file", tmp_path / "directory"
    path.write_bytes(b"x")
    directory.mkdir()
    os.chown(path, 4711, -1)
    os.chown(directory, 4711, -1)

    with pytest.raises(UsageError, match="file belongs to user 4711"):
        read_own(path, limit=10)
    with pytest.raises(UsageError, match="directory belongs to user 4711"):
        require_own_directory(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_files_of_root_and_the_user_are_read_and_those_of_others_refused() -> None:
    # pytest's own directory is root's alone.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        for owner in (0, 4711, 4712):
            (directory / str(owner)).write_bytes(b"x")
            os.chown(directory / str(owner), owner, -1)
        os.seteuid(4711)
        try:
            assert read_own(directory / "0", limit=1) == b"x"
            assert read_own(directory / "4711", limit=1) == b"x"
            with pytest.raises(UsageError, match="4712 belongs to user 4712"):
                read_own(directory / "4712", limit=1)
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_files_and_directories_that_group_or_others_can_write_are_refused(tmp_path: Path, mode: int) -> None:
    path, directory = tmp_path / "file", tmp_path / "directory"
    path.touch()
    path.chmod(mode)
    directory.mkdir()
    directory.chmod(mode | 0o100)

    with pytest.raises(UsageError, match=f"file can be written by other users .mode {mode:04o}"):
        read_own(path, limit=10)
    with pytest.raises(UsageError, match="directory can be written by other users"):
        require_own_directory(directory)


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    for name in ("file", "directory", "nothing"):
        (tmp_path / f"link-to-{name}").symlink_to(tmp_path / name)

    for name in ("file", "nothing"):
        with pytest.raises(UsageError, match=f"link-to-{name} is a symbolic link"):
            read_own(tmp_path / f"link-to-{name}", limit=10)
    with pytest.raises(UsageError, match="link-to-directory is a symbolic link"):
        require_own_directory(tmp_path / "link-to-directory")


def test_a_fifo_is_refused_without_blocking_and_a_directory_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)

    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(UsageError, match="is not a regular file"):
            read_own(path, limit=10)


def test_a_file_is_read_up_to_its_limit_and_refused_beyond(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 2048)

    assert len(read_own(tmp_path / "file", limit=2048)) == 2048
    with pytest.raises(UsageError, match=r"file is larger than 1\.5 KiB"):
        read_own(tmp_path / "file", limit=1536)


def test_a_missing_file_raises_file_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for path in (tmp_path / "none", tmp_path / "none" / "none", tmp_path / "file" / "none"):
        with pytest.raises(FileNotFoundError):
            read_own(path, limit=10)
        with pytest.raises(FileNotFoundError):
            require_own_directory(path)


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)

    for act in (
        lambda: read_own(path, limit=10),
        lambda: require_own_directory(path),
        lambda: make_own_directory(path),
    ):
        with pytest.raises(UsageError, match="File name too long"):
            act()


def test_directories_are_made_for_the_user_alone_and_files_too(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_own_directory(tmp_path / "a" / "b")
        write_private(tmp_path / "a" / "b" / "file", b"secret")
    finally:
        os.umask(before)

    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b", "a/b/file")]
    assert modes == [0o700, 0o700, 0o600]


def test_writing_replaces_a_link_and_leaves_its_target_alone(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"precious")
    link.symlink_to(target)

    write_private(link, b"new")

    assert target.read_bytes() == b"precious"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


def test_a_directory_that_is_there_is_checked_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    make_own_directory(tmp_path / "state")
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o755

    (tmp_path / "state").chmod(0o775)
    with pytest.raises(UsageError, match="can be written by other users"):
        make_own_directory(tmp_path / "state")
