"""One instance of a rack as EC2, ECS and Auto Scaling see it, joined from what the three say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from rackctl.model import ContainerInstance, GroupInstance, Instance


def preferred(registration: ContainerInstance) -> tuple[bool, bool, float]:
    """Order the registrations of one instance; the largest is the one that counts.

    A retried RegisterContainerInstance, or an agent that has lost its state, leaves a second registration behind:
    connected before not, ACTIVE or DRAINING before any other status, then the newest.
    https://github.com/aws/amazon-ecs-agent/issues/782
    """
    registered_at = registration.registered_at.timestamp() if registration.registered_at else 0.0
    return registration.agent_connected, registration.is_alive, registered_at


@dataclass(frozen=True, slots=True)
class RackInstance:
    """One instance as EC2, ECS and Auto Scaling see it; each of the three may not know it.

    ``registrations`` are those with the rack's cluster, the one that counts first; ``member`` is what its Auto Scaling
    group says, where that was asked for; ``outdated`` whether it was launched from something else than its group
    launches from now, None where that was not asked for or is not known. Build it with `rack_instance`, which orders
    the registrations.
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
        """The registrations that a drain has to follow: the one that counts and others whose agent is connected."""
        living = [r for r in self.registrations if r.is_alive]
        return tuple(r for n, r in enumerate(living) if n == 0 or r.agent_connected)

    @property
    def abandoned_tasks(self) -> int:
        """How many tasks ECS shows on registrations whose agent is off, and which nothing can move."""
        return sum(r.tasks_count for r in self.registrations if r.is_alive and not r.agent_connected)

    @property
    def is_external(self) -> bool:
        """Whether it is a machine registered by ECS Anywhere, which EC2 does not know."""
        return self.ec2_instance_id.startswith("mi-")

    @property
    def status(self) -> str:
        """One lower-case word for what it is doing.

        An instance that EC2 is stopping or terminating shows EC2's word, even while ECS has yet to notice.
        Otherwise the ECS status; ``unregistered`` for one that runs and ECS does not know; ``gone`` for a
        registration whose agent is off and whose instance EC2 does not know, or has terminated.
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
        """Whether EC2 or its group is terminating it, or has done so."""
        return bool((self.instance and self.instance.is_terminating) or (self.member and self.member.is_terminating))

    @property
    def agent_connected(self) -> bool:
        return bool(self.container_instance and self.container_instance.agent_connected)

    @property
    def running_tasks_count(self) -> int:
        """Running tasks, of all its registrations."""
        return sum(registered.running_tasks_count for registered in self.registrations)

    @property
    def pending_tasks_count(self) -> int:
        return sum(registered.pending_tasks_count for registered in self.registrations)

    @property
    def can_take_tasks(self) -> bool:
        """Whether its group, ECS and its agent all say that it can take tasks."""
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
        """When it was launched, even if it was stopped and started since."""
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
        """Return how far a new instance is, in a few words."""
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
    """Join what the three services say of one instance."""
    return RackInstance(ec2_instance_id, instance, tuple(sorted(registrations, key=preferred, reverse=True)), member)


def _reserved(registered: int, remaining: int) -> float | None:
    return (registered - remaining) / registered * 100 if registered else None
