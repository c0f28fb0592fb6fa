"""What makes an instance old: what is prepared before, proven on the first new instance, and finished after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from rackctl.model import AutoScalingGroup, GroupInstance, Instance
    from rackctl.roll.report import Event
    from rackctl.ssh.login import Proof


class Criterion(Protocol):
    """What makes an instance old."""

    @property
    def launched_before(self) -> datetime:
        """The newest LaunchTime before the roll, by EC2's clock."""

    def is_old(self, instance: Instance, member: GroupInstance | None) -> bool:
        """Tell whether an instance is to be replaced; ``member`` is what its group says of it, if that is known."""

    def is_kept(self, instance: Instance) -> bool:
        """Tell of an instance that is not old whether it was there before the roll, and is none of its new ones."""


class Reason(Criterion, Protocol):
    """One reason for a roll. Each step looks first and does what is still to do. Raises RackctlError, StopNow.

    ``proves`` is what a proof shows of an instance, such as "accepts the new key".
    """

    @property
    def proves(self) -> str: ...

    def prepare(self) -> Iterator[Event]:
        """Change AWS so that the groups launch new instances from now on."""

    def launches_old(self, group: AutoScalingGroup) -> str:
        """Say how a group launches old instances; empty if it launches new ones."""

    def start_proof(self, instance: Instance) -> Callable[[], Proof | None]:
        """Start to check a new instance; return a function that gives the proof, or None while there is none."""

    def finish(self) -> Iterator[Event]:
        """Delete what nothing needs any more, after everything was replaced."""

    def roll_back(self) -> Iterator[Event]:
        """Change AWS back so that the groups launch as before the roll."""

    def clean_up(self) -> Iterator[Event]:
        """Delete what nothing needs any more, after the roll was rolled back."""

    def summary(self) -> str:
        """Return a sentence on the result of the roll, for its last event."""
