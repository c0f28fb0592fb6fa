"""The table to the letter of the document we mirror, and the formats that programs read."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rackctl.cli.render import FIELDS, FORMATS, ago, fields, filtered, ordered
from rackctl.errors import UsageError
from rackctl.model import ContainerInstance, Instance, RackInstance, Resources

NOW = datetime(2015, 12, 10, 23, 0, tzinfo=UTC)


def instance(id_: str, minutes: int, tasks: int, memory: int, **more: str) -> RackInstance:
    """Make an instance that has run for so many minutes, with so many tasks and MiB of 10,000 reserved."""
    return RackInstance(
        id_,
        Instance(id_, "running", NOW - timedelta(minutes=minutes), **more),  # type: ignore[arg-type]
        ContainerInstance(
            f"arn:{id_}", id_, "ACTIVE", True, tasks, 0, Resources(1024, 10000), Resources(1024, 10000 - memory)
        ),
    )


DOCUMENT = [
    instance("i-44e66af2", 60, 2, 1294),
    instance("i-6eeedfde", 60, 3, 2912),
    instance("i-ed7b8c5c", 59, 0, 0),
]


def render(output: str, *instances: RackInstance) -> str:
    return FORMATS[output](instances, NOW)


def test_the_table_is_the_documents_to_the_letter() -> None:
    assert render("table", *DOCUMENT).splitlines() == [
        "ID          AGENT  STATUS  STARTED         PS  CPU    MEM",
        "i-44e66af2  on     active  1 hour ago      2   0.00%  12.94%",
        "i-6eeedfde  on     active  1 hour ago      3   0.00%  29.12%",
        "i-ed7b8c5c  on     active  59 minutes ago  0   0.00%  0.00%",
    ]


def test_no_instances_are_just_the_header() -> None:
    assert render("table") == "ID  AGENT  STATUS  STARTED  PS  CPU  MEM"
    assert render("json") == "[]"
    assert render("id") == ""
    assert render("csv") == ",".join(FIELDS)


def test_what_is_not_known_is_blank_and_nothing_is_divided_by_zero() -> None:
    empty = RackInstance("i-0a321c8b", container_instance=ContainerInstance("arn", "i-0a321c8b", "ACTIVE", False))

    assert render("table", empty).splitlines()[1] == "i-0a321c8b  off    gone             0"


def test_wide_adds_its_columns_at_the_end() -> None:
    more = {"instance_type": "t3.small", "availability_zone": "us-east-1a", "private_ip": "10.0.3.202", "key_name": "k"}

    header, line = render("wide", instance("i-6eeedfde", 60, 3, 2912, **more)).splitlines()

    assert header.endswith("MEM     TYPE      ZONE        PRIVATE     PUBLIC  KEY  AGENT VERSION")
    assert line.endswith("29.12%  t3.small  us-east-1a  10.0.3.202          k")


def test_ids_stand_one_a_line_for_xargs() -> None:
    assert render("id", *DOCUMENT).splitlines() == ["i-44e66af2", "i-6eeedfde", "i-ed7b8c5c"]


def test_the_json_has_the_documented_fields_and_values() -> None:
    one = RackInstance(
        "i-6eeedfde",
        Instance(
            "i-6eeedfde",
            "running",
            NOW,
            "t3.small",
            "us-east-1a",
            "10.0.3.202",
            "54.1.2.3",
            "k",
            {"aws:autoscaling:groupName": "g"},
        ),
        ContainerInstance(
            "arn:ci",
            "i-6eeedfde",
            "DRAINING",
            True,
            3,
            1,
            Resources(2048, 4096),
            Resources(1024, 2048),
            NOW,
            "1.9",
            "why",
        ),
    )

    assert json.loads(render("json", one)) == [
        {
            "id": "i-6eeedfde",
            "status": "draining",
            "ec2_state": "running",
            "ecs_status": "DRAINING",
            "ecs_status_reason": "why",
            "agent_connected": True,
            "agent_version": "1.9",
            "started": "2015-12-10T23:00:00Z",
            "running_tasks": 3,
            "pending_tasks": 1,
            "cpu_registered": 2048,
            "cpu_remaining": 1024,
            "cpu_percent": 50.0,
            "memory_registered": 4096,
            "memory_remaining": 2048,
            "memory_percent": 50.0,
            "type": "t3.small",
            "zone": "us-east-1a",
            "private_ip": "10.0.3.202",
            "public_ip": "54.1.2.3",
            "key_name": "k",
            "group": "g",
            "container_instance_arn": "arn:ci",
        }
    ]


def test_every_instance_has_every_field_and_the_unknown_ones_are_null() -> None:
    (only_ecs_knows,) = json.loads(
        render("json", RackInstance("i-1", None, ContainerInstance("arn", "i-1", "ACTIVE", False)))
    )

    assert tuple(only_ecs_knows) == FIELDS
    assert only_ecs_knows["ec2_state"] is None
    assert only_ecs_knows["cpu_percent"] is None


def test_the_csv_has_the_same_fields_as_the_json() -> None:
    read = list(csv.DictReader(io.StringIO(render("csv", *DOCUMENT))))

    assert [row["id"] for row in read] == ["i-44e66af2", "i-6eeedfde", "i-ed7b8c5c"]
    assert tuple(read[0]) == FIELDS
    assert read[0]["agent_connected"] == "true"
    assert read[0]["public_ip"] == ""


def test_every_field_is_documented() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "output.md").read_text()

    assert [name for name in FIELDS if f"| `{name}` |" not in documented] == []


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0.9, "now"), (1, "1 second ago"), (59.9, "59 seconds ago"), (60, "1 minute ago"), (119, "1 minute ago"),
        (120, "2 minutes ago"), (3600, "1 hour ago"), (7199, "1 hour ago"), (86400, "1 day ago"),
        (47 * 3600, "1 day ago"), (7 * 86400, "1 week ago"), (13 * 86400, "1 week ago"), (29 * 86400, "4 weeks ago"),
        (30 * 86400, "1 month ago"), (59 * 86400, "1 month ago"), (360 * 86400, "1 year ago"),
        (540 * 86400, "2 years ago"), (1080 * 86400, "3 years ago"),
        (-1, "1 second from now"), (-7200, "2 hours from now"), (-0.5, "now"),
    ],
)  # fmt: skip
def test_ago_counts_as_convox_did(seconds: float, says: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == says


def test_what_has_not_started_is_blank() -> None:
    assert ago(None, NOW) == ""


@pytest.mark.parametrize(
    ("expressions", "found"),
    [
        ((), ["i-44e66af2", "i-6eeedfde", "i-ed7b8c5c"]),
        (("id=i-6eeedfde",), ["i-6eeedfde"]),
        (("running_tasks=0",), ["i-ed7b8c5c"]),
        (("agent_connected=true", "memory_percent=12.94"), ["i-44e66af2"]),
        (("agent_connected=false",), []),
        (("public_ip=", "status=active"), ["i-44e66af2", "i-6eeedfde", "i-ed7b8c5c"]),
    ],
)
def test_filters_compare_with_what_the_json_says_and_all_must_hold(
    expressions: tuple[str, ...], found: list[str]
) -> None:
    assert [i.ec2_instance_id for i in filtered(DOCUMENT, expressions)] == found


@pytest.mark.parametrize(("expression", "says"), [("stats=x", 'no field "stats"'), ("status", "is not KEY=VALUE")])
def test_a_filter_that_can_match_nothing_is_refused_with_the_fields_there_are(expression: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        filtered([], [expression])


def test_sorting_is_by_value_either_way_and_what_has_none_comes_last() -> None:
    without = RackInstance("i-00000000")

    def ids(by: str) -> list[str]:
        return [i.ec2_instance_id for i in ordered([without, *DOCUMENT], by)]

    assert ids("running_tasks") == ["i-ed7b8c5c", "i-44e66af2", "i-6eeedfde", "i-00000000"]
    assert ids("-running_tasks") == ["i-6eeedfde", "i-44e66af2", "i-ed7b8c5c", "i-00000000"]
    with pytest.raises(UsageError, match='no field "ps"'):
        ids("ps")


def test_every_format_works_at_five_thousand() -> None:
    many = [instance(f"i-{n:08x}", n, n % 7, n % 9999) for n in range(5000)]

    for output in FORMATS:
        assert len(render(output, *many).splitlines()) >= 5000
    assert len(fields(many[0])) == len(FIELDS)
