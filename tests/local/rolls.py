"""Rolls of a local rack, and an observer that counts its services' tasks without the APIs."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.cli.invocation import Invocation
from rackctl.instances import Instances
from rackctl.keys import KeyStore
from rackctl.roll.hold import StopRequest
from rackctl.roll.roll import Roll
from rackctl.roll.view import KEYROLL, RollOptions, Selection
from tests.local.fast import FastClock

if TYPE_CHECKING:
    from rackctl.errors import RackctlError
    from rackctl.instance_refresh import InstanceRefresh
    from rackctl.model import AutoScalingGroup
    from rackctl.roll.report import Event
    from tests.local_rack import LocalRackProcess

SAMPLED_EVERY = 0.1
# Timeouts that a test can wait for.
SOON = RollOptions(drain_timeout=120, boot_timeout=200)
# A roll in this process, with its calls and logins, keeps up with a rack that is so fast.
SPEED = 100.0


class Observer:
    """Samples a rack's services every tenth of a second, and remembers what they fell short of."""

    def __init__(self, rack: LocalRackProcess, cluster: str = "") -> None:
        self._rack = rack
        self._cluster = cluster
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.samples = 0
        self.broken_promises: list[str] = []

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLED_EVERY):
            self.samples += 1
            for name, service in self._rack.services(self._cluster).items():
                promised = math.ceil(service["desired"] * service["minimum_percent"] / 100)
                if service["strategy"] == "REPLICA" and service["running"] < promised:
                    self.broken_promises.append(f"{name}: {service['running']} of {promised}")


class Rolls:
    """The rolls of one local rack, in this process and in others."""

    def __init__(self, process: LocalRackProcess) -> None:
        self.process = process
        self.rack = process.rack
        self.aws = process.aws
        self.clock = FastClock(process.options.speed)
        self.stop = StopRequest()
        self.selection = KEYROLL

    @property
    def roll(self) -> Roll:
        invocation = Invocation(environment=self.process.environment, clock=self.clock)
        return Roll(
            self.rack,
            Instances(self.rack, self.clock),
            self.keys,
            self.clock,
            login=invocation.start_proof,
            stop=self.stop,
        )

    @property
    def keys(self) -> KeyStore:
        return KeyStore(self.rack)

    def command(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start `rackctl instances keyroll …`, or `replace` if that is what is rolled, as a process."""
        command = self.selection.command
        return subprocess.Popen(
            [sys.executable, "-m", "tests.local.fast", f"{self.clock.speed}", "instances", command, *words],
            text=True,
            **{"env": self.process.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def outdate(self) -> None:
        """Have the group launch from another version, with another image, and roll what is outdated from now on."""
        self.selection = Selection("outdated")
        ec2, (ref,) = self.process.client("ec2"), self.group.launch_templates
        source = self.aws.ec2.launch_template_version(ref)
        made = ec2.create_launch_template_version(
            LaunchTemplateId=source.launch_template_id,
            SourceVersion=str(source.version_number),
            LaunchTemplateData={"ImageId": f"ami-{source.version_number + 1:017x}"},
        )["LaunchTemplateVersion"]["VersionNumber"]
        self.process.client("autoscaling").update_auto_scaling_group(
            AutoScalingGroupName=self.group.auto_scaling_group_name,
            LaunchTemplate={"LaunchTemplateId": source.launch_template_id, "Version": str(made)},
        )

    def drain_by_ecs(self) -> None:
        """Put the group behind a capacity provider with managed draining."""
        self.process.set_condition("managed-draining")
        self.process.__dict__.pop("rack", None)  # which has read its cluster once
        self.rack = self.process.rack
        self.aws = self.process.aws

    def refreshes(self) -> list[InstanceRefresh]:
        """Return the group's instance refreshes, the newest first."""
        return self.aws.autoscaling.instance_refreshes(self.group.auto_scaling_group_name)

    # State

    def images(self) -> set[str]:
        """Return the images of the instances that stay."""
        found = self.process.client("ec2").describe_instances()["Reservations"]
        instances = [i for reservation in found for i in reservation["Instances"]]
        return {i["ImageId"] for i in instances if i["State"]["Name"] in {"pending", "running"}}

    def image_in_use(self) -> str:
        """Return the image that the group launches."""
        (template,) = self.group.launch_templates
        return self.aws.ec2.launch_template_version(template).image_id

    @property
    def groups(self) -> list[AutoScalingGroup]:
        return self.aws.autoscaling.all_groups()

    @property
    def group(self) -> AutoScalingGroup:
        return self.groups[0]

    def keys_of_instances(self) -> list[str]:
        found = self.aws.ec2.instances_tagged({"Rack": self.rack.name})
        return [i.key_name for i in found if not i.is_terminating]

    def key_pairs(self) -> list[str]:
        pairs = self.process.client("ec2").describe_key_pairs()["KeyPairs"]
        return sorted(pair["KeyName"] for pair in pairs)

    def key_in_use(self) -> str:
        """Return the key that the group launches with."""
        (template,) = self.group.launch_templates
        return self.aws.ec2.launch_template_version(template).key_name

    def changes(self) -> int:
        """Count the calls that changed something; a plan tries a conditional write, which S3 refuses."""
        return sum((call["status"] or 200) < 400 for call in self.process.calls(mutating=True))

    def journal_is_gone(self) -> bool:
        return self.rack.store.get(f"{self.rack['prefix']}/roll.json") is None

    def statuses(self) -> set[str]:
        listed = Instances(self.rack, self.clock).list()
        # ECS keeps the registration of an instance that ended while its agent was off.
        return {
            i.container_instance.status
            for i in listed
            if i.container_instance and i.instance and not i.instance.is_terminating
        }

    def statuses_by_id(self) -> dict[str, bool]:
        """Map the registered running instances to whether they can take tasks."""
        listed = Instances(self.rack, self.clock).list()
        return {
            i.ec2_instance_id: i.container_instance.status == "ACTIVE" and i.agent_connected
            for i in listed
            if i.container_instance and i.instance
        }

    def assert_given_back(self, capacity: int) -> None:
        """Check what must be so after every roll, however it has ended."""
        group = self.group
        assert group.desired_capacity == capacity
        assert group.suspended_processes == frozenset()
        assert self.journal_is_gone()
        self.process.wait_for(lambda: self.statuses() <= {"ACTIVE"}, "every instance's being active")
        self.process.wait_for(lambda: len(self.keys_of_instances()) == capacity, f"{capacity} instances")
        named = {*self.keys_of_instances(), self.key_in_use()} - {""}
        pairs, stored = set(self.key_pairs()), set(self.keys.names())
        assert pairs == named, f"key pairs {pairs}; named by anything {named}"
        assert stored == named, f"stored keys {stored}; named by anything {named}"


def put_alarm(process: LocalRackProcess, name: str, state: str = "OK", reason: str = "as it should be") -> None:
    """Make a metric alarm, or set the state of the one that there is."""
    cloudwatch = process.client("cloudwatch")
    if not cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"]:
        cloudwatch.put_metric_alarm(
            AlarmName=name, Namespace="prod", MetricName="5xx", Statistic="Sum", Period=60, EvaluationPeriods=1,
            Threshold=5, ComparisonOperator="GreaterThanThreshold",
        )  # fmt: skip
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=reason)


def texts(events: list[Event]) -> str:
    return "\n".join(event.message for event in events)


def start(rolls: Rolls, options: RollOptions = SOON) -> list[Event]:
    with Observer(rolls.process) as observer:
        events = list(rolls.roll.start(options, rolls.selection))
    assert observer.broken_promises == []
    assert observer.samples
    return events


def fails(rolls: Rolls, error: type[RackctlError], says: str, options: RollOptions = SOON) -> RackctlError:
    """Roll, and see it end in an error without a service having noticed."""
    with Observer(rolls.process) as observer, pytest.raises(error, match=says) as caught:
        list(rolls.roll.start(options))
    assert observer.broken_promises == []
    return caught.value


def assert_ssh_works_on_each(rolls: Rolls) -> None:
    invocation = Invocation(environment=rolls.process.environment)
    for instance in rolls.aws.ec2.instances_tagged({"Rack": rolls.rack.name}):
        if not instance.is_terminating:
            generation = invocation.keys.generations(instance.key_name)[-1]
            proof = invocation.start_proof(instance, generation)
            login = rolls.process.wait_for(proof, f"the outcome of the login to {instance.ec2_instance_id}")
            assert (login.outcome, login.detail) == ("accepted", "")
