"""A roll's plan and status, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rackctl.text import counted, listed, rfc3339, roughly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rackctl.instance_refresh import InstanceRefresh
    from rackctl.roll.dips import Dip
    from rackctl.roll.plan import GroupPlan, Plan
    from rackctl.roll.report import Status
    from rackctl.settings import Value


# The plan


def plan_fields(plan: Plan) -> dict[str, Any]:
    """Return a plan as the object of ``-o json``. Names and meanings are documented and stable."""
    return {
        "rack": plan.rack,
        "selection": asdict(plan.selection),
        "engine": plan.options.engine,
        "refused": bool(plan.refusals),
        "refusals": [{"reason": refusal.reason, "remedy": refusal.remedy} for refusal in plan.refusals],
        "bucket": _value(plan.bucket),
        "kms_key": _value(plan.kms_key),
        "groups": [
            {
                "group": group.auto_scaling_group_name,
                "desired_capacity": group.desired_capacity,
                "max_size": group.max_size,
                "launch_templates": [asdict(use) for use in group.templates],
                "replace": list(group.replace),
                "surge": group.surge,
                "surge_reason": group.surge_reason,
                "at_once": group.at_once,
                "missing": group.missing,
                "seconds": group.seconds,
                "key": group.key
                and {
                    "way": group.key.way,
                    "reason": group.key.reason,
                    "key_pairs": list(group.key.key_names),
                    "lines": list(group.key.lines),
                },
                "launches": [asdict(source) for source in group.launches],
                "launched_from": dict(group.launched_from),
            }
            for group in plan.groups
        ],
        "services": [asdict(dip) for dip in plan.dips],
        "standalone_tasks": [{"task": task, "instance": id_} for task, id_ in plan.standalone_tasks],
        "left_alone": [{"instance": left.ec2_instance_id, "reason": left.reason} for left in plan.left_alone],
        "warnings": list(plan.warnings),
        "pause": plan.options.pause,
        "checked": plan.options.checked,
        "alarms": list(plan.options.alarms),
        "total": plan.total,
        "seconds": plan.seconds,
        "instance_hours": round(plan.instance_hours, 2),
    }


_REFRESH = "  carried out by Auto Scaling's instance refresh, which goes on without rackctl; ECS drains the instances"


def _value(value: Value) -> dict[str, str | None]:
    return {"value": value.value or None, "origin": str(value.origin)}


def _named(value: Value, prefix: str = "") -> str:
    return f"{prefix}{value.value} ({value.origin})" if value.value else f"({value.origin})"


def plan_text(plan: Plan) -> str:
    """Return a plan as text."""
    return "\n\n".join("\n".join(section) for section in _sections(plan))


def _sections(plan: Plan) -> Iterator[list[str]]:
    count = counted(plan.total, "instance")
    about = f"in about {roughly(plan.seconds)}{_cost(plan)}"
    what = f"would replace {count}, {about}" if plan.total else "would replace nothing"
    refused = "; blocked: see below" if plan.refusals else ""
    yield [
        f'A {plan.selection.noun} of rack "{plan.rack}" {what}{refused}.',
        f"  journal and keys in {_named(plan.bucket, 's3://')}, sealed by KMS key {_named(plan.kms_key)}",
        *([_REFRESH] if plan.options.engine == "refresh" else []),
        *_pace(plan),
    ]
    yield from map(_group, plan.groups)
    for title, dips in (
        ("Services that run fewer tasks for a while:", [d for d in plan.dips if not d.stuck]),
        ("Services whose tasks cannot be moved:", [d for d in plan.dips if d.stuck]),
    ):
        if dips:
            yield [title, *map(_dip, dips)]
    if plan.standalone_tasks:
        what = "stopped" if plan.options.stop_standalone else "waited for; --stop-standalone stops them"
        yield [
            f"Tasks of no service ({what}):",
            *(f"  {task} on {id_}" for task, id_ in plan.standalone_tasks),
        ]
    if plan.left_alone:
        yield ["Left alone:", *(f"  {left.ec2_instance_id}: {left.reason}" for left in plan.left_alone)]
    if plan.warnings:
        yield ["Warnings:", *(f"  {warning}" for warning in plan.warnings)]
    if plan.refusals:
        yield ["Blocked:", *(line for refusal in plan.refusals for line in refusal.lines())]


def _pace(plan: Plan) -> Iterator[str]:
    options = plan.options
    between = [f"pauses for {roughly(options.pause)}"] if options.pause else []
    if options.checked:
        between.append("runs the check")
    if between:
        yield f"  after each batch {' and '.join(between)}"
    if options.alarms:
        yield f"  stops if one of these alarms is in state ALARM: {', '.join(options.alarms)}"


def _dip(dip: Dip) -> str:
    return f"  {dip.service_name}: {counted(dip.desired_count, 'task')}, {dip.lowest_count} at least ({dip.reason})"


def _cost(plan: Plan) -> str:
    most = max((group.surge for group in plan.groups), default=0)
    if not most:
        return ""
    return f", with {counted(most, 'extra instance')} meanwhile ({plan.instance_hours:.1f} instance-hours)"


def _group(group: GroupPlan) -> list[str]:
    def template(named: str, version: str, number: int, key: str) -> str:
        which = version if version == str(number) else f"{version} (now {number})"
        return f"  launches    {named} version {which}, with {f'key {key}' if key else 'no key'}"

    at_a_time = f", {group.at_once} at a time" if group.at_once > 1 else ""
    return [
        f"Group {group.auto_scaling_group_name}",
        f"  capacity    {group.desired_capacity}, at most {group.max_size}"
        + (f"; {group.missing} of {group.desired_capacity} missing" if group.missing else ""),
        *(template(u.launch_template_name or u.launch_template_id, u.version, u.version_number, u.key_name)
          for u in group.templates),
        *(f"  current     {source}" for source in group.launches),
        *([f"  new key     {group.key}"] if group.key else []),
        *(f"              afterwards, set in {line}" for line in (group.key.lines if group.key else ())),
        f"  surge       {group.surge} ({group.surge_reason})",
        f"  replaces    {counted(len(group.replace), 'instance')}{at_a_time}, in about this order:"
        if group.replace
        else "  replaces    nothing",
        *(f"              {id_}" + (f"  {source}" if (source := group.launched_from.get(id_)) else "")
          for id_ in group.replace),
    ]  # fmt: skip


# The status

_STATES = {
    "old": "has its old public key",
    "changing": "is being changed, and may be missing: the groups that name it do not launch",
    "new": "has the new public key",
}
# A roll's batch is seldom larger.
_SHOWN = 20


def status_fields(status: Status | None) -> dict[str, Any]:
    """Return a status as the object of ``-o json``. Names and meanings are documented and stable."""
    if status is None:
        return {"state": "none"}
    journal = status.journal
    return {
        "state": _state(status),
        "phase": journal.phase,
        "rack": journal.rack,
        "selection": asdict(journal.selection),
        "engine": journal.options.engine,
        "key_name": journal.key_name or None,
        "key_pairs": [{"key_name": pair.key_name, "state": pair.state} for pair in journal.key_pairs.values()],
        "reason": journal.options.reason,
        "started": journal.started,
        "owner": str(journal.owner) if journal.owner else None,
        "heartbeat": rfc3339(status.found.heartbeat),
        "problem": journal.problem or None,
        "settling": sorted(journal.pace.settling),
        "total": status.total,
        "left": status.old,
        "groups": [
            {
                **{"group" if k == "auto_scaling_group_name" else k: v for k, v in asdict(group).items()},
                "refresh": _refresh_fields(group.refresh),
            }
            for group in status.groups
        ],
        "instances": [
            {
                "instance": instance.ec2_instance_id,
                "group": instance.auto_scaling_group_name,
                "key_name": instance.key_name or None,
                "phase": instance.phase,
                "since": instance.since or None,
            }
            for instance in status.instances
        ],
    }


def _refresh_fields(refresh: InstanceRefresh | None) -> dict[str, Any] | None:
    if refresh is None:
        return None
    return {
        "id": refresh.instance_refresh_id,
        "status": refresh.status or None,
        "status_reason": refresh.status_reason or None,
        "percentage_complete": refresh.percentage_complete,
        "instances_to_update": refresh.instances_to_update,
    }


def _state(status: Status) -> str:
    if status.found.is_live:
        return "running"
    return "stopped" if status.journal.owner is None else "dead"


def _refresh(refresh: InstanceRefresh) -> str:
    if not refresh.status:
        return f"{refresh.instance_refresh_id}: Auto Scaling does not describe it"
    left = f"{refresh.percentage_complete} % complete, {counted(refresh.instances_to_update, 'instance')} left"
    reason = f" ({refresh.status_reason})" if refresh.status_reason else ""
    return f"{refresh.instance_refresh_id}: {refresh.status}, {left}{reason}"


def status_text(status: Status | None, rack: str) -> str:
    if status is None:
        return f'There is no roll on rack "{rack}".'
    journal = status.journal
    doing = "being aborted" if journal.phase == "aborting" else journal.phase
    heartbeat = f"last heartbeat {roughly(max(status.found.silent_for, 1))} ago"
    said = {"running": "still running", "stopped": "stopped", "dead": "died without releasing its lock"}
    lines = [
        f'{journal.selection.noun.capitalize()} of rack "{journal.rack}", started at {journal.started}: {doing}',
        f"  state       {said[_state(status)]}; {heartbeat}",
        *([f"  run by      {journal.owner}"] if journal.owner else []),
        *([f"  problem     {journal.problem}"] if journal.problem else []),
        *([f"  settling    {listed(sorted(journal.pace.settling))}"] if journal.pace.settling else []),
        *([f"  key         {journal.key_name}"] if journal.key_name else []),
        *(f"  key pair    {pair.key_name}: {_STATES[pair.state]}" for pair in journal.key_pairs.values()),
        *([f"  reason      {journal.options.reason}"] if journal.options.reason else []),
        f"  replaced    {max(status.total - status.old, 0)} of {status.total}",
    ]
    for group in status.groups:
        surge = f", {group.surge} of it surge" if group.surge else ""
        lines += [
            f"Group {group.auto_scaling_group_name}",
            f"  capacity    {group.desired_capacity}{surge} (was {group.original_desired_capacity})",
            f"  old         {group.old}" + (f", {group.draining} of them draining" if group.draining else ""),
            f"  new         {group.new}, {group.ready} of them ready",
        ]
        if group.refresh:
            lines.append(f"  refresh     {_refresh(group.refresh)}")
        if suspended := journal.groups[group.auto_scaling_group_name].suspended:
            lines.append(f"  suspended   {', '.join(suspended)}")
    busy = [i for i in status.instances if i.phase not in {"waiting", "ready"}]
    lines += [f"  {i.ec2_instance_id}  {i.phase}{f' since {i.since}' if i.since else ''}" for i in busy[:_SHOWN]]
    if len(busy) > _SHOWN:
        lines.append(f"  and {len(busy) - _SHOWN} more under way")
    there = {group.auto_scaling_group_name for group in status.groups}
    lines += [f"Group {name} has been deleted" for name in journal.groups if name not in there]
    if status.is_refreshing:
        lines.append("Auto Scaling goes on by itself; `resume` watches it and finishes the roll, `abort` stops it.")
    if not status.found.is_live:
        lines += ["Continue with:", *(f"  {journal.command(way).strip('`')}" for way in journal.ways_on)]
    return "\n".join(lines)
