"""Only generations that no instance can have are deleted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from rackctl.aws.s3 import StoredObject
from rackctl.errors import RackctlError
from rackctl.keys import generate
from rackctl.keys.pruning import Verdict, examine, judge
from rackctl.model import ContainerInstance, Instance, KeyPair
from rackctl.rack_instance import RackInstance, rack_instance
from tests.fakes.aws import FakeAws
from tests.fakes.keys import store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DAY = timedelta(days=1)
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = [FIRST + DAY * number for number in range(5)]
ID = "i-0a0000000000000aa"


def instance(launched: datetime, *, name: str = "ops", state: str = "running") -> Instance:
    return Instance(ID, state, launched, key_name=name)


def deleted(verdicts: Sequence[Verdict]) -> list[datetime]:
    return [verdict.generation for verdict in verdicts if not verdict.kept]


@pytest.mark.parametrize(
    ("launched", "gone"),
    [
        ([], TIMES[:4]),
        ([TIMES[4]], TIMES[:3]),
        ([TIMES[2] + DAY / 2], [TIMES[0]]),
        ([TIMES[0], TIMES[4]], [TIMES[2]]),
        ([FIRST - DAY], TIMES[2:4]),
    ],
    ids=["no-instance", "newest", "middle", "both-ends", "before-all"],
)
def test_generations_that_ssh_would_try_and_the_newest_are_kept(launched: list[datetime], gone: list[datetime]) -> None:
    assert deleted(judge({"ops": TIMES}, [instance(at) for at in launched], {"ops"})) == gone


@pytest.mark.parametrize("state", ["pending", "running", "stopping", "stopped", "shutting-down"])
def test_an_instance_that_still_exists_keeps_its_generation(state: str) -> None:
    """A stopped instance is started again with the key that it has."""
    assert TIMES[1] not in deleted(judge({"ops": TIMES}, [instance(TIMES[1], state=state)], {"ops"}))


def test_a_terminated_instance_needs_no_key() -> None:
    assert deleted(judge({"ops": TIMES}, [instance(TIMES[1], state="terminated")], {"ops"})) == TIMES[:4]


def test_instances_with_another_key_keep_nothing() -> None:
    assert deleted(judge({"ops": TIMES}, [instance(TIMES[1], name="other")], {"ops"})) == TIMES[:4]


def test_nothing_of_a_pair_that_this_region_does_not_have_is_deleted() -> None:
    """A rack of the same name in another region may share the bucket."""
    verdicts = judge({"ops": TIMES}, [], set())

    assert deleted(verdicts) == []
    assert {verdict.kept for verdict in verdicts} == {"EC2 has no key pair of that name in this region"}


def test_the_reason_names_the_instance() -> None:
    verdicts = judge({"ops": TIMES[:1]}, [instance(FIRST)], {"ops"})

    assert verdicts == [Verdict("ops", FIRST, f"{ID} may have it")]


# Checks before a deletion


@dataclass
class Region(FakeAws):
    """Answers to DescribeInstances by key name, one after the other, and a key pair."""

    answers: list[list[Instance]] = field(default_factory=list)

    def instances_with_key(self, key_names: Sequence[str]) -> Iterator[Instance]:
        assert list(key_names) == ["ops"]
        yield from self.answers.pop(0)

    def key_pairs(self) -> list[KeyPair]:
        return [KeyPair("ops", "")]


def region(*answers: list[Instance]) -> Region:
    aws = Region(answers=list(answers))
    for number in range(5):
        store(aws).store(generate("ops", created=FIRST + DAY * number))
    return aws


def examined(aws: FakeAws, listed: Sequence[RackInstance] = ()) -> list[datetime]:
    keys = store(aws)
    return deleted(examine(keys._rack, keys, listed))


def test_an_answer_that_lacks_an_instance_once_costs_no_key() -> None:
    old = instance(FIRST)

    assert examined(region([old], [])) == examined(region([], [old])) == TIMES[2:4]


def test_an_instance_of_the_rack_counts_even_if_ec2_does_not_find_it_by_its_key() -> None:
    listed = [rack_instance(ID, instance(FIRST), [])]

    assert examined(region([], []), listed) == TIMES[2:4]


def test_nothing_is_deleted_while_the_key_of_a_registered_instance_is_not_known() -> None:
    registered = ContainerInstance("arn:c", ID, "ACTIVE", agent_connected=True)

    with pytest.raises(RackctlError, match=f"{ID}: registered with the cluster and not described by EC2"):
        examined(region([], []), [rack_instance(ID, None, [registered])])


def test_a_machine_of_ecs_anywhere_has_no_key_pair() -> None:
    registered = ContainerInstance("arn:c", "mi-0a", "ACTIVE", agent_connected=True)

    assert examined(region([], []), [rack_instance("mi-0a", None, [registered])]) == TIMES[:4]


def test_nothing_is_deleted_while_a_roll_is_under_way() -> None:
    aws = region([], [])
    aws.objects["b", "rackctl/prod/roll.json"] = StoredObject(b"{}", "", FIRST)

    with pytest.raises(RackctlError, match="is unfinished"):
        examined(aws)


def test_nothing_is_deleted_for_the_sake_of_a_generation_that_does_not_open() -> None:
    """A writer of the bucket could have planted it, so that the true one beside it is deleted."""
    aws = region([], [])
    newest = ("b", "rackctl/prod/keys/ops/20260105T000000Z.json")
    aws.objects[newest] = replace(aws.objects[newest], body=b"{}")

    with pytest.raises(RackctlError, match="is not an SSH key that rackctl has stored"):
        examined(aws)
