"""One instance of a rack, joined from the documents of EC2, ECS and Auto Scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from rackctl.model import ContainerInstance, GroupInstance, Instance


def preferred(registration: ContainerInstance) -> tuple[bool, bool, float]:
    """Return the sort key of an instance's registrations; the largest counts.

    A retried RegisterContainerInstance, or an agent that has lost its state, leaves a second registration behind:
    connected before not, ACTIVE or DRAINING before any other status, then the newest.
    https://github.com/aws/amazon-ecs-agent/issues/782
    """
    registered_at = registration.registered_at.timestamp() if registration.registered_at else 0.0
    return registration.agent_connected, registration.is_alive, registered_at


@dataclass(frozen=True, slots=True)
class RackInstance:
    """One instance, joined from EC2, ECS and Auto Scaling; any of the three may have no document of it.

    ``registrations`` are those with the rack's cluster, the one that counts first; ``member`` is its Auto Scaling
    group's entry for it, if that was fetched. ``outdated`` is whether it was launched from another source than those
    that its group launches from now; None if that was not fetched or is not known. Build it with `rack_instance`, which
    orders the registrations.
    """

    ec2_instance_id: str
    instance: Instance | None = None
    registrations: tuple[ContainerInstance, ...] = ()
    member: GroupInstance | None = None
    outdated: bool | None = None

    @property
    def container_instance(self) -> ContainerInstance | None:
        """The registration that counts."""
        return self.registrations[0] if self.registrations else None

    @property
    def living_registrations(self) -> tuple[ContainerInstance, ...]:
        """The registrations that a drain must include: the one that counts, and others whose agent is connected."""
        living = [r for r in self.registrations if r.is_alive]
        return tuple(r for n, r in enumerate(living) if n == 0 or r.agent_connected)

    @property
    def abandoned_tasks(self) -> int:
        """The number of tasks on registrations whose agent is off. ECS cannot move them."""
        return sum(r.tasks_count for r in self.registrations if r.is_alive and not r.agent_connected)

    @property
    def is_external(self) -> bool:
        """Whether it is a machine of ECS Anywhere, which EC2 does not describe."""
        return self.ec2_instance_id.startswith("mi-")

    @property
    def status(self) -> str:
        """Its status, in one lower-case word.

        If EC2 is stopping or terminating it, EC2's state, even if ECS still reports ACTIVE. Else the ECS status;
        ``unregistered`` if it runs without a registration; ``gone`` for a registration whose agent is off and whose
        instance EC2 does not describe or has terminated.
        """
        registered = self.container_instance
        if self.instance is None:
            known = registered and (registered.agent_connected or self.is_external)
            return registered.status.lower() if registered and known else "gone"
        state = self.instance.state
        if registered is None:
            return "unregistered" if state == "running" else state
        if state == "terminated":
            return "gone"
        return registered.status.lower() if state in {"pending", "running"} else state

    @property
    def is_terminating(self) -> bool:
        """Whether EC2 or its group is terminating it or has terminated it."""
        return bool((self.instance and self.instance.is_terminating) or (self.member and self.member.is_terminating))

    @property
    def agent_connected(self) -> bool:
        return bool(self.container_instance and self.container_instance.agent_connected)

    @property
    def running_tasks_count(self) -> int:
        """The running tasks of all its registrations."""
        return sum(registered.running_tasks_count for registered in self.registrations)

    @property
    def pending_tasks_count(self) -> int:
        return sum(registered.pending_tasks_count for registered in self.registrations)

    @property
    def can_take_tasks(self) -> bool:
        """Whether it is in service, registered as ACTIVE, and its agent connected."""
        registered = self.container_instance
        return bool(
            registered
            and registered.status == "ACTIVE"
            and registered.agent_connected
            and self.member
            and self.member.in_service
            and not self.is_terminating
        )

    @property
    def started(self) -> datetime | None:
        if self.instance:
            return self.instance.launch_time
        return self.container_instance.registered_at if self.container_instance else None

    @property
    def first_started(self) -> datetime | None:
        """The time of its launch, even if it was stopped and started since."""
        return self.instance.first_launch_time if self.instance else self.started

    @property
    def cpu_percent(self) -> float | None:
        """Share of registered CPU that tasks reserve, 0 to 100; None when nothing is registered."""
        ci = self.container_instance
        return _reserved(ci.registered.cpu, ci.remaining.cpu) if ci else None

    @property
    def memory_percent(self) -> float | None:
        """Share of registered memory that tasks reserve, 0 to 100; None when nothing is registered."""
        ci = self.container_instance
        return _reserved(ci.registered.memory, ci.remaining.memory) if ci else None

    def describe(self) -> str:
        """Return the progress of a new instance in a few words."""
        state, registered = self.member.lifecycle_state if self.member else "", self.container_instance
        if self.can_take_tasks:
            return "in service, registered, agent connected"
        if registered is None:
            return f"{state}, not registered with ECS" + (" yet" if state == "InService" else "")
        reason = f" ({registered.status_reason})" if registered.status_reason else ""
        return f"{state}, {registered.status}{reason}, agent {'on' if registered.agent_connected else 'off'}"


def rack_instance(
    ec2_instance_id: str,
    instance: Instance | None,
    registrations: Iterable[ContainerInstance],
    member: GroupInstance | None = None,
) -> RackInstance:
    """Join the documents that the three services have of one instance."""
    return RackInstance(ec2_instance_id, instance, tuple(sorted(registrations, key=preferred, reverse=True)), member)


def _reserved(registered: int, remaining: int) -> float | None:
    return (registered - remaining) / registered * 100 if registered else None
