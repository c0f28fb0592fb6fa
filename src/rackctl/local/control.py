"""Start, stop and control the local rack."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rackctl.errors import NotFound, RackctlError, Timeout, UsageError
from rackctl.local.state import TAKEN, Options, RackDescription, StateDir

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The daemon's environment has none of the user's AWS settings, and above all no credentials.
_INHERITED: Final = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHONPATH", "PYTHONWARNINGS", "TMPDIR", "TZ", "USER")
_STOPS_WITHIN: Final = 10.0
_STARTS_WITHIN: Final = 120.0


@dataclass(frozen=True, slots=True)
class Up:
    """A running rack, whether this call started it, and notes for the user."""

    rack: RackDescription
    started: bool
    notes: tuple[str, ...] = ()


def start(directory: Path, options: Options, *, progress: Callable[[str], None] = lambda _: None) -> Up:
    """Start the local rack of a state directory unless it is up; return when it is up.

    ``progress`` is called with each step in a few words. Raises UsageError, Timeout, and, if the daemon exits,
    RackctlError with the end of its log.
    """
    state = StateDir(directory)
    state.make()
    if state.holder() is not None:
        return Up(_wait_until_described(state), started=False)
    daemon = _spawn(state, options)
    notes = []
    assert daemon.stdout is not None
    with daemon.stdout as lines:
        for line in lines:
            kind, _, words = line.rstrip("\n").partition(" ")
            if kind == "ready":
                break
            if kind == "note":
                notes.append(words)
            else:
                progress(words)
    rack = state.described()
    if rack is not None and rack.pid == daemon.pid:
        daemon.returncode = 0  # the daemon outlives this process: silence Popen's warning
        return Up(rack, started=True, notes=tuple(notes))
    if daemon.wait() == TAKEN:  # another process has started the rack
        return Up(_wait_until_described(state), started=False)
    raise RackctlError(
        f"the local rack did not start (its daemon ended with status {daemon.returncode})",
        hint=f"the end of its log, {state.log}:\n{_tail(state.log)}",
    )


def _spawn(state: StateDir, options: Options) -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "rackctl.local.daemon", str(state.root.parent),
        "--name", options.name, "--instances", str(options.instances), "--speed", repr(options.speed),
        *([] if options.key else ["--no-key"]),
        *(["--foreign"] if options.foreign else []),
        *(["--gateway"] if options.gateway else []),
    ]  # fmt: skip
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # Without these, botocore would read the user's settings, and look for an instance role.
    environment |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    environment["AWS_EC2_METADATA_DISABLED"] = "true"
    log = os.open(state.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(log)


def _wait_until_described(state: StateDir) -> RackDescription:
    """Wait for the daemon that another process has started."""
    deadline = time.monotonic() + _STARTS_WITHIN
    while time.monotonic() < deadline:
        if (described := state.described()) is not None:
            return described
        if state.holder() is None:
            raise RackctlError(
                "the local rack stopped while it was starting",
                hint=f"the end of its log, {state.log}:\n{_tail(state.log)}",
            )
        time.sleep(0.05)
    raise Timeout("gave up waiting for the local rack to start", hint=f"its log is {state.log}")


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    except FileNotFoundError:
        lines = []
    return "\n".join(f"    {line}" for line in lines) or "    (it is empty)"


def down(directory: Path) -> bool:
    """Stop the local rack of a state directory and remove its files; return False if there were none."""
    state = StateDir(directory)
    if not state.root.exists():
        return False
    state.make()  # raises UsageError for another user's directory
    holder = state.holder()
    if holder:
        _stop(state, holder)
    lock = state.acquire(patience=1.0)
    if lock is None:
        raise RackctlError(
            "another command is starting the local rack at this moment", hint="run the same command again"
        )
    try:
        from rackctl.local import processes

        if state.hosts.is_dir():
            processes.end([path / "home" for path in state.hosts.iterdir()])
        state.remove()
    finally:
        lock.release()
    return True


def _stop(state: StateDir, pid: int) -> None:
    for number, seconds in ((signal.SIGTERM, _STOPS_WITHIN), (signal.SIGKILL, 2.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + seconds
        while state.holder() == pid:
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        else:
            return


def describe(directory: Path) -> RackDescription | None:
    """Return the local rack of a state directory; None if it is down."""
    return StateDir(directory).described()


def running(directory: Path) -> RackDescription:
    """Return the local rack of a state directory. Raises NotFound if it is down."""
    rack = describe(directory)
    if rack is None:
        raise NotFound("the local rack is down", hint="start it with `rackctl local up`")
    return rack


class Control:
    """Control calls: faults, conditions, the call log."""

    def __init__(self, rack: RackDescription) -> None:
        self._rack = rack

    def __call__(self, call: str, **arguments: Any) -> Any:
        """Make a control call and return its result. Raises UsageError if the rack refuses it, RackctlError."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        rack, body = self._rack, json.dumps({"call": call, "arguments": arguments})
        request = AWSRequest("POST", rack.endpoint_url + "/", {"Content-Type": "application/json"}, body)
        # The signature names a service that is none of AWS's, so that no AWS call can be replayed as a control call.
        SigV4Auth(Credentials(rack.access_key_id, rack.secret_access_key), "rackctl-local", rack.region).add_auth(
            request
        )
        connection = http.client.HTTPConnection(rack.endpoint_url.removeprefix("http://"), timeout=30)
        try:
            connection.request("POST", "/", body.encode(), dict(request.headers.items()))
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RackctlError(f"the local rack does not answer: {error}", hint="see `rackctl local status`") from error
        finally:
            connection.close()
        if response.status != 200:
            raise UsageError(f"the local rack refused this: {answer.get('message', answer)}")
        return answer
