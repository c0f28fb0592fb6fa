"""Carry out a roll whose journal is held: one ladder of errors, and everything left running when it stops."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from signal import Signals
from typing import TYPE_CHECKING

from rackctl.aws.errors import Throttled
from rackctl.errors import RackctlError, RollIncomplete
from rackctl.instance_refresh import InstanceRefresh
from rackctl.roll.hold import RollStopped, StopNow
from rackctl.roll.lock import JournalLost
from rackctl.roll.steps import rolled_back
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rackctl.roll.hold import Hold
    from rackctl.roll.journal import GroupRecord, Journal
    from rackctl.roll.loop import Loop
    from rackctl.roll.report import Event
    from rackctl.roll.steps import Steps


class Execution:
    """One process's run of a roll."""

    def __init__(self, hold: Hold, loop: Loop, steps: Steps) -> None:
        self._hold = hold
        self._loop = loop
        self._steps = steps

    def carry_out(self, *, backwards: bool = False, blind_for: float = 0) -> Iterator[Event]:
        """Run the steps of the roll, forwards or backwards; if they fail, leave everything running.

        For ``blind_for`` seconds, AWS may not show yet what another process has changed last.
        """
        try:
            self._loop.views()
            if blind_for > 0:
                yield self._hold.event("lock", f"waiting up to {blind_for:.0f} s for AWS to reflect the last change")
                self._hold.wait(blind_for)
            yield from self._steps.backwards() if backwards else self._steps.forwards()
        except StopNow:
            name = Signals(self._hold.stop_signal).name
            stopped = f"stopped by {name}{' (Ctrl-C)' if name == 'SIGINT' else ''}"
            left = self._leave(stopped)
            raise RollStopped(
                f"{stopped}. {self._so_far(left)}", signal=self._hold.stop_signal, hint=self._way_on()
            ) from None
        except JournalLost:
            raise
        except RackctlError as error:
            if self._steps.undoes(error):
                yield from self._undo(error)
            left = self._leave(str(error))
            # "Run it again", as for a throttled call, is no remedy here: it would be refused.
            remedy = f"{error.hint}\n  " if error.hint and not isinstance(error, Throttled) else ""
            raise RollIncomplete(
                f"{_sentence(error)} {self._so_far(left)}", hint=f"{remedy}{self._way_on()}"
            ) from error
        except Exception as error:
            with suppress(JournalLost):
                self._leave(f"an error in rackctl itself: {error}")
            raise

    def _undo(self, error: RackctlError) -> Iterator[Event]:
        """Roll back because of an error before any instance was drained, and raise that error."""
        yield self._hold.event("problem", f"{error}; rolling back")
        try:
            yield from self._steps.backwards(because=str(error))
        except StopNow:
            self._leave(str(error))
            raise RollStopped(
                f"stopped while rolling back because of this: {error}",
                signal=self._hold.stop_signal,
                hint=self._way_on(),
            ) from None
        except JournalLost:
            raise
        except RackctlError as another:
            self._leave(str(another))
            raise RollIncomplete(
                f"{_sentence(error)} It could not be rolled back: {another}", hint=self._way_on()
            ) from error
        except Exception as bug:
            with suppress(JournalLost):
                self._leave(f"an error in rackctl itself: {bug}")
            raise
        drained = (
            "" if any(record.refresh for record in self._hold.journal.groups.values()) else "Nothing was drained; "
        )
        given_back = RackctlError(f"{_sentence(error)} {drained}{rolled_back(self._hold)}", hint=error.hint)
        given_back.exit_code = error.exit_code
        raise given_back from error

    def _leave(self, problem: str) -> list[str]:
        """Leave everything running, as far as AWS still lets us: nothing but JournalLost may hide why it is left.

        Return the instances that may still be DRAINING. Raises JournalLost, with nothing changed: another process may
        be draining them by now.
        """
        self._hold.journal.problem = problem
        _try(self._hold.lock.check_owner)
        _try(self._loop.reactivate)
        for record in self._hold.journal.groups.values():
            if "Launch" in record.suspended and not (record.deleted or self._hold.journal.lacks_key_pair(record)):
                _try(partial(self._hold.unless_lost, partial(self._resume_launch, record)))
        draining = [id_ for id_, record in self._hold.journal.instances.items() if record.drained_by_roll]
        with suppress(RackctlError):
            self._hold.lock.release()
        return draining

    def _resume_launch(self, record: GroupRecord) -> None:
        self._hold.aws.autoscaling.resume_processes(record.auto_scaling_group_name, ["Launch"])
        record.suspended.remove("Launch")

    def _so_far(self, draining: Sequence[str]) -> str:
        total, left = self._hold.journal.total, self._hold.journal.total - self._hold.progress.done
        if self._hold.journal.phase == "preparing":
            return f"No instance was touched; all {total} are still to be replaced"
        if self._hold.journal.phase == "aborting":
            named = f"; {', '.join(draining)} may still be DRAINING" if draining else ""
            going = f"; {self._going_on()}" if self._going_on() else ""
            return f"The rollback is not finished{named}{going}"
        running = f"{', '.join(draining)} may still be DRAINING" if draining else "nothing is left draining"
        running = self._going_on() or running
        rest = f"{left} {'is' if left == 1 else 'are'} left"
        return f"Replaced {self._hold.progress.done} of {total} instances, {rest}; {running}"

    def _going_on(self) -> str:
        """Return which instance refreshes Auto Scaling goes on with by itself, as far as they were seen."""
        refreshes = [r.refresh for r in self._hold.journal.groups.values() if r.refresh and not r.deleted]
        going = [r for r in refreshes if not r.status or InstanceRefresh(r.instance_refresh_id, r.status).is_active]
        named = [
            f"instance refresh {r.instance_refresh_id}" if r.instance_refresh_id else "an instance refresh just started"
            for r in going
        ]
        return f"Auto Scaling goes on with {listed(named)}" if going else ""

    def _way_on(self) -> str:
        """Return what stays changed until the roll continues, and the commands that continue it."""
        aborting = self._hold.journal.phase == "aborting"
        until = "until you abort" if aborting else "until you resume or abort"
        command = self._hold.journal.command
        meanwhile = "".join(f"{until}, {what}\n  " for what in _all_changed(self._hold.journal) if what)
        ways = f"continue with {command('resume')}, or roll back with {command('abort')}"
        if self._going_on():
            ways = (
                f"see how far it is with {command('status')}, watch and finish it with "
                f"{command('resume')}, or stop it and roll back with {command('abort')}"
            )
        return meanwhile + (f"continue with {command('abort')}" if aborting else ways)


def _try(call: Callable[[], object]) -> None:
    """Call something, and ignore its errors except JournalLost."""
    try:
        call()
    except JournalLost:
        raise
    except (RackctlError, StopNow):
        pass


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."


def _all_changed(journal: Journal) -> Iterator[str]:
    """Yield what the roll has changed and not restored."""
    for record in journal.groups.values():
        yield _changed(record, journal)
    for pair in journal.key_pairs.values():
        if pair.state == "changing":
            yield f"EC2 may have no key pair {pair.key_name}: what launches with it fails"


def _changed(record: GroupRecord, journal: Journal) -> str:
    """Return what the roll has changed of a group and not restored."""
    what = []
    if record.surge:
        what.append(f"keeps desired capacity {record.desired_capacity + record.surge} (was {record.desired_capacity})")
    if record.suspended:
        what.append(f"keeps {', '.join(record.suspended)} suspended")
    renewed = any(journal.key_pairs[name].state == "new" for name in record.key_names)
    if renewed or any(template.made for template in record.templates):
        what.append("launches with the new key")
    return f"group {record.auto_scaling_group_name} {', '.join(what)}" if what and not record.deleted else ""
