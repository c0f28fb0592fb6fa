"""Doctor's logins: an instance of each subnet, all at once; none counts as reached without a login."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from rackctl.doctor.reach import logins
from rackctl.errors import AccessDenied, NotFound, RackctlError
from rackctl.model import Instance
from rackctl.rack_instance import RackInstance
from rackctl.ssh.login import Proof

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.doctor import Finding


def instance(number: int, subnet: str, *, state: str = "running", key_name: str = "ops") -> RackInstance:
    id_ = f"i-0000000000000000{number}"
    launched = datetime(2026, 1, 1, tzinfo=UTC)
    return RackInstance(id_, Instance(id_, state, launched, key_name=key_name, subnet_id=subnet))


def found(prove: Callable[[Instance, float], Proof], *instances: RackInstance) -> list[Finding]:
    return list(logins(instances, prove))


def proving(outcome: str | RackctlError) -> Callable[[Instance, float], Proof]:
    def prove(_: Instance, timeout: float) -> Proof:
        assert timeout <= 30
        if isinstance(outcome, RackctlError):
            raise outcome
        return Proof(outcome, "why")  # type: ignore[arg-type]

    return prove


@pytest.mark.parametrize(
    ("outcome", "status", "says"),
    [
        ("accepted", "ok", "reached, and the key is accepted"),
        ("refused", "problem", "the key is refused: why"),
        ("unreachable", "warning", "not reachable from here: why"),
        (NotFound("no key ops is stored", hint="import it"), "skipped", "no key ops is stored"),
        (AccessDenied("AWS denied kms:Decrypt"), "problem", "AWS denied kms:Decrypt"),
    ],
)
def test_the_ssh_check_is_ok_only_if_a_login_succeeds(outcome: str | RackctlError, status: str, says: str) -> None:
    (one,) = found(proving(outcome), instance(1, "subnet-a"))

    assert (one.check, one.status) == ("ssh", status)
    assert one.message == f"i-00000000000000001 in subnet-a: {says}"


def test_one_running_instance_of_each_subnet_is_tried() -> None:
    tried: list[str] = []

    def prove(one: Instance, _: float) -> Proof:
        tried.append(one.ec2_instance_id[-1])
        return Proof("accepted")

    found(
        prove,
        instance(1, "subnet-a", state="pending"),
        instance(2, "subnet-a"),
        instance(3, "subnet-a"),
        instance(4, "subnet-b"),
        instance(5, "subnet-c", key_name=""),
    )

    assert sorted(tried) == ["2", "4"]


def test_the_logins_of_all_subnets_run_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)

    def prove(_: Instance, __: float) -> Proof:
        together.wait()
        return Proof("accepted")

    assert {f.status for f in found(prove, *(instance(n, f"subnet-{n}") for n in range(3)))} == {"ok"}


def test_instances_that_fail_in_the_same_way_share_one_finding() -> None:
    error = NotFound("no key ops is stored", hint="import it")

    (one,) = found(proving(error), instance(1, "subnet-a"), instance(2, "subnet-b"))

    assert one.message == ("i-00000000000000001 in subnet-a and i-00000000000000002 in subnet-b: no key ops is stored")
    assert one.remedy == "import it"


def test_subnets_that_are_not_tried_are_counted_as_skipped() -> None:
    *_, last = found(proving("accepted"), *(instance(n, f"subnet-{n:02}") for n in range(12)))

    assert (last.status, last.message) == ("skipped", "2 more subnets: only 10 are tried")


def test_without_a_running_instance_the_ssh_check_is_skipped() -> None:
    (one,) = found(proving("accepted"), instance(1, "subnet-a", state="stopped"))

    assert (one.status, one.message) == ("skipped", "no instance with a key is running")
