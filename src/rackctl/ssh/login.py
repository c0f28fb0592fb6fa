"""Log in to an instance of a rack: the rack's settings decide address, host key check and SSH key."""

from __future__ import annotations

import math
import os
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

from rackctl.background import in_background
from rackctl.errors import SshError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future
    from datetime import datetime
    from pathlib import Path

    from rackctl.model import Instance
    from rackctl.rack import Rack
    from rackctl.ssh.connect import Connection, Identity
    from rackctl.ssh.deadline import Deadline
    from rackctl.ssh.host_keys import HostKeyCheck, Mode
    from rackctl.ssh.reach import Target

# Seconds for a whole proof: describing the instance, connection, host key and login.
PROOF_TIMEOUT = 60.0


class Keys(Protocol):
    """Source of private keys; `rackctl.keys.KeyStore` is one.

    ``candidates`` yields the keys to try on an instance, by its key name and the time of its launch.
    """

    def candidates(self, name: str, launched: datetime, /) -> Iterable[Identity]: ...


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of a login with the key that an instance was launched with.

    *refused*: the server answered USERAUTH_FAILURE to the key, after its host key was accepted. Any other failure is
    *unreachable*. ``detail`` is the reason.
    """

    outcome: Literal["accepted", "refused", "unreachable"]
    detail: str = ""


def import_paramiko() -> None:
    """Import the modules that a session needs, which takes as long as an AWS call."""
    import rackctl.ssh.session  # noqa: F401 - imported for its side effect


def host_key_check(
    rack: Rack, instance: Instance, *, state_directory: Path, notify: Callable[[str], None] = lambda _: None
) -> HostKeyCheck:
    """Return the host key check of an instance, by the rack's settings."""
    from rackctl.ssh.host_keys import HostKeyCheck, HostKeyFile

    id_ = instance.ec2_instance_id
    return HostKeyCheck(
        id_,
        HostKeyFile(state_directory),
        cast("Mode", rack["host_key_check"]),
        console_output=lambda: rack.aws.ec2.console_output(id_),
        notify=notify,
    )


def deadline_for(rack: Rack, target: Target, *, total: float = math.inf) -> Deadline:
    """Return the deadline of a connection and its login, by the rack's settings, starting now."""
    from rackctl.ssh.deadline import LOGIN_TIMEOUT, Deadline

    # Before the server's first byte, a proxy may prompt for a password or start a session with AWS.
    asks = target.proxy and not rack.is_given("connect_timeout")
    return Deadline(LOGIN_TIMEOUT if asks else float(rack["connect_timeout"]), total=total)


def locale(rack: Rack, environment: Mapping[str, str]) -> dict[bytes, bytes]:
    """Return the variables to send to a session: LANG and LC_*, as Debian's ssh_config does, unless turned off."""
    if rack["send_locale"] == "no":
        return {}
    named = {name: value for name, value in environment.items() if name == "LANG" or name.startswith("LC_")}
    return {os.fsencode(name): os.fsencode(value) for name, value in named.items()}


def connect(
    rack: Rack,
    keys: Keys,
    instance: Instance,
    *,
    state_directory: Path,
    notify: Callable[[str], None] = lambda _: None,
    show_banner: Callable[[str], None] = lambda _: None,
    timeout: float = math.inf,
) -> Connection:
    """Log in to an instance with the keys to try on it. Raises SshError, and the errors of fetching a key.

    paramiko is imported, the key fetched from S3 and KMS, and the connection made in parallel. ``timeout`` limits the
    whole, in seconds, in addition to the rack's own limits.
    """
    from rackctl.ssh.dial import dial
    from rackctl.ssh.reach import reach

    target = reach(rack, instance)
    deadline = deadline_for(rack, target, total=timeout)
    link = in_background(lambda: dial(target, deadline))
    check = host_key_check(rack, instance, state_directory=state_directory, notify=notify)
    from rackctl.ssh.connect import connect as connect_to

    candidates = keys.candidates(instance.key_name, instance.first_launch_time)
    return connect_to(target, candidates, check, link=link, deadline=deadline, show_banner=show_banner)


def prove(
    rack: Rack, keys: Keys, instance: Instance, *, state_directory: Path, timeout: float = PROOF_TIMEOUT
) -> Proof:
    """Log in to an instance with the key that it was launched with, within ``timeout`` seconds; return the result.

    Raises the errors of fetching the key.
    """
    proof = _begin(rack, keys, instance, state_directory, timeout)
    wait([proof], timeout)
    return proof.result() if proof.done() else _timed_out(timeout)


def start_proof(
    rack: Rack, keys: Keys, instance: Instance, *, state_directory: Path, timeout: float = PROOF_TIMEOUT
) -> Callable[[], Proof | None]:
    """Start `prove` in a daemon thread; return a function that returns the Proof, or None until it has ended.

    The function never blocks. It raises the errors of `prove`. To abandon the proof, stop calling it.
    """
    proof = _begin(rack, keys, instance, state_directory, timeout)
    overdue = in_background(lambda: wait([proof], timeout))

    def poll() -> Proof | None:
        if proof.done():
            return proof.result()
        return _timed_out(timeout) if overdue.done() else None

    return poll


def _begin(rack: Rack, keys: Keys, instance: Instance, state_directory: Path, timeout: float) -> Future[Proof]:
    return in_background(lambda: _proof(rack, keys, instance, state_directory, timeout))


def _proof(rack: Rack, keys: Keys, instance: Instance, state_directory: Path, timeout: float) -> Proof:
    from rackctl.ssh.connect import LoginRefused, MoreThanKeyRequired

    # EC2 may have assigned the address since the instance was described.
    current = next(rack.aws.ec2.instances_by_id([instance.ec2_instance_id]), instance)
    try:
        connect(rack, keys, current, state_directory=state_directory, timeout=timeout).close()
    except LoginRefused as error:
        return Proof("refused", error.attempt)
    except MoreThanKeyRequired as error:
        return Proof("accepted", str(error))
    except SshError as error:
        return Proof("unreachable", str(error))
    return Proof("accepted")


def _timed_out(timeout: float) -> Proof:
    return Proof("unreachable", f"no login within {timeout:g} s")
