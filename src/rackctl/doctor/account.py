"""The checks of caller, region, clock, cluster and permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.adopt.facts import facts_with_groups
from rackctl.aws.sts import clock_skew
from rackctl.doctor.finding import Finding, failed
from rackctl.errors import RackctlError
from rackctl.permissions import principal_of, simulate
from rackctl.text import counted, listed, roughly

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from rackctl.aws.sts import Caller
    from rackctl.permissions import Permission
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.plan import Plan

# AWS refuses a request whose time is wrong by more than five minutes: https://docs.aws.amazon.com/IAM/latest/UserGuide/
# reference_sigv-troubleshooting.html. A synchronized clock is wrong by less than half a minute.
_SKEW_PROBLEM, _SKEW_WARNING = 240.0, 30.0


def credentials(rack: Rack, caller: Caller, now: datetime) -> Iterator[Finding]:
    """Check caller, region, and this machine's clock."""
    yield Finding("credentials", "ok", f"{caller.arn} in account {caller.account}")
    region = rack.in_force("region")
    yield Finding("region", "ok", f"{rack.aws.region} ({region.origin})")
    yield _clock(clock_skew(caller, now))


def _clock(skew: float | None) -> Finding:
    if skew is None:
        return Finding("clock", "skipped", "AWS's answer has no Date")
    if abs(skew) < _SKEW_WARNING:
        return Finding("clock", "ok", "this machine's clock agrees with AWS's")
    which = "behind" if skew > 0 else "ahead of"
    return Finding(
        "clock",
        "problem" if abs(skew) >= _SKEW_PROBLEM else "warning",
        f"this machine's clock is {roughly(abs(skew))} {which} AWS's; beyond five minutes, AWS refuses all requests",
        "set the clock, or start its time service (NTP)",
    )


def cluster(rack: Rack, caller: Caller) -> Iterator[Finding]:
    """Check that the cluster exists, in the caller's account."""
    found = rack.ecs_cluster
    tags = sorted(name for name in found.tags if name.startswith("rackctl:"))
    yield Finding(
        "cluster",
        "ok",
        f"{found.cluster_arn}; {f'tagged {listed(tags)}' if tags else 'not tagged for rackctl'}",
    )
    if found.account != caller.account:
        yield Finding(
            "cluster", "warning", f"the cluster belongs to account {found.account}, not to the caller's account"
        )


def permissions(
    rack: Rack, caller: Caller, role: str, plan: Plan | None, instances: Sequence[RackInstance]
) -> Iterator[Finding]:
    """Check the permissions that a role of rackctl's needs. Without a plan, the rack's groups are not known."""
    try:
        principal = principal_of(rack.aws, caller.arn)
        names = [group.auto_scaling_group_name for group in plan.groups] if plan else []
        groups = rack.aws.autoscaling.groups(names)
        unread: list[str] = []
        facts = facts_with_groups(rack, groups, unread.append)
        known = [
            *(group.auto_scaling_group_arn for group in groups),
            *_arns(rack, instances, facts.named.get("<key pair>", ())),
        ]
        found = list(simulate(rack.aws, principal, role, facts, known))
    except RackctlError as error:
        yield failed("permissions", error, status="skipped", what="the caller's permissions")
        return
    yield from (Finding("permissions", "skipped", reason) for reason in unread)
    for (resource, reason), actions in _by_reason(found, "denied").items():
        remedy = f"`rackctl racks policy --for {role}` prints what it needs"
        yield Finding("permissions", "problem", f"{listed(actions)} on {resource}: {reason}", remedy)
    for (resource, reason), actions in _by_reason(found, "unknown").items():
        where = f" on {resource}" if resource else ""
        yield Finding("permissions", "skipped", f"{listed(actions)}{where}: {reason}")
    needed, allowed = {p.action for p in found}, {p.action for p in found if p.verdict == "allowed"}
    allowed -= {p.action for p in found if p.verdict != "allowed"}
    if allowed:
        count = f"{len(allowed)} of the {len(needed)} actions" if allowed != needed else counted(len(allowed), "action")
        yield Finding("permissions", "ok", f"{principal} is allowed {count} that `{role}` needs")


def _arns(rack: Rack, instances: Sequence[RackInstance], key_pairs: Sequence[str]) -> Iterator[str]:
    partition = rack.ecs_cluster.cluster_arn.split(":")[1]
    start = f"arn:{partition}:ec2:{rack.ecs_cluster.region}:{rack.ecs_cluster.account}"
    yield from (f"{start}:key-pair/{name}" for name in key_pairs)
    for instance in instances:
        yield f"{start}:instance/{instance.ec2_instance_id}"
        yield from (registration.container_instance_arn for registration in instance.registrations)


def _by_reason(found: Sequence[Permission], verdict: str) -> dict[tuple[str, str], list[str]]:
    """Group actions by their resource, and by the reason why they are not allowed or not known."""
    actions: dict[tuple[str, str], list[str]] = {}
    for permission in found:
        if permission.verdict == verdict:
            of = actions.setdefault((permission.resource, permission.reason), [])
            if permission.action not in of:
                of.append(permission.action)
    return actions
