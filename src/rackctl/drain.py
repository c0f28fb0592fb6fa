"""Drains: tasks moved off several instances at once, and the evidence that an instance is empty.

A task that ECS does not report is unknown, not gone. An instance is drained once ECS has reported each of its tasks
STOPPED, reports its registrations DRAINING, and counts no other task on them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from rackctl.aws.errors import AwsError
from rackctl.clock import LAG, POLL, wait_until
from rackctl.errors import RackctlError, Timeout
from rackctl.text import counted, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rackctl.clock import Clock
    from rackctl.model import ContainerInstance, Service, Task
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance


# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeContainerInstances.html
_DESCRIBED_AT_ONCE = 100
_LISTED: tuple[Literal["RUNNING", "STOPPED"], ...] = ("RUNNING", "STOPPED")


@dataclass(frozen=True, slots=True)
class Draining:
    """The progress of a drain: the tasks that it waits for, and the newest event of their services.

    ``unreported`` counts the tasks that ECS counts or has listed, but does not describe; ``daemons`` counts the DAEMON
    tasks, which stay until the instance terminates. ``services`` are the names of all services whose tasks were seen
    there.
    """

    ec2_instance_id: str
    tasks: tuple[Task, ...] = ()
    service_event: str = ""
    unreported: int = 0
    daemons: int = 0
    services: frozenset[str] = frozenset()

    @property
    def left(self) -> int:
        """The number of tasks that the drain waits for."""
        return len(self.tasks) + self.unreported

    def describe(self) -> str:
        """Return the progress in a few words.

        If no task is left, it says ``drained``: the caller must have checked that by `is_drained`.
        """
        event = f": {self.service_event}" if self.service_event else ""
        return f"{counted(self.left, 'task')} left{event}" if self.left else "drained"


def is_drained(progress: Draining, registrations: Sequence[ContainerInstance]) -> bool:
    """Return whether an instance is DRAINING and empty, by registrations that were just read."""
    counted = sum(r.tasks_count for r in registrations)
    draining = bool(registrations) and all(registered.status == "DRAINING" for registered in registrations)
    return draining and not progress.left and counted <= progress.daemons


def set_status(
    rack: Rack, container_instances: Sequence[ContainerInstance], status: Literal["ACTIVE", "DRAINING"]
) -> None:
    """Set the status of registered instances. Raises RackctlError, naming the instances that ECS did not set."""
    by_arn = {c.container_instance_arn: c.ec2_instance_id for c in container_instances}
    refused = [
        f"ECS did not set {by_arn.get(failure.arn, failure.arn)} to {status}: "
        f"{failure.reason}{f' ({failure.detail})' if failure.detail else ''}"
        for failure in rack.aws.ecs.set_container_instances_state(rack.cluster, list(by_arn), status)
    ]
    if refused:
        raise RackctlError("; ".join(refused))


def wait_for_status(
    rack: Rack,
    clock: Clock,
    container_instances: Sequence[ContainerInstance],
    status: Literal["ACTIVE", "DRAINING"],
    *,
    notify: Callable[[str], None],
) -> None:
    """Wait until ECS reports registered instances with the status that they were set to. Raises Timeout."""
    lacking = {c.container_instance_arn: c.ec2_instance_id for c in container_instances}

    def reported() -> bool | None:
        for found in described(rack, list(lacking)):
            if found.status == status:
                del lacking[found.container_instance_arn]
        return None if lacking else True

    wait_until(
        reported,
        clock=clock,
        timeout=3 * LAG,
        interval=POLL,
        what=lambda: f"ECS to report {listed(dict.fromkeys(lacking.values()), most=10)} as {status}",
        notify=notify,
    )


def described(rack: Rack, container_instance_arns: Sequence[str]) -> list[ContainerInstance]:
    """Describe any number of registered instances. Registrations that ECS does not know are left out."""
    return [
        found
        for start in range(0, len(container_instance_arns), _DESCRIBED_AT_ONCE)
        for found in rack.aws.ecs.describe_container_instances(
            rack.cluster, container_instance_arns[start : start + _DESCRIBED_AT_ONCE]
        )
    ]


@dataclass(slots=True)
class _Drain:
    """``followed`` are the ARNs of tasks that are not known to have stopped; ``stopped`` those of tasks that have."""

    registrations: tuple[ContainerInstance, ...]
    followed: set[str]
    stopped: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)
    expected: int = 0
    tasks: tuple[Task, ...] = ()
    daemons: set[str] = field(default_factory=set)
    missing_since: dict[str, float] = field(default_factory=dict)
    progressed: float = 0.0
    service_event: str = ""
    asked_for_event: float = float("-inf")

    @property
    def unreported(self) -> int:
        never_seen = self.expected - len(self.followed | self.stopped)
        return len(self.missing_since) + max(never_seen, 0)


class Drains:
    """Instances that are being drained, watched together.

    Their tasks are described together, a hundred a call, so that many drains cost little more than one. If a drain
    makes no progress for ``patience`` seconds, the newest event of its services is fetched. ``change`` makes the calls
    that stop tasks.
    """

    def __init__(
        self,
        rack: Rack,
        clock: Clock,
        *,
        stop_standalone: bool = False,
        patience: float = 0,
        change: Callable[[Callable[[], None]], object] = lambda call: call(),
    ) -> None:
        self._rack = rack
        self._ecs = rack.aws.ecs
        self._cluster = rack.cluster
        self._clock = clock
        self._stop_standalone = stop_standalone
        self._patience = patience
        self._change = change
        self._drains: dict[str, _Drain] = {}
        self._stopped_by_us: set[str] = set()
        self._services: dict[str, Service] = {}

    @property
    def ec2_instance_ids(self) -> tuple[str, ...]:
        return tuple(self._drains)

    def start(self, ec2_instance_id: str, registrations: Sequence[ContainerInstance]) -> None:
        """Follow the tasks of an instance whose living registrations have all been set to DRAINING."""
        drain = _Drain(
            tuple(registrations),
            set(),
            expected=sum(r.tasks_count for r in registrations),
            progressed=self._clock.monotonic(),
        )
        # A task leaves ListTasks' running ones, and runningTasksCount, before its containers have stopped: its ARN
        # is followed until it is STOPPED. Those that were stopping already are among the stopped ones.
        drain.followed = self._listed(drain)
        if before := self._drains.get(ec2_instance_id):
            # Its agent may have registered anew meanwhile: the tasks of the registration before are still its own.
            drain.followed |= before.followed
            drain.stopped |= before.stopped
            drain.followed -= drain.stopped
        self._drains[ec2_instance_id] = drain

    def forget(self, ec2_instance_id: str) -> None:
        """Stop watching an instance; its status stays as it is."""
        self._drains.pop(ec2_instance_id, None)

    def poll(self) -> dict[str, Draining]:
        """Fetch the tasks once, and return the progress of each instance."""
        self._look()
        new = False
        for drain in self._drains.values():
            if not drain.tasks:
                # ECS places no task on a DRAINING instance, but may list late a task that was placed before, or list
                # one that it no longer describes.
                new |= self._list_again(drain)
        if new:
            self._look()
        return {
            id_: Draining(
                id_, drain.tasks, self._event(drain), drain.unreported, len(drain.daemons), frozenset(drain.services)
            )
            for id_, drain in self._drains.items()
        }

    def _list_again(self, drain: _Drain) -> bool:
        """List the tasks of an instance once more, and return whether some of them are new."""
        listed, now = self._listed(drain), self._clock.monotonic()
        for arn, since in list(drain.missing_since.items()):
            # ECS forgets a stopped task after an hour: a task that it neither describes nor lists for long has stopped.
            if arn not in listed and now - since > LAG:
                drain.missing_since.pop(arn)
                drain.followed.discard(arn)
                drain.stopped.add(arn)
        new = listed - drain.followed - drain.stopped
        drain.followed |= new
        return bool(new)

    def _listed(self, drain: _Drain) -> set[str]:
        # RUNNING before STOPPED: a task that changes its status between the two calls is in both answers, not in
        # neither.
        try:
            return {
                arn
                for registered in drain.registrations
                for status in _LISTED
                for arn in self._ecs.tasks_on(self._cluster, registered.container_instance_arn, status)
            }
        except AwsError as error:
            if error.code == "InvalidParameterException":
                return set()  # the registration has ended: this call cannot list its tasks
            raise

    def _look(self) -> None:
        followed = sorted({arn for drain in self._drains.values() for arn in drain.followed})
        described = {task.task_arn: task for task in self._ecs.describe_tasks(self._cluster, followed)}
        running = [task for task in described.values() if task.last_status != "STOPPED"]
        if unknown := {t.service_name for t in running if t.service_name} - self._services.keys():
            services = self._ecs.describe_services(self._cluster, sorted(unknown))
            self._services.update((s.service_name, s) for s in services)
        now = self._clock.monotonic()
        for drain in self._drains.values():
            found = {arn: described[arn] for arn in drain.followed if arn in described}
            drain.services |= {task.service_name for task in found.values() if task.service_name}
            drain.stopped |= found.keys() - {task.task_arn for task in running}
            drain.followed -= drain.stopped
            missing = drain.followed - described.keys()
            drain.missing_since = {arn: drain.missing_since.get(arn, now) for arn in missing}
            tasks = [described[arn] for arn in sorted(drain.followed - missing)]
            # A DAEMON task stays to the end of a drain: the drain does not wait for it.
            left = tuple(task for task in tasks if not self._is_daemon(task))
            drain.daemons = {task.task_arn for task in tasks if self._is_daemon(task)}
            if left != drain.tasks:
                drain.tasks, drain.progressed, drain.service_event = left, now, ""
        if self._stop_standalone:
            self._stop_tasks_of_no_service()

    def _is_daemon(self, task: Task) -> bool:
        service = self._services.get(task.service_name)
        return service is not None and service.scheduling_strategy == "DAEMON"

    def _stop_tasks_of_no_service(self) -> None:
        for drain in self._drains.values():
            for task in drain.tasks:
                if not task.service_name and task.task_arn not in self._stopped_by_us:
                    self._change(
                        partial(self._ecs.stop_task, self._cluster, task.task_arn, "its instance is being drained")
                    )
                    self._stopped_by_us.add(task.task_arn)

    def _event(self, drain: _Drain) -> str:
        now = self._clock.monotonic()
        names = sorted({task.service_name for task in drain.tasks if task.service_name})
        still = now - drain.progressed
        if names and still >= self._patience and now - drain.asked_for_event >= self._patience:
            drain.asked_for_event = now
            services = self._ecs.describe_services(self._cluster, names)
            events = [event for service in services for event in service.events[:1]]
            drain.service_event = max(events, key=lambda event: event.created_at).message if events else ""
        return drain.service_event


def drain(
    rack: Rack, clock: Clock, instance: RackInstance, *, timeout: float, stop_standalone: bool = False
) -> Iterator[Draining]:
    """Move an instance's tasks away until it is drained (`is_drained`), yielding each change of its progress.

    Tasks of no service are waited for, or stopped with ``stop_standalone``. If the drain takes longer than ``timeout``
    seconds, or if the caller closes the iterator before the end, registrations that were ACTIVE become ACTIVE again.
    Raises Timeout, naming the tasks that are left.
    """
    living = instance.living_registrations
    set_status(rack, living, "DRAINING")
    finished = False
    try:
        yield from follow(rack, clock, [instance], timeout=timeout, stop_standalone=stop_standalone)
        finished = True
    finally:
        were_active = [registered for registered in living if registered.status == "ACTIVE"]
        if not finished and were_active:
            set_status(rack, were_active, "ACTIVE")


def follow(
    rack: Rack, clock: Clock, instances: Sequence[RackInstance], *, timeout: float, stop_standalone: bool = False
) -> Iterator[Draining]:
    """Follow instances that have been set to DRAINING, yielding each change, until each is drained (`is_drained`).

    An instance that is yielded without tasks is drained. The statuses stay as they are, also after an error. Raises
    Timeout, naming the tasks that are left on each; RackctlError, at the end, for instances that were set to ACTIVE
    meanwhile.
    """
    drains = Drains(rack, clock, stop_standalone=stop_standalone)
    deadline = clock.monotonic() + timeout
    arns = {
        instance.ec2_instance_id: [r.container_instance_arn for r in instance.living_registrations]
        for instance in instances
    }
    for instance in instances:
        drains.start(instance.ec2_instance_id, instance.living_registrations)
    last: dict[str, Draining] = {}
    active_since: dict[str, float] = {}
    undone: list[str] = []
    while True:
        progress = drains.poll()
        found = {c.container_instance_arn: c for c in described(rack, [arn for id_ in progress for arn in arns[id_]])}
        for id_, draining in progress.items():
            registered = [found[arn] for arn in arns[id_] if arn in found]
            finished = is_drained(draining, registered) and len(registered) == len(arns[id_])
            if draining != last.get(id_) and (finished or draining.left):
                yield draining
                last[id_] = draining
            if not any(r.status == "ACTIVE" for r in registered):
                active_since.pop(id_, None)
            elif clock.monotonic() - active_since.setdefault(id_, clock.monotonic()) > LAG:
                undone.append(id_)
            if finished or id_ in undone:
                drains.forget(id_)
        if not drains.ec2_instance_ids:
            break
        if clock.monotonic() >= deadline:
            raise drain_timeout([progress[id_] for id_ in drains.ec2_instance_ids], timeout)
        clock.sleep(POLL)
    if undone:
        raise RackctlError(
            f"another caller has set {listed(undone)} to ACTIVE, so nothing drains there any more",
            hint="find that caller (CloudTrail records UpdateContainerInstancesState), then run the same command again",
        )


def drain_timeout(stuck: Sequence[Draining], timeout: float) -> Timeout:
    """Return the error of drains that have timed out, with the tasks that are left on each."""
    return Timeout(
        "; ".join(
            f"{progress.ec2_instance_id} {_still(progress)} after {timeout:g} s of draining: {blocking(progress)}"
            for progress in stuck
        ),
        hint="use a longer timeout, make room for the tasks elsewhere, or stop them with `aws ecs stop-task`",
    )


def _still(progress: Draining) -> str:
    return f"still has {counted(progress.left, 'task')}" if progress.left else "is not seen to be empty"


def blocking(progress: Draining) -> str:
    """Name the tasks that a drain waits for, and the newest event of their services."""
    named = [
        f"{task.task_arn.rpartition('/')[2]} of {task.service_name or 'no service'} ({task.last_status})"
        for task in progress.tasks[:5]
    ]
    if len(progress.tasks) > len(named):
        named.append(f"{len(progress.tasks) - len(named)} more")
    if progress.unreported:
        named.append(f"{progress.unreported} that ECS counts or has listed, but does not describe")
    event = f". Newest event: {progress.service_event}" if progress.service_event else ""
    return (", ".join(named) or "ECS does not report the instance as DRAINING and empty yet") + event
