"""The rack's instances: list, find, terminate, and wait for a replacement."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import NotFound, RackctlError, Timeout
from rackctl.instances import Instances, Replacement
from rackctl.model import AutoScalingGroup, ContainerInstance, GroupInstance, Instance, Resources, ScalingActivity
from rackctl.rack import Rack
from rackctl.settings import Value
from tests.fakes.aws import FakeAws
from tests.fakes.clock import FakeClock, Passing
from tests.fakes.origin import GIVEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
A, B, C, NEW = ("i-0a0000000000000aa", "i-0b0000000000000bb", "i-0c0000000000000cc", "i-0d0000000000000dd")
EXTERNAL = "mi-0a0000000000000aa"


def ec2(id_: str, state: str = "running", **tags: str) -> Instance:
    return Instance(id_, state, WHEN, key_name="k", tags={"Rack": "prod", **tags})


def ecs(
    id_: str, status: str = "ACTIVE", *, agent: bool = True, arn: str = "", tasks: int = 1, age: float = 0
) -> ContainerInstance:
    """Return a registration that is ``age`` seconds old, with so many running tasks."""
    return ContainerInstance(
        arn or f"arn:{id_}", id_, status, agent, tasks, 0, Resources(1024, 1000), Resources(1024, 708),
        registered_at=WHEN - timedelta(seconds=age),
    )  # fmt: skip


def member(id_: str, state: str = "InService") -> GroupInstance:
    return GroupInstance("group", id_, state, "us-east-1a")


def group(*members: GroupInstance, **more: object) -> AutoScalingGroup:
    return AutoScalingGroup("group", 0, 9, len(members), members, **more)  # type: ignore[arg-type]


def rack_of(*instances: Instance, registered: Sequence[ContainerInstance] = (), **more: object) -> FakeAws:
    aws = FakeAws(
        instances={i.ec2_instance_id: i for i in instances},
        container_instances={c.container_instance_arn: c for c in registered},
        groups_by_name={"group": group(*(member(i.ec2_instance_id) for i in instances))},
    )
    return replace(aws, **more)  # type: ignore[arg-type]


def instances_of(aws: FakeAws, clock: FakeClock | None = None) -> Instances:
    given = {"cluster": Value("prod", GIVEN)}
    return Instances(Rack(Value("prod", GIVEN), given, aws=aws), clock or FakeClock())  # type: ignore[arg-type]


# The list


def test_instances_are_sorted_by_id_and_joined_with_their_registration() -> None:
    listed = instances_of(rack_of(ec2(B), ec2(A), registered=[ecs(A)])).list()

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
        (None, ecs(A), "active"),
        (None, ecs(EXTERNAL), "active"),
        (None, ecs(EXTERNAL, "DRAINING"), "draining"),
        (None, ecs(EXTERNAL, agent=False), "active"),
    ],
)
def test_each_state_of_an_instance_has_its_word(
    instance: Instance | None, registered: ContainerInstance | None, status: str
) -> None:
    aws = rack_of(*[instance] if instance else [], registered=[registered] if registered else [])

    assert [i.status for i in instances_of(aws).list()] == [status]


def test_a_terminated_instance_without_a_registration_is_not_listed() -> None:
    assert instances_of(rack_of(ec2(A, "terminated"))).list() == []


def test_a_registered_instance_without_the_rack_tag_is_listed() -> None:
    untagged = replace(ec2(A), tags={})

    (listed,) = instances_of(rack_of(untagged, registered=[ecs(A)])).list()

    assert listed.instance == untagged
    assert listed.status == "active"


def test_build_instances_are_left_out_whether_tagged_or_registered() -> None:
    untagged = replace(ec2(B), tags={"Purpose": "Build"})

    assert instances_of(rack_of(ec2(A, Purpose="Build"), untagged, registered=[ecs(A), ecs(B)])).list() == []


@pytest.mark.parametrize("count", [0, 1, 100, 101, 250])
def test_every_page_of_registrations_is_read(count: int) -> None:
    ids = [f"i-{n:08x}" for n in range(count)]

    listed = instances_of(rack_of(*map(ec2, ids), registered=list(map(ecs, ids)))).list()

    assert [i.ec2_instance_id for i in listed] == ids
    assert all(i.container_instance for i in listed)


def test_a_cluster_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound, match='no ECS cluster "prod"'):
        instances_of(FakeAws(cluster_name="other")).list()


# Machines of ECS Anywhere


@dataclass
class Recording(FakeAws):
    """Records what EC2 is asked for."""

    asked: list[Sequence[str] | str] = field(default_factory=list)

    def instances_by_id(self, ec2_instance_ids: Sequence[str]) -> Iterator[Instance]:
        self.asked.append(list(ec2_instance_ids))
        return super().instances_by_id(ec2_instance_ids)

    def instances_tagged(self, tags: Mapping[str, str]) -> Iterator[Instance]:
        self.asked.append("tagged")
        return super().instances_tagged(tags)


def test_a_machine_of_ecs_anywhere_is_not_looked_up_in_ec2() -> None:
    """DescribeInstances answers InvalidInstanceID.Malformed to it, which would take the whole list away.

    ContainerInstance.ec2InstanceId, in botocore's ECS model: "The ID of the container instance. For Amazon EC2
    instances, this value is the Amazon EC2 instance ID. For external instances, this value is the Amazon Web Services
    Systems Manager managed instance ID."
    """
    registered = [ecs(EXTERNAL), ecs(A)]
    aws = Recording(
        instances={A: replace(ec2(A), tags={})}, container_instances={c.ec2_instance_id: c for c in registered}
    )

    listed = instances_of(aws).list()

    assert [(i.ec2_instance_id, i.status, i.is_external) for i in listed] == [
        (A, "active", False),
        (EXTERNAL, "active", True),
    ]
    assert sorted(map(str, aws.asked)) == sorted([str([A]), "tagged"])


def test_a_machine_of_ecs_anywhere_is_not_among_the_instances_to_connect_to() -> None:
    aws = rack_of(ec2(A), registered=[ecs(EXTERNAL), ecs(A)])

    assert [i.ec2_instance_id for i in instances_of(aws).instances()] == [A]


# Several registrations of one instance


@pytest.mark.parametrize(
    ("counts", "others"),
    [
        (ecs(A, arn="on", age=9), [ecs(A, arn="off", agent=False)]),
        (ecs(A, "DRAINING", arn="on", age=9), [ecs(A, arn="off", agent=False)]),
        (ecs(A, arn="alive", age=9), [ecs(A, "REGISTRATION_FAILED", arn="failed")]),
        (ecs(A, "DRAINING", arn="alive", age=9), [ecs(A, "DEREGISTERING", arn="leaving")]),
        (ecs(A, arn="alive", agent=False, age=9), [ecs(A, "REGISTRATION_FAILED", arn="failed", agent=False)]),
        (ecs(A, arn="new"), [ecs(A, arn="old", age=9), ecs(A, arn="older", age=10)]),
        (ecs(A, arn="new"), [ecs(A, "DRAINING", arn="old", age=9)]),
        (ecs(A, arn="dated", age=9), [replace(ecs(A, arn="undated"), registered_at=None)]),
        (
            ecs(A, arn="on", age=9),
            [ecs(A, "REGISTRATION_FAILED", arn="failed"), ecs(A, arn="off", agent=False), ecs(A, arn="old", age=10)],
        ),
    ],
)
def test_of_several_registrations_the_connected_then_the_living_then_the_newest_counts_in_any_order(
    counts: ContainerInstance, others: Sequence[ContainerInstance]
) -> None:
    """A retried RegisterContainerInstance leaves a second registration of the same EC2 instance behind.

    https://github.com/aws/amazon-ecs-agent/issues/782: "there are scenarios in which a multiple ECS Container Instance
    ARNs can be mapped to a single EC2 Instance ID", and "you can combine the Instance ID and `agentConnected` field".
    """
    for order in permutations([counts, *others]):
        (listed,) = instances_of(rack_of(ec2(A), registered=order)).list()

        assert listed.container_instance == counts
        assert listed.status == counts.status.lower()


def test_the_tasks_of_all_registrations_are_summed() -> None:
    registered = [
        ecs(A, arn="on", tasks=2),
        replace(ecs(A, arn="off", tasks=3, agent=False), pending_tasks_count=4),
    ]

    (listed,) = instances_of(rack_of(ec2(A), registered=registered)).list()

    assert (listed.running_tasks_count, listed.pending_tasks_count) == (5, 4)
    assert listed.abandoned_tasks == 7


def test_a_drain_has_to_follow_the_registration_that_counts_and_every_other_whose_agent_is_connected() -> None:
    registered = [
        ecs(A, arn="old", age=9),
        ecs(A, arn="off", agent=False),
        ecs(A, "REGISTRATION_FAILED", arn="failed"),
        ecs(A, arn="new"),
    ]

    listed = instances_of(rack_of(ec2(A), registered=registered)).describe(ec2(A))

    assert [r.container_instance_arn for r in listed.living_registrations] == ["new", "old"]


def test_the_only_living_registration_is_followed_even_if_its_agent_is_off() -> None:
    registered = [ecs(A, arn="off", agent=False), ecs(A, "REGISTRATION_FAILED", arn="failed", agent=False)]

    listed = instances_of(rack_of(ec2(A), registered=registered)).describe(ec2(A))

    assert [r.container_instance_arn for r in listed.living_registrations] == ["off"]


def test_a_description_joins_ec2_with_all_registrations_and_the_group() -> None:
    aws = rack_of(ec2(A), ec2(B), registered=[ecs(A, arn="1"), ecs(A, arn="2"), ecs(B)])

    described = instances_of(aws).describe(ec2(A))

    assert described.instance == ec2(A)
    assert {r.container_instance_arn for r in described.registrations} == {"1", "2"}
    assert described.member == member(A)
    assert described.can_take_tasks


# Registered with another cluster


@dataclass
class TwoClusters(FakeAws):
    """Another cluster of the region, with registrations of its own."""

    others: frozenset[str] = frozenset()

    def cluster_arns(self) -> list[str]:
        return [*super().cluster_arns(), "arn:aws:ecs:us-east-1:123456789012:cluster/other"]

    def container_instance_arns(self, cluster: str, *, filter: str = "") -> Iterator[list[str]]:  # noqa: A002
        if not cluster.endswith("cluster/other"):
            yield from super().container_instance_arns(cluster, filter=filter)
        elif found := [id_ for id_ in self.others if f"ec2InstanceId == {id_}" == filter]:
            yield found


def test_the_cluster_that_an_instance_is_registered_with_instead_is_named() -> None:
    aws = TwoClusters(instances={A: ec2(A)}, others=frozenset({A}))

    assert instances_of(aws).registered_elsewhere(A) == "other"


def test_an_instance_of_no_other_cluster_is_registered_nowhere_else() -> None:
    aws = TwoClusters(container_instances={A: ecs(A)}, others=frozenset({B}))

    assert instances_of(aws).registered_elsewhere(A) == ""


# Terminating one


def test_terminate_calls_the_group_and_keeps_the_desired_capacity() -> None:
    aws = rack_of(ec2(A))

    assert instances_of(aws).terminate(aws.instances[A]) is True
    assert aws.calls == [f"terminate {A} decrement=False"]


@pytest.mark.parametrize(
    "aws",
    [
        rack_of(ec2(A, "shutting-down")),
        replace(rack_of(ec2(A)), groups_by_name={"group": group(member(A, "Terminating:Wait"))}),
    ],
)
def test_an_instance_that_is_terminating_already_is_not_terminated_again(aws: FakeAws) -> None:
    assert instances_of(aws).terminate(aws.instances[A]) is False
    assert aws.calls == []


def test_an_instance_of_no_group_is_left_alone() -> None:
    aws = replace(rack_of(ec2(A)), groups_by_name={})

    with pytest.raises(RackctlError, match="would not be replaced") as caught:
        instances_of(aws).terminate(aws.instances[A])

    assert f"--instance-ids {A}" in caught.value.hint
    assert aws.calls == []


def test_a_terminate_whose_first_answer_was_lost_is_not_an_error() -> None:
    lost = AwsError("Instance Id not found", code="ValidationError")
    aws = replace(rack_of(ec2(A)), terminate_error=lost, terminate_works_all_the_same=True)

    assert instances_of(aws).terminate(aws.instances[A]) is True


def test_a_terminate_that_aws_refuses_is_an_error() -> None:
    aws = replace(rack_of(ec2(A)), terminate_error=AwsError("no", code="ValidationError"))

    with pytest.raises(AwsError, match="no"):
        instances_of(aws).terminate(aws.instances[A])


@pytest.mark.parametrize("code", ["ScalingActivityInProgress", "ResourceContention"])
def test_a_terminate_waits_for_a_scaling_activity_in_progress(code: str) -> None:
    clock = FakeClock()
    aws = replace(rack_of(ec2(A)), terminate_error=AwsError("busy", code=code))

    assert instances_of(aws, clock).terminate(aws.instances[A]) is True
    assert clock.slept == [5]


# Its replacement


def test_a_replacement_is_ready_once_it_is_in_service_registered_and_connected() -> None:
    before = group(member(A), member(B))
    aws = rack_of(ec2(A), ec2(B), registered=[ecs(B)], groups_by_name={"group": before})

    def becomes(state: str) -> Callable[[], object]:
        return lambda: aws.groups_by_name.update(group=group(member(B), member(NEW, state)))

    def registers(registered: ContainerInstance) -> Callable[[], object]:
        return lambda: aws.container_instances.update(new=registered)

    clock = Passing(
        (3, becomes("Pending")),
        (6, becomes("InService")),
        (9, registers(replace(ecs(NEW, "REGISTRATION_FAILED", agent=False), status_reason="no ENI"))),
        (12, registers(ecs(NEW, agent=False))),
        (15, registers(ecs(NEW))),
    )

    seen = list(instances_of(aws, clock).replacement(before, timeout=60))

    assert [replacement.describe() for replacement in seen] == [
        "not launched yet",
        f"{NEW}: Pending, not registered with ECS",
        f"{NEW}: InService, not registered with ECS yet",
        f"{NEW}: InService, REGISTRATION_FAILED (no ENI), agent off",
        f"{NEW}: InService, ACTIVE, agent off",
        f"{NEW}: in service, registered, agent connected",
    ]
    assert [replacement.is_ready for replacement in seen] == [False] * 5 + [True]


def test_a_replacement_with_a_dead_registration_beside_the_living_one_is_ready() -> None:
    before = group(member(A))
    aws = rack_of(
        registered=[ecs(NEW, arn="on", age=9), ecs(NEW, arn="off", agent=False)],
        groups_by_name={"group": group(member(NEW))},
    )

    (seen,) = instances_of(aws).replacement(before, timeout=60)

    assert seen.is_ready


def test_a_launch_that_fails_is_reported_in_the_words_of_aws_and_waited_out() -> None:
    before = group(member(A))
    aws = rack_of(groups_by_name={"group": before})
    failed = ScalingActivity("2", "Launching", "Failed", WHEN, "We currently do not have sufficient capacity")
    aws.scaling_activities = [ScalingActivity("1", "Launching", "Failed", WHEN, "from before the termination")]
    clock = Passing((3, lambda: aws.scaling_activities.insert(0, failed)))

    seen: list[Replacement] = []
    with pytest.raises(Timeout, match="sufficient capacity"):
        seen.extend(instances_of(aws, clock).replacement(before, timeout=9))

    assert "from before the termination" not in [replacement.problem for replacement in seen]
