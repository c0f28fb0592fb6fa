"""Drains: the tasks that they wait for, their end, and the undoing of one that times out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from rackctl.drain import Draining, Drains, drain
from rackctl.errors import RackctlError, Timeout
from rackctl.model import ContainerInstance, Failure, Instance, Resources, Service, ServiceEvent, Task
from rackctl.rack import Rack
from rackctl.rack_instance import RackInstance, rack_instance
from rackctl.settings import Value
from tests.fakes.aws import FakeAws
from tests.fakes.clock import FakeClock, Passing
from tests.fakes.origin import GIVEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
A, B = "i-0a0000000000000aa", "i-0b0000000000000bb"
ON_A, ON_B = f"arn:{A}", f"arn:{B}"


@dataclass
class Cluster(FakeAws):
    """A cluster that counts its tasks as ECS does: a task that is to stop counts no more, though it may run for long.

    ContainerInstance.runningTasksCount, in botocore's ECS model: "The number of tasks on the container instance that
    have a desired status (desiredStatus) of RUNNING." ``undescribed`` are tasks that DescribeTasks leaves out,
    ``unlisted`` those that ListTasks leaves out, ``uncounted`` those that ECS does not count yet.
    """

    undescribed: set[str] = field(default_factory=set)
    unlisted: set[str] = field(default_factory=set)
    uncounted: set[str] = field(default_factory=set)
    stays: str = ""

    def describe_container_instances(self, cluster: str, arns: Sequence[str]) -> list[ContainerInstance]:
        return [self._counted(found) for arn in arns if (found := self.container_instances.get(arn))]

    def _counted(self, registered: ContainerInstance) -> ContainerInstance:
        here = self.tasks_of(registered.container_instance_arn)
        return replace(
            registered,
            status=self.stays or registered.status,
            running_tasks_count=sum(t.desired_status == "RUNNING" and t.task_arn not in self.uncounted for t in here),
        )

    def tasks_of(self, container_instance_arn: str) -> list[Task]:
        return [t for t in self.tasks.values() if t.container_instance_arn == container_instance_arn]

    def tasks_on(self, cluster: str, container_instance_arn: str, desired_status: str) -> list[str]:
        listed = super().tasks_on(cluster, container_instance_arn, desired_status)
        return [arn for arn in listed if arn not in self.unlisted]

    def describe_tasks(self, cluster: str, arns: Sequence[str]) -> list[Task]:
        return [task for task in super().describe_tasks(cluster, arns) if task.task_arn not in self.undescribed]

    @property
    def rack(self) -> Rack:
        return Rack(Value("prod", GIVEN), {"cluster": Value("prod", GIVEN)}, aws=self)  # type: ignore[arg-type]

    def instance(self, id_: str = A) -> RackInstance:
        """Describe an instance as it is listed before its drain."""
        registered = [c for c in self.container_instances.values() if c.ec2_instance_id == id_]
        arns = [c.container_instance_arn for c in registered]
        return rack_instance(id_, self.instances[id_], self.describe_container_instances("prod", arns))

    def drain(
        self, clock: FakeClock | None = None, *, timeout: float = 60, stop_standalone: bool = False
    ) -> Iterator[Draining]:
        return drain(self.rack, clock or FakeClock(), self.instance(), timeout=timeout, stop_standalone=stop_standalone)

    def becomes(self, name: str, last: str, desired: str = "STOPPED") -> Callable[[], object]:
        return lambda: self.tasks.update({name: replace(self.tasks[name], last_status=last, desired_status=desired)})


def ecs(id_: str, status: str = "ACTIVE", *, arn: str = "", agent: bool = True) -> ContainerInstance:
    return ContainerInstance(
        arn or f"arn:{id_}", id_, status, agent, 0, 0, Resources(1024, 1000), Resources(1024, 708), registered_at=WHEN
    )


def task(name: str, service: str = "web", desired: str = "RUNNING", last: str = "RUNNING", on: str = ON_A) -> Task:
    return Task(name, last, desired, f"service:{service}" if service else "family:once", on)


def service(name: str, strategy: str = "REPLICA") -> Service:
    events = (ServiceEvent(WHEN, f"(service {name}) is looking for room"),)
    return Service(name, strategy, 1, 1, 100, 200, events)


def with_tasks(*tasks: Task, registered: Sequence[ContainerInstance] = (ecs(A),)) -> Cluster:
    return Cluster(
        instances={id_: Instance(id_, "running", WHEN, tags={"Rack": "prod"}) for id_ in (A, B)},
        container_instances={c.container_instance_arn: c for c in registered},
        tasks={t.task_arn: t for t in tasks},
        services_by_name={"web": service("web"), "agent": service("agent", "DAEMON")},
    )


# The tasks that a drain waits for


def test_a_drain_follows_each_task_until_it_has_stopped() -> None:
    """A task leaves the tasks that should run long before its containers have stopped."""
    aws = with_tasks(task("t1"), task("t2"))
    clock = Passing(
        (3, aws.becomes("t1", "DEACTIVATING")), (6, aws.becomes("t2", "STOPPED")), (30, aws.becomes("t1", "STOPPED"))
    )

    seen = list(aws.drain(clock))

    assert [[t.task_arn for t in progress.tasks] for progress in seen] == [["t1", "t2"], ["t1", "t2"], ["t1"], []]
    assert seen[0].service_event == "(service web) is looking for room"
    assert clock.passed >= 30
    assert aws.calls == [f"DRAINING {ON_A}"]


def test_a_drain_does_not_wait_for_daemon_tasks() -> None:
    """They stay until the instance ends, and ECS goes on counting them."""
    assert list(with_tasks(task("d", "agent")).drain()) == [Draining(A, daemons=1, services=frozenset({"agent"}))]


def test_a_drain_waits_for_tasks_that_were_stopping_before_it_began() -> None:
    aws = with_tasks(task("t", desired="STOPPED", last="STOPPING"))
    clock = Passing((9, aws.becomes("t", "STOPPED")))

    list(aws.drain(clock))

    assert clock.passed >= 9


def test_tasks_of_no_service_are_waited_for_and_stopped_only_on_request() -> None:
    aws = with_tasks(task("alone", service=""))
    with pytest.raises(Timeout, match="alone of no service"):
        list(aws.drain(timeout=10))
    assert "stop alone" not in aws.calls

    list(aws.drain(stop_standalone=True))
    assert "stop alone" in aws.calls


def test_a_task_that_was_placed_just_before_the_drain_is_waited_for() -> None:
    aws = with_tasks(task("t1"), task("late"))
    aws.unlisted = aws.uncounted = {"late"}
    clock = Passing((6, aws.unlisted.clear), (6, aws.becomes("t1", "STOPPED")), (30, aws.becomes("late", "STOPPED")))

    seen = list(aws.drain(clock))

    assert ("late",) in [tuple(t.task_arn for t in progress.tasks) for progress in seen]
    assert clock.passed >= 30


# The end of a drain: evidence, not absence


def test_an_empty_answer_of_list_tasks_does_not_end_a_drain() -> None:
    aws = with_tasks(task("t"))
    aws.unlisted.add("t")
    clock = Passing((9, aws.unlisted.clear), (30, aws.becomes("t", "STOPPED")))

    seen = list(aws.drain(clock))

    assert [(len(progress.tasks), progress.unreported) for progress in seen] == [(0, 1), (1, 0), (0, 0)]
    assert clock.passed >= 30


def test_a_task_that_list_tasks_never_lists_keeps_a_drain_from_ending_while_ecs_counts_it() -> None:
    aws = with_tasks(task("t"))
    aws.unlisted.add("t")

    with pytest.raises(Timeout, match=r"still has 1 task .* 1 that ECS counts or has listed, but does not describe"):
        list(aws.drain(timeout=120))

    assert aws.calls[-1] == f"ACTIVE {ON_A}"


def test_a_task_that_describe_tasks_leaves_out_is_unknown_and_not_stopped() -> None:
    """DescribeTasks reports it as MISSING among ``failures``, whether its answer is late or the task long gone."""
    aws = with_tasks(task("t1"), task("t2"))
    clock = Passing(
        (3, lambda: aws.undescribed.add("t2")),
        (6, aws.becomes("t1", "STOPPED")),
        (40, aws.undescribed.clear),
        (60, aws.becomes("t2", "STOPPED")),
    )

    seen = list(aws.drain(clock, timeout=90))

    assert [(len(progress.tasks), progress.unreported) for progress in seen] == [(2, 0), (1, 1), (0, 1), (1, 0), (0, 0)]
    assert clock.passed >= 60


def test_a_task_that_ecs_neither_lists_nor_describes_is_forgotten_once_that_has_lasted() -> None:
    """DescribeTasks, in botocore's ECS model: "stopped tasks appear in the returned results for at least one hour."."""
    aws = with_tasks(task("t1"), task("t2", desired="STOPPED", last="STOPPED"), task("t3"))
    clock = Passing((3, lambda: aws.tasks.pop("t1")), (6, aws.becomes("t3", "STOPPED")))

    seen = list(aws.drain(clock))

    assert seen[-1] == Draining(A, services=frozenset({"web"}))
    assert 3 + 20 < clock.passed < 40


def test_an_instance_is_not_drained_before_ecs_reports_it_as_draining() -> None:
    aws = with_tasks()
    aws.stays = "ACTIVE"
    clock = Passing((15, lambda: setattr(aws, "stays", "")))

    assert list(aws.drain(clock)) == [Draining(A)]
    assert clock.passed >= 15


def test_an_instance_that_ecs_reports_no_more_is_not_drained() -> None:
    aws = with_tasks(task("t"), registered=[ecs(A, "DRAINING")])
    clock = Passing((3, aws.container_instances.clear), (3, aws.becomes("t", "STOPPED")))

    with pytest.raises(Timeout, match="ECS does not report the instance as DRAINING and empty yet"):
        list(aws.drain(clock, timeout=30))


def test_a_drain_does_not_end_while_ecs_counts_a_task_that_it_has_not_listed() -> None:
    aws = with_tasks(task("t"), task("unheard"))
    aws.unlisted.add("unheard")
    aws.uncounted.add("unheard")  # so that nothing is known of it when the drain begins
    clock = Passing((3, aws.uncounted.clear), (6, aws.becomes("t", "STOPPED")), (30, aws.unlisted.clear),
                    (45, aws.becomes("unheard", "STOPPED")))  # fmt: skip

    list(aws.drain(clock))

    assert clock.passed >= 45


# Several registrations


def twice() -> list[ContainerInstance]:
    return [ecs(A, arn="first"), ecs(A, arn="second"), ecs(A, arn="off", agent=False)]


def test_every_living_registration_of_an_instance_is_drained_and_followed() -> None:
    """https://github.com/aws/amazon-ecs-agent/issues/782: one instance may be registered several times."""
    aws = with_tasks(task("t1", on="first"), task("t2", on="second"), registered=twice())
    clock = Passing((6, aws.becomes("t1", "STOPPED")), (30, aws.becomes("t2", "STOPPED")))

    seen = list(aws.drain(clock))

    assert [[t.task_arn for t in progress.tasks] for progress in seen] == [["t1", "t2"], ["t2"], []]
    assert clock.passed >= 30
    assert aws.container_instances["off"].status == "ACTIVE"
    assert {aws.container_instances[arn].status for arn in ("first", "second")} == {"DRAINING"}


def test_every_registration_that_was_active_becomes_so_again_when_a_drain_times_out() -> None:
    registered = [ecs(A, arn="first"), ecs(A, "DRAINING", arn="second")]
    aws = with_tasks(task("t1", on="first"), registered=registered)

    with pytest.raises(Timeout):
        list(aws.drain(timeout=6))

    assert aws.calls[-1] == "ACTIVE first"


# A drain that does not end


def test_a_drain_that_times_out_names_what_blocks_it_and_sets_the_instance_to_active() -> None:
    aws = with_tasks(task("arn/t1"))

    with pytest.raises(Timeout, match=r"1 task after 30 s of draining: t1 of web \(RUNNING\).*looking for room"):
        list(aws.drain(timeout=30))

    assert aws.calls == [f"DRAINING {ON_A}", f"ACTIVE {ON_A}"]


def test_the_first_five_tasks_that_block_a_drain_are_named_and_the_others_counted() -> None:
    aws = with_tasks(*(task(f"t{n}") for n in range(7)))

    with pytest.raises(Timeout, match=r"t4 of web \(RUNNING\), 2 more"):
        list(aws.drain(timeout=3))


def test_a_drain_whose_progress_is_no_longer_read_sets_the_instance_to_active() -> None:
    aws = with_tasks(task("t1"))
    progress = aws.drain()
    next(progress)

    progress.close()  # type: ignore[attr-defined]

    assert aws.calls[-1] == f"ACTIVE {ON_A}"


def test_an_instance_that_was_draining_before_stays_draining() -> None:
    aws = with_tasks(task("t1"), registered=[ecs(A, "DRAINING")])

    with pytest.raises(Timeout):
        list(aws.drain(timeout=3))

    assert f"ACTIVE {ON_A}" not in aws.calls


def test_a_failure_that_ecs_reports_for_an_instance_is_an_error() -> None:
    aws = replace(with_tasks(), failures=[Failure(ON_A, "INACTIVE", "it has left")])

    with pytest.raises(RackctlError, match=rf"did not set {A} to DRAINING: INACTIVE \(it has left\)"):
        list(aws.drain(timeout=3))


# Several drains at once


def test_several_drains_are_described_by_one_call_and_each_waits_for_its_own_tasks() -> None:
    aws = with_tasks(task("t1"), task("t2", on=ON_B), registered=[ecs(A), ecs(B)])
    drains = Drains(aws.rack, FakeClock())
    for id_ in (A, B):
        drains.start(id_, aws.instance(id_).registrations)

    assert {id_: [t.task_arn for t in d.tasks] for id_, d in drains.poll().items()} == {A: ["t1"], B: ["t2"]}

    aws.becomes("t1", "STOPPED")()
    drains.forget(B)
    assert drains.poll() == {A: Draining(A, services=frozenset({"web"}))}
    assert drains.ec2_instance_ids == (A,)


def test_the_event_of_a_service_is_fetched_only_if_a_drain_makes_no_progress_for_its_patience() -> None:
    aws, clock = with_tasks(task("t1")), FakeClock()
    drains = Drains(aws.rack, clock, patience=60)
    drains.start(A, aws.instance().registrations)

    assert drains.poll()[A].service_event == ""
    clock.sleep(59)
    assert drains.poll()[A].service_event == ""
    clock.sleep(1)
    assert drains.poll()[A].service_event == "(service web) is looking for room"
