"""Whatever happens together during a roll: processes that end or stand still, take-overs, operators, faults of AWS.

Each seed is one rack and one mixture. After its last event, `resume` or `abort` is run until the roll has ended; then
an observer of the world, not of the APIs, checks what is left. `make chaos N=500` makes 500 of them.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.aws.errors import AwsError
from rackctl.clock import LAG
from rackctl.errors import RackctlError
from rackctl.local.world.base import Refused
from rackctl.roll.lock import JournalLost
from rackctl.roll.view import RollOptions
from tests.fakes.late import late_groups, slow_calls
from tests.fakes.world import Killed, Scene, add_group, outdate, replacing
from tests.roll.acts import JOURNAL
from tests.roll.test_misreadings import KINDS, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackctl.roll.report import Event

_COUNT, _FIRST = (*map(int, os.environ.get("RACKCTL_MIXTURES", "").split()), 40, 0)[:2]
# The number of `resume` or `abort` after which a roll counts as one that never ends.
_TRIES = 6
_LOCK = {"create", "replace", "delete"}
# The calls by which a roll concludes that an instance is empty, gone or not the rack's.
_EVIDENCE = {
    "container_instance_arns",
    "describe_container_instances",
    "tasks_on",
    "describe_tasks",
    "groups",
    "members",
    "_instances_by_id",
}

_REGISTERED_TWICE = ("registered-twice", "registered-twice-last", "registration-failed-twice")


@dataclass
class Mixture:
    """One rack, what is done to it, and what it should come to."""

    seed: int
    chance: random.Random = field(init=False)
    notes: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    raised: int = 0
    lowered: int = 0
    hurts: bool = False
    aborted: bool = False
    calm: bool = False
    in_another: bool = False
    # Whether the process whose calls these are has had the lock.
    holding: bool = False
    # Whether the process whose calls these are has lost the roll, and what it has changed since.
    lost: bool = False
    changed_after_loss: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        chance = self.chance
        instances = chance.randint(2, 6)
        self.scene = Scene(instances)
        self.scene.group.max_size = instances + chance.choice([0, 1, 1, 2, 3])
        if chance.random() < 0.4:
            add_group(self.scene, "prod-zzz", chance.randint(1, 3))
        if chance.random() < 0.5:
            self.scene.world.seed_service(
                self.scene.seeded, "extra", "i", "c", desired=chance.randint(1, instances), memory=64,
                minimum_percent=chance.choice([0, 50, 100]),
            )  # fmt: skip
        for id_ in sorted(self.scene.old):
            if chance.random() < 0.1:
                self.scene.world.befall(chance.choice(_REGISTERED_TWICE), id_)
        self.suspended = {"AlarmNotification"} if chance.random() < 0.2 else set()
        self.scene.group.suspended.update(dict.fromkeys(self.suspended, "User"))
        self.options = RollOptions(
            batch=chance.choice([1, 1, 2, 3]),
            surge=chance.choice([None, None, 0, 1, 2, 4]),
            drain_timeout=chance.choice([300.0, 900.0]),
            boot_timeout=chance.choice([300.0, 900.0]),
            keep_old_keys=chance.random() < 0.1,
            stop_standalone=chance.random() < 0.2,
            pause=chance.choice([0.0, 0.0, 0.0, 45.0]),
            alarms=("errors",) if chance.random() < 0.3 else (),
        )
        self.scene.world.alarms["errors"] = ("OK", "")
        self.scene.clock.sleep(60)
        self.scene.broken_promises.clear()
        self.scene.aws.terminated_busy.clear()
        self.desired = self.scene.desired
        reason = random.Random(-self.seed).choice(["key", "key", "outdated", "all"])
        if reason == "outdated":
            outdate(self.scene)
        elif reason == "all":
            replacing(self.scene, "all")

    def note(self, what: str) -> None:
        self.notes.append(f"{self.scene.clock.at - 1767323075:7.1f} {what}")

    # Disturbances

    def disturb(self) -> None:
        """Choose what goes wrong from now on."""
        chance, scene = self.chance, self.scene
        if chance.random() < 0.2:
            slow_calls(scene)
        if chance.random() < 0.2:
            late_groups(scene, chance.uniform(1, 15))
        for _ in range(chance.choice([0, 1, 2, 4])):
            scene.later(chance.uniform(1, 400), self._operator)
        faults = chance.choice([0.0, 0.0, 0.01, 0.03])
        stands_still = chance.choice([0.0, 0.005])
        scene.aws.interfering.append(lambda _, call, when: self._fault(call, when, faults))
        scene.aws.interfering.append(lambda number, call, when: self._stand_still(number, call, when, stands_still))
        if chance.random() < 0.5:
            scene.aws.misreading.append(self._misread)
        self._next_misreading = scene.clock.at + chance.uniform(0, 60)
        self._before: dict[str, tuple[float, Any]] = {}

    def _operator(self) -> None:  # noqa: C901 - one case for each act
        """Do one thing that operators do."""
        if self.calm:
            return
        chance, scene = self.chance, self.scene
        autoscaling = scene.world.autoscaling
        group = chance.choice(list(autoscaling.groups.values()))
        ids = in_service(group)
        act = chance.choice(
            ["detach", "standby", "raise", "lower", "activate", "terminate", "agent", "vanish", "alarm", "stop"]
        )
        if not ids:
            return
        id_ = chance.choice(ids)
        decrement = chance.random() < 0.7
        self.note(f"operator: {act} {id_} {decrement=}")
        with suppress(Refused):
            match act:
                case "detach":
                    autoscaling.detach(group, id_, decrement=decrement)
                    self.lowered += decrement
                case "standby":
                    autoscaling.set_standby(group, id_, standby=True, decrement=True)
                    self.lowered += 1
                case "raise":
                    autoscaling.set_desired(group, group.desired + 1)
                    self.raised += 1
                case "lower":
                    self.hurts = True  # Auto Scaling then ends an instance, undrained
                    autoscaling.set_desired(group, group.desired - 1)
                    self.lowered += 1
                case "activate":
                    for registration in scene.seeded.registrations.values():
                        if registration.status == "DRAINING" and registration.instance_id in scene.draining:
                            scene.world.ecs.set_status(registration, "ACTIVE")
                case "terminate":
                    self.hurts = True
                    autoscaling.terminate(id_, decrement=False)
                case "agent":
                    scene.world.befall("agent-off", id_)
                    scene.later(chance.uniform(5, 200), lambda: self._agent_on(id_))
                case "vanish":
                    self.hurts = True
                    scene.world.befall("vanish", id_)
                case "alarm":
                    scene.world.alarms["errors"] = (chance.choice(["OK", "ALARM", "INSUFFICIENT_DATA"]), "")
                case "stop":
                    scene.stop.signal = chance.choice([1, 2, 15])

    def _agent_on(self, id_: str) -> None:
        with suppress(Refused):
            self.scene.world.befall("agent-on", id_)

    def _fault(self, call: str, when: str, probability: float) -> None:
        """Have a call fail, before it takes effect or after it."""
        if self.calm or self.chance.random() >= probability / 2:
            return
        code = self.chance.choice(["InternalFailure", "ResourceContention", "", "Throttling"])
        self.note(f"fault: {call} {when} {code}")
        raise AwsError(f"AWS failed at {call}", code=code, refused=self.chance.random() < 0.1)

    def _misread(self, call: str, answer: Any) -> Any:
        """Have one answer in half a minute or more be wrong."""
        listed = list(answer) if hasattr(answer, "__next__") else answer
        now = self.scene.clock.at
        at, before = self._before.get(call, (0.0, None))
        self._before[call] = (now, listed)
        if not self.calm and now >= self._next_misreading and (call in _EVIDENCE or self.chance.random() < 0.1):
            self._next_misreading = now + LAG + self.chance.uniform(5, 90)
            kind = self.chance.choice(KINDS)
            self.note(f"misread: {call} {kind}")
            listed = wrong(kind, listed, before if now - at <= LAG else None)
        return iter(listed) if hasattr(answer, "__next__") else listed

    def _stand_still(self, number: int, call: str, when: str, probability: float) -> None:
        """Have the process stand still at a call that reads, as by SIGSTOP, while another takes the roll over."""
        if self.lost and number >= 0 and when == "before" and call not in _LOCK and not self.in_another:
            self.changed_after_loss.append(call)
        if self.calm or self.in_another or self.lost or number >= 0 or self.chance.random() >= probability:
            return
        if JOURNAL not in self.scene.aws.objects or not self.holding:
            return
        self.note(f"stands still at {call}")
        self.in_another = True
        try:
            self.scene.clock.sleep(self.chance.uniform(2, 60))
            with suppress(RackctlError):
                self.scene.roll.unlock(force=True)
                self.lost = True
                self.scene.clock.sleep(self.chance.uniform(0, 30))
                self._go_on(self.chance.choice([10, 100, 10_000]))
        finally:
            self.in_another = False
        self.note("goes on")

    # Processes

    def _run(self, events: Iterator[Event], most: int = 10_000) -> None:
        """Follow a roll to its end, or for so many events and no further, as one that is killed then."""
        before = self.holding
        try:
            for number, event in enumerate(events):
                # It says something for the first time when it has the lock.
                self.holding = True
                self.said.append(event.message)
                self.note(event.message)
                if number >= most:
                    break
        finally:
            self.holding = before

    def _go_on(self, most: int = 10_000) -> None:
        """Resume or abort the roll that there is."""
        status = self.scene.roll.status()
        if status is None:
            return
        aborting = status.journal.phase == "aborting" or self.chance.random() < 0.25
        self.aborted |= aborting
        self.note("abort" if aborting else "resume")
        self._run((self.scene.roll.abort if aborting else self.scene.roll.resume)(), most)

    def attempt(self, act: Callable[[], None]) -> None:
        """Have one process do something until it is through, is stopped, fails, or is killed."""
        killed_at = len(self.scene.aws.mutations) + self.chance.randrange(3, 120)
        moment = self.chance.choice(["before", "after"])

        def kill(number: int, call: str, when: str) -> None:
            if not self.calm and not self.in_another and (number, when) == (killed_at, moment):
                raise Killed(call)

        self.scene.aws.interfering.append(kill)
        self.lost = False
        try:
            act()
        except Killed as killed:
            self.note(f"killed {moment} {killed}")
        except JournalLost:
            self.note("lost the roll")
        except RackctlError as error:
            self.note(f"{type(error).__name__}: {error}")
        finally:
            self.scene.aws.interfering.remove(kill)
            self.scene.stop.signal = 0
            self.lost = False

    def roll(self) -> None:
        """Roll, with everything that goes wrong, and then without."""
        self.disturb()
        self.attempt(lambda: self._run(self.scene.roll.start(self.options, self.scene.selection)))
        for _ in range(self.chance.randrange(3)):
            if JOURNAL not in self.scene.aws.objects:
                break
            self._let_be()
            self.attempt(self._go_on)
        self.calm = True
        self.scene.world.alarms["errors"] = ("OK", "")
        self.note("calm")
        for id_ in self.scene.world.ec2.instances:
            self._agent_on(id_)
        for _ in range(_TRIES):
            if JOURNAL not in self.scene.aws.objects:
                break
            self._let_be()
            self.attempt(self._go_on)

    def _let_be(self) -> None:
        """Let the time pass after which a roll counts as dead, or unlock it at once."""
        if self.chance.random() < 0.5:
            self.scene.clock.sleep(400)
            return
        self.scene.clock.sleep(30)
        with suppress(RackctlError):
            self.scene.roll.unlock(force=True)

    # The final state

    def problems(self) -> Iterator[str]:
        scene = self.scene
        scene.clock.sleep(600)
        if JOURNAL in scene.aws.objects:
            yield "the roll never ended"
            return
        if scene.broken_promises and not self.hurts:
            yield f"services fell short {len(scene.broken_promises)} times: {scene.broken_promises[0]}"
        if scene.aws.terminated_busy:
            yield f"terminated with tasks on them: {scene.aws.terminated_busy}"
        if self.changed_after_loss:
            yield f"changed after the roll was lost: {self.changed_after_loss}"
        lowest, highest = self.desired - self.lowered, self.desired + self.raised
        if self.raised or self.lowered:
            # While a change of the roll's own is not known to have been made, it cannot be told from an operator's:
            # then the larger capacity stays.
            highest += self.options.batch
        if not lowest <= scene.desired <= highest:
            yield f"the desired capacity is {scene.desired}, not from {lowest} to {highest}"
        for group in scene.world.autoscaling.groups.values():
            left = set(group.suspended) - self.suspended
            if left and not (left == {"AZRebalance"} and any("left AZRebalance suspended" in s for s in self.said)):
                yield f"{left} of {group.name} suspended"
            if len(in_service(group)) != group.desired:
                yield f"{group.name} has {len(in_service(group))} of {group.desired}"
        if scene.draining:
            yield f"left draining: {scene.draining}"
        yield from self._problems_of_keys()

    def _problems_of_keys(self) -> Iterator[str]:
        scene = self.scene
        ids = [id_ for group in scene.world.autoscaling.groups.values() for id_ in in_service(group)]
        members = {scene.world.ec2.instances[id_].key_name for id_ in ids}
        needed, pairs, stored = {*scene.key_names, *scene.keys_in_templates}, scene.key_pairs, set(scene.keys.names())
        if len(scene.keys_in_templates) != 1:
            yield f"templates launch with {scene.keys_in_templates}"
        if not self.aborted and len(members) > 1:
            yield f"members have keys {members}"
        of_group = set(in_service(scene.group)) & set(scene.old)
        if not self.aborted and of_group and any(said.startswith("replaced ") for said in self.said):
            yield f"not replaced: {sorted(of_group)}"
        if not needed <= pairs & stored:
            yield f"{needed} are needed, there are pairs {pairs} and stored {stored}"
        if pairs != stored or (not self.options.keep_old_keys and pairs != needed):
            yield f"pairs {pairs}, stored {stored}, needed {needed}"


def in_service(group: Any) -> list[str]:
    return sorted(m.instance_id for m in group.members.values() if m.lifecycle_state == "InService")


@pytest.mark.parametrize("seed", range(_FIRST, _FIRST + _COUNT))
def test_a_mixture_of_mishaps_costs_no_task_and_leaves_nothing_behind(
    seed: int, record_property: Callable[[str, object], None]
) -> None:
    print(f"repeat it with RACKCTL_MIXTURES='1 {seed}'")
    mixture = Mixture(seed)

    mixture.roll()

    record_property("disturbed", 1)
    print("\n".join(mixture.notes))
    assert list(mixture.problems()) == []
