"""`rackctl instances show`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.completers import complete_instance
from rackctl.cli.console import AWS, note, stdout_canvas, waiting_for
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import output_option
from rackctl.text import ago, listed, printable, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from rackctl.details import Details
    from rackctl.model import Task


@click.command(cls=RackCommand)
@click.argument("ec2_instance_id", metavar="ID", shell_complete=complete_instance)
@output_option("text")
@pass_invocation
def show(invocation: Invocation, ec2_instance_id: str, output: str) -> None:
    """Show everything about the instance ID: its tasks, group and recent events.

    ID is the id, its start (at least 4 characters after "i-"), an address, a DNS name or a Name tag that only one
    instance has. The JSON has the fields of the list and those of the tasks, the group and the events.

    \b
    Examples:
      rackctl instances show i-0a321c8b
      rackctl instances show ip-10-0-1-17.ec2.internal
      rackctl instances show -o json i-0a32 | jq -r '.tasks[].containers[].image'
    """
    from rackctl.details import details
    from rackctl.rack_instance import rack_instance

    with waiting_for(AWS):
        instance = invocation.instances.match(ec2_instance_id)
        id_ = instance.ec2_instance_id
        found = details(invocation.rack, rack_instance(id_, instance, invocation.instances.registrations(id_)))
    for error in found.unknown:
        note(f"{error}{f' ({error.hint})' if error.hint else ''}")
    if output == "json":
        click.echo(json.dumps(_fields(found, invocation.clock.now()), indent=2))
    else:
        click.echo(_text(found, invocation.clock.now(), stdout_canvas(invocation.environment).width))


def _fields(found: Details, now: datetime) -> dict[str, Any]:
    from rackctl.cli.selection import fields

    template = found.member.launch_template if found.member else None
    return {
        **fields(found.instance, now),
        "lifecycle_state": found.member.lifecycle_state if found.member else None,
        "launch_template": template and {"id": template.launch_template_id, "version": template.version},
        "group_capacity": found.group
        and {"min": found.group.min_size, "desired": found.group.desired_capacity, "max": found.group.max_size},
        "group_zones": list(found.group.availability_zones) if found.group else None,
        "tasks": [
            {
                "arn": task.task_arn,
                "service": task.service_name or None,
                "status": task.last_status,
                "containers": [
                    {
                        "name": container.name,
                        "image": container.image or None,
                        "status": container.last_status or None,
                        "ports": [
                            {"host": b.host_port, "container": b.container_port, "protocol": b.protocol}
                            for b in container.port_bindings
                        ],
                    }
                    for container in task.containers
                ],
            }
            for task in found.tasks
        ],
        "events": [{"at": rfc3339(e.at), "source": e.source, "message": e.message} for e in found.events],
    }


def _text(found: Details, now: datetime, width: int) -> str:
    from rackctl.cli.render import table

    facts = [(name, printable(value, kept="")) for name, value in _facts(found, now) if value]
    longest = max(len(name) for name, _ in facts)
    parts = ["\n".join(f"{name:<{longest}}  {value}" for name, value in facts)]
    if found.tasks:
        rows = [row for task in found.tasks for row in _rows(task)]
        parts.append(table(["TASK", "SERVICE", "STATUS", "CONTAINER", "PORTS", "IMAGE"], rows, width=width))
    elif found.instance.container_instance:
        parts.append("No tasks.")
    if found.events:
        events = ([ago(e.at, now), e.source, e.message] for e in found.events)
        parts.append(table(["WHEN", "FROM", "EVENT"], events, width=width))
    return "\n\n".join(parts)


def _facts(found: Details, now: datetime) -> Iterator[tuple[str, str]]:
    ec2, ecs, started = found.instance.instance, found.instance.container_instance, found.instance.started
    yield "ID", found.instance.ec2_instance_id
    if ec2:
        yield "Name", ec2.tags.get("Name", "")
    state = f"EC2 {ec2.state}" if ec2 else "unknown to EC2"
    reason = f": {ecs.status_reason}" if ecs and ecs.status_reason else ""
    registered = f"ECS {ecs.status}{reason}" if ecs else "not registered with ECS"
    yield "Status", f"{found.instance.status} ({state}, {registered})"
    if ecs:
        version = f", version {ecs.agent_version}" if ecs.agent_version else ""
        yield "Agent", f"{'on' if ecs.agent_connected else 'off'}{version}"
        yield "CPU", f"{ecs.registered.cpu - ecs.remaining.cpu} of {ecs.registered.cpu} units reserved"
        yield "Memory", f"{ecs.registered.memory - ecs.remaining.memory} of {ecs.registered.memory} MiB reserved"
    if started:
        yield "Started", f"{ago(started, now)} ({rfc3339(started)})"
    if ec2:
        yield "Type", ec2.instance_type
        yield "Zone", ec2.availability_zone
        addresses = {"private": ec2.private_ip, "public": ec2.public_ip, "IPv6": ec2.ipv6_address}
        yield "Addresses", ", ".join(f"{address} ({kind})" for kind, address in addresses.items() if address)
        yield "DNS names", ", ".join(filter(None, (ec2.private_dns_name, ec2.public_dns_name)))
        yield "Key pair", ec2.key_name
    yield from _group_facts(found)
    if ecs:
        yield "Registration", ecs.container_instance_arn


def _group_facts(found: Details) -> Iterator[tuple[str, str]]:
    if found.member:
        yield "Group", f"{found.member.auto_scaling_group_name} ({found.member.lifecycle_state})"
    if group := found.group:
        yield "Capacity", f"desired {group.desired_capacity}, minimum {group.min_size}, maximum {group.max_size}"
        yield "Group zones", listed(group.availability_zones)
    if found.member and (template := found.member.launch_template):
        named = f"{template.launch_template_name or template.launch_template_id} version {template.version}"
        yield "Template", f"{named}{' (outdated)' if found.instance.outdated else ''}"


def _rows(task: Task) -> Iterator[list[str]]:
    """Yield a row for each container; the first names the task."""
    named = [task.task_arn.rpartition("/")[2], task.service_name, task.last_status]
    for container in task.containers:
        ports = ", ".join(f"{b.host_port}->{b.container_port}/{b.protocol}" for b in container.port_bindings)
        yield [*named, container.name, ports, container.image]
        named = ["", "", ""]
    if not task.containers:
        yield [*named, "", "", ""]
