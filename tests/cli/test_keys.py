"""`rackctl instances keys`: the list, and the completion of names of keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import click
from click.testing import CliRunner, Result

from rackctl.cli.completers import complete_key
from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.clock import SystemClock
from rackctl.instances import Instances
from rackctl.keys import generate
from rackctl.model import Instance
from tests.fakes.aws import FakeAws
from tests.fakes.keys import store

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class At(SystemClock):
    def now(self) -> datetime:
        return FIRST + DAY * 10


def rack(*instances: Instance) -> Invocation:
    """A rack with two generations of the key "ops", at noon of the tenth day."""
    aws = FakeAws(instances={i.ec2_instance_id: i for i in instances})
    made = Invocation(environment={"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": "/nowhere"}, clock=At())
    made.keys = store(aws)
    made.rack = made.keys._rack
    made.instances = Instances(made.rack, made.clock)
    for age in (0, 3):
        made.keys.store(generate("ops", created=FIRST + DAY * age))
    return made


def instance(number: int, launched: datetime, key_name: str) -> Instance:
    return Instance(f"i-{number:017x}", "running", launched, key_name=key_name, tags={"Rack": "prod"})


def listed(invocation: Invocation, *words: str) -> Result:
    return CliRunner().invoke(cli, ["instances", "keys", "list", *words], obj=invocation)


INSTANCES = (
    instance(1, FIRST + DAY, "ops"),
    instance(2, FIRST + DAY * 4, "ops"),
    instance(3, FIRST + DAY * 5, "ops"),
    instance(4, FIRST, "theirs"),
    instance(5, FIRST, ""),
)


def test_the_list_has_each_generation_with_the_instances_expected_to_have_it_and_what_is_not_stored() -> None:
    ids = [i.ec2_instance_id for i in INSTANCES]

    shown = listed(rack(*INSTANCES))

    assert shown.stdout.splitlines() == [
        "KEY     GENERATION            AGE         INSTANCES",
        f"ops     2026-01-01T00:00:00Z  1 week ago  {ids[0]}",
        f"ops     2026-01-04T00:00:00Z  1 week ago  {ids[1]}, {ids[2]}",
        f"theirs  not stored                        {ids[3]}",
    ]
    assert shown.stderr == f"rackctl: launched without a key pair: {ids[4]}\n"


def test_the_json_of_the_list_is_stable() -> None:
    documents = json.loads(listed(rack(INSTANCES[0], INSTANCES[3]), "-o", "json").stdout)

    assert documents == [
        {
            "key_name": "ops",
            "generation": "2026-01-01T00:00:00Z",
            "stored": True,
            "age_seconds": 864000,
            "instances": [INSTANCES[0].ec2_instance_id],
        },
        {
            "key_name": "ops",
            "generation": "2026-01-04T00:00:00Z",
            "stored": True,
            "age_seconds": 604800,
            "instances": [],
        },
        {
            "key_name": "theirs",
            "generation": None,
            "stored": False,
            "age_seconds": None,
            "instances": [INSTANCES[3].ec2_instance_id],
        },
    ]


def completed(invocation: Invocation, typed: str) -> list[str]:
    context = click.Context(cli, obj=invocation)
    return [item.value for item in complete_key(context, click.Argument(["name"]), typed)]


def test_names_of_stored_keys_and_of_the_instances_keys_are_completed() -> None:
    made = rack(*INSTANCES)

    assert completed(made, "") == ["ops", "theirs"]
    assert completed(made, "t") == ["theirs"]


def test_a_store_that_cannot_be_read_leaves_the_instances_keys_to_complete() -> None:
    made = rack(*INSTANCES)
    made.keys = store(made.rack.aws, bucket="")  # type: ignore[arg-type]

    assert completed(made, "") == ["ops", "theirs"]
