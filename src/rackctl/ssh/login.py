"""Log in to an instance of a rack: address, host key and SSH key are found by the rack's settings."""

from __future__ import annotations

from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, cast

from rackctl.errors import SshError
from rackctl.ssh.background import in_background

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from rackctl.model import Instance
    from rackctl.rack import Rack
    from rackctl.ssh.connect import Connection, Identity
    from rackctl.ssh.host_keys import HostKeyCheck, Mode

# For a proof as a whole, in seconds: the instance is described, reached, checked and logged in to.
PROOF_TIMEOUT = 60.0


class Keys(Protocol):
    """Where the private key of a key pair comes from; `rackctl.keys.KeyStore` is one."""

    def fetch(self, name: str, /) -> Identity: ...


@dataclass(frozen=True, slots=True)
class Proof:
    """How a login with the key that an instance was launched with has ended.

    *refused* only when the server itself refused the key, after its host key was accepted. Anything else that kept the
    login from ending well is *unreachable*, with the reason as ``detail``.
    """

    outcome: Literal["accepted", "refused", "unreachable"]
    detail: str = ""


def import_paramiko() -> None:
    """Import what a session needs, which takes as long as an answer of AWS."""
    import rackctl.ssh.session  # noqa: F401 - what the import leaves behind is the point


def host_key_check(
    rack: Rack, instance: Instance, *, state_directory: Path, notify: Callable[[str], None] = lambda _: None
) -> HostKeyCheck:
    """Make the check of an instance's host key that the rack's settings ask for."""
    from rackctl.ssh.host_keys import HostKeyCheck, HostKeyFile

    id_ = instance.ec2_instance_id
    return HostKeyCheck(
        id_,
        HostKeyFile(state_directory),
        cast("Mode", rack["host_key_check"]),
        console_output=lambda: rack.aws.ec2.console_output(id_),
        notify=notify,
    )


def connect(
    rack: Rack,
    keys: Keys,
    instance: Instance,
    *,
    state_directory: Path,
    notify: Callable[[str], None] = lambda _: None,
) -> Connection:
    """Log in to an instance with its own key. Raises SshError, and what fetching the key raises.

    What takes time is done side by side: paramiko is imported and the key fetched and opened while the connection is
    being made.
    """
    from rackctl.ssh.dial import dial
    from rackctl.ssh.reach import reach

    target = reach(rack, instance)
    link = in_background(lambda: dial(target))
    check = host_key_check(rack, instance, state_directory=state_directory, notify=notify)
    from rackctl.ssh.connect import connect as connect_to

    return connect_to(target, lambda: keys.fetch(instance.key_name), check, link=link)


def prove(
    rack: Rack, keys: Keys, instance: Instance, *, state_directory: Path, timeout: float = PROOF_TIMEOUT
) -> Proof:
    """Find out whether an instance accepts the key that it was launched with, within so many seconds.

    Raises what fetching the key raises.
    """
    proof = _begin(rack, keys, instance, state_directory)
    wait([proof], timeout)
    return proof.result() if proof.done() else _timed_out(instance, timeout)


def start_proof(
    rack: Rack, keys: Keys, instance: Instance, *, state_directory: Path, timeout: float = PROOF_TIMEOUT
) -> Callable[[], Proof | None]:
    """Begin what `prove` does in a daemon thread; give a function that returns the Proof, or None before it is there.

    The function never waits, and raises what `prove` raises. Who no longer wants to know stops asking.
    """
    proof = _begin(rack, keys, instance, state_directory)
    overdue = in_background(lambda: wait([proof], timeout))

    def poll() -> Proof | None:
        if proof.done():
            return proof.result()
        return _timed_out(instance, timeout) if overdue.done() else None

    return poll


def _begin(rack: Rack, keys: Keys, instance: Instance, state_directory: Path) -> Future[Proof]:
    return in_background(lambda: _proof(rack, keys, instance, state_directory))


def _proof(rack: Rack, keys: Keys, instance: Instance, state_directory: Path) -> Proof:
    from rackctl.ssh.connect import LoginRefused, MoreThanKeyRequired

    # What was seen of it first may have been before it had an address.
    current = next(rack.aws.ec2.instances_by_id([instance.ec2_instance_id]), instance)
    try:
        connect(rack, keys, current, state_directory=state_directory).close()
    except LoginRefused as error:
        return Proof("refused", str(error))
    except MoreThanKeyRequired as error:
        return Proof("accepted", str(error))
    except SshError as error:
        return Proof("unreachable", str(error))
    return Proof("accepted")


def _timed_out(instance: Instance, timeout: float) -> Proof:
    return Proof("unreachable", f"no login to {instance.ec2_instance_id} within {timeout:g} s")
