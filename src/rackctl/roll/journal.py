"""The journal of a roll: what it is doing, and what was there before. Values, their JSON, and their bounds.

It holds what AWS cannot tell: what was there before, and what the roll itself has changed. Which instances are still to
be replaced is read from the instances. `rackctl.roll.lock` keeps it in S3.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from rackctl.keys import is_key_name
from rackctl.launches import LaunchSource  # noqa: TC001 - read as a type hint
from rackctl.roll.decide import REBALANCING
from rackctl.roll.owner import Operator, Owner  # noqa: TC001 - read as a type hint
from rackctl.roll.reasons.pairs import KeyPairRecord, is_public_key
from rackctl.roll.typed import read
from rackctl.roll.view import KEYROLL, RollOptions, Selection

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Phase = Literal["preparing", "replacing", "finishing", "aborting"]
# The processes that a roll suspends: one all the time, the other while it lowers a desired capacity.
SUSPENDED_BY_ROLLS = frozenset({REBALANCING, "Launch"})
_MOST_OPERATORS = 10
# No Auto Scaling group is larger than this.
_LARGEST = 100_000
# No instance is older than EC2, by far, in seconds.
_LONGEST = 3.2e9


@dataclass(slots=True)
class TemplateRecord:
    """One launch template as a group named it before: ``version`` is what it named, ``source`` what that was.

    ``key_name`` is the source's key; ``made`` the version with the new key that stands in its place, 0 before there is
    one. All that the roll has made is newer than ``lowest``.
    """

    launch_template_id: str
    launch_template_name: str
    version: str
    source: int
    key_name: str
    lowest: int
    made: int = 0


@dataclass(slots=True)
class PendingChange:
    """A change of a desired capacity, written before it is made, so that it can be seen later whether it was.

    Without an instance it sets the desired capacity from ``before`` to ``after``; with one it terminates that
    instance and decrements ``before``.
    """

    before: int
    after: int
    ec2_instance_id: str = ""


@dataclass(slots=True)
class RefreshRecord:
    """The roll's instance refresh of a group: what AWS is asked for, written before it is.

    ``instance_refresh_id`` is empty until AWS has given it; ``before`` is the id of the group's newest refresh before.
    ``status`` is what AWS said of it last.
    """

    preferences: dict[str, Any]
    desired_configuration: dict[str, Any]
    before: str = ""
    instance_refresh_id: str = ""
    status: str = ""


@dataclass(slots=True)
class GroupRecord:
    """A group as it was before the roll, and what the roll has changed of it.

    ``total`` is how many of its instances were to be replaced, ``launches`` what it launches from where that decides
    which are outdated, ``key_names`` the key pairs that are renewed under the names that it launches with, none for one
    that gets a key of a new name, ``key_lines`` what to write where the group is made once it has that,
    ``surge`` the roll's share of the desired capacity, ``suspended`` the processes that it
    suspended. ``deleted`` says that it was deleted during the roll.
    """

    auto_scaling_group_name: str
    auto_scaling_group_arn: str
    desired_capacity: int
    total: int
    templates: list[TemplateRecord] = field(default_factory=list)
    suspended: list[str] = field(default_factory=list)
    surge: int = 0
    pending: PendingChange | None = None
    deleted: bool = False
    launches: list[LaunchSource] = field(default_factory=list)
    key_names: list[str] = field(default_factory=list)
    key_lines: list[str] = field(default_factory=list)
    refresh: RefreshRecord | None = None


@dataclass(slots=True)
class InstanceRecord:
    """The progress of an instance that is being replaced or launched; AWS tells all about the others.

    ``drained_by_roll`` is set before it is drained, and only if it was ACTIVE; ``counted_out`` once it left its
    group otherwise and counts no more.
    """

    auto_scaling_group_name: str
    phase: str
    since: str
    drained_by_roll: bool = False
    counted_out: bool = False


@dataclass(slots=True)
class PaceRecord:
    """What the next batch waits for.

    ``begun`` are the ids that the batch under way has taken on, where batches have an end, ``ended`` is when the last
    one had its. ``settling`` are the services whose tasks were moved and that were not seen steady since, ``unsteady``
    those that were not steady before the roll either.
    """

    begun: list[str] = field(default_factory=list)
    ended: str = ""
    settling: list[str] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Journal:
    """A roll. ``retiring`` are the keys that it has begun to delete.

    ``rack`` and ``cluster_arn`` bind it to one rack, region and account. ``key_name`` is the new key's, empty where the
    roll makes none. ``launched_until`` is the newest LaunchTime that an instance had before it, by EC2's clock.
    ``operators`` are those who have run it, in the order in which they came.
    """

    rack: str
    cluster_arn: str
    key_name: str
    started: str
    options: RollOptions
    selection: Selection = KEYROLL
    launched_until: str = ""
    phase: Phase = "preparing"
    owner: Owner | None = None
    operators: list[Operator] = field(default_factory=list)
    revision: int = 0
    anything_drained: bool = False
    problem: str = ""
    retiring: list[str] = field(default_factory=list)
    groups: dict[str, GroupRecord] = field(default_factory=dict)
    key_pairs: dict[str, KeyPairRecord] = field(default_factory=dict)
    instances: dict[str, InstanceRecord] = field(default_factory=dict)
    pace: PaceRecord = field(default_factory=PaceRecord)

    @property
    def total(self) -> int:
        """How many instances were to be replaced, but for those of groups that have been deleted."""
        return sum(group.total for group in self.groups.values() if not group.deleted)

    @property
    def launched_before(self) -> datetime:
        """The time up to which an instance was launched before the roll; if it is unset, none was launched later."""
        return datetime.fromisoformat(self.launched_until) if self.launched_until else datetime.max.replace(tzinfo=UTC)

    def lacks_key_pair(self, group: GroupRecord) -> bool:
        """Tell whether a group would launch with a key pair that EC2 may not have now."""
        return any(self.key_pairs[name].state == "changing" for name in group.key_names)

    def runs_by(self, operator: Operator) -> None:
        """Note who runs it from now on; of many, the first and the last ones."""
        if operator != (self.operators[-1] if self.operators else None):
            self.operators = [*self.operators[: _MOST_OPERATORS - 1], operator]

    def command(self, word: str) -> str:
        """Return the command line of a subcommand for this roll."""
        # No journal holds the command of a check: --check has to be given again to resume.
        check = " --check COMMAND" if word == "resume" and self.options.checked else ""
        return f"`rackctl instances {self.selection.command} {word} --rack {self.rack}{check}`"

    @property
    def ways_on(self) -> tuple[str, ...]:
        """The commands that can continue it: what is being aborted can only be aborted."""
        return ("abort",) if self.phase == "aborting" else ("resume", "abort")

    def dumps(self) -> dict[str, Any]:
        """Return the journal as a JSON object."""
        return asdict(self)

    @classmethod
    def loads(cls, document: Mapping[str, Any]) -> Journal:
        """Read a journal. Raises ValueError, KeyError or TypeError for what is none."""
        if missing := {field.name for field in fields(cls)} - document.keys():
            raise KeyError(min(missing))
        journal = read(cls, document)
        _check(journal)
        return journal


def _check(journal: Journal) -> None:
    """Raise ValueError for what no roll writes into a journal, though it is of the right type."""
    times = [journal.launched_until, journal.pace.ended]
    times += [time for pair in journal.key_pairs.values() for time in (pair.generation, pair.created, pair.restored)]
    for time in (journal.started, *filter(None, times)):
        if datetime.fromisoformat(time).tzinfo is None:
            raise ValueError(f"{time} says no time zone")
    if journal.cluster_arn.count(":") != 5:
        raise ValueError(f'"{journal.cluster_arn}" is not the ARN of a cluster')
    if journal.owner and not 0 < journal.owner.pid < 2**31:
        raise ValueError(f"the owner's process number is {journal.owner.pid}")
    _check_selection(journal)
    _check_options(journal.options)
    for name, group in journal.groups.items():
        _check_group(name, group)
        if missing := set(group.key_names) - journal.key_pairs.keys():
            raise ValueError(f"it does not say how key pair {min(missing)} was")
    for name, pair in journal.key_pairs.items():
        _check_key_pair(name, pair)


def _check_options(options: RollOptions) -> None:
    if not (0 < options.batch <= _LARGEST and 0 <= options.extra <= _LARGEST):
        raise ValueError(f"it replaces {options.batch} instances at a time, with {options.extra} extra")
    if not (0 <= options.pause < _LONGEST and 0 <= options.check_timeout < _LONGEST):
        raise ValueError(f"it pauses for {options.pause} s and checks for {options.check_timeout} s")


def _check_selection(journal: Journal) -> None:
    selection, is_keyroll = journal.selection, journal.selection.kind == "key"
    if not is_keyroll and not journal.launched_until:
        raise ValueError("it does not say which instances were there before the roll")
    all_kept = bool(journal.groups) and all(group.key_names for group in journal.groups.values())
    names_key = is_keyroll and (journal.key_name or not all_kept)
    if not is_key_name(journal.rack, journal.key_name) if names_key else journal.key_name:
        raise ValueError(f'"{journal.key_name}" is not a name that a roll of rack "{journal.rack}" gives a key')
    if not 0 <= selection.older_than < _LONGEST:
        raise ValueError(f"it replaces instances older than {selection.older_than!r} s")


def _check_group(name: str, group: GroupRecord) -> None:
    if group.auto_scaling_group_name != name:
        raise ValueError(f'group "{name}" is called "{group.auto_scaling_group_name}" as well')
    if group.auto_scaling_group_arn.count(":") < 5:
        raise ValueError(f'"{group.auto_scaling_group_arn}" is not the ARN of a group')
    if foreign := set(group.suspended) - SUSPENDED_BY_ROLLS:
        raise ValueError(f"a roll does not suspend {', '.join(sorted(foreign))}")
    pending = group.pending
    numbers = (group.desired_capacity, group.total, group.surge, *((pending.before, pending.after) if pending else ()))
    for number in numbers:
        if not 0 <= number <= _LARGEST:
            raise ValueError(f"group {name} has a size of {number}")
    for template in group.templates:
        if min(template.source, template.lowest, template.made) < 0:
            raise ValueError(f"template {template.launch_template_id} has a version below zero")


def _check_key_pair(name: str, pair: KeyPairRecord) -> None:
    if pair.key_name != name:
        raise ValueError(f'key pair "{name}" is called "{pair.key_name}" as well')
    if pair.state != "old" and not pair.new_public_key:
        raise ValueError(f"key pair {name} has no new public key")
    for public_key in filter(None, (pair.old_public_key, pair.new_public_key)):
        if not is_public_key(public_key):
            raise ValueError(f"key pair {name} has a public key that is none")


def out_of_bounds(
    journal: Journal, foreign_groups: Collection[str], foreign_templates: Collection[str], key_names: Collection[str]
) -> str:
    """Return what a journal would have a roll change that is not its rack's, empty where nothing is.

    ``foreign_groups`` are the ARNs of groups of other racks, ``foreign_templates`` the ids of launch templates that
    only those name, ``key_names`` the key pairs of the rack's own instances and groups.
    """
    for record in journal.groups.values():
        if record.auto_scaling_group_arn in foreign_groups:
            return f"group {record.auto_scaling_group_name}"
        for template in record.templates:
            if template.launch_template_id in foreign_templates:
                return f"launch template {template.launch_template_id}"
    return next((f"key pair {name}" for name in journal.key_pairs if name not in key_names), "")
