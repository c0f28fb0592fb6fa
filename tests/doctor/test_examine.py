"""Doctor as a whole: all checks run at once, are reported in a fixed order, and hide no other."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.doctor import Doctor
from rackctl.errors import AccessDenied
from rackctl.instances import Instances
from rackctl.ssh.login import Proof
from tests.fakes.world import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rackctl.doctor import Finding
    from rackctl.rack_instance import RackInstance


def examined(
    scene: Scene, *, role: str = "", listed: Callable[[], Sequence[RackInstance]] | None = None
) -> list[Finding]:
    doctor = Doctor(scene.rack, scene.keys, scene.roll, scene.clock, prove=lambda *_: Proof("accepted"))
    return list(doctor.examine(listed or Instances(scene.rack, scene.clock).list, role))


def statuses(found: Sequence[Finding], *checks: str) -> dict[str, set[str]]:
    return {check: {f.status for f in found if f.check == check} for check in checks}


def failing(scene: Scene, *methods: str, error: Exception) -> Scene:
    def interfere(_: int, name: str, when: str) -> None:
        if name in methods and when == "before":
            raise error

    scene.aws.interfering.append(interfere)
    return scene


def test_a_bug_in_one_check_is_reported_and_the_other_checks_still_run() -> None:
    def listed() -> Sequence[RackInstance]:
        raise ZeroDivisionError("a bug")

    found = examined(Scene(), listed=listed)

    (ssh,) = [f for f in found if f.check == "ssh"]
    assert ssh.status == "problem"
    assert "an error in rackctl itself: ZeroDivisionError: a bug" in ssh.message
    assert statuses(found, "store", "agents", "providers") == {
        "store": {"ok"}, "agents": {"skipped"}, "providers": {"ok"},
    }  # fmt: skip


def test_if_no_plan_can_be_made_each_of_its_topics_is_skipped() -> None:
    denied = AccessDenied("AWS denied autoscaling:DescribeLifecycleHooks", hint="the IAM permission")

    found = examined(failing(Scene(), "lifecycle_hooks", error=denied))

    assert statuses(found, "roll", "store", "groups", "hooks", "key") == {
        "roll": {"problem"}, "store": {"skipped"}, "groups": {"skipped"}, "hooks": {"skipped"}, "key": {"skipped"},
    }  # fmt: skip
    assert statuses(found, "ssh") == {"ssh": {"ok"}}


@pytest.mark.parametrize(("role", "status"), [("", "problem"), ("keyroll", "problem"), ("ssh", "skipped")])
def test_a_denied_check_is_a_problem_only_for_a_role_that_needs_it(role: str, status: str) -> None:
    denied = AccessDenied("AWS denied ecs:DescribeCapacityProviders", hint="the IAM permission")

    found = examined(failing(Scene(), "capacity_providers", error=denied), role=role)

    assert statuses(found, "providers", "roll") == {"providers": {status}, "roll": {status}}


def test_without_the_cluster_the_rest_is_skipped_with_the_reason() -> None:
    scene = failing(Scene(), "cluster", error=AccessDenied("AWS denied ecs:DescribeClusters", hint="x"))
    scene.rack.__dict__.pop("ecs_cluster", None)

    found = examined(scene)

    assert statuses(found, "credentials", "cluster") == {"credentials": {"ok"}, "cluster": {"problem"}}
    rest = [f for f in found if f.check not in {"credentials", "region", "clock", "cluster"}]
    assert {(f.status, f.message) for f in rest} == {("skipped", "the cluster could not be read")}


def test_the_checks_run_at_once() -> None:
    """A login and the plan wait for each other: one after the other they would never end."""
    scene, together = Scene(), threading.Barrier(2, timeout=10)
    met: list[str] = []

    def meet(who: str) -> None:
        if who not in met:
            met.append(who)
            together.wait()

    def prove(*_: Any) -> Proof:
        meet("login")
        return Proof("accepted")

    scene.aws.interfering.append(lambda _, name, __: meet("plan") if name == "lifecycle_hooks" else None)
    instances = Instances(scene.rack, scene.clock).list()
    doctor = Doctor(scene.rack, scene.keys, scene.roll, scene.clock, prove=prove)

    found = list(doctor.examine(lambda: instances[:1]))

    assert sorted(met) == ["login", "plan"]
    assert statuses(found, "ssh", "hooks") == {"ssh": {"ok"}, "hooks": {"ok"}}


def test_a_healthy_rack_has_only_ok_findings() -> None:
    assert {(f.check, f.status) for f in examined(Scene()) if f.status != "ok"} == {("clock", "skipped")}


def test_findings_come_in_one_order() -> None:
    checks = list(dict.fromkeys(f.check for f in examined(Scene())))

    assert checks[:4] == ["credentials", "region", "clock", "cluster"]
    assert checks[-2:] == ["keys", "ssh"]
    assert checks == list(dict.fromkeys(f.check for f in examined(Scene())))
