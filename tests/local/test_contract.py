"""The fakes of the unit tests and the local rack give the same answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError
from rackctl.errors import AccessDenied, NotFound, RackctlError
from tests.fakes.aws import FakeAws

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.model import ContainerInstance, Instance
    from tests.local_rack import LocalRackProcess

NOBODY = "i-0123456789abcdef0"


@dataclass
class Subject:
    """Something that answers as `rackctl.aws` does, and what is in it."""

    aws: Any
    cluster: str
    bucket: Any
    kms_key: str

    def instances(self) -> list[Instance]:
        return sorted(self.aws.ec2.instances_tagged({"Rack": "local"}), key=lambda i: i.ec2_instance_id)

    def registrations(self) -> list[ContainerInstance]:
        arns = [arn for page in self.aws.ecs.container_instance_arns(self.cluster) for arn in page]
        found: list[ContainerInstance] = self.aws.ecs.describe_container_instances(self.cluster, arns)
        return found


def _real(rack: LocalRackProcess) -> Subject:
    return Subject(rack.aws, rack.rack.cluster, rack.rack.store, rack.rack.kms_key)


def _copied(rack: LocalRackProcess) -> Subject:
    """Fill a fake with what the local rack holds."""
    real = _real(rack)
    registrations = real.registrations()
    arns = [
        arn
        for ci in registrations
        for status in ("RUNNING", "STOPPED")
        for arn in real.aws.ecs.tasks_on(real.cluster, ci.container_instance_arn, status)
    ]
    group = real.aws.autoscaling.groups(["local-instances"])[0]
    described = real.aws.ecs.cluster(real.cluster)
    fake = FakeAws(
        cluster_name=real.cluster,
        account=described.account,
        instances={i.ec2_instance_id: i for i in real.instances()},
        container_instances={ci.container_instance_arn: ci for ci in registrations},
        groups_by_name={group.auto_scaling_group_name: group},
        tasks={task.task_arn: task for task in real.aws.ecs.describe_tasks(real.cluster, arns)},
        services_by_name={s.service_name: s for s in real.aws.ecs.services(real.cluster)},
        tags=dict(described.tags),
    )
    return Subject(fake, real.cluster, fake.bucket(real.bucket.name, owner=described.account), real.kms_key)


KINDS: dict[str, Callable[[LocalRackProcess], Subject]] = {"local rack": _real, "fake": _copied}
both = pytest.mark.parametrize("kind", KINDS)


@both
def test_unknown_clusters_are_not_found(local_rack: LocalRackProcess, kind: str) -> None:
    ecs = KINDS[kind](local_rack).aws.ecs
    with pytest.raises(NotFound):
        ecs.cluster("nowhere")
    with pytest.raises(NotFound):
        list(ecs.container_instance_arns("nowhere"))


@both
def test_unknown_ids_and_names_are_left_out(local_rack: LocalRackProcess, kind: str) -> None:
    subject = KINDS[kind](local_rack)
    known = subject.instances()[0].ec2_instance_id
    assert [i.ec2_instance_id for i in subject.aws.ec2.instances_by_id([known, NOBODY])] == [known]
    assert list(subject.aws.ec2.instances_tagged({"Rack": "nowhere"})) == []
    assert subject.aws.autoscaling.groups(["nowhere"]) == []
    assert list(subject.aws.autoscaling.members([known, NOBODY])) == [known]
    assert (
        subject.aws.ecs.describe_tasks(subject.cluster, [f"arn:aws:ecs:us-east-1:123456789012:task/local/{'0' * 32}"])
        == []
    )


@both
def test_the_registration_of_one_instance_is_found_by_a_filter(local_rack: LocalRackProcess, kind: str) -> None:
    subject = KINDS[kind](local_rack)
    wanted = subject.registrations()[0]
    expression = f"ec2InstanceId == {wanted.ec2_instance_id}"
    found = [a for page in subject.aws.ecs.container_instance_arns(subject.cluster, filter=expression) for a in page]
    assert found == [wanted.container_instance_arn]
    nobody = subject.aws.ecs.container_instance_arns(subject.cluster, filter=f"ec2InstanceId == {NOBODY}")
    assert [arn for page in nobody for arn in page] == []


@both
def test_tasks_are_listed_by_their_desired_status(local_rack: LocalRackProcess, kind: str) -> None:
    subject = KINDS[kind](local_rack)
    arn = subject.registrations()[0].container_instance_arn
    running = subject.aws.ecs.tasks_on(subject.cluster, arn, "RUNNING")
    assert {task.desired_status for task in subject.aws.ecs.describe_tasks(subject.cluster, running)} == {"RUNNING"}
    assert not set(running) & set(subject.aws.ecs.tasks_on(subject.cluster, arn, "STOPPED"))


@both
def test_services_are_described_by_name(local_rack: LocalRackProcess, kind: str) -> None:
    subject = KINDS[kind](local_rack)
    web, daemon = subject.aws.ecs.describe_services(subject.cluster, ["web", "log-agent"])
    assert (web.service_name, web.scheduling_strategy, daemon.scheduling_strategy) == ("web", "REPLICA", "DAEMON")
    assert (web.minimum_healthy_percent, web.maximum_percent) == (100, 200)


@both
def test_a_cluster_is_described_with_its_arn_its_account_and_its_tags(local_rack: LocalRackProcess, kind: str) -> None:
    subject = KINDS[kind](local_rack)
    described = subject.aws.ecs.cluster(subject.cluster)
    assert described.cluster_arn == f"arn:aws:ecs:us-east-1:{described.account}:cluster/{subject.cluster}"
    assert described.tags["rackctl:bucket"] == subject.bucket.name
    assert described.cluster_arn in subject.aws.ecs.cluster_arns()


@both
def test_an_object_is_created_once(local_rack: LocalRackProcess, kind: str) -> None:
    bucket = KINDS[kind](local_rack).bucket
    key = f"contract/{kind.replace(' ', '-')}"
    assert bucket.get(key) is None
    etag = bucket.create(key, b"first")
    assert etag
    assert bucket.create(key, b"second") is None
    assert bucket.get(key).body == b"first"
    assert bucket.get(key).etag == etag
    assert list(bucket.keys("contract/")) == [key]
    assert bucket.delete(key)
    assert bucket.delete(key)
    assert list(bucket.keys("contract/")) == []


@both
def test_the_try_of_a_conditional_write_leaves_nothing(local_rack: LocalRackProcess, kind: str) -> None:
    bucket = KINDS[kind](local_rack).bucket
    assert bucket.try_conditional_write("tried/key") is True
    assert list(bucket.keys("tried/")) == []


@both
def test_a_bucket_of_another_account_is_denied(local_rack: LocalRackProcess, kind: str) -> None:
    subject = KINDS[kind](local_rack)
    bucket = subject.aws.s3.bucket(subject.bucket.name, owner="999999999999")
    for ask in (
        lambda: bucket.get("key"),
        lambda: bucket.create("key", b"x"),
        lambda: bucket.delete("key"),
        lambda: list(bucket.keys("")),
    ):
        with pytest.raises(AccessDenied):
            ask()


@both
def test_a_ciphertext_is_decrypted_only_with_its_encryption_context(local_rack: LocalRackProcess, kind: str) -> None:
    kms, kms_key = (subject := KINDS[kind](local_rack)).aws.kms, subject.kms_key
    context = {"rackctl:rack": "local", "rackctl:key-name": "mine"}
    sealed = kms.encrypt(kms_key, b"a secret", context, what="it")
    assert b"a secret" not in sealed
    assert kms.decrypt(sealed, context, what="it", kms_key=kms_key) == b"a secret"
    with pytest.raises(RackctlError):
        kms.decrypt(sealed, {**context, "rackctl:key-name": "another"}, what="it", kms_key=kms_key)


@both
def test_a_terminated_member_is_terminating_and_terminating_it_again_fails(
    own_local_rack: LocalRackProcess, kind: str
) -> None:
    subject = KINDS[kind](own_local_rack)
    id_ = subject.instances()[0].ec2_instance_id
    subject.aws.autoscaling.terminate_instance(id_, decrement_desired_capacity=False)
    assert next(iter(subject.aws.ec2.instances_by_id([id_]))).is_terminating
    with pytest.raises(AwsError) as refused:
        subject.aws.autoscaling.terminate_instance(id_, decrement_desired_capacity=False)
    assert refused.value.code == "ValidationError"


@both
def test_a_status_is_set_until_it_is_set_again(own_local_rack: LocalRackProcess, kind: str) -> None:
    subject = KINDS[kind](own_local_rack)
    arn = subject.registrations()[0].container_instance_arn
    for status in ("DRAINING", "ACTIVE"):
        assert subject.aws.ecs.set_container_instances_state(subject.cluster, [arn], status) == []
        assert subject.aws.ecs.describe_container_instances(subject.cluster, [arn])[0].status == status
