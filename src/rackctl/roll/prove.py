"""Prove the first new instance of a group, beside the heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.errors import RackctlError
from rackctl.ssh.login import Proof

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from rackctl.roll.hold import Hold
    from rackctl.roll.reasons import Reason
    from rackctl.roll.report import Event

_PROOFS = 6
_PROVE_AGAIN = 10.0
# A login that takes longer is reported while it lasts.
_SAY_AFTER = 2.0
# What a login takes at most: 30 s to connect and sshd's LoginGraceTime.
_PROOF_TIMEOUT = 180.0


class NotProven(RackctlError):
    """The first new instance refused the login, or could not be reached although it had to be."""


class Prover:
    """What one process has proven: a proof counts in the process that made it, and nowhere else."""

    def __init__(self, hold: Hold, reason: Reason) -> None:
        self._hold = hold
        self._reason = reason
        self._proven: set[str] = set()

    def is_proven(self, name: str) -> bool:
        """Tell whether a new instance of a group was proven, or could not be reached and need not be."""
        return name in self._proven

    def prove(self, name: str, id_: str) -> Iterator[Event]:
        """Log in to a new instance of the group. Raises NotProven."""
        # A login may come before the instance is done with its first boot.
        for attempt in range(1, _PROOFS + 1):
            proof = yield from self._login(name, id_)
            if proof is None:
                return  # it is gone: the next look decides
            if proof.outcome == "accepted" or attempt == _PROOFS:
                yield from self._judge(name, id_, proof)
                return
            yield self._hold.event(
                "instance",
                f"{id_}: new, login {proof.outcome} ({proof.detail}), attempt {attempt} of {_PROOFS}",
                group=name,
                ec2_instance_id=id_,
                phase="booting",
                waits_for=f"login {proof.outcome}, attempt {attempt} of {_PROOFS}",
            )
            self._hold.wait(_PROVE_AGAIN)

    def _login(self, name: str, id_: str) -> Generator[Event, None, Proof | None]:
        """Log in beside the heartbeats, and stop waiting when the roll is to stop. A wait is reported."""
        found = self._hold.running(id_)
        if found is None:
            return None
        outcome = self._reason.start_proof(found)
        begun, said = self._hold.clock.monotonic(), False
        deadline = begun + _PROOF_TIMEOUT
        while (proof := outcome()) is None:
            if not said and self._hold.clock.monotonic() - begun >= _SAY_AFTER:
                said = True
                yield self._hold.event(
                    "waiting",
                    f"{id_}: logging in with the new key",
                    group=name,
                    ec2_instance_id=id_,
                    waits_for=f"the login to {id_}",
                )
            if self._hold.clock.monotonic() >= deadline:
                return Proof("unreachable", f"no answer within {_PROOF_TIMEOUT:g} s")
            self._hold.short_pause()
        return proof

    def _judge(self, name: str, id_: str, proof: Proof) -> Iterator[Event]:
        if proof.outcome == "refused":
            raise NotProven(
                f"{id_}, the first new instance of group {name}, refused the new key: {proof.detail}",
                hint="its image may not accept this type of key (try --key-type rsa), or may ignore EC2's key pairs",
            )
        if proof.outcome == "unreachable" and self._hold.journal.options.require_ssh:
            raise NotProven(
                f"{id_}, the first new instance of group {name}, could not be reached: {proof.detail}",
                hint="--require-ssh makes this an error; check the connection with `rackctl instances ssh`",
            )
        self._proven.add(name)
        if proof.outcome == "accepted":
            said = f"{id_} {self._reason.proves}"
        else:
            said = (
                f"{id_} could not be reached from here ({proof.detail}): whether it {self._reason.proves} is not "
                "known; continuing"
            )
        yield self._hold.event("proof", said, group=name, ec2_instance_id=id_)
