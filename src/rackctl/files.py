"""rackctl's own files: read only if no other user can write them, written whole, with mode 0600.

The rule is OpenSSH's for ~/.ssh/config (``Bad owner or permissions``): the owner is the user or root, and neither the
group nor others may write. It is checked on the open file, so that the file cannot be replaced between check and read.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rackctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_OTHERS_CAN_WRITE = stat.S_IWGRP | stat.S_IWOTH


def state_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of rackctl's state: host keys and the local rack."""
    if chosen := _path_in(environment, "RACKCTL_STATE_DIR"):
        return chosen
    import platformdirs

    return Path(platformdirs.user_state_dir("rackctl", appauthor=False))


def config_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the config file, which need not exist."""
    if chosen := _path_in(environment, "RACKCTL_CONFIG"):
        return chosen
    import platformdirs

    return Path(platformdirs.user_config_dir("rackctl", appauthor=False)) / "config.toml"


def _path_in(environment: Mapping[str, str], variable: str) -> Path | None:
    value = environment.get(variable)
    if value is not None and not value.strip():
        raise UsageError(f"{variable} is empty", hint="set it to a path, or unset it")
    return Path(value).absolute() if value else None


def read_own(path: Path, *, limit: int) -> bytes:
    """Read a file of at most ``limit`` bytes that only the user or root can write.

    Raises FileNotFoundError if it does not exist, and UsageError if another user can write it.
    """
    with os.fdopen(open_own(path), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        from rackctl.text import size

        raise UsageError(f"{path} is larger than {size(limit)}", hint="check that this is the right file")
    return data


def open_own(path: Path) -> int:
    """Open such a file for reading and return its descriptor. Raises as `read_own` does."""
    # A FIFO would keep a blocking open waiting for its writer.
    descriptor = _open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"{path} is not a regular file")
        _require_own(path, found)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def require_own_directory(path: Path) -> None:
    """Check that no other user can write a directory.

    Raises FileNotFoundError if it does not exist, and UsageError if another user can write it.
    """
    descriptor = _open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _require_own(path, os.fstat(descriptor))
    finally:
        os.close(descriptor)


def make_own_directory(path: Path) -> None:
    """Make a directory and its missing parents with mode 0700. Raises UsageError."""
    try:
        for directory in [*reversed(path.parents), path]:
            if not directory.exists():
                directory.mkdir(mode=0o700, exist_ok=True)
        require_own_directory(path)
    except OSError as error:
        raise UsageError(f"cannot make the directory {path}: {error.strerror}") from error


def write_private(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all, that only its owner may read. Raises OSError."""
    # mkstemp makes it with O_EXCL and 0600; the rename replaces a link and does not follow it.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        # O_NOFOLLOW fails with ELOOP, together with O_DIRECTORY also with ENOTDIR.
        if error.errno in {errno.ELOOP, errno.ENOTDIR} and path.is_symlink():
            raise UsageError(
                f"{path} is a symbolic link: rackctl does not follow it", hint="name its target"
            ) from error
        if error.errno == errno.ENOTDIR and not path.exists():
            raise FileNotFoundError(error.errno, error.strerror, str(path)) from error
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _require_own(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in {0, os.geteuid()}:
        raise UsageError(f"{path} belongs to user {found.st_uid}", hint="use a file of your own")
    if found.st_mode & _OTHERS_CAN_WRITE:
        raise UsageError(
            f"{path} can be written by other users (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"chmod go-w {path}",
        )
