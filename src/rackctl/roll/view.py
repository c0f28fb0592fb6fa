"""What one look at a group found, as values: all that `decide`, `problems` and the plan know.

Three-valued where AWS is: what was not reported is unknown (None, or ``unknown``), never empty and never gone. Times
are seconds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from rackctl.model import KeyType

# ECS reports it; it could not register; ECS was asked for it by id and has answered for a while that it is not
# registered with this cluster; ECS has not reported it, for whatever reason.
Registration = Literal["registered", "failed", "absent", "unknown"]
# The options that give up what may run on an instance.
FORCE = "--force"
INCLUDE_UNREGISTERED = "--include-unregistered"
Goal = Literal["replace", "restore"]


# What carries a roll out: rackctl itself, instance by instance, or Auto Scaling's instance refresh.
Engine = Literal["rackctl", "refresh"]
# A new SSH key; another launch than the group's present one; all; those of an age; those that were named.
Kind = Literal["key", "outdated", "all", "age", "ids"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which instances a roll replaces, and why.

    ``older_than`` is the age in seconds that *age* means, ``ec2_instance_ids`` are what *ids* means. ``groups`` are the
    names of the groups that are rolled, none for all of the rack's.
    """

    kind: Kind = "key"
    older_than: float = 0.0
    ec2_instance_ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        """What a roll of this selection is called."""
        return "keyroll" if self.kind == "key" else "replacement"

    @property
    def command(self) -> str:
        """The subcommand of `rackctl instances` that rolls it."""
        return "keyroll" if self.kind == "key" else "replace"


KEYROLL = Selection()


@dataclass(frozen=True, slots=True)
class RollOptions:
    """How to roll. Times are seconds.

    ``batch`` is how many instances may be drained and terminated at once, ``surge`` by how many a group may grow
    meanwhile: None for as many as the batch. ``pause`` is how long to wait between batches, ``checked`` whether a
    command says after each whether to go on, ``alarms`` are those that stop a roll. ``drain_hook`` is a terminating
    lifecycle hook that is known to drain, for an instance refresh of groups without managed draining.
    """

    batch: int = 1
    surge: int | None = None
    drain_timeout: float = 900.0
    boot_timeout: float = 900.0
    key_type: KeyType = "ed25519"
    force: bool = False
    stop_standalone: bool = False
    require_ssh: bool = False
    out_of_band: bool = False
    shared_key_pair: bool = False
    include_unregistered: bool = False
    keep_old_keys: bool = False
    reason: str = ""
    engine: Engine = "rackctl"
    drain_hook: str = ""
    pause: float = 0.0
    alarms: tuple[str, ...] = ()
    checked: bool = False
    check_timeout: float = 600.0

    @property
    def ends_batches(self) -> bool:
        """Whether something comes between two batches, so that one has to be over before the next."""
        return self.pause > 0 or self.checked

    @property
    def extra(self) -> int:
        """How many instances more a group may have."""
        return self.batch if self.surge is None else self.surge


@dataclass(frozen=True, slots=True)
class Drain:
    """A drain that this process follows: tasks left, how long it has taken, and whether it is seen to be over.

    ``asked`` is how long ago it was set to DRAINING; ``blocked`` names the tasks that are left.
    """

    left: int
    elapsed: float = 0.0
    asked: float = 0.0
    is_over: bool = False
    blocked: str = ""


@dataclass(frozen=True, slots=True)
class Unsteady:
    """A service whose tasks were moved and that is not seen to be steady since, why, and for how long it has not."""

    service_name: str
    why: str
    lasting: float = 0.0


@dataclass(frozen=True, slots=True)
class AlarmSeen:
    """An alarm that stops a roll: its state, empty where CloudWatch does not report it, and for how long it is so."""

    alarm_name: str
    state: str
    reason: str = ""
    lasting: float = 0.0


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group as Auto Scaling, EC2 and ECS report it.

    ``is_old`` says whether it is to be replaced, None while EC2 does not report it. ``is_confirmed`` says that ECS was
    asked for it by id and has reported no registration that lives. ``tasks`` is how many ECS counts
    on it, ``abandoned`` how many of them no agent can stop. ``agent_off_for``, ``unready_for`` and ``unreported_for``
    are how long its agent has been off, it has been unable to take tasks, and ECS or EC2 has not reported it, 0 where
    that is not so. ``is_kept`` marks one that was there before the roll and is not to be replaced; ``is_late`` an old
    instance that has come although its group launches new ones by now;
    ``is_ours`` one that was launched after the roll had begun.
    """

    ec2_instance_id: str
    availability_zone: str = ""
    lifecycle_state: str = "InService"
    is_old: bool | None = True
    registration: Registration = "registered"
    is_confirmed: bool = False
    is_active: bool = True
    agent_connected: bool = True
    tasks: int = 0
    abandoned: int = 0
    agent_off_for: float = 0.0
    unready_for: float = 0.0
    unreported_for: float = 0.0
    is_terminating: bool = False
    is_gone: bool = False
    is_kept: bool = False
    is_late: bool = False
    is_ours: bool = False
    drain: Drain | None = None
    described: str = ""
    status_reason: str = ""

    @property
    def on_standby(self) -> bool:
        """Whether its group does not count it: on standby, or in the warm pool."""
        return self.lifecycle_state.startswith("Warmed") or self.lifecycle_state in {"Standby", "EnteringStandby"}

    @property
    def in_service(self) -> bool:
        return self.lifecycle_state == "InService"

    @property
    def is_member(self) -> bool:
        """Whether it makes up its group's capacity."""
        return not self.is_terminating and (self.in_service or not self.on_standby)

    @property
    def can_take_tasks(self) -> bool:
        """Whether its group, ECS and its agent all say so, and it is not being drained."""
        return (
            self.in_service
            and not self.is_terminating
            and self.registration == "registered"
            and self.is_active
            and self.agent_connected
            and self.drain is None
        )

    @property
    def is_new(self) -> bool:
        """Whether it is known to be of this roll; one that EC2 does not report is neither new nor old."""
        return self.is_old is False and not self.is_kept

    @property
    def is_draining(self) -> bool:
        """Whether it is registered and not ACTIVE, so that ECS places no tasks on it."""
        return self.registration == "registered" and not self.is_active

    @property
    def agent_is_off(self) -> bool:
        """Whether ECS cannot move its tasks, or some of them."""
        return self.registration == "registered" and (not self.agent_connected or self.abandoned > 0)


@dataclass(frozen=True)
class View:
    """One look at one group.

    ``suspended`` maps each suspended process to how long it has been so. ``remaining_surge`` is how much of the desired
    capacity is the roll's. ``is_proven`` says that a new instance of this group was logged in to, or need not be.
    ``launch_failures`` are the messages of launches that failed since the group last was whole; ``missing_for`` is how
    long it has lacked instances; ``lost`` how many new instances in a row went before they could take tasks, and
    ``surges_lost`` how many surges. ``launches_old`` says how the group launches old instances (again), and
    ``refresh`` is the id of an instance refresh in progress; both are asked only when there is reason to. ``hooks`` are
    the lifecycle hooks that may hold what terminates, where that was asked.

    ``begun`` is how many old instances the batch under way has taken on, if batches have an end; ``pause_left`` how
    long the next one has to wait; ``unsteady`` the services that it waits for.
    """

    group: str
    desired_capacity: int
    max_size: int
    members: tuple[Member, ...] = ()
    zones: tuple[str, ...] = ()
    suspended: Mapping[str, float] = field(default_factory=dict)
    remaining_surge: int = 0
    is_proven: bool = False
    options: RollOptions = RollOptions()
    launch_failures: tuple[str, ...] = ()
    missing_for: float = 0.0
    lost: int = 0
    surges_lost: int = 0
    launches_old: str = ""
    launches_old_for: float = 0.0
    refresh: str = ""
    hooks: tuple[str, ...] = ()
    begun: int = 0
    pause_left: float = 0.0
    unsteady: tuple[Unsteady, ...] = ()
    alarms: tuple[AlarmSeen, ...] = ()

    @cached_property
    def capacity(self) -> list[Member]:
        """The members that make up its capacity."""
        return [m for m in self.members if m.is_member]

    @cached_property
    def old(self) -> list[Member]:
        """The members that are known to be old, and are still to be replaced."""
        return [m for m in self.capacity if m.is_old]

    @property
    def terminating(self) -> list[Member]:
        return [m for m in self.members if m.is_terminating]

    @property
    def missing(self) -> int:
        """How many instances the group lacks to its desired capacity."""
        return max(self.desired_capacity - len(self.capacity), 0)

    def member(self, ec2_instance_id: str) -> Member | None:
        return next((m for m in self.members if m.ec2_instance_id == ec2_instance_id), None)

    def by_zone(self, *, without: Collection[str] = ()) -> Counter[str]:
        """Count the group by Availability Zone, some instances left out."""
        zones = Counter(dict.fromkeys(self.zones, 0))
        # What is on standby comes back to its zone one day, and must not make it one too many there.
        staying = [m for m in self.members if not m.is_terminating and m.ec2_instance_id not in without]
        zones.update(m.availability_zone for m in staying)
        return zones

    def with_members(self, changed: Iterable[Member]) -> View:
        """Return this view with some of its members in another state."""
        by_id = {m.ec2_instance_id: m for m in changed}
        return replace(self, members=tuple(by_id.get(m.ec2_instance_id, m) for m in self.members))


def is_even(zones: Counter[str]) -> bool:
    """Tell whether zones are as even as they can be: otherwise Auto Scaling moves instances between them."""
    return not zones or max(zones.values()) - min(zones.values()) <= 1


# Actions: what `decide` may want done next.


@dataclass(frozen=True, slots=True)
class SuspendRebalancing:
    """Keep Auto Scaling from evening the zones, which it does by terminating instances undrained."""


@dataclass(frozen=True, slots=True)
class Raise:
    """Raise the desired capacity by so many: a surge."""

    count: int


@dataclass(frozen=True, slots=True)
class LowerByMissing:
    """Lower the desired capacity by what was never launched of the surge."""


@dataclass(frozen=True, slots=True)
class Prove:
    """Log in to a new instance."""

    ec2_instance_id: str


@dataclass(frozen=True, slots=True)
class StartDrains:
    ec2_instance_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reactivate:
    """Set instances to ACTIVE that need not go any more."""

    ec2_instance_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Terminate:
    """Terminate an instance; ``evidence`` is what shows that nothing is lost, or which option gives it up."""

    ec2_instance_id: str
    decrement: bool
    evidence: str

    @property
    def gives_up(self) -> bool:
        """Whether an option, and nothing that was seen, says that it may be terminated."""
        return self.evidence in {FORCE, INCLUDE_UNREGISTERED}


@dataclass(frozen=True, slots=True)
class EndBatch:
    """Do what comes between two batches: the check, and the beginning of the pause."""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do in this group."""


Action = SuspendRebalancing | Raise | LowerByMissing | Prove | StartDrains | Reactivate | Terminate | EndBatch | Done
