"""The roll's own instance refreshes, told from others by their ids in the journal.

Auto Scaling has one active refresh a group, and starting one is not idempotent: what is asked for is written into the
journal first. If the answer is lost, the refresh that is newer than the newest one before, and that was asked for in
just that way, is the roll's.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from rackctl.aws.errors import AwsError
from rackctl.clock import LAG
from rackctl.errors import RackctlError
from rackctl.instance_refresh import InstanceRefresh
from rackctl.roll.journal import RefreshRecord
from rackctl.roll.refresh_terms import is_as_asked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.roll.hold import Hold
    from rackctl.roll.journal import GroupRecord

IN_PROGRESS: Final = "InstanceRefreshInProgress"
_NONE_ACTIVE: Final = "ActiveInstanceRefreshNotFound"
_IRREVERSIBLE: Final = "IrreversibleInstanceRefresh"
# How long a start that gets no answer is tried again, in seconds.
_TRIED_FOR: Final = 120.0


class Refreshes:
    """The instance refreshes of one roll, one a group."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._autoscaling = hold.aws.autoscaling

    def _described(self, name: str) -> list[InstanceRefresh]:
        return self._hold.retrying(partial(self._autoscaling.instance_refreshes, name))

    # What there is

    def of(self, record: GroupRecord) -> InstanceRefresh | None:
        """Describe the roll's refresh of a group; None if there is none. One whose start got no answer is found again.

        Raises RackctlError for one that Auto Scaling does not describe any more.
        """
        ours = record.refresh
        if ours is None:
            return None

        def described() -> InstanceRefresh | None:
            return _ours(ours, self._described(record.auto_scaling_group_name))

        found = self._hold.until(described) if ours.instance_refresh_id else described()
        if found:
            ours.instance_refresh_id, ours.status = found.instance_refresh_id, found.status
        elif ours.instance_refresh_id:
            raise RackctlError(
                f"Auto Scaling no longer describes instance refresh {ours.instance_refresh_id} of group "
                f"{record.auto_scaling_group_name}: it keeps them for six weeks",
                hint=f"run {self._hold.journal.command('abort')}, then start another roll for what is left",
            )
        return found

    def seen(self, record: GroupRecord) -> InstanceRefresh | None:
        """Describe the roll's refresh of a group as it is shown now, for display; what is not shown has no status."""
        ours = record.refresh
        if ours is None:
            return None
        found = _ours(ours, self._autoscaling.instance_refreshes(record.auto_scaling_group_name))
        return found or (InstanceRefresh(ours.instance_refresh_id, "") if ours.instance_refresh_id else None)

    # What changes it

    def start(
        self, record: GroupRecord, preferences: dict[str, Any], desired_configuration: Mapping[str, Any]
    ) -> InstanceRefresh:
        """Start a refresh of a group, once. Raises RackctlError while another one is in progress there."""
        name = record.auto_scaling_group_name
        newest = self._described(name)
        before = newest[0].instance_refresh_id if newest else ""
        ours = record.refresh = RefreshRecord(preferences, dict(desired_configuration), before)
        self._hold.write()
        began = self._hold.clock.monotonic()
        while True:
            try:
                id_ = self._hold.change(
                    partial(self._autoscaling.start_instance_refresh, name, preferences, desired_configuration)
                )
            except AwsError as error:
                found = _ours(ours, self._described(name))
                id_ = found.instance_refresh_id if found else ""
                waited = self._hold.clock.monotonic() - began
                if not id_ and (self._is_final(error) or waited > (LAG if error.refused else _TRIED_FOR)):
                    if error.refused:
                        record.refresh = None
                        self._hold.write()
                    raise self._in_words(error, name) from error
            if id_:
                ours.instance_refresh_id, ours.status = id_, "Pending"
                self._hold.write()
                return InstanceRefresh(id_, "Pending")
            self._hold.pause()

    @staticmethod
    def _is_final(error: AwsError) -> bool:
        # "In progress" may be said of the refresh that an earlier try has started, and that is not described yet.
        return error.refused and not error.busy and error.code != IN_PROGRESS

    @staticmethod
    def _in_words(error: AwsError, name: str) -> RackctlError:
        if error.code != IN_PROGRESS:
            return error
        return RackctlError(
            f"another instance refresh of group {name} is in progress and replaces the same instances",
            hint=f"wait for its end, or `aws autoscaling cancel-instance-refresh --auto-scaling-group-name {name}`; "
            "then continue",
        )

    def stop(self, record: GroupRecord, *, roll_back: bool) -> InstanceRefresh | None:
        """Have AWS cancel the roll's refresh, or roll it back where it can; return what was to be stopped."""
        found = self.of(record)
        if found is None or not found.can_be_stopped:
            return found
        name = record.auto_scaling_group_name
        ways = [self._autoscaling.cancel_instance_refresh]
        if roll_back and record.refresh and record.refresh.desired_configuration:
            ways.insert(0, self._autoscaling.rollback_instance_refresh)
        for way in ways:
            try:
                self._hold.changing(partial(way, name))
            except AwsError as error:
                if error.code == _IRREVERSIBLE and way is not ways[-1]:
                    continue
                # It has ended meanwhile, or a try whose answer was lost has stopped it.
                if error.code != _NONE_ACTIVE:
                    raise
            break
        return found


def _ours(ours: RefreshRecord, described: list[InstanceRefresh]) -> InstanceRefresh | None:
    """Find the roll's refresh: by its id or, where AWS has not given that, by what was asked for."""
    if ours.instance_refresh_id:
        return next((r for r in described if r.instance_refresh_id == ours.instance_refresh_id), None)
    for refresh in described:
        if refresh.instance_refresh_id == ours.before:
            return None
        wanted = ours.desired_configuration
        if is_as_asked(refresh.preferences, ours.preferences) and is_as_asked(refresh.desired_configuration, wanted):
            return refresh
    return None
