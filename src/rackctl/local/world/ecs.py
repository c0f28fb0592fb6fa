"""ECS's part of the world: clusters, registrations, tasks."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import TYPE_CHECKING, Any

from rackctl.local.world import timing
from rackctl.local.world.base import Refused, validation_error
from rackctl.local.world.clusters import (
    FARGATE_PROVIDERS,
    RESERVED_MEMORY,
    CapacityProvider,
    Cluster,
    Registration,
    Task,
    TaskDefinition,
)
from rackctl.local.world.ec2 import INSTANCE_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rackctl.local.world.base import Commons
    from rackctl.local.world.ec2 import Ec2


class Ecs:
    def __init__(self, world: Commons, ec2: Ec2) -> None:
        self._world = world
        self._ec2 = ec2
        self.clusters: dict[str, Cluster] = {}
        self.definitions: dict[str, list[TaskDefinition]] = {}
        self.capacity_providers = {
            name: CapacityProvider(self.arn(f"capacity-provider/{name}"), name) for name in FARGATE_PROVIDERS
        }
        world.subscribe("ecs", "instance_in_service", "instance_stopping", "instance_ending")

    def arn(self, resource: str) -> str:
        return f"arn:aws:ecs:{self._world.region}:{self._world.account_id}:{resource}"

    def create_cluster(self, name: str, tags: Mapping[str, str | None]) -> Cluster:
        if name not in self.clusters:
            self.clusters[name] = Cluster(self.arn(f"cluster/{name}"), name, dict(tags))
        return self.clusters[name]

    def cluster(self, name_or_arn: str) -> Cluster:
        name = (name_or_arn or "default").rpartition("/")[2]
        if name not in self.clusters:
            raise Refused("ClusterNotFoundException", "Cluster not found.")
        return self.clusters[name]

    def register_definition(self, document: Mapping[str, Any]) -> TaskDefinition:
        revisions = self.definitions.setdefault(document["family"], [])
        number = len(revisions) + 1
        definition = TaskDefinition(
            self.arn(f"task-definition/{document['family']}:{number}"),
            document["family"],
            number,
            list(document["containerDefinitions"]),
            self._world.now,
            dict(document),
        )
        revisions.append(definition)
        return definition

    def definition(self, name: str) -> TaskDefinition:
        family, _, revision = name.rpartition("/")[2].partition(":")
        revisions = self.definitions.get(family, [])
        if not revisions or (revision and not 0 < int(revision) <= len(revisions)):
            raise Refused("ClientException", "Unable to describe task definition.")
        return revisions[int(revision) - 1] if revision else revisions[-1]

    # Registrations

    def register_instance(self, instance_id: str, *, registered_at: float | None = None) -> None:
        """Start the agent: it registers with the cluster that the user data names.

        With a time in the past, it registered then and has been connected since. The agent of a restarted instance
        keeps its registration.
        """
        world = self._world
        instance = self._ec2.instances.get(instance_id)
        if instance is None or not instance.user_data or "never-register" in world.conditions:
            return
        settings = b64decode(instance.user_data)
        waits = instance.is_warm and b"ECS_WARM_POOLS_CHECK=true" in settings
        found = re.search(rb"ECS_CLUSTER=([\w-]+)", settings)
        if instance.state != "running" or waits or found is None:
            return
        cluster = self.clusters.get(world.conditions.get("register-elsewhere") or found[1].decode())
        if cluster is None:
            return
        known = [r for c, r in self.registrations_of(instance_id) if c is cluster]
        if known:
            self.connect_soon(cluster, known[0])
            return
        registration = self.register(cluster, instance_id, registered_at=registered_at)
        if registered_at is not None:
            registration.agent_connected = True
            return
        if "register-twice" in world.conditions:
            self.register_dead(instance_id, world.conditions["register-twice"] or "ACTIVE")
        reason = world.conditions.get("registration-failed")
        if reason is not None:
            registration.status = "REGISTRATION_FAILED"
            registration.status_reason = reason or "The container instance could not be registered."
        elif "register-agent-off" not in world.conditions:
            self.connect_soon(cluster, registration)

    def register(
        self, cluster: Cluster, instance_id: str, *, registered_at: float | None = None, arn: str = ""
    ) -> Registration:
        """Add a registration, even if the instance has one already."""
        instance = self._ec2.instances.get(instance_id)
        cpus, memory = INSTANCE_TYPES.get(instance.instance_type if instance else "", (2, 2048))
        registration = Registration(
            arn or self.arn(f"container-instance/{cluster.name}/{self._world.ids.hex(32)}"),
            instance_id,
            self._world.now if registered_at is None else registered_at,
            cpus * 1024,
            memory - RESERVED_MEMORY,
        )
        registration.capacity_provider = self._provider_of(cluster, instance.group if instance else "")
        cluster.registrations[registration.arn] = registration
        self._world.changed()
        self._world.tell("instance_registered", cluster.name, registration.arn)
        return registration

    def _provider_of(self, cluster: Cluster, group: str) -> str:
        """Return the cluster's capacity provider of an Auto Scaling group; empty for none.

        https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerInstance.html (capacityProviderName)
        """
        arns = {name: self.capacity_providers[name].auto_scaling_group_arn for name in cluster.capacity_providers}
        return next((name for name, arn in arns.items() if group and arn.endswith(f"/{group}")), "")

    def register_dead(self, instance_id: str, status: str = "ACTIVE", *, first: bool | None = None) -> Registration:
        """Add a dead registration to an instance, as an agent's retried attempt leaves one.

        ``first`` lists it before (True) or after (False) the living one; None chooses at random.
        """
        cluster, alive = self._registered(instance_id)
        before = alive.arn.rpartition("/")[0]
        digits = self._world.ids.hex(32)
        arn = f"{before}/{digits if first is None else ('0' if first else 'f') * 8 + digits[8:]}"
        dead = self.register(cluster, instance_id, registered_at=alive.registered_at - 1, arn=arn)
        dead.status = status
        if status == "REGISTRATION_FAILED":
            dead.status_reason = "The container instance could not be registered."
        return dead

    def register_anew(self, instance_id: str) -> Registration:
        """Register an instance again, as an agent that lost its state does; the old registration stays, agent off."""
        cluster, before = self._registered(instance_id)
        self.set_agent(before, connected=False)
        anew = self.register(cluster, instance_id)
        self.connect_soon(cluster, anew)
        return anew

    def register_external(self, cluster: Cluster) -> Registration:
        """Register an external instance (ECS Anywhere)."""
        registration = self.register(cluster, f"mi-0{self._world.ids.hex(16)}")
        self.connect_soon(cluster, registration)
        return registration

    def _registered(self, instance_id: str) -> tuple[Cluster, Registration]:
        found = self.registration_of(instance_id)
        if found is None:
            raise validation_error(f"{instance_id} is not registered with any cluster")
        return found

    def connect_soon(self, cluster: Cluster, registration: Registration) -> None:
        delay = timing.AGENT_CONNECTED - timing.ECS_REGISTERED
        self._world.after(delay, "ecs", "connect", cluster.name, registration.arn)

    def connect(self, cluster: str, arn: str) -> None:
        registration = self.clusters[cluster].registrations.get(arn)
        if registration and registration.status in {"ACTIVE", "DRAINING"}:
            self.set_agent(registration, connected=True)

    def set_agent(self, registration: Registration, *, connected: bool) -> None:
        registration.agent_connected = connected
        registration.version += 1
        self._world.changed()

    def registrations_of(self, instance_id: str) -> list[tuple[Cluster, Registration]]:
        """Return an instance's registrations with all clusters: the living one first, then the newest."""
        found = [
            (cluster, registration)
            for cluster in self.clusters.values()
            for registration in cluster.registrations.values()
            if registration.instance_id == instance_id
        ]
        return sorted(found, key=lambda one: (not one[1].agent_connected, -one[1].registered_at, one[1].arn))

    def registration_of(self, instance_id: str) -> tuple[Cluster, Registration] | None:
        """Return the living registration of an instance, else the newest."""
        return next(iter(self.registrations_of(instance_id)), None)

    def instance_in_service(self, instance_id: str) -> None:
        """Register an instance that has left its warm pool, if its agent has waited for it."""
        if not self.registrations_of(instance_id) and self._ec2.instances[instance_id].ssh_up:
            self._world.after(1, "ecs", "register_instance", instance_id)

    def instance_stopping(self, instance_id: str) -> None:
        for _, registration in self.registrations_of(instance_id):
            self.set_agent(registration, connected=False)

    def instance_ending(self, instance_id: str) -> None:
        """Deregister a terminated instance; a registration whose agent is off stays.

        DeregisterContainerInstance: "stopped container instances or instances with disconnected agents aren't
        automatically deregistered when terminated".
        """
        for cluster, registration in self.registrations_of(instance_id):
            if not registration.agent_connected and registration.status != "REGISTRATION_FAILED":
                continue
            self.set_agent(registration, connected=False)
            for task in list(registration.live()):
                self._stopped(cluster, task, f"Host EC2 (instance {instance_id}) terminated.", "TerminationNotice")
            self._world.after(timing.REGISTRATION_INACTIVE, "ecs", "_deregister", cluster.name, registration.arn)

    def _deregister(self, cluster: str, arn: str) -> None:
        """End a registration: it is no longer listed, and described as INACTIVE for an hour."""
        registration = self.clusters[cluster].registrations.pop(arn, None)
        if registration is not None:
            registration.status, registration.agent_connected = "INACTIVE", False
            registration.version += 1
            self.clusters[cluster].former[arn] = registration
            self._world.after(timing.REGISTRATION_FORGOTTEN, "ecs", "_forget_registration", cluster, arn)
        self._world.changed()

    def _forget_registration(self, cluster: str, arn: str) -> None:
        self.clusters[cluster].former.pop(arn, None)
        self._world.changed()

    def deregister(self, cluster: Cluster, registration: Registration, *, force: bool) -> None:
        if not force and any(task.desired_status == "RUNNING" for task in registration.live()):
            raise Refused("InvalidParameterException", "Found running tasks on the instance.")
        for task in list(registration.live()):
            self._stopped(cluster, task, "Container instance deregistration forced by user.", "UserInitiated")
        self._deregister(cluster.name, registration.arn)

    def set_status(self, registration: Registration, status: str) -> None:
        registration.status = status
        registration.version += 1
        self._world.changed()

    # Tasks

    def start_task(
        self,
        cluster: Cluster,
        definition: TaskDefinition,
        registration: Registration,
        *,
        group: str = "",
        started_by: str = "",
        running_since: float | None = None,
    ) -> Task:
        task = Task(
            self.arn(f"task/{cluster.name}/{self._world.ids.hex(32)}"),
            definition,
            registration,
            group or f"family:{definition.family}",
            self._world.now,
            started_by,
        )
        cluster.tasks[task.arn] = registration.tasks[task.arn] = task
        registration.version += 1
        if running_since is not None:
            task.created, task.started, task.last_status = running_since - timing.TASK_RUNNING, running_since, "RUNNING"
        else:
            self._world.after(timing.TASK_PENDING, "ecs", "_advance", cluster.name, task.arn, "PENDING")
            self._world.after(timing.TASK_RUNNING, "ecs", "_advance", cluster.name, task.arn, "RUNNING")
        self._world.changed()
        return task

    def stop_task(self, cluster: Cluster, task: Task, reason: str, code: str = "UserInitiated") -> None:
        if task.desired_status == "STOPPED":
            return
        task.desired_status, task.last_status = "STOPPED", "DEACTIVATING"
        task.stopping, task.stopped_reason, task.stop_code = self._world.now, reason, code
        self._touch(task)
        self._world.after(timing.TASK_STOPPING, "ecs", "_stopping", cluster.name, task.arn)

    def _advance(self, cluster: str, arn: str, status: str) -> None:
        task = self.clusters[cluster].tasks.get(arn)
        if task and task.desired_status == "RUNNING":
            task.last_status = status
            if status == "RUNNING":
                task.started = self._world.now
            self._touch(task)

    def _stopping(self, cluster: str, arn: str) -> None:
        task = self.clusters[cluster].tasks.get(arn)
        if task is None or task.last_status == "STOPPED":
            return
        task.last_status = "STOPPING"
        self._touch(task)
        seconds = float(self._world.conditions.get("slow-stop") or timing.TASK_STOPPED)
        self._world.after(seconds, "ecs", "_stop", cluster, arn)

    def _stop(self, cluster: str, arn: str) -> None:
        task = self.clusters[cluster].tasks.get(arn)
        if task is None or task.last_status == "STOPPED":
            return
        if "stuck-drain" in self._world.conditions:
            self._world.after(timing.TASK_STOPPED, "ecs", "_stop", cluster, arn)
        else:
            self._stopped(self.clusters[cluster], task, task.stopped_reason, task.stop_code)

    def _stopped(self, cluster: Cluster, task: Task, reason: str, code: str) -> None:
        task.desired_status = task.last_status = "STOPPED"
        task.stopped, task.stopped_reason, task.stop_code = self._world.now, reason, code
        task.stopping = task.stopping or self._world.now
        self._touch(task)
        self._world.after(timing.TASK_FORGOTTEN, "ecs", "_forget", cluster.name, task.arn)

    def _forget(self, cluster: str, arn: str) -> None:
        task = self.clusters[cluster].tasks.pop(arn, None)
        if task:
            task.registration.tasks.pop(arn, None)

    def _touch(self, task: Task) -> None:
        task.version += 1
        task.registration.version += 1
        self._world.changed()
