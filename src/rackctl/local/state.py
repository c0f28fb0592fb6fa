"""The state on disk: directory, lock, description and snapshot."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import shutil
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rackctl.errors import UsageError
from rackctl.files import make_own_directory, open_own, read_own, write_private

if TYPE_CHECKING:
    from rackctl.local.world import World

_FORMAT = 1
_LARGEST_DESCRIPTION = 64 * 1024
# The exit status of a daemon that found another one holding the lock.
TAKEN = 75


@dataclass(frozen=True, slots=True)
class RackDescription:
    """The data that a client needs to use a running rack. Its repr has no secret.

    ``ssh_port`` is empty if a tag of the cluster sets it; ``key_file`` is empty if no private key is in a file.
    """

    name: str
    endpoint_url: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    proxy_command: str
    ssh_port: str
    key_file: str
    pid: int
    options: dict[str, Any]
    version: int = _FORMAT


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `rackctl local up`. ``foreign``: a cluster that is no rack yet. ``gateway``: None detects it."""

    name: str = "local"
    instances: int = 3
    speed: float = 10.0
    key: bool = True
    foreign: bool = False
    gateway: bool | None = None


@dataclass
class Kept:
    """The contents of a snapshot. ``moto`` is the pickled state of moto's services; ``cluster`` is the rack's."""

    options: Options
    access_key_id: str
    secret_access_key: str = field(repr=False)
    host_secret: bytes = field(repr=False)
    world: World
    moto: bytes
    network: str
    ssh_port: int
    port: int
    cluster: str


class Lock:
    """A lock, held until it is released or its process exits."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


class StateDir:
    """``local/`` in rackctl's state directory: 0700, and its files 0600."""

    def __init__(self, directory: Path) -> None:
        self.root = directory.absolute() / "local"  # the daemon has another working directory
        self.log = self.root / "daemon.log"
        self.snapshot = self.root / "snapshot"
        self.hosts = self.root / "hosts"
        self.docker_socket = self.root / "docker.sock"
        self.key_file = self.root / "ops.pem"
        self._description = self.root / "rack.json"
        self._lock = self.root / "lock"

    def make(self) -> None:
        """Create the directory with mode 0700. Raises UsageError if that fails or if another user can write it."""
        make_own_directory(self.root.parent)
        make_own_directory(self.root)
        self.root.chmod(0o700)

    # The lock. The daemon holds it as long as it runs, so that no process id need be trusted.

    def acquire(self, *, patience: float = 0.3) -> Lock | None:
        """Take the lock; return None if another process holds it.

        Processes that check the lock hold it for a moment: retry for ``patience`` seconds.
        """
        deadline = time.monotonic() + patience
        while True:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                if time.monotonic() > deadline:
                    return None
                time.sleep(0.01)
                continue
            # `down` removes the directory with the lock: the locked file may no longer be the one at this path.
            if self._is_still(descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return Lock(descriptor)
            os.close(descriptor)
            self.make()

    def _is_still(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._lock.stat())
        except FileNotFoundError:
            return False

    def holder(self) -> int | None:
        """Return the process id of the daemon that holds the lock; None if there is none."""
        try:
            descriptor = open_own(self._lock)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 20, 0)
            return int(text) if text.isdigit() else 0
        finally:
            os.close(descriptor)
        return None

    # The description

    def describe(self, description: RackDescription) -> None:
        write_private(self._description, json.dumps(asdict(description), indent=2).encode())

    def described(self) -> RackDescription | None:
        """Return the description of the running rack; None if there is none, or if it is still starting."""
        pid = self.holder()
        if pid is None:
            return None
        try:
            description = RackDescription(**json.loads(read_own(self._description, limit=_LARGEST_DESCRIPTION)))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        # While a daemon starts, the description may be one that a killed daemon left.
        return description if description.pid == pid else None

    def undescribe(self) -> None:
        self._description.unlink(missing_ok=True)

    # The snapshot

    @staticmethod
    def sealed(kept: Kept) -> bytes:
        """Return a snapshot as bytes, for `save`."""
        return pickle.dumps({"made_by": _maker(), "kept": kept}, protocol=pickle.HIGHEST_PROTOCOL)

    def save(self, snapshot: bytes) -> None:
        write_private(self.snapshot, snapshot)

    def load(self) -> tuple[Kept | None, str]:
        """Return the contents of the snapshot, or None, and a note for the user.

        A snapshot that cannot be read is renamed to ``snapshot.unreadable``.
        """
        try:
            with os.fdopen(open_own(self.snapshot), "rb") as file:
                found = pickle.load(file)  # noqa: S301 - our own file, 0600 in a directory of ours
            if found["made_by"] != _maker():
                raise ValueError("another version of rackctl wrote it")
        except FileNotFoundError:
            return None, ""
        except UsageError:
            raise  # unpickling runs code: the file must not be writable by another user
        except Exception as error:  # noqa: BLE001 - a damaged pickle can raise anything
            aside = self.snapshot.with_name("snapshot.unreadable")
            self.snapshot.replace(aside)
            return None, f"the state of the last local rack cannot be read ({error}); it is kept as {aside}"
        kept: Kept = found["kept"]
        return kept, ""

    def remove(self) -> None:
        """Remove everything, the lock last."""
        for path in self.root.iterdir():
            if path != self._lock:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        shutil.rmtree(self.root)


@cache
def _maker() -> str:
    """Return a digest of the code: only the code that wrote a snapshot can read it."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
