"""Discovery of the local rack by the files that its daemon keeps. The rack itself is in local/."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.aws.session import Credentials
from rackctl.errors import UsageError
from rackctl.files import open_own, read_own, require_own_directory

if TYPE_CHECKING:
    from pathlib import Path

_LARGEST = 64 * 1024


@dataclass(frozen=True, slots=True)
class LocalRack:
    """The running local rack, as its daemon describes it in its state directory."""

    name: str
    endpoint_url: str
    region: str
    credentials: Credentials
    proxy_command: str = ""
    ssh_port: str = ""

    @property
    def settings(self) -> dict[str, str]:
        given = {
            "region": self.region,
            "endpoint_url": self.endpoint_url,
            "proxy_command": self.proxy_command,
            "ssh_port": self.ssh_port,
        }
        return {name: value for name, value in given.items() if value}


def find_local_rack(state_directory: Path) -> LocalRack | None:
    """Find the local rack whose state is kept under a state directory, if it is up.

    Raises UsageError for files that another user can write, and for a damaged description.
    """
    directory = state_directory / "local"
    try:
        require_own_directory(state_directory)
        require_own_directory(directory)
        if not _is_locked(directory / "lock"):
            return None
        return _read(directory / "rack.json")
    except FileNotFoundError:
        return None


def _read(path: Path) -> LocalRack:
    try:
        described = json.loads(read_own(path, limit=_LARGEST))
        texts = {name: described[name] for name in _TEXTS} | {name: described.get(name) or "" for name in _OPTIONAL}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path) from error
    if not all(isinstance(text, str) for text in texts.values()):
        raise _damaged(path)
    credentials = Credentials(texts.pop("access_key_id"), texts.pop("secret_access_key"))
    return LocalRack(credentials=credentials, **texts)


_OPTIONAL = ("proxy_command", "ssh_port")
_TEXTS = ("name", "endpoint_url", "region", "access_key_id", "secret_access_key")


def _damaged(path: Path) -> UsageError:
    return UsageError(
        f"{path} is damaged: it does not describe a local rack",
        hint="stop the local rack with `rackctl local down`, or name another state directory with RACKCTL_STATE_DIR",
    )


def _is_locked(path: Path) -> bool:
    """Return whether a process holds a lock. Unlike a process id in a file, a lock ends with its process."""
    import fcntl
    import os

    descriptor = open_own(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
