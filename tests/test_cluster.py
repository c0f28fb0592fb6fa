"""The rack's instances: what is listed, what may be touched, and what happens when AWS answers late or badly."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import AwsError
from rackctl.cluster import Cluster, Draining, Replacement, describe_replacement
from rackctl.errors import NotFound, RackctlError, Timeout, UsageError
from rackctl.model import (
    AutoScalingGroup,
    ContainerInstance,
    Failure,
    GroupInstance,
    Instance,
    Resources,
    ScalingActivity,
    Service,
    ServiceEvent,
    Task,
)
from rackctl.rack import Rack
from rackctl.settings import Value
from tests.fakes.aws import FakeAws
from tests.fakes.clock import FakeClock
from tests.fakes.origin import GIVEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
A, B, C, NEW = ("i-0a0000000000000aa", "i-0b0000000000000bb", "i-0c0000000000000cc", "i-0d0000000000000dd")


def ec2(id_: str, state: str = "running", **tags: str) -> Instance:
    return Instance(id_, state, WHEN, key_name="k", tags={"Rack": "prod", **tags})


def ecs(id_: str, status: str = "ACTIVE", *, agent: bool = True) -> ContainerInstance:
    return ContainerInstance(f"arn:{id_}", id_, status, agent, 1, 0, Resources(1024, 1000), Resources(1024, 708))


def member(id_: str, state: str = "InService") -> GroupInstance:
    return GroupInstance("group", id_, state, "Healthy", "us-east-1a")


def group(*members: GroupInstance, **more: object) -> AutoScalingGroup:
    return AutoScalingGroup("group", 0, 9, len(members), members, **more)  # type: ignore[arg-type]


def rack_of(*instances: Instance, registered: tuple[ContainerInstance, ...] = (), **more: object) -> FakeAws:
    aws = FakeAws(
        instances={i.ec2_instance_id: i for i in instances},
        container_instances={c.container_instance_arn: c for c in registered},
        groups_by_name={"group": group(*(member(i.ec2_instance_id) for i in instances))},
    )
    return replace(aws, **more)  # type: ignore[arg-type]


class Passing(FakeClock):
    """A clock that changes the world at certain times, in seconds from the start."""

    def __init__(self, *changes: tuple[float, Callable[[], object]]) -> None:
        super().__init__()
        self.start = self.monotonic()
        self.changes = list(changes)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        while self.changes and self.monotonic() - self.start >= self.changes[0][0]:
            self.changes.pop(0)[1]()


def cluster(aws: FakeAws, clock: FakeClock | None = None) -> Cluster:
    given = {"cluster": Value("prod", GIVEN)}
    return Cluster(Rack(Value("prod", GIVEN), given, aws=aws), clock or FakeClock())  # type: ignore[arg-type]


def test_instances_are_sorted_by_id_and_joined_with_their_registration() -> None:
    listed = cluster(rack_of(ec2(B), ec2(A), registered=(ecs(A),))).list()

    assert [(i.ec2_instance_id, i.status) for i in listed] == [(A, "active"), (B, "unregistered")]


@pytest.mark.parametrize(
    ("instance", "registered", "status"),
    [
        (ec2(A), ecs(A), "active"),
        (ec2(A), ecs(A, "DRAINING"), "draining"),
        (ec2(A), ecs(A, "REGISTRATION_FAILED"), "registration_failed"),
        (ec2(A), None, "unregistered"),
        (ec2(A, "pending"), None, "pending"),
        (ec2(A, "stopping"), None, "stopping"),
        (ec2(A, "shutting-down"), None, "shutting-down"),
        (ec2(A, "shutting-down"), ecs(A, agent=False), "shutting-down"),
        (ec2(A, "stopped"), ecs(A, agent=False), "stopped"),
        (ec2(A, "terminated"), ecs(A, agent=False), "gone"),
        (None, ecs(A, agent=False), "gone"),
    ],
)
def test_each_state_of_an_instance_has_its_word(
    instance: Instance | None, registered: ContainerInstance | None, status: str
) -> None:
    aws = rack_of(*[instance] if instance else [], registered=(registered,) if registered else ())

    assert [i.status for i in cluster(aws).list()] == [status]


def test_a_terminated_instance_that_nobody_registers_is_not_listed() -> None:
    assert cluster(rack_of(ec2(A, "terminated"))).list() == []


def test_a_registered_instance_that_the_tag_missed_is_listed() -> None:
    untagged = replace(ec2(A), tags={})

    (listed,) = cluster(rack_of(untagged, registered=(ecs(A),))).list()

    assert listed.instance == untagged
    assert listed.status == "active"


def test_build_instances_are_left_out_tagged_or_registered() -> None:
    untagged = replace(ec2(B), tags={"Purpose": "Build"})

    assert cluster(rack_of(ec2(A, Purpose="Build"), untagged, registered=(ecs(A), ecs(B)))).list() == []


@pytest.mark.parametrize("count", [0, 1, 100, 101, 250])
def test_every_page_of_registrations_is_read(count: int) -> None:
    ids = [f"i-{n:08x}" for n in range(count)]

    listed = cluster(rack_of(*map(ec2, ids), registered=tuple(map(ecs, ids)))).list()

    assert [i.ec2_instance_id for i in listed] == ids
    assert all(i.container_instance for i in listed)


def test_no_such_cluster_is_said() -> None:
    with pytest.raises(NotFound, match='no ECS cluster "prod"'):
        cluster(FakeAws(cluster="other")).list()


@pytest.mark.parametrize("text", ["", " ", "i-", "i-zzzz", "i-0a", "0a321c8b", "i-0A321C8B", "i-0a321c8b0", "web"])
def test_what_is_no_whole_id_is_refused_before_aws_is_asked(text: str) -> None:
    with pytest.raises(UsageError):
        cluster(FakeAws(cluster="unasked")).find(text)


def test_an_instance_of_another_rack_is_not_found_and_the_rack_is_named() -> None:
    with pytest.raises(NotFound, match="is tagged Rack=staging") as caught:
        cluster(rack_of(ec2(A, Rack="staging"))).find(A)

    assert "--rack staging" in caught.value.hint


def test_an_instance_nobody_knows_is_not_found() -> None:
    with pytest.raises(NotFound, match=f'no instance {A} in rack "prod"'):
        cluster(FakeAws()).find(A)


def test_an_untagged_instance_is_the_racks_when_it_is_registered() -> None:
    assert cluster(rack_of(replace(ec2(A), tags={}), registered=(ecs(A),))).find(A).ec2_instance_id == A


def test_the_start_of_one_id_is_enough_and_of_several_is_not() -> None:
    aws = rack_of(ec2("i-0aaa1111"), ec2("i-0aaa2222"), ec2("i-0bbb3333"))

    assert cluster(aws).match("i-0bbb").ec2_instance_id == "i-0bbb3333"
    with pytest.raises(UsageError, match="2 ids: i-0aaa1111, i-0aaa2222"):
        cluster(aws).match("i-0aaa")
    with pytest.raises(NotFound, match="starts with i-0ccc"):
        cluster(aws).match("i-0ccc")
    with pytest.raises(UsageError, match="too little of an instance id"):
        cluster(aws).match("i-0bb")


class Counting(FakeAws):
    def instances_by_id(self, ec2_instance_ids: Sequence[str]) -> Iterator[Instance]:
        self.calls.append("by id")
        return super().instances_by_id(ec2_instance_ids)

    def instances_tagged(self, tags: Mapping[str, str]) -> Iterator[Instance]:
        self.calls.append("tagged")
        return super().instances_tagged(tags)


def test_several_ids_are_matched_by_one_question_and_each_once() -> None:
    aws = Counting(instances={i: ec2(i) for i in (A, B, C)})

    assert [i.ec2_instance_id for i in cluster(aws).match_all([C, A, C])] == [C, A]
    assert aws.calls == ["by id"]


def test_ids_and_starts_of_ids_are_matched_in_the_order_they_were_given() -> None:
    aws = rack_of(ec2(A), ec2(B), ec2(C))

    assert [i.ec2_instance_id for i in cluster(aws).match_all(["i-0c00", A, "i-0a00", "i-0b00"])] == [C, A, B]


def test_eight_digits_are_the_start_of_an_id_where_they_are_no_id() -> None:
    assert cluster(rack_of(ec2(A))).match(A[:10]).ec2_instance_id == A
    assert cluster(rack_of(ec2(A), ec2(A[:10]))).match(A[:10]).ec2_instance_id == A[:10]


@pytest.mark.parametrize("wrong", ["", "i-0a", "web-1"])
def test_one_id_that_is_none_is_refused_before_aws_is_asked(wrong: str) -> None:
    aws = Counting(instances={A: ec2(A)})

    with pytest.raises(UsageError):
        cluster(aws).match_all([A, wrong])
    assert aws.calls == []


def test_terminate_asks_the_group_and_keeps_the_desired_capacity() -> None:
    aws = rack_of(ec2(A))

    assert cluster(aws).terminate(aws.instances[A]) is True
    assert aws.calls == [f"terminate {A} decrement=False"]


@pytest.mark.parametrize(
    "aws",
    [
        rack_of(ec2(A, "shutting-down")),
        replace(rack_of(ec2(A)), groups_by_name={"group": group(member(A, "Terminating:Wait"))}),
    ],
)
def test_an_instance_that_is_going_already_is_not_terminated_again(aws: FakeAws) -> None:
    assert cluster(aws).terminate(aws.instances[A]) is False
    assert aws.calls == []


def test_an_instance_of_no_group_is_left_alone() -> None:
    aws = replace(rack_of(ec2(A)), groups_by_name={})

    with pytest.raises(RackctlError, match="nothing would replace it") as caught:
        cluster(aws).terminate(aws.instances[A])

    assert f"--instance-ids {A}" in caught.value.hint
    assert aws.calls == []


def test_a_terminate_whose_first_answer_was_lost_is_no_failure() -> None:
    lost = AwsError("Instance Id not found", code="ValidationError")
    aws = replace(rack_of(ec2(A)), terminate_error=lost, terminate_works_all_the_same=True)

    assert cluster(aws).terminate(aws.instances[A]) is True


def test_a_terminate_that_aws_refuses_is_a_failure() -> None:
    aws = replace(rack_of(ec2(A)), terminate_error=AwsError("no", code="ValidationError"))

    with pytest.raises(AwsError, match="no"):
        cluster(aws).terminate(aws.instances[A])


def test_a_terminate_waits_for_a_scaling_activity_in_progress() -> None:
    clock = FakeClock()
    aws = replace(rack_of(ec2(A)), terminate_error=AwsError("busy", code="ScalingActivityInProgress"))

    assert cluster(aws, clock).terminate(aws.instances[A]) is True
    assert clock.slept == [5]


def task(name: str, service: str = "web", desired: str = "RUNNING", last: str = "RUNNING") -> Task:
    return Task(name, last, desired, f"service:{service}" if service else "family:once", f"arn:{A}")


def service(name: str, strategy: str = "REPLICA") -> Service:
    events = (ServiceEvent(WHEN, f"(service {name}) is looking for room"),)
    return Service(name, f"arn:{name}", strategy, 1, 1, 100, 200, events)


def draining(*tasks: Task) -> FakeAws:
    return rack_of(
        ec2(A),
        registered=(ecs(A),),
        tasks={t.task_arn: t for t in tasks},
        services_by_name={"web": service("web"), "agent": service("agent", "DAEMON")},
    )


def becomes(aws: FakeAws, name: str, last: str, desired: str = "STOPPED") -> Callable[[], object]:
    return lambda: aws.tasks.update({name: replace(aws.tasks[name], last_status=last, desired_status=desired)})


def test_a_drain_follows_each_task_until_it_has_stopped_and_not_just_left_the_running_ones() -> None:
    aws = draining(task("t1"), task("t2"))
    clock = Passing(
        (3, becomes(aws, "t1", "DEACTIVATING")), (6, becomes(aws, "t2", "STOPPED")), (30, becomes(aws, "t1", "STOPPED"))
    )

    seen = list(cluster(aws, clock).drain(ecs(A), timeout=60))

    assert [[t.task_arn for t in progress.tasks] for progress in seen] == [["t1", "t2"], ["t1", "t2"], ["t1"], []]
    assert seen[0].service_event == "(service web) is looking for room"
    assert clock.monotonic() - clock.start >= 30
    assert aws.calls == [f"DRAINING arn:{A}"]


def test_a_drain_does_not_wait_for_daemons() -> None:
    assert list(cluster(draining(task("d", "agent"))).drain(ecs(A), timeout=60)) == [Draining(A, ())]


def test_a_drain_waits_for_tasks_that_were_stopping_before_it_began() -> None:
    aws = draining(task("t", desired="STOPPED", last="STOPPING"))
    clock = Passing((9, becomes(aws, "t", "STOPPED")))

    list(cluster(aws, clock).drain(ecs(A), timeout=60))

    assert clock.monotonic() - clock.start >= 9


def test_a_drain_waits_for_tasks_of_no_service_and_stops_them_only_when_told() -> None:
    aws = draining(task("alone", service=""))
    with pytest.raises(Timeout, match="alone of no service"):
        list(cluster(aws).drain(ecs(A), timeout=10))
    assert "stop alone" not in aws.calls

    list(cluster(aws).drain(ecs(A), timeout=10, stop_standalone=True))
    assert "stop alone" in aws.calls


def test_a_drain_that_does_not_end_names_what_blocks_and_gives_the_instance_back() -> None:
    aws = draining(task("arn/t1"))

    with pytest.raises(Timeout, match=r"1 task after 30 s of draining: t1 of web \(RUNNING\).*looking for room"):
        list(cluster(aws).drain(ecs(A), timeout=30))

    assert aws.calls == [f"DRAINING arn:{A}", f"ACTIVE arn:{A}"]


def test_a_drain_that_nobody_listens_to_any_more_gives_the_instance_back() -> None:
    aws = draining(task("t1"))
    progress = cluster(aws).drain(ecs(A), timeout=30)
    next(progress)

    progress.close()  # type: ignore[attr-defined]

    assert aws.calls[-1] == f"ACTIVE arn:{A}"


def test_an_instance_that_was_draining_before_stays_so() -> None:
    aws = draining(task("t1"))

    with pytest.raises(Timeout):
        list(cluster(aws).drain(ecs(A, "DRAINING"), timeout=3))

    assert f"ACTIVE arn:{A}" not in aws.calls


def test_what_ecs_reports_among_failures_is_an_error() -> None:
    aws = replace(draining(), failures=[Failure("arn", "INACTIVE", "it has left")])

    with pytest.raises(RackctlError, match=r"INACTIVE \(it has left\)"):
        list(cluster(aws).drain(ecs(A), timeout=3))


def test_a_replacement_counts_only_in_service_registered_and_connected() -> None:
    before = group(member(A), member(B))
    aws = rack_of(ec2(A), ec2(B), registered=(ecs(B),), groups_by_name={"group": before})

    def now(state: str) -> Callable[[], object]:
        return lambda: aws.groups_by_name.update(group=group(member(B), member(NEW, state)))

    clock = Passing(
        (3, now("Pending")),
        (6, now("InService")),
        (9, lambda: aws.container_instances.update({"new": ecs(NEW, agent=False)})),
        (12, lambda: aws.container_instances.update({"new": ecs(NEW)})),
    )

    seen = list(cluster(aws, clock).replacement(before, timeout=60))

    assert seen == [
        Replacement(),
        Replacement(NEW, "Pending"),
        Replacement(NEW, "InService"),
        Replacement(NEW, "InService", "ACTIVE", agent_connected=False),
        Replacement(NEW, "InService", "ACTIVE", agent_connected=True),
    ]
    assert [describe_replacement(r).split(NEW)[-1] for r in seen] == [
        "not launched yet",
        " is Pending, not registered with ECS yet",
        " is InService, not registered with ECS yet",
        " is InService, ACTIVE, its agent off",
        " is in service, registered, its agent connected",
    ]


def test_a_launch_that_fails_is_told_in_awss_words_and_waited_out() -> None:
    before = group(member(A))
    aws = rack_of(groups_by_name={"group": before})
    failed = ScalingActivity("2", "Launching", "Failed", WHEN, "We currently do not have sufficient capacity")
    older = ScalingActivity("1", "Launching", "Failed", WHEN, "an old story")
    aws.scaling_activities = [older]
    clock = Passing((3, lambda: aws.scaling_activities.insert(0, failed)))

    seen: list[Replacement] = []
    with pytest.raises(Timeout, match="sufficient capacity"):
        seen.extend(cluster(aws, clock).replacement(before, timeout=9))

    assert "an old story" not in [progress.problem for progress in seen]
