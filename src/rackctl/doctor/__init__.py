"""Check everything that a rack needs. Reads AWS, and changes nothing.

The checks run at once and are reported in a fixed order. A part that could not be read is never ok: its check reports
the error, and hides no other check.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from rackctl.background import in_background
from rackctl.doctor import account, reach, rolling, store
from rackctl.doctor.finding import Finding, Status, failed, skipped, told
from rackctl.errors import AccessDenied, RackctlError
from rackctl.roll.view import RollOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from rackctl.aws.sts import Caller
    from rackctl.clock import Clock
    from rackctl.keys import KeyStore
    from rackctl.model import Instance
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.plan import Plan
    from rackctl.roll.roll import Roll
    from rackctl.ssh.login import Proof

__all__ = ["Doctor", "Finding", "Status"]

_OF_CLUSTER = (*rolling.TOPICS, "providers", "bucket", "kms", "keys", "ssh")
# For roles other than keyroll: the checks in which a denial is a problem.
_NEEDED_BY = {"ssh": {"keys", "ssh"}}


class Doctor:
    """The checks of one rack. ``prove`` logs in to an instance with its own key, within a number of seconds."""

    def __init__(
        self, rack: Rack, keys: KeyStore, roll: Roll, clock: Clock, *, prove: Callable[[Instance, float], Proof]
    ) -> None:
        self._rack = rack
        self._keys = keys
        self._roll = roll
        self._clock = clock
        self._prove = prove

    @cached_property
    def _caller(self) -> Caller:
        return self._rack.aws.sts.caller()

    def examine(self, listed: Callable[[], Sequence[RackInstance]], role: str = "") -> Iterator[Finding]:
        """Yield the findings of each check, in a fixed order. Raises nothing.

        ``role`` is one of `policies.ROLES`: its permissions are checked.
        """
        rack = self._rack
        found = told("credentials", lambda: account.credentials(rack, self._caller, self._clock.now()))
        yield from found
        if found[0].status != "ok":
            yield from skipped("no credentials that AWS accepts", ("region", "clock", "cluster", *_OF_CLUSTER))
            return
        found = told("cluster", lambda: account.cluster(rack, self._caller))
        yield from found
        if found[0].status != "ok":
            yield from skipped("the cluster could not be read", _OF_CLUSTER)
            return
        yield from self._of_cluster(listed, role)

    def _of_cluster(self, listed: Callable[[], Sequence[RackInstance]], role: str) -> Iterator[Finding]:
        rack = self._rack
        instances = in_background(listed)
        plan = in_background(lambda: self._roll.plan(RollOptions()))
        checks: dict[str, Callable[[], Iterator[Finding]]] = {
            "plan": lambda: self._planned(plan, instances, needed=_is_needed("plan", role)),
            "providers": lambda: rolling.providers(rack),
            "bucket": lambda: store.bucket(rack),
            "kms": lambda: store.kms(rack),
            "keys": lambda: store.keys(rack, self._keys, instances.result()),
            "ssh": lambda: reach.logins(instances.result(), self._prove),
        }
        if role:
            checks["permissions"] = lambda: self._permissions(role, plan, instances)
        results = [
            in_background(partial(told, name, check, needed=_is_needed(name, role))) for name, check in checks.items()
        ]
        for result in results:
            yield from result.result()

    def _planned(
        self, plan: Future[Plan], instances: Future[Sequence[RackInstance]], *, needed: bool
    ) -> Iterator[Finding]:
        try:
            made = plan.result()
        except RackctlError as error:
            status: Status = "problem" if needed or not isinstance(error, AccessDenied) else "skipped"
            yield failed(rolling.TOPICS[0], error, status=status, what="a keyroll cannot be planned")
            yield from skipped("a keyroll cannot be planned", rolling.TOPICS[1:])
            return
        yield from rolling.plan_topics(made, self._rack, None if instances.exception() else instances.result())

    def _permissions(
        self, role: str, plan: Future[Plan], instances: Future[Sequence[RackInstance]]
    ) -> Iterator[Finding]:
        made = None if plan.exception() else plan.result()
        known = () if instances.exception() else instances.result()
        return account.permissions(self._rack, self._caller, role, made, known)


def _is_needed(check: str, role: str) -> bool:
    return role in {"", "keyroll"} or check in _NEEDED_BY.get(role, ())
