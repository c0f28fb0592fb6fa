"""What refuses a plan, warns, or stops a roll. Pure: a view goes in, problems come out.

Each rule has one wording and one remedy, whether it refuses a plan, warns there, or stops a roll. A roll stops for what
has lasted as long as the rule says, since what AWS reports may lag; a plan refuses at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from rackctl.clock import LAG
from rackctl.roll.decide import AGENT_OFF_FOR, LAUNCHES_FAILED, cannot_launch, decide
from rackctl.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rackctl.roll.view import AlarmSeen, Goal, View

# What a plan's problems are about, in the order in which a check of a rack tells of them.
Topic = Literal[
    "roll", "store", "groups", "processes", "capacity", "hooks", "agents", "registrations", "services", "key", "sharing"
]

# For how long AWS's answers may leave an instance out, in seconds.
UNREPORTED_FOR = 120.0
# A surge that has been taken back so often, with no instance replaced meanwhile, will be again.
SURGES_LOST = 3


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a roll is refused or stops, and the remedy. ``warns`` says that a plan only warns of it.

    ``topic`` is what a plan's problem is about.
    """

    reason: str
    remedy: str = ""
    warns: bool = False
    timed_out: bool = False
    topic: Topic = "roll"

    def lines(self) -> list[str]:
        """Return the reason and, below it, the remedy."""
        return [f"  {self.reason}", *([f"    → {self.remedy}"] if self.remedy else [])]


def about(topic: Topic, problems: Iterable[Problem]) -> Iterator[Problem]:
    """Yield problems as being about a topic."""
    return (replace(problem, topic=topic) for problem in problems)


def in_plan(view: View) -> list[Problem]:
    """Return what forbids a roll of a group, or is to be known before."""
    return [
        *about("processes", (*_suspended(view, "Launch", "Terminate", lasting=0), *_refresh(view))),
        *about("agents", _agents(view, lasting=0)),
        *about("registrations", (*_unregistered(view, lasting=0), *_kept(view))),
        *about("capacity", _missing(view)),
    ]


def in_roll(view: View, goal: Goal) -> list[Problem]:
    """Return what stops a roll of a group now."""
    if goal == "restore":
        stuck = _keeps_the_surge(view) if view.remaining_surge and decide(view, goal) is None else ()
        return [*_suspended(view, "Terminate", lasting=LAG), *_drains(view), *stuck]
    return [
        *_suspended(view, "Launch", "Terminate", lasting=LAG),
        *_refresh(view),
        *_launches_old(view),
        *_lost(view),
        *_surges_lost(view),
        *booting(view),
        *_not_launched(view),
        *_agents(view, lasting=AGENT_OFF_FOR),
        *_unregistered(view, lasting=view.options.boot_timeout),
        *_unreported(view),
        *_drains(view),
        *_unsteady(view),
        *of_alarms(view.alarms, lasting=UNREPORTED_FOR),
    ]


def _keeps_the_surge(view: View) -> Iterator[Problem]:
    """Yield what cannot take tasks for so long that a surge, which stands in for it, would never end."""
    yield from (problem for problem in booting(view) if problem.timed_out)
    yield from _unregistered(view, lasting=view.options.boot_timeout)
    yield from _unreported(view)


def _suspended(view: View, *processes: Literal["Launch", "Terminate"], lasting: float) -> Iterator[Problem]:
    for process in processes:
        if process in view.suspended and view.suspended[process] >= lasting:
            yield Problem(
                f"the {process} process of group {view.group} is suspended",
                f"`aws autoscaling resume-processes --auto-scaling-group-name {view.group} "
                f"--scaling-processes {process}`",
            )


def _refresh(view: View) -> Iterator[Problem]:
    if view.refresh:
        yield Problem(
            f"instance refresh {view.refresh} of group {view.group} is in progress and replaces the same instances",
            f"wait for its end, or `aws autoscaling cancel-instance-refresh --auto-scaling-group-name {view.group}`",
        )


def _launches_old(view: View) -> Iterator[Problem]:
    if view.launches_old:
        if view.launches_old_for > LAG:
            yield Problem(
                f"group {view.group} {view.launches_old}: the group or its launch template was changed",
                "find out what has changed it, such as a CloudFormation stack or Terraform; then resume, or abort and "
                "start again",
            )
        return
    for member in view.members:
        if member.is_late:
            yield Problem(
                f"{member.ec2_instance_id} joined group {view.group} as an old instance, although the group launches "
                "new instances by now",
                "it may come from a warm pool, a lifecycle script or an instance that was attached: look at it; "
                "resume replaces it like the others",
            )
            return


def _kept(view: View) -> Iterator[Problem]:
    for member in view.capacity:
        if view.old and member.is_kept and member.in_service and not member.can_take_tasks:
            yield Problem(
                f"{member.ec2_instance_id} of group {view.group} is not to be replaced and cannot take tasks "
                f"({member.described}): the group has less capacity than it should",
                "replace it as well, or repair it first",
            )


def _lost(view: View) -> Iterator[Problem]:
    if view.lost >= LAUNCHES_FAILED:
        yield Problem(
            f"{view.lost} new instances in a row of group {view.group} have terminated before they could take tasks",
            "look for an abandoned lifecycle hook or a failed health check: "
            f"`aws autoscaling describe-scaling-activities --auto-scaling-group-name {view.group}`",
        )


def _surges_lost(view: View) -> Iterator[Problem]:
    if view.surges_lost >= SURGES_LOST:
        yield Problem(
            f"the desired capacity of group {view.group} was lowered again after each of the last {view.surges_lost} "
            "surges, and no instance could be replaced",
            "suspend what scales it in (a policy, managed scaling, a schedule), or resume with --no-surge",
        )


def booting(view: View) -> Iterator[Problem]:
    """Yield the new instances that cannot take tasks, although it was time.

    They stop an instance refresh too: Auto Scaling does not ask ECS whether an instance is up.
    """
    limit = view.options.boot_timeout
    for member in view.capacity:
        id_ = member.ec2_instance_id
        if (member.is_old and member.in_service) or member.drain:
            continue
        if member.registration == "failed" and member.is_confirmed:
            yield Problem(
                f"{id_} could not register with ECS (REGISTRATION_FAILED): "
                f"{member.status_reason or 'ECS gives no reason'}",
                _replace_it(id_),
            )
        elif member.unready_for > limit:
            yield Problem(f"gave up after {limit:g} s waiting for {id_}: {member.described}", _replace_it(id_),
                          timed_out=True)  # fmt: skip


def _replace_it(ec2_instance_id: str) -> str:
    return (
        f"log in with `rackctl instances ssh {ec2_instance_id}` to see why, or replace it with "
        f"`rackctl instances terminate {ec2_instance_id}`; then continue"
    )


def _not_launched(view: View) -> Iterator[Problem]:
    if view.missing and cannot_launch(view):
        reason = f": {view.launch_failures[-1]}" if view.launch_failures else ""
        without = "; resume with --no-surge needs no extra instance" if view.remaining_surge else ""
        yield Problem(
            f"group {view.group} has {len(view.capacity)} instances of {view.desired_capacity}, and no more have been "
            f"launched for {view.missing_for:.0f} s{reason}",
            f"wait until there is capacity, or let the group use other instance types or zones{without}",
            timed_out=True,
        )


def _agents(view: View, *, lasting: float) -> Iterator[Problem]:
    for member in view.old:
        if not member.agent_is_off or member.agent_off_for < lasting:
            continue
        id_, tasks = member.ec2_instance_id, counted(member.abandoned or member.tasks, "task")
        # A dead registration beside one that lives: only its tasks are out of reach.
        where = (
            f"the agent of {id_} is off" if not member.agent_connected else f"a dead registration of {id_} has tasks"
        )
        if view.options.force:
            yield Problem(f"{where}: --force terminates the instance with its {tasks}", warns=True)
        else:
            yield Problem(
                f"{where}: ECS cannot move its {tasks}, and its drain would not end",
                "restart the agent (`sudo systemctl restart ecs` on the instance), or use --force, which ends them",
            )


def _unregistered(view: View, *, lasting: float) -> Iterator[Problem]:
    for member in view.old:
        if not member.in_service or member.registration not in {"absent", "unknown"} or member.drain:
            continue
        id_ = member.ec2_instance_id
        what = f"{id_} of group {view.group} is in service and not registered with this cluster"
        if view.options.include_unregistered:
            yield Problem(
                f"{what}: --include-unregistered terminates it undrained, with whatever runs on it", warns=True
            )
        elif not lasting and member.unready_for < view.options.boot_timeout:
            yield Problem(f"{what} yet: the roll waits for it", warns=True)
        elif member.unready_for >= lasting and (not lasting or member.registration == "absent"):
            yield Problem(
                f"{what}: what runs on it is not known",
                f"log in with `rackctl instances ssh {id_}`, or use --include-unregistered to terminate it undrained",
            )


def _unreported(view: View) -> Iterator[Problem]:
    for member in view.capacity:
        if member.unreported_for > UNREPORTED_FOR and member.registration != "absent":
            yield Problem(
                f"AWS has not reported {member.ec2_instance_id} for {member.unreported_for:.0f} s: what runs on it is "
                "not known",
                "resume when `rackctl instances` lists it again",
            )


def _drains(view: View) -> Iterator[Problem]:
    limit = view.options.drain_timeout
    for member in view.capacity:
        id_, drain = member.ec2_instance_id, member.drain
        if view.options.force or drain is None or drain.is_over or drain.elapsed < limit:
            continue
        still = f"still has {counted(drain.left, 'task')}" if drain.left else "is not seen to be empty"
        ways = (
            "make room for its tasks elsewhere, stop them (`aws ecs stop-task`), or continue with a longer "
            "--drain-timeout or with --force, which ends them"
        )
        others = sorted(m.ec2_instance_id for m in view.capacity if m.drain and m.ec2_instance_id != id_)
        if others:
            ways = f"{', '.join(others)} {'are' if len(others) > 1 else 'is'} draining as well; {ways}"
        if member.agent_is_off:
            ways = f"its agent is off, so that ECS cannot move its tasks: restart it; or {ways}"
        blocked = f": {drain.blocked}" if drain.blocked else ""
        yield Problem(f"{id_} {still} after {limit:g} s of draining{blocked}", ways, timed_out=True)


def _unsteady(view: View) -> Iterator[Problem]:
    limit = view.options.drain_timeout
    for service in view.unsteady:
        if service.lasting >= limit and not view.options.force:
            yield Problem(
                f"service {service.service_name} is not steady again {limit:g} s after tasks of it were moved: "
                f"{service.why}",
                "see its events (`aws ecs describe-services`); continue when it is steady, or with --force, which "
                "waits no longer",
                timed_out=True,
            )


def of_alarms(alarms: Sequence[AlarmSeen], *, lasting: float) -> Iterator[Problem]:
    """Yield what the alarms that an operator has named forbid; a plan takes them as they are at once."""
    for alarm in alarms:
        name = alarm.alarm_name
        if alarm.state == "ALARM":
            yield Problem(
                f"alarm {name} is in state ALARM{f': {alarm.reason}' if alarm.reason else ''}",
                "find out what is wrong; continue when the alarm is OK",
            )
        elif not alarm.state and alarm.lasting >= lasting:
            yield Problem(
                f"CloudWatch reports no metric or composite alarm {name}",
                "check its name and the region; for a composite alarm, allow cloudwatch:DescribeAlarms on all (*)",
            )
        elif alarm.state == "INSUFFICIENT_DATA":
            yield Problem(f"alarm {name} has insufficient data, and so says nothing now", warns=True)


def _missing(view: View) -> Iterator[Problem]:
    if view.missing:
        reason = f": {view.launch_failures[-1]}" if view.launch_failures else ""
        yield Problem(
            f"group {view.group} lacks {view.missing} of {view.desired_capacity} instances{reason}; the roll waits for "
            "them",
            warns=True,
        )
