"""Processes that are killed, stopped and continued, take-overs, faults of AWS and operators, at random, over HTTP.

A mixture has a seed, which is printed. `make chaos N=500` runs one of these for every ten that it makes in memory
(tests/roll/test_mixtures.py, which knows more kinds of mishap).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from rackctl.errors import RackctlError
from rackctl.roll.view import RollOptions
from tests.local.rolls import Observer, Rolls

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess

_COUNT, _FIRST = (*map(int, os.environ.get("RACKCTL_MIXTURES", "").split()), 20, 0)[:2]
_SPEED = 200.0
_TRIES = 6
_SAMPLE = 3


class Mixture:
    """One local rack, what is done to it, and what it should come to."""

    def __init__(self, rolls: Rolls, chance: random.Random) -> None:
        self.rolls = rolls
        self.chance = chance
        self.hurts = False
        self.said: list[str] = []
        self.raised = self.lowered = 0
        self.options = ["--batch", chance.choice("112"), "--drain-timeout", "20m"]
        self.options += chance.choice([[], [], [], ["--no-surge"], ["--surge", "2"], ["--pause", "1m"]])

    def begin(self) -> None:
        """Roll, and do to the process and the rack what chance says."""
        process = self._start(*self.options)
        for act in self.chance.choices([self.kill, self.stop, self.fault, self.operate, self.take_over], k=3):
            self._wait(self.chance.uniform(0.2, 4))
            process = act(process)
        self._end(process)

    def end(self) -> None:
        """Resume or abort without anything that goes wrong until the roll is over."""
        self.rolls.process.faults.clear()
        for _ in range(_TRIES):
            if self.rolls.journal_is_gone():
                return
            self._end(self._go_on())
        assert self.rolls.journal_is_gone(), "the roll never ended"

    def _wait(self, seconds: float) -> None:
        self.rolls.clock.sleep(seconds * self.rolls.clock.speed)

    def _start(self, *words: str) -> subprocess.Popen[str]:
        print("keyroll", *words)
        return self.rolls.command(*words, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def _end(self, process: subprocess.Popen[str]) -> None:
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=240)
        self.said.append(said)
        print(f"status {process.returncode}\n{said}")
        assert "Traceback" not in said
        assert "error in rackctl itself" not in said

    def _go_on(self) -> subprocess.Popen[str]:
        status = self.rolls.roll.status()
        if status is not None and status.found.is_live:
            self._end(self._start("unlock", "--force"))
        aborting = status is not None and status.journal.phase == "aborting"
        return self._start("abort" if aborting or self.chance.random() < 0.2 else "resume")

    # Disturbances; each returns the process that runs the roll afterwards

    def kill(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        print("kill")
        process.kill()
        self._end(process)
        return process if self.rolls.journal_is_gone() else self._go_on()

    def stop(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """Ask it to stop, as with Ctrl-C."""
        print("interrupt")
        process.send_signal(self.chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
        self._end(process)
        return process if self.rolls.journal_is_gone() else self._go_on()

    def take_over(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """Have it stand still while another takes the roll over, and go on when that is through or under way."""
        print("stop and take over")
        process.send_signal(signal.SIGSTOP)
        if process.poll() is not None or self.rolls.journal_is_gone():
            process.send_signal(signal.SIGCONT)
            return process
        self._end(self._start("unlock", "--force"))
        another = self._start(self.chance.choice(["resume", "resume", "abort"]))
        if self.chance.random() < 0.5:
            self._end(another)
        else:
            self._wait(self.chance.uniform(0.2, 3))
        self._end(process)
        return another if another.returncode is None else process

    def fault(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        kind = self.chance.choice(["throttle", "error", "drop-before", "drop-after", "empty", "incomplete", "conflict"])
        pattern = {
            "conflict": "s3:PutObject",
            "empty": self.chance.choice(["ecs:List*", "ecs:Describe*", "autoscaling:DescribeAutoScalingGroups"]),
            "incomplete": self.chance.choice(["ecs:Describe*", "ecs:List*", "ec2:DescribeInstances"]),
        }.get(kind) or self.chance.choice(["*:*", "ecs:*", "autoscaling:*", "s3:*"])
        count = 1 if kind in {"empty", "incomplete"} else self.chance.randint(1, 4)
        print(f"fault {kind} {pattern} {count}")
        self.rolls.process.faults.add(kind, pattern, count=count)
        return process

    def operate(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        """Do what operators do to a group meanwhile."""
        client, group = self.rolls.process.client("autoscaling"), self.rolls.group
        name = group.auto_scaling_group_name
        ids = sorted(m.ec2_instance_id for m in group.instances if m.in_service)
        act = self.chance.choice(["detach", "standby", "raise", "terminate"])
        if not ids:
            return process
        which: dict[str, Any] = {"AutoScalingGroupName": name, "InstanceIds": [self.chance.choice(ids)]}
        print(f"operator: {act} {which['InstanceIds']}")
        with suppress(ClientError):
            match act:
                case "detach":
                    client.detach_instances(**which, ShouldDecrementDesiredCapacity=True)
                    self.lowered += 1
                case "standby":
                    client.enter_standby(**which, ShouldDecrementDesiredCapacity=True)
                    self.lowered += 1
                case "raise":
                    client.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=group.desired_capacity + 1)
                    self.raised += 1
                case "terminate":
                    self.hurts = True
                    client.terminate_instance_in_auto_scaling_group(
                        InstanceId=which["InstanceIds"][0], ShouldDecrementDesiredCapacity=False
                    )
        return process


@pytest.mark.timeout(600)
def test_a_wrong_answer_to_a_call_chosen_at_random_costs_no_task_and_leaves_nothing_behind(
    start_local_rack: Callable[..., LocalRackProcess], record_property: Callable[[str, object], None]
) -> None:
    # Over two seconds: these are several rolls. tests/roll/test_misreadings.py does each call, in memory.
    given = os.environ.get("RACKCTL_MISREAD", "")
    seed = int(given) if given else time.time_ns() % 2**32
    print(f"a sample: repeat it with RACKCTL_MISREAD={seed}")
    chance = random.Random(seed)
    rolls = Rolls(start_local_rack(speed=_SPEED))
    since = rolls.process.calls()[-1]["number"]
    list(rolls.roll.start(RollOptions()))
    reads = [f"{c['service']}:{c['action']}" for c in rolls.process.calls(since=since) if not c["mutating"]]
    asked = Counter(read for read in reads if read.startswith(("ecs", "ec2", "autoscaling")))
    for _ in range(_SAMPLE):
        kind, action = chance.choice(["empty", "incomplete", "late"]), chance.choice(sorted(asked))
        at = chance.randrange(asked[action])
        print(f"{kind} {action} after {at} of {asked[action]}")
        old = rolls.key_in_use()
        seconds = {"seconds": 15} if kind == "late" else {}
        rolls.process.faults.add(kind, action, skip=at, count=1, **seconds)
        with Observer(rolls.process) as observer:
            with suppress(RackctlError):  # it may stop, or refuse: what counts is what it leaves
                list(rolls.roll.start(RollOptions()))
            rolls.process.faults.clear()
            if not rolls.journal_is_gone():
                list(rolls.roll.resume())
            elif rolls.key_in_use() == old:
                list(rolls.roll.start(RollOptions()))
        assert observer.broken_promises == []
        assert old not in rolls.keys_of_instances()
        rolls.assert_given_back(3)
    record_property("disturbed", _SAMPLE)


def is_settled(rolls: Rolls) -> bool:
    """Return whether a group has its desired capacity, all in service or on standby."""
    group = rolls.group
    states = [m.lifecycle_state for m in group.instances]
    return states.count("InService") == group.desired_capacity and set(states) <= {"InService", "Standby"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(_FIRST, _FIRST + max(_COUNT // 10, 1)))
def test_a_mixture_of_mishaps_costs_no_task_and_leaves_nothing_behind(
    seed: int, start_local_rack: Callable[..., LocalRackProcess], record_property: Callable[[str, object], None]
) -> None:
    # Over two seconds: these are several rolls, each of a process and a server.
    print(f"repeat it with RACKCTL_MIXTURES='1 {seed}'")
    chance = random.Random(seed)
    capacity = chance.randint(2, 5)
    rolls = Rolls(start_local_rack(instances=capacity, speed=_SPEED))
    mixture = Mixture(rolls, chance)

    with Observer(rolls.process) as observer:
        mixture.begin()
        mixture.end()

    record_property("disturbed", 1)
    assert observer.samples
    assert mixture.hurts or observer.broken_promises == []
    rolls.process.wait_for(lambda: is_settled(rolls), "the group's end of changes", seconds=60)
    # While a change of the roll's own is not known to have been made, it cannot be told from an operator's: then the
    # larger capacity stays.
    more = mixture.raised + (2 if mixture.raised or mixture.lowered else 0)
    assert capacity - mixture.lowered <= rolls.group.desired_capacity <= capacity + more
    suspended = rolls.group.suspended_processes
    assert suspended == frozenset() or any("left AZRebalance suspended" in said for said in mixture.said)
    rolls.process.wait_for(lambda: rolls.statuses() <= {"ACTIVE"}, "every instance's being active")
    pairs, stored = set(rolls.key_pairs()), set(rolls.keys.names())
    assert pairs == stored == {*rolls.keys_of_instances(), rolls.key_in_use()}
