"""An AWS in memory for unit tests: the methods of `rackctl.aws` that the list, terminate and the key store call.

tests/local/test_contract.py makes the same calls on it and on the local rack, and compares the answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rackctl.aws.errors import AwsError
from rackctl.aws.kms import KmsKey
from rackctl.aws.s3 import StoredObject
from rackctl.aws.sts import Caller
from rackctl.errors import AccessDenied, NotFound
from rackctl.model import EcsCluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rackctl.model import (
        AutoScalingGroup,
        ContainerInstance,
        Failure,
        GroupInstance,
        Instance,
        ScalingActivity,
        Service,
        Task,
    )


@dataclass(frozen=True)
class FakeBucket:
    """A bucket of a FakeAws, whose account it must be of."""

    aws: FakeAws
    name: str
    owner: str

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def _check_owner(self) -> None:
        if self.owner != self.aws.bucket_owners.get(self.name, self.aws.account):
            raise AccessDenied(f"AWS denied s3 on bucket {self.name}: it is not account {self.owner}'s")

    def get(self, key: str) -> StoredObject | None:
        self._check_owner()
        return self.aws.get(self.name, key)

    def put(self, key: str, body: bytes) -> None:
        self._check_owner()
        self.aws.put(self.name, key, body)

    def create(self, key: str, body: bytes) -> str | None:
        self._check_owner()
        return self.aws.create(self.name, key, body)

    def replace(self, key: str, body: bytes, *, etag: str) -> str | None:
        self._check_owner()
        return self.aws.replace(self.name, key, body, etag=etag)

    def delete(self, key: str, *, etag: str = "") -> bool:
        self._check_owner()
        return self.aws.delete(self.name, key, etag=etag)

    def keys(self, prefix: str) -> Iterator[str]:
        self._check_owner()
        return self.aws.keys(self.name, prefix)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        for key in self.keys(prefix):
            yield key, len(self.aws.objects[self.name, key].body)

    def try_conditional_write(self, key: str) -> bool:
        self._check_owner()
        return True


@dataclass(frozen=True)
class FakeBucketSettings:
    """The settings of a bucket that is as it should be."""

    name: str
    owner: str

    def region(self) -> str:
        return "us-east-1"

    def versioning(self) -> str:
        return "Enabled"

    def encryption(self) -> tuple[str, str]:
        return "aws:kms", ""

    def public_access_is_blocked(self) -> bool:
        return True

    def requires_tls(self) -> bool:
        return True


@dataclass
class FakeAws:
    """All services in one object; its attributes are what AWS would know."""

    cluster_name: str = "prod"
    account: str = "123456789012"
    region: str = "us-east-1"
    instances: dict[str, Instance] = field(default_factory=dict)
    container_instances: dict[str, ContainerInstance] = field(default_factory=dict)
    groups_by_name: dict[str, AutoScalingGroup] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    services_by_name: dict[str, Service] = field(default_factory=dict)
    scaling_activities: list[ScalingActivity] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    objects: dict[tuple[str, str], StoredObject] = field(default_factory=dict)
    bucket_owners: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    terminate_error: AwsError | None = None
    terminate_works_all_the_same: bool = False
    calls: list[str] = field(default_factory=list)

    @property
    def ec2(self) -> FakeAws:
        return self

    ecs = autoscaling = cloudwatch = s3 = kms = sts = ec2

    # STS

    def caller(self) -> Caller:
        return Caller(self.account, f"arn:aws:iam::{self.account}:user/joe")

    # EC2

    def instances_tagged(self, tags: Mapping[str, str]) -> Iterator[Instance]:
        for instance in self.instances.values():
            if tags.items() <= instance.tags.items() and instance.state != "terminated":
                yield instance

    def instances_by_id(self, ec2_instance_ids: Sequence[str]) -> Iterator[Instance]:
        yield from (self.instances[id_] for id_ in ec2_instance_ids if id_ in self.instances)

    # ECS

    @property
    def cluster_arn(self) -> str:
        return f"arn:aws:ecs:{self.region}:{self.account}:cluster/{self.cluster_name}"

    def cluster(self, cluster: str) -> EcsCluster:
        if cluster != self.cluster_name:
            raise NotFound(f'there is no ECS cluster "{cluster}"')
        return EcsCluster(self.cluster_arn, (), self.tags)

    def cluster_arns(self) -> list[str]:
        return [self.cluster_arn]

    def container_instance_arns(self, cluster: str, *, filter: str = "") -> Iterator[list[str]]:  # noqa: A002
        if cluster != self.cluster_name:
            raise NotFound(f'there is no ECS cluster "{cluster}"')
        arns = [arn for arn, c in self.container_instances.items() if not filter or filter.endswith(c.ec2_instance_id)]
        for start in range(0, len(arns), 100):
            yield arns[start : start + 100]

    def describe_container_instances(self, cluster: str, arns: Sequence[str]) -> list[ContainerInstance]:
        assert len(arns) <= 100
        return [self.container_instances[arn] for arn in arns]

    def set_container_instances_state(self, cluster: str, arns: Sequence[str], status: str) -> list[Failure]:
        self.calls.append(f"{status} {' '.join(arns)}")
        if self.failures:
            return self.failures
        for arn in arns:
            self.container_instances[arn] = replace(self.container_instances[arn], status=status)
        return []

    def tasks_on(self, cluster: str, container_instance_arn: str, desired_status: str) -> list[str]:
        return [
            task.task_arn
            for task in self.tasks.values()
            if task.container_instance_arn == container_instance_arn and task.desired_status == desired_status
        ]

    def describe_tasks(self, cluster: str, arns: Sequence[str]) -> list[Task]:
        return [self.tasks[arn] for arn in arns if arn in self.tasks]

    def stop_task(self, cluster: str, task_arn: str, reason: str) -> None:
        self.calls.append(f"stop {task_arn}")
        self.tasks[task_arn] = replace(self.tasks[task_arn], last_status="STOPPED", desired_status="STOPPED")

    def describe_services(self, cluster: str, services: Sequence[str]) -> list[Service]:
        return [self.services_by_name[name] for name in services]

    # Auto Scaling

    def groups(self, names: Sequence[str]) -> list[AutoScalingGroup]:
        return [self.groups_by_name[name] for name in names if name in self.groups_by_name]

    def members(self, ec2_instance_ids: Sequence[str]) -> dict[str, GroupInstance]:
        return {
            member.ec2_instance_id: member
            for group in self.groups_by_name.values()
            for member in group.instances
            if member.ec2_instance_id in ec2_instance_ids
        }

    def terminate_instance(self, ec2_instance_id: str, *, decrement_desired_capacity: bool) -> None:
        self.calls.append(f"terminate {ec2_instance_id} decrement={decrement_desired_capacity}")
        if self.instances[ec2_instance_id].is_terminating:
            raise AwsError(f"{ec2_instance_id} is already being terminated", code="ValidationError")
        error, self.terminate_error = self.terminate_error, None
        if error is None or self.terminate_works_all_the_same:
            going = replace(self.instances[ec2_instance_id], state="shutting-down")
            self.instances[ec2_instance_id] = going
        if error:
            raise error

    def activities(self, auto_scaling_group_name: str) -> list[ScalingActivity]:
        return self.scaling_activities

    # S3

    def bucket(self, name: str, *, owner: str) -> FakeBucket:
        return FakeBucket(self, name, owner)

    def bucket_settings(self, name: str, *, owner: str) -> FakeBucketSettings:
        return FakeBucketSettings(name, owner)

    def get(self, bucket: str, key: str) -> StoredObject | None:
        return self.objects.get((bucket, key))

    def create(self, bucket: str, key: str, body: bytes) -> str | None:
        if (bucket, key) in self.objects:
            return None
        self.objects[bucket, key] = StoredObject(body, '"1"', datetime(2026, 1, 2, tzinfo=UTC))
        return '"1"'

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.objects[bucket, key] = StoredObject(body, '"1"', datetime(2026, 1, 2, tzinfo=UTC))

    def replace(self, bucket: str, key: str, body: bytes, *, etag: str) -> str | None:
        raise NotImplementedError("only a roll replaces objects: tests/fakes/world.py")

    def delete(self, bucket: str, key: str, *, etag: str = "") -> bool:
        self.objects.pop((bucket, key), None)
        return True

    def keys(self, bucket: str, prefix: str) -> Iterator[str]:
        yield from sorted(key for b, key in self.objects if b == bucket and key.startswith(prefix))

    # KMS: a seal that shows what it was made with, and opens for that alone.

    def key(self, kms_key: str) -> KmsKey:
        arn = f"arn:aws:kms:{self.region}:{self.account}:key/k"
        return KmsKey(arn, "Enabled", "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "CUSTOMER")

    def rotates(self, kms_key: str) -> bool:
        return True

    def encrypt(self, kms_key: str, plaintext: bytes, context: Mapping[str, str], *, what: str) -> bytes:
        return repr((kms_key, sorted(context.items()))).encode() + b"|" + plaintext[::-1]

    def decrypt(self, ciphertext: bytes, context: Mapping[str, str], *, what: str, kms_key: str = "") -> bytes:
        seal, _, sealed = ciphertext.partition(b"|")
        if seal != repr((kms_key, sorted(context.items()))).encode():
            raise AccessDenied(f"cannot open {what}")
        return sealed[::-1]
