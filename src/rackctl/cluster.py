"""The instances of a rack: list, find, drain, terminate, and know when a replacement counts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rackctl.aws.errors import AwsError
from rackctl.clock import wait_until
from rackctl.errors import NotFound, RackctlError, Timeout, UsageError
from rackctl.model import RackInstance, is_ec2_instance_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.clock import Clock
    from rackctl.model import (
        AutoScalingGroup,
        ContainerInstance,
        GroupInstance,
        Instance,
        Service,
        Task,
    )
    from rackctl.rack import Rack

# How often to look at what AWS takes its time over, in seconds.
POLL = 3.0

_SHORTEST_PREFIX = len("i-") + 4
_OLD_ID = len("i-") + 8
_DESCRIBES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Draining:
    """Where a drain stands: the tasks it waits for and, of their services, the newest event."""

    ec2_instance_id: str
    tasks: tuple[Task, ...]
    service_event: str = ""


@dataclass(frozen=True, slots=True)
class Replacement:
    """Where the replacement of a terminated instance stands; ``ec2_instance_id`` is empty before its launch."""

    ec2_instance_id: str = ""
    lifecycle_state: str = ""
    ecs_status: str = ""
    agent_connected: bool = False
    problem: str = ""

    @property
    def counts(self) -> bool:
        """Whether it can take over: its group, ECS and the agent all say so."""
        return self.lifecycle_state == "InService" and self.ecs_status == "ACTIVE" and self.agent_connected


class Cluster:
    """What can be asked of, and done to, the instances of one rack."""

    def __init__(self, rack: Rack, clock: Clock) -> None:
        self._rack = rack
        self._aws = rack.aws
        self._clock = clock

    def list(self) -> list[RackInstance]:
        """Give every instance of the rack, sorted by id.

        These are the instances that are tagged ``Rack=<name>`` or registered with the cluster, but for those
        tagged ``Purpose=Build``. Raises NotFound for no such cluster.
        """
        with ThreadPoolExecutor(_DESCRIBES_AT_ONCE) as pool:
            tagged = pool.submit(lambda: list(self._aws.ec2.instances_tagged({"Rack": self._rack.name})))
            described = [
                pool.submit(self._aws.ecs.describe_container_instances, self._rack.cluster, arns)
                for arns in self._aws.ecs.container_instance_arns(self._rack.cluster)
            ]
            registered = {ci.ec2_instance_id: ci for page in described for ci in page.result() if ci.ec2_instance_id}
            instances = {instance.ec2_instance_id: instance for instance in tagged.result()}
        untagged = sorted(registered.keys() - instances.keys())
        instances.update((i.ec2_instance_id, i) for i in self._aws.ec2.instances_by_id(untagged))
        return [
            RackInstance(id_, instance, registered.get(id_))
            for id_ in sorted(registered.keys() | instances.keys())
            if not ((instance := instances.get(id_)) and instance.tags.get("Purpose") == "Build")
        ]

    def instances(self) -> Sequence[Instance]:
        """Give those of the rack's instances that EC2 knows and has not begun to end."""
        return [listed.instance for listed in self.list() if listed.instance and not listed.instance.is_going]

    def find(self, ec2_instance_id: str) -> Instance:
        """Give an instance of the rack by its whole id.

        One that is being terminated is still found. Raises UsageError for what is no id, NotFound for an
        instance that does not exist or is not this rack's.
        """
        require_ec2_instance_id(ec2_instance_id)
        return self._own(ec2_instance_id, next(self._aws.ec2.instances_by_id([ec2_instance_id]), None))

    def _own(self, ec2_instance_id: str, instance: Instance | None) -> Instance:
        if instance is None:
            raise NotFound(f"there is no instance {ec2_instance_id}{self._here}", hint=self._see_list)
        if instance.tags.get("Rack") != self._rack.name and self.registration(ec2_instance_id) is None:
            tag = instance.tags.get("Rack")
            raise NotFound(
                f'{ec2_instance_id} is not an instance of rack "{self._rack.name}"'
                + (f": it is tagged Rack={tag}" if tag else ""),
                hint=f"`rackctl instances --rack {tag}` lists that rack's" if tag else self._see_list,
            )
        return instance

    def match(self, prefix: str) -> Instance:
        """Give the instance whose id, or whose id alone, starts so; four characters after ``i-`` at least.

        Raises UsageError for too little or for several, whose ids it names; NotFound for none.
        """
        return self.match_all([prefix])[0]

    def match_all(self, prefixes: Sequence[str]) -> Sequence[Instance]:
        """Give the instances that ids, or starts of ids, mean, each once; `match` says how.

        However many there are, AWS is asked for them, or for the list, once. Raises as `match` does, for the first.
        """
        for prefix in prefixes:
            _require_start_of_id(prefix)
        whole = [prefix for prefix in prefixes if is_ec2_instance_id(prefix)]
        known = {i.ec2_instance_id: i for i in self._aws.ec2.instances_by_id(whole)} if whole else {}
        # Eight digits are a whole id of the old kind, or the start of one of the new.
        starts = [p for p in prefixes if p not in known and (p not in whole or len(p) == _OLD_ID)]
        listed = self.list() if starts else []
        matched = [
            self._starting(prefix, listed) if prefix in starts else self._own(prefix, known.get(prefix))
            for prefix in prefixes
        ]
        return list({instance.ec2_instance_id: instance for instance in matched}.values())

    def _starting(self, prefix: str, listed: Sequence[RackInstance]) -> Instance:
        matching = [i for i in listed if i.ec2_instance_id.startswith(prefix)]
        if len(matching) > 1:
            ids = ", ".join(i.ec2_instance_id for i in matching[:10])
            raise UsageError(
                f"{prefix} is the start of {len(matching)} ids: {ids}", hint="give more of the one you mean"
            )
        if not matching or matching[0].instance is None:
            raise NotFound(f"no instance's id starts with {prefix}{self._here}", hint=self._see_list)
        return matching[0].instance

    def registration(self, ec2_instance_id: str) -> ContainerInstance | None:
        """Give what ECS knows of an instance; None when it is not registered with the cluster."""
        filter_ = f"ec2InstanceId == {ec2_instance_id}"
        for arns in self._aws.ecs.container_instance_arns(self._rack.cluster, filter=filter_):
            for container_instance in self._aws.ecs.describe_container_instances(self._rack.cluster, arns):
                return container_instance
        return None

    def member(self, ec2_instance_id: str) -> GroupInstance | None:
        """Give what Auto Scaling knows of an instance; None when it is in no group."""
        return self._aws.autoscaling.members([ec2_instance_id]).get(ec2_instance_id)

    def drain(
        self,
        container_instance: ContainerInstance,
        *,
        timeout: float,
        stop_standalone: bool = False,
    ) -> Iterator[Draining]:
        """Move an instance's tasks away, yielding each change of what is left, until nothing but DAEMON tasks is.

        Tasks of no service are waited for, or stopped with ``stop_standalone``. After ``timeout`` seconds, and
        when the caller stops listening before the end, the instance becomes ACTIVE again unless it was DRAINING to
        begin with. Raises Timeout, naming what blocks.
        """
        drains = self.drains(stop_standalone=stop_standalone)
        id_ = container_instance.ec2_instance_id
        deadline = self._clock.monotonic() + timeout
        drains.start(container_instance)
        finished = False
        last: Draining | None = None
        try:
            while not finished:
                progress = drains.poll()[id_]
                if progress != last:
                    yield progress
                    last = progress
                finished = not progress.tasks
                if not finished and self._clock.monotonic() >= deadline:
                    raise drain_timeout(progress, timeout)
                if not finished:
                    self._clock.sleep(POLL)
        finally:
            if not finished and container_instance.status == "ACTIVE":
                self.set_status([container_instance], "ACTIVE")

    def drains(self, *, stop_standalone: bool = False, patience: float = 0) -> Drains:
        """Begin to watch drains; see `Drains`."""
        return Drains(self, self._rack, self._clock, stop_standalone=stop_standalone, patience=patience)

    def set_status(
        self, container_instances: Sequence[ContainerInstance], status: Literal["ACTIVE", "DRAINING"]
    ) -> None:
        """Set the status of registered instances. Raises RackctlError, naming the first that ECS would not set."""
        by_arn = {c.container_instance_arn: c.ec2_instance_id for c in container_instances}
        for failure in self._aws.ecs.set_container_instances_state(self._rack.cluster, list(by_arn), status):
            raise RackctlError(
                f"ECS would not set {by_arn.get(failure.arn, failure.arn)} to {status}: "
                f"{failure.reason}{f' ({failure.detail})' if failure.detail else ''}"
            )

    def terminate(self, instance: Instance) -> bool:
        """Have an instance's Auto Scaling group terminate and replace it; tell whether that was still to do.

        The desired capacity stays. Raises RackctlError for an instance of no group, which nothing would replace.
        """
        id_ = instance.ec2_instance_id
        member = self.member(id_)
        if instance.is_going or (member and member.is_going):
            return False
        if member is None:
            raise RackctlError(
                f"{id_} belongs to no Auto Scaling group, so nothing would replace it; it was left alone",
                hint=f"if it is to go for good: `aws ec2 terminate-instances --instance-ids {id_}`",
            )

        def terminated() -> bool | None:
            try:
                self._aws.autoscaling.terminate_instance(id_, decrement_desired_capacity=False)
            except AwsError as error:
                if error.code == "ScalingActivityInProgress":
                    return None
                # An answer can get lost after the deed is done; the call made again then finds nothing to do.
                if not self.is_going(id_):
                    raise
            return True

        return wait_until(
            terminated,
            clock=self._clock,
            timeout=60,
            interval=5,
            what=lambda: f"the scaling activity in progress in group {member.auto_scaling_group_name} to end",
        )

    def is_going(self, ec2_instance_id: str) -> bool:
        """Tell whether an instance has gone, or is on its way."""
        instance = next(self._aws.ec2.instances_by_id([ec2_instance_id]), None)
        if instance is None or instance.is_going:
            return True
        member = self.member(ec2_instance_id)
        return member is not None and member.is_going

    def group(self, name: str) -> AutoScalingGroup:
        """Describe an Auto Scaling group. Raises NotFound."""
        for group in self._aws.autoscaling.groups([name]):
            return group
        raise NotFound(f"there is no Auto Scaling group {name}")

    def replacement(self, before: AutoScalingGroup, *, timeout: float) -> Iterator[Replacement]:
        """Wait until a group that has lost an instance has a new one that counts, yielding each change.

        ``before`` is the group as it was. A failed launch is told as ``problem`` and waited out, since Auto
        Scaling tries again. Raises Timeout, naming the last state.
        """
        known = {member.ec2_instance_id for member in before.instances}
        name = before.auto_scaling_group_name
        past = {activity.activity_id for activity in self._aws.autoscaling.activities(name)}
        deadline = self._clock.monotonic() + timeout
        last: Replacement | None = None
        while True:
            progress = self._newcomer(name, known)
            if not progress.ec2_instance_id:
                failed = [
                    activity.status_message
                    for activity in self._aws.autoscaling.activities(name)
                    if activity.status_code == "Failed" and activity.activity_id not in past
                ]
                progress = Replacement(problem=failed[0]) if failed else progress
            if progress != last:
                yield progress
                last = progress
            if progress.counts:
                return
            if self._clock.monotonic() >= deadline:
                raise Timeout(
                    f"gave up after {timeout:g} s waiting for the replacement in group {name}: "
                    f"{describe_replacement(progress)}",
                    hint="the instance was terminated; `rackctl instances` shows when its replacement is there",
                )
            self._clock.sleep(POLL)

    def _newcomer(self, group_name: str, known: set[str]) -> Replacement:
        """Give the furthest of a group's new members, or an empty one when there is none."""
        newcomers = [
            Replacement(
                member.ec2_instance_id,
                member.lifecycle_state,
                registered.status if registered else "",
                registered.agent_connected if registered else False,
                registered.status_reason if registered else "",
            )
            for member in self.group(group_name).instances
            if member.ec2_instance_id not in known and not member.is_going
            for registered in [self.registration(member.ec2_instance_id)]
        ]
        return max(
            newcomers,
            key=lambda n: (n.counts, n.agent_connected, bool(n.ecs_status), n.lifecycle_state == "InService"),
            default=Replacement(),
        )

    @property
    def _here(self) -> str:
        return f' in rack "{self._rack.name}"'

    @property
    def _see_list(self) -> str:
        return f"`rackctl instances --rack {self._rack.name}` lists them"


@dataclass(slots=True)
class _Drain:
    container_instance: ContainerInstance
    followed: set[str]
    tasks: tuple[Task, ...] = ()
    progressed: float = 0.0
    service_event: str = ""
    asked_for_event: float = float("-inf")


class Drains:
    """Instances whose tasks are being moved away, watched together.

    It asks for the tasks of all of them at once, a hundred a call, so that many drains cost little more than one.
    ``patience`` is how many seconds a drain may stand still before the newest event of its services is asked for.
    """

    def __init__(self, cluster: Cluster, rack: Rack, clock: Clock, *, stop_standalone: bool, patience: float) -> None:
        self._of = cluster
        self._ecs = rack.aws.ecs
        self._cluster = rack.cluster
        self._clock = clock
        self._stop_standalone = stop_standalone
        self._patience = patience
        self._drains: dict[str, _Drain] = {}
        self._stopped_by_us: set[str] = set()
        self._strategies: dict[str, Service] = {}

    def __contains__(self, ec2_instance_id: str) -> bool:
        return ec2_instance_id in self._drains

    def __len__(self) -> int:
        return len(self._drains)

    @property
    def ec2_instance_ids(self) -> tuple[str, ...]:
        return tuple(self._drains)

    def start(self, container_instance: ContainerInstance) -> None:
        """Set an instance to DRAINING, and follow its tasks from now on."""
        # Also one that is shown as DRAINING: it may have been so, and be ACTIVE again.
        self._of.set_status([container_instance], "DRAINING")
        # A task leaves ListTasks' running ones, and runningTasksCount, before its containers have stopped: its ARN
        # is followed until it is STOPPED. Those that were stopping already are among the stopped ones.
        arn = container_instance.container_instance_arn
        followed = set(self._ecs.tasks_on(self._cluster, arn, "STOPPED"))
        followed.update(self._ecs.tasks_on(self._cluster, arn, "RUNNING"))
        self._drains[container_instance.ec2_instance_id] = _Drain(
            container_instance, followed, progressed=self._clock.monotonic()
        )

    def forget(self, ec2_instance_id: str) -> None:
        """Watch an instance no more; its status stays as it is."""
        self._drains.pop(ec2_instance_id, None)

    def poll(self) -> dict[str, Draining]:
        """Look once, and say of each instance what it waits for. One without tasks is drained."""
        self._look()
        for drain in self._drains.values():
            if not drain.tasks:
                # Nothing is placed on a DRAINING instance, but what was being placed when it became one may show late.
                drain.followed.update(self._running_on(drain.container_instance))
        if any(drain.followed and not drain.tasks for drain in self._drains.values()):
            self._look()
        return {id_: Draining(id_, drain.tasks, self._event(drain)) for id_, drain in self._drains.items()}

    def _running_on(self, container_instance: ContainerInstance) -> list[str]:
        try:
            return self._ecs.tasks_on(self._cluster, container_instance.container_instance_arn, "RUNNING")
        except AwsError as error:
            if error.code == "InvalidParameterException":
                return []  # it is not registered any more
            raise

    def _look(self) -> None:
        followed = sorted({arn for drain in self._drains.values() for arn in drain.followed})
        described = [t for t in self._ecs.describe_tasks(self._cluster, followed) if t.last_status != "STOPPED"]
        if unknown := {t.service_name for t in described if t.service_name} - self._strategies.keys():
            services = self._ecs.describe_services(self._cluster, sorted(unknown))
            self._strategies.update((s.service_name, s) for s in services)
        now = self._clock.monotonic()
        for drain in self._drains.values():
            tasks = [t for t in described if t.task_arn in drain.followed]
            drain.followed = {t.task_arn for t in tasks}
            # A DAEMON task stays to the end of a drain: nothing would ever come of waiting for it.
            left = tuple(t for t in tasks if not _is_daemon(self._strategies.get(t.service_name)))
            if left != drain.tasks:
                drain.tasks, drain.progressed, drain.service_event = left, now, ""
        if self._stop_standalone:
            self._stop_tasks_of_no_service()

    def _stop_tasks_of_no_service(self) -> None:
        for drain in self._drains.values():
            for task in drain.tasks:
                if not task.service_name and task.task_arn not in self._stopped_by_us:
                    self._ecs.stop_task(self._cluster, task.task_arn, "its instance is being drained")
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


def drain_timeout(
    progress: Draining,
    timeout: float,
    hint: str = "give it longer, make room for the tasks elsewhere, or stop them",
) -> Timeout:
    """Say of a drain that has taken too long what blocks it."""
    return Timeout(
        f"{progress.ec2_instance_id} still has {_count(progress.tasks)} after {timeout:g} s of draining: "
        f"{_blocking(progress.tasks)}"
        + (f". The newest event: {progress.service_event}" if progress.service_event else ""),
        hint=hint,
    )


def _require_start_of_id(text: str) -> None:
    if not text.startswith("i-"):
        require_ec2_instance_id(text)
    elif len(text) < _SHORTEST_PREFIX:
        raise UsageError(
            f'"{text}" is too little of an instance id',
            hint=f"give {_SHORTEST_PREFIX - len('i-')} characters after the i- at least",
        )


def require_ec2_instance_id(text: str) -> None:
    """Raise UsageError unless a text is a whole EC2 instance id."""
    if not text.strip():
        raise UsageError("the instance id is empty", hint="is a variable in your script unset?")
    if not is_ec2_instance_id(text):
        raise UsageError(f'"{text}" is not an instance id', hint="an id looks like i-0a321c8b or i-0123456789abcdef0")


def describe_replacement(progress: Replacement) -> str:
    """Say in a few words where a replacement stands."""
    if not progress.ec2_instance_id:
        return progress.problem or "not launched yet"
    if progress.counts:
        return f"{progress.ec2_instance_id} is in service, registered, its agent connected"
    if not progress.ecs_status:
        return f"{progress.ec2_instance_id} is {progress.lifecycle_state}, not registered with ECS yet"
    agent = "on" if progress.agent_connected else "off"
    reason = f" ({progress.problem})" if progress.problem else ""
    return f"{progress.ec2_instance_id} is {progress.lifecycle_state}, {progress.ecs_status}{reason}, its agent {agent}"


def _is_daemon(service: Service | None) -> bool:
    return service is not None and service.scheduling_strategy == "DAEMON"


def _count(tasks: tuple[Task, ...]) -> str:
    return f"{len(tasks)} task{'s' if len(tasks) > 1 else ''}"


def _blocking(tasks: tuple[Task, ...]) -> str:
    named = [
        f"{task.task_arn.rpartition('/')[2]} of {task.service_name or 'no service'} ({task.last_status})"
        for task in tasks[:5]
    ]
    return ", ".join(named) + (f" and {len(tasks) - 5} more" if len(tasks) > 5 else "")
