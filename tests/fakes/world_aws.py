"""The local rack's model of AWS behind the interfaces of `rackctl.aws`, in memory: each call can be interrupted or
answered wrongly."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rackctl.aws.autoscaling import _group
from rackctl.aws.s3 import StoredObject
from rackctl.instance_refresh import InstanceRefresh
from rackctl.model import (
    Alarm,
    AutoScalingGroup,
    CapacityProvider,
    ContainerInstance,
    EcsCluster,
    Failure,
    GroupInstance,
    Instance,
    KeyPair,
    LaunchTemplate,
    LaunchTemplateRef,
    LaunchTemplateVersion,
    LifecycleHook,
    Resources,
    ScalingActivity,
    Service,
    ServiceEvent,
    Task,
)
from tests.fakes.aws import FakeAws
from tests.fakes.calls import mutating, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rackctl.aws.sts import Caller
    from rackctl.local.world.world import World


RACK = "prod"


class WorldAws(FakeAws):
    """FakeAws's S3 and KMS; everything else from a world. ``interfering`` are called round each call."""

    def __init__(self, world: World) -> None:
        super().__init__(cluster_name=RACK)
        self.world = world
        self.mutations: list[str] = []
        self.reads: list[str] = []
        self.interfering: list[Callable[[int, str, str], None]] = []
        # Each may put another answer in the place of a reading call's.
        self.misreading: list[Callable[[str, Any], Any]] = []
        # The instances that were terminated while tasks other than a DAEMON service's ran on them, in any cluster.
        self.terminated_busy: list[str] = []
        self._etags = 0

    def is_busy(self, ec2_instance_id: str) -> bool:
        """Return whether a task other than a DAEMON service's runs on an instance in the world."""
        return any(
            registration.instance_id == ec2_instance_id
            for cluster in self.world.ecs.clusters.values()
            for registration in cluster.registrations.values()
            for task in registration.live()
            if getattr(cluster.services.get(task.service), "strategy", "") != "DAEMON"
        )

    # STS

    @reading
    def caller(self) -> Caller:
        return super().caller()

    # EC2

    def _instance(self, i: Any) -> Instance:
        return Instance(
            i.instance_id, i.state, datetime.fromtimestamp(i.launched, UTC), i.instance_type,
            i.subnet.availability_zone, i.private_ip, "", i.key_name, dict(i.tags), platform=i.platform,
            attach_time=None if i.state == "terminated" else datetime.fromtimestamp(i.first_launched, UTC),
            image_id=i.image_id, subnet_id=i.subnet.subnet_id,
        )  # fmt: skip

    @reading
    def instances_tagged(self, tags: Mapping[str, str]) -> list[Instance]:
        found = map(self._instance, self.world.ec2.instances.values())
        return [i for i in found if tags.items() <= i.tags.items() and i.state != "terminated"]

    def instances_by_id(self, ec2_instance_ids: Sequence[str]) -> Iterator[Instance]:
        return self._instances_by_id(ec2_instance_ids) if ec2_instance_ids else iter(())

    @reading
    def _instances_by_id(self, ec2_instance_ids: Sequence[str]) -> Iterator[Instance]:
        known = self.world.ec2.instances
        return iter([self._instance(known[id_]) for id_ in ec2_instance_ids if id_ in known])

    @reading
    def instances_with_key(self, key_names: Sequence[str]) -> list[Instance]:
        found = map(self._instance, self.world.ec2.instances.values())
        return [i for i in found if i.key_name in key_names and i.state != "terminated"]

    @reading
    def key_pair(self, key_name: str) -> KeyPair | None:
        pair = self.world.ec2.key_pairs.to_describe().get(key_name)
        return self._key_pair(pair, public_key=pair.public_key) if pair else None

    @staticmethod
    def _key_pair(pair: Any, *, public_key: str = "") -> KeyPair:
        created = datetime.fromtimestamp(pair.created, UTC)
        return KeyPair(pair.key_name, public_key, dict(pair.tags), pair.key_pair_id, created, pair.fingerprint)

    @reading
    def key_pairs(self) -> list[KeyPair]:
        return [self._key_pair(p, public_key=p.public_key) for p in self.world.ec2.key_pairs.to_describe().values()]

    @reading
    def key_pairs_tagged(self, tags: Mapping[str, str]) -> list[KeyPair]:
        pairs = self.world.ec2.key_pairs.to_describe().values()
        return [self._key_pair(pair) for pair in pairs if tags.items() <= pair.tags.items()]

    @mutating
    def import_key_pair(self, key_name: str, public_key: str, tags: Mapping[str, str]) -> None:
        self.world.ec2.import_key_pair(key_name, public_key.encode(), tags)

    @mutating
    def delete_key_pair(self, key_name: str, key_pair_id: str = "") -> None:
        pair = self.world.ec2.key_pairs.get(key_name)
        if pair and key_pair_id in {"", pair.key_pair_id}:
            self.world.ec2.key_pairs.change(key_name, None)

    @reading
    def launch_templates(self, launch_template_ids: Sequence[str]) -> list[LaunchTemplate]:
        return [
            LaunchTemplate(id_, t.launch_template_name, t.default_version, max(t.versions), t.tags)
            for id_ in launch_template_ids
            for t in [self.world.ec2.find_template(id_, None)]
        ]

    def _version(self, id_: str, v: Any) -> LaunchTemplateVersion:
        name = self.world.ec2.templates[id_].launch_template_name
        return LaunchTemplateVersion(id_, v.number, v.description, deepcopy(v.data), name)

    @reading
    def newest_and_default_versions(self) -> list[LaunchTemplateVersion]:
        templates = self.world.ec2.templates.values()
        wanted = {(t.launch_template_id, n): t for t in templates for n in (max(t.versions), t.default_version)}
        return [self._version(id_, template.versions[number]) for (id_, number), template in wanted.items()]

    @reading
    def require_key_pair_permissions(
        self, key_name: str, key_pair_id: str, public_key: str, tags: Mapping[str, str]
    ) -> None:
        assert not any(key.startswith("aws:") for key in tags)

    @reading
    def launch_template_version(
        self, named: LaunchTemplateRef, *, resolve_image: bool = False
    ) -> LaunchTemplateVersion:
        template = self.world.ec2.find_template(named.launch_template_id, named.launch_template_name)
        version = self._version(template.launch_template_id, template.resolve(named.version))
        if not resolve_image:
            return version
        return replace(version, data={**version.data, "ImageId": self.world.parameters.resolve(version.image_id)})

    @reading
    def launch_template_versions_from(self, launch_template_id: str, lowest: int) -> list[LaunchTemplateVersion]:
        versions = self.world.ec2.templates[launch_template_id].versions
        return [self._version(launch_template_id, v) for n, v in versions.items() if n >= lowest]

    @mutating
    def create_launch_template_version(
        self, launch_template_id: str, source: int, changes: Mapping[str, Any], *, description: str
    ) -> int:
        template = self.world.ec2.templates[launch_template_id]
        return self.world.ec2.add_version(
            template, deepcopy(dict(changes)), source=str(source), description=description
        ).number

    @mutating
    def set_default_version(self, launch_template_id: str, version_number: int) -> None:
        self.world.ec2.templates[launch_template_id].default_version = version_number

    @mutating
    def delete_launch_template_versions(self, launch_template_id: str, version_numbers: Sequence[int]) -> None:
        template = self.world.ec2.templates[launch_template_id]
        for number in version_numbers:
            template.versions.pop(number, None)
        template.latest_version = max(template.versions)

    # ECS

    @property
    def _cluster(self) -> Any:
        return self.world.ecs.clusters[RACK]

    @reading
    def cluster(self, cluster: str) -> EcsCluster:
        found = self.world.ecs.cluster(cluster)
        return EcsCluster(found.arn, tuple(found.capacity_providers), dict(self.tags))

    @reading
    def cluster_arns(self) -> list[str]:
        return [cluster.arn for cluster in self.world.ecs.clusters.values()]

    @reading
    def capacity_providers(self, names: Sequence[str]) -> list[CapacityProvider]:
        providers = self.world.ecs.capacity_providers
        return [
            CapacityProvider(p.name, p.auto_scaling_group_arn, p.switches["managedDraining"] == "ENABLED")
            for p in map(providers.get, names)
            if p and p.auto_scaling_group_arn
        ]

    @reading
    def container_instance_arns(self, cluster: str, *, filter: str = "") -> Iterator[list[str]]:  # noqa: A002
        registered = self.world.ecs.cluster(cluster).registrations.values()
        arns = [r.arn for r in registered if not filter or filter == f"ec2InstanceId == {r.instance_id}"]
        return iter([arns[start : start + 100] for start in range(0, len(arns), 100)])

    @reading
    def describe_container_instances(self, cluster: str, arns: Sequence[str]) -> list[ContainerInstance]:
        assert len(arns) <= 100
        return [
            ContainerInstance(
                r.arn, r.instance_id, r.status, r.agent_connected,
                sum(t.last_status == "RUNNING" for t in r.live()), sum(t.last_status == "PENDING" for t in r.live()),
                Resources(r.cpu, r.memory), Resources(r.remaining_cpu, r.remaining_memory),
                datetime.fromtimestamp(r.registered_at, UTC), "", r.status_reason,
            )
            for r in map(self._cluster.registrations.get, arns) if r
        ]  # fmt: skip

    @mutating
    def set_container_instances_state(self, cluster: str, arns: Sequence[str], status: str) -> list[Failure]:
        known = self._cluster.registrations
        for arn in known.keys() & set(arns):
            self.world.ecs.set_status(known[arn], status)
        return [Failure(arn, "MISSING") for arn in arns if arn not in known]

    @reading
    def tasks_on(self, cluster: str, container_instance_arn: str, desired_status: str) -> list[str]:
        registration = self._cluster.registrations.get(container_instance_arn)
        tasks = registration.tasks.values() if registration else ()
        return [t.arn for t in tasks if t.desired_status == desired_status]

    def _task(self, t: Any) -> Task:
        return Task(t.arn, t.last_status, t.desired_status, t.group, t.registration.arn)

    @reading
    def describe_tasks(self, cluster: str, arns: Sequence[str]) -> list[Task]:
        return [self._task(t) for t in map(self._cluster.tasks.get, arns) if t]

    @reading
    def running_tasks(self, cluster: str) -> list[Task]:
        return [self._task(t) for t in self._cluster.tasks.values() if t.desired_status == "RUNNING"]

    @mutating
    def stop_task(self, cluster: str, task_arn: str, reason: str) -> None:
        self.world.ecs.stop_task(self._cluster, self._cluster.tasks[task_arn], reason)

    @reading
    def services(self, cluster: str) -> list[Service]:
        return [self._service(s) for s in self._cluster.services.values()]

    @reading
    def describe_services(self, cluster: str, services: Sequence[str]) -> list[Service]:
        known = self._cluster.services
        return [self._service(known[name]) for name in services if name in known]

    def _service(self, s: Any) -> Service:
        running = sum(t.last_status == "RUNNING" for t in self._cluster.tasks_of(s))
        events = tuple(ServiceEvent(datetime.fromtimestamp(at, UTC), text) for _, at, text in s.events)
        return Service(
            s.name, s.strategy, s.desired, running, s.minimum_percent, s.maximum_percent, events, s.status,
            "COMPLETED",
        )  # fmt: skip

    # CloudWatch

    @reading
    def alarms(self, names: Sequence[str]) -> list[Alarm]:
        return [Alarm(name, *self.world.alarms[name]) for name in names if name in self.world.alarms]

    # Auto Scaling

    def _described(self, g: Any) -> AutoScalingGroup:
        def specification(origin: tuple[str, str, int] | None) -> dict[str, Any]:
            if origin is None:
                return {}
            id_, name, version = origin
            return {"LaunchTemplate": {"LaunchTemplateId": id_, "LaunchTemplateName": name, "Version": str(version)}}

        return _group(
            {
                "AutoScalingGroupName": g.name,
                "AutoScalingGroupARN": g.arn,
                "MinSize": g.min_size,
                "MaxSize": g.max_size,
                "DesiredCapacity": g.desired,
                "Instances": [
                    {
                        "InstanceId": m.instance_id,
                        "LifecycleState": m.lifecycle_state,
                        "AvailabilityZone": m.availability_zone,
                        **specification(m.launch_template),
                    }
                    for m in g.members.values()
                ],
                "SuspendedProcesses": [{"ProcessName": name} for name in g.suspended],
                "LaunchConfigurationName": g.launch_configuration,
                "MixedInstancesPolicy": g.mixed_instances_policy,
                "LaunchTemplate": g.launch_template,
                "Tags": g.tags,
                "DesiredCapacityType": g.desired_capacity_type,
                "DefaultInstanceWarmup": g.settings.get("DefaultInstanceWarmup"),
                "AvailabilityZones": sorted({self.world.ec2.subnets[id_].availability_zone for id_ in g.subnets}),
            }
        )

    @reading
    def all_groups(self) -> list[AutoScalingGroup]:
        return [self._described(g) for g in self.world.autoscaling.groups.values()]

    @reading
    def groups(self, names: Sequence[str]) -> list[AutoScalingGroup]:
        known = self.world.autoscaling.groups
        return [self._described(known[name]) for name in names if name in known]

    @reading
    def members(self, ec2_instance_ids: Sequence[str]) -> dict[str, GroupInstance]:
        return {
            member.ec2_instance_id: member
            for group in map(self._described, self.world.autoscaling.groups.values())
            for member in group.instances
            if member.ec2_instance_id in ec2_instance_ids
        }

    @mutating
    def set_desired_capacity(self, auto_scaling_group_name: str, desired_capacity: int) -> None:
        self.world.autoscaling.set_desired(self.world.autoscaling.get(auto_scaling_group_name), desired_capacity)

    @mutating
    def suspend_processes(self, auto_scaling_group_name: str, processes: Sequence[str]) -> None:
        self.world.autoscaling.get(auto_scaling_group_name).suspended.update(dict.fromkeys(processes, "User"))

    @mutating
    def resume_processes(self, auto_scaling_group_name: str, processes: Sequence[str]) -> None:
        for process in processes:
            self.world.autoscaling.get(auto_scaling_group_name).suspended.pop(process, None)

    @mutating
    def set_launch_template_versions(self, group: AutoScalingGroup, versions: Mapping[LaunchTemplateRef, str]) -> None:
        from rackctl.aws.autoscaling import AutoScaling

        def call(operation: str, *, resource: str, AutoScalingGroupName: str, **changes: Any) -> None:  # noqa: N803
            autoscaling = self.world.autoscaling
            for specification in _specifications(changes):
                template = self.world.ec2.find_template(
                    specification.get("LaunchTemplateId"), specification.get("LaunchTemplateName")
                )
                specification["LaunchTemplateName"] = template.launch_template_name
            autoscaling.update(autoscaling.get(AutoScalingGroupName), changes)

        AutoScaling(call).set_launch_template_versions(group, versions)  # type: ignore[arg-type]

    @mutating
    def terminate_instance(self, ec2_instance_id: str, *, decrement_desired_capacity: bool) -> None:
        if self.is_busy(ec2_instance_id):
            self.terminated_busy.append(ec2_instance_id)
        self.world.autoscaling.terminate(ec2_instance_id, decrement=decrement_desired_capacity)

    @reading
    def activities(self, auto_scaling_group_name: str) -> list[ScalingActivity]:
        return [
            ScalingActivity(
                a.activity_id, a.description, a.status, datetime.fromtimestamp(a.start, UTC), a.status_message
            )
            for a in self.world.autoscaling.get(auto_scaling_group_name).activities
        ]

    @reading
    def lifecycle_hooks(self, auto_scaling_group_name: str) -> list[LifecycleHook]:
        hooks = self.world.autoscaling.get(auto_scaling_group_name).hooks.values()
        return [LifecycleHook(h.name, h.transition, int(h.heartbeat_timeout)) for h in hooks]

    @reading
    def launch_configuration_keys(self) -> dict[str, str]:
        known = self.world.autoscaling.launch_configurations
        return {name: configuration.get("KeyName", "") for name, configuration in known.items()}

    @reading
    def refreshing(self, auto_scaling_group_name: str) -> str:
        return next((r.refresh_id for r in self.world.refreshes.of(auto_scaling_group_name) if not r.ended), "")

    @reading
    def instance_refreshes(self, auto_scaling_group_name: str) -> list[InstanceRefresh]:
        self.world.autoscaling.get(auto_scaling_group_name)
        return [
            InstanceRefresh(
                r.refresh_id, r.status, r.reason, r.percentage, r.left, r.preferences, r.desired_configuration or {}
            )
            for r in self.world.refreshes.of(auto_scaling_group_name)
        ]

    @mutating
    def start_instance_refresh(
        self, auto_scaling_group_name: str, preferences: Mapping[str, Any], desired_configuration: Mapping[str, Any]
    ) -> str:
        wanted = deepcopy(dict(desired_configuration))
        for specification in _specifications(wanted):
            template = self.world.ec2.find_template(specification.get("LaunchTemplateId"), None)
            specification["LaunchTemplateName"] = template.launch_template_name
        group = self.world.autoscaling.get(auto_scaling_group_name)
        return self.world.refreshes.start(group, preferences, wanted or None).refresh_id

    @mutating
    def cancel_instance_refresh(self, auto_scaling_group_name: str) -> str:
        return self.world.refreshes.cancel(self.world.autoscaling.get(auto_scaling_group_name)).refresh_id

    @mutating
    def rollback_instance_refresh(self, auto_scaling_group_name: str) -> str:
        return self.world.refreshes.roll_back(self.world.autoscaling.get(auto_scaling_group_name)).refresh_id

    # S3

    @reading
    def get(self, bucket: str, key: str) -> StoredObject | None:
        stored = self.objects.get((bucket, key))
        return stored and replace(stored, age=self.world.now - stored.last_modified.timestamp())

    @mutating
    def create(self, bucket: str, key: str, body: bytes) -> str | None:
        return None if (bucket, key) in self.objects else self._put(bucket, key, body)

    @mutating
    def put(self, bucket: str, key: str, body: bytes) -> None:
        self._put(bucket, key, body)

    @mutating
    def replace(self, bucket: str, key: str, body: bytes, *, etag: str) -> str | None:
        there = self.objects.get((bucket, key))
        return self._put(bucket, key, body) if there and there.etag == etag else None

    def _put(self, bucket: str, key: str, body: bytes) -> str:
        self._etags += 1
        written = datetime.fromtimestamp(self.world.now, UTC)
        self.objects[bucket, key] = StoredObject(body, f'"{self._etags}"', written)
        return f'"{self._etags}"'

    @mutating
    def delete(self, bucket: str, key: str, *, etag: str = "") -> bool:
        there = self.objects.get((bucket, key))
        if there and etag and there.etag != etag:
            return False
        self.objects.pop((bucket, key), None)
        return True


def _specifications(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        if "LaunchTemplateId" in document or "LaunchTemplateName" in document:
            yield document
        for value in document.values():
            yield from _specifications(value)
    elif isinstance(document, list):
        for value in document:
            yield from _specifications(value)
