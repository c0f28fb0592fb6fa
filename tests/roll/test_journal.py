"""The journal of a roll as a value: it is read as it was written, and invalid ones are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rackctl.roll.journal import (
    GroupRecord,
    InstanceRecord,
    Journal,
    PaceRecord,
    PendingChange,
    TemplateRecord,
    out_of_bounds,
)
from rackctl.roll.owner import Owner
from rackctl.roll.reasons.pairs import KeyPairRecord
from rackctl.roll.view import RollOptions

CLUSTER_ARN = "arn:aws:ecs:us-east-1:123456789012:cluster/prod"
GROUP_ARN = "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:u:autoScalingGroupName/group"
KEY = "prod-keypair-20260102T030405Z"


def journal() -> Journal:
    """Return a journal in which everything is set that can be."""
    return Journal(
        rack="prod",
        cluster_arn=CLUSTER_ARN,
        key_name=KEY,
        started="2026-01-02T03:04:05Z",
        options=RollOptions(batch=3, reason="because", alarms=("errors",)),
        owner=Owner("me@here", 1, "token-1", "machine", "began"),
        problem="it was asked to stop",
        retiring=["prod-keypair-20250102T030405Z"],
        groups={
            "group": GroupRecord(
                "group",
                GROUP_ARN,
                3,
                3,
                [TemplateRecord("lt-1", "template", "$Default", 4, "old-key", 4, made=5)],
                ["AZRebalance"],
                1,
                PendingChange(4, 3, "i-1"),
                key_names=["ops"],
            )
        },
        key_pairs={
            "ops": KeyPairRecord(
                "ops",
                "key-1",
                "ssh-rsa AAAA",
                {"team": "ops"},
                "2026-01-02T03:04:06+00:00",
                "ssh-ed25519 BBBB",
                "new",
                "2026-01-02T03:04:26+00:00",
                "2026-01-02T03:05:06+00:00",
                ["i-2"],
            )
        },
        instances={"i-1": InstanceRecord("group", "terminating", "2026-01-02T03:05:05Z", drained_by_roll=True)},
        pace=PaceRecord(["i-1"], "2026-01-02T03:05:05Z", ["api"], ["web"]),
    )


def merged(old: Any, new: Any) -> Any:
    """Return a JSON document with some of its fields changed."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{name: merged(old.get(name), value) for name, value in new.items()}}


def edited(edit: dict[str, Any]) -> Journal:
    """Read a journal that was edited by hand."""
    return Journal.loads(merged(json.loads(json.dumps(journal().dumps())), edit))


def test_a_journal_is_read_back_from_json_as_it_was_written() -> None:
    assert edited({}) == journal()


def test_a_journal_without_a_holder_is_read_back_as_well() -> None:
    assert edited({"owner": None}).owner is None


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"started": "yesterday"}, "yesterday"),
        ({"started": "2026-01-02T03:04:05"}, "no time zone"),
        ({"started": ""}, "isoformat"),
        ({"started": 5}, "started is 5"),
        ({"phase": "resting"}, "phase is 'resting'"),
        ({"cluster_arn": "prod"}, "not the ARN of a cluster"),
        ({"groups": {"group": {"total": "3"}}}, "total is '3'"),
        ({"groups": {"group": {"auto_scaling_group_arn": "group"}}}, "not the ARN of a group"),
        ({"groups": {"group": {"auto_scaling_group_name": "other"}}}, 'called "other" as well'),
        ({"groups": {"group": {"templates": [5]}}}, "templates is 5"),
        ({"groups": []}, "groups is"),
        ({"options": {"batch": "2"}}, "batch is '2'"),
        ({"options": {"batch": 0}}, "replaces 0 instances at a time"),
        ({"options": {"surge": -1}}, "with -1 extra"),
        ({"options": {"surge": True}}, "surge is True"),
        ({"options": {"surge": 2.0}}, "surge is 2.0"),
        ({"options": {"force": 1}}, "force is 1"),
        ({"options": {"pause": -1.0}}, "it pauses for -1.0 s"),
        ({"options": {"pause": float("nan")}}, "it pauses for nan s"),
        ({"options": {"check": "rm -rf /"}}, "check"),
        ({"options": {"alarms": 5}}, "alarms is 5"),
        ({"options": {"alarms": [5]}}, "alarms is 5"),
        ({"pace": {"begun": [5]}}, "begun is 5"),
        ({"pace": {"ended": "noon"}}, "noon"),
        ({"pace": {"ended": "2026-01-02T03:04:05"}}, "no time zone"),
        ({"pace": {"check": "rm -rf /"}}, "check"),
        ({"options": {"sudo": True}}, "sudo"),
        ({"owner": "me"}, "owner is 'me'"),
        ({"owner": {"pid": "1"}}, "pid is '1'"),
        ({"owner": {"pid": 2**80}}, "process number"),
        ({"owner": {"who": 5}}, "who is 5"),
        ({"problem": 5}, "problem is 5"),
        ({"instances": {"i-1": {"phase": 5}}}, "phase is 5"),
        ({"sudo": True}, "sudo"),
    ],
)
def test_a_journal_that_was_damaged_by_hand_is_refused(edit: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError), match=says):
        edited(edit)


@pytest.mark.parametrize("missing", ["owner", "cluster_arn", "groups", "options"])
def test_a_journal_that_lacks_a_field_is_refused(missing: str) -> None:
    document = journal().dumps()
    del document[missing]

    with pytest.raises((KeyError, TypeError), match=missing):
        Journal.loads(document)


# Hostile journals


@pytest.mark.parametrize(
    "key_name",
    [
        "", "bank-unused", "prod-keypair", "prod-keypair-20260102T030405Z/../x", "bank-keypair-20260102T030405Z",
        "prod-keypair-20260102T030405Z\n", "prod-keypair-\u0662\u0660\u0662\u0666\u0660\u0661\u0660\u0662T030405Z",
    ],
)  # fmt: skip
def test_a_key_that_no_roll_of_the_rack_names_so_is_refused(key_name: str) -> None:
    """It would be another's key pair, which an abort would delete."""
    with pytest.raises(ValueError, match='not a name that a roll of rack "prod" gives a key'):
        edited({"key_name": key_name, "groups": {"group": {"key_names": []}}})


@pytest.mark.parametrize("process", ["AlarmNotification", "ReplaceUnhealthy", "Terminate", ""])
def test_a_process_that_no_roll_suspends_is_refused(process: str) -> None:
    """The roll would resume a process that another caller has suspended."""
    with pytest.raises(ValueError, match="a roll does not suspend"):
        edited({"groups": {"group": {"suspended": ["AZRebalance", process]}}})


@pytest.mark.parametrize("process", ["AZRebalance", "Launch"])
def test_the_processes_that_a_roll_suspends_are_accepted(process: str) -> None:
    assert edited({"groups": {"group": {"suspended": [process]}}}).groups["group"].suspended == [process]


@pytest.mark.parametrize("size", [-1, 100_001])
@pytest.mark.parametrize("name", ["desired_capacity", "total", "surge", "before", "after"])
def test_a_size_that_no_group_can_have_is_refused(name: str, size: int) -> None:
    with pytest.raises(ValueError, match=f"group group has a size of {size}"):
        edited({"groups": {"group": {"pending": {name: size}} if name in {"before", "after"} else {name: size}}})


@pytest.mark.parametrize("name", ["source", "lowest", "made"])
def test_a_template_version_below_zero_is_refused(name: str) -> None:
    template = {**journal().dumps()["groups"]["group"]["templates"][0], name: -1}

    with pytest.raises(ValueError, match="template lt-1 has a version below zero"):
        edited({"groups": {"group": {"templates": [template]}}})


@pytest.mark.parametrize("number", ["1", 1.0, 1e400, None, True])
@pytest.mark.parametrize("name", ["total", "surge", "before", "made"])
def test_what_is_not_a_whole_number_is_refused(name: str, number: object) -> None:
    group = json.loads(json.dumps(journal().dumps()))["groups"]["group"]
    where = {"before": group["pending"], "made": group["templates"][0]}.get(name, group)
    where[name] = number

    with pytest.raises(TypeError, match=f"{name} is {number!r}"):
        edited({"groups": {"group": group}})


def test_a_group_of_another_rack_is_out_of_bounds() -> None:
    assert out_of_bounds(journal(), {GROUP_ARN}, (), {"ops"}) == "group group"


def test_a_launch_template_of_another_rack_is_out_of_bounds() -> None:
    assert out_of_bounds(journal(), {"arn:of:another"}, {"lt-1"}, {"ops"}) == "launch template lt-1"


def test_a_key_pair_that_nothing_of_the_rack_has_is_out_of_bounds() -> None:
    assert out_of_bounds(journal(), {"arn:of:another"}, {"lt-2"}, {KEY}) == "key pair ops"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"state": "gone"}, "state is 'gone'"),
        ({"key_name": "bank"}, 'key pair "ops" is called "bank" as well'),
        ({"old_public_key": "ssh-ed25519 AAAA; rm -rf"}, "has a public key that is none"),
        ({"new_public_key": ""}, "has no new public key"),
        ({"created": "2026-01-02T03:04:26"}, "says no time zone"),
        ({"doubtful": [7]}, "doubtful is 7"),
        ({"tags": {"team": None}}, "tags is None"),
    ],
)
def test_a_key_pair_that_no_roll_has_written_so_is_refused(edit: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        edited({"key_pairs": {"ops": edit}})


def test_a_group_whose_key_pair_the_journal_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="it does not say how key pair bank was"):
        edited({"groups": {"group": {"key_names": ["bank"]}}})


def test_what_is_the_racks_own_is_within_bounds() -> None:
    assert out_of_bounds(journal(), {"arn:of:another"}, {"lt-2"}, {"ops"}) == ""
