"""The table, exactly as `convox instances` prints it, and the formats for programs."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from rackctl.cli.render import TABLE, WIDE, Canvas, as_csv, as_ids, as_json, as_table, fitting, table, wide
from rackctl.cli.selection import FIELDS, fields
from rackctl.model import ContainerInstance, Instance, Resources
from rackctl.rack_instance import RackInstance, rack_instance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

NOW = datetime(2015, 12, 10, 23, 0, tzinfo=UTC)


def instance(id_: str, minutes: int, tasks: int, memory: int, **more: str) -> RackInstance:
    """Make an instance that has run for so many minutes, with so many tasks and MiB of 10,000 reserved."""
    return RackInstance(
        id_,
        Instance(id_, "running", NOW - timedelta(minutes=minutes), **more),  # type: ignore[arg-type]
        (
            ContainerInstance(
                f"arn:{id_}", id_, "ACTIVE", True, tasks, 0, Resources(1024, 10000), Resources(1024, 10000 - memory)
            ),
        ),
    )


DOCUMENT = [
    instance("i-44e66af2", 60, 2, 1294),
    instance("i-6eeedfde", 60, 3, 2912),
    instance("i-ed7b8c5c", 59, 0, 0),
]


FORMATS: Mapping[str, Callable[[Sequence[RackInstance]], str]] = {
    "table": lambda instances: as_table(instances, NOW),
    "wide": lambda instances: as_table(instances, NOW, WIDE),
    "json": lambda instances: as_json(instances, NOW),
    "csv": lambda instances: as_csv(instances, NOW),
    "id": as_ids,
}


def render(output: str, *instances: RackInstance) -> str:
    return FORMATS[output](instances)


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


def test_unknown_values_are_blank() -> None:
    empty = RackInstance("i-0a321c8b", registrations=(ContainerInstance("arn", "i-0a321c8b", "ACTIVE", False),))

    assert render("table", empty).splitlines()[1] == "i-0a321c8b  off    gone             0"


def test_wide_adds_its_columns_at_the_end() -> None:
    more = {"instance_type": "t3.small", "availability_zone": "us-east-1a", "private_ip": "10.0.3.202", "key_name": "k"}

    header, line = render("wide", instance("i-6eeedfde", 60, 3, 2912, **more)).splitlines()

    added = "NAME  TYPE      ZONE        OUTDATED  PRIVATE     PUBLIC  KEY  AGENT VERSION  TEMPLATE  IMAGE"
    assert header.endswith(f"MEM     {added}")
    assert line.endswith("29.12%        t3.small  us-east-1a            10.0.3.202          k")


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
            {
                "aws:autoscaling:groupName": "g",
                "Name": "web-1",
                "aws:ec2launchtemplate:id": "lt-1",
                "aws:ec2launchtemplate:version": "7",
            },
            image_id="ami-1",
            attach_time=NOW - timedelta(hours=1),
        ),
        (
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
            "registrations": 1,
            "name": "web-1",
            "ipv6": None,
            "age": 3600,
            "image_id": "ami-1",
            "launch_template_version": 7,
            "outdated": None,
        }
    ]


def test_every_instance_has_every_field_and_the_unknown_ones_are_null() -> None:
    (only_ecs_knows,) = json.loads(
        render("json", RackInstance("i-1", None, (ContainerInstance("arn", "i-1", "ACTIVE", False),)))
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


def test_columns_are_shown_in_the_order_asked_for_by_all_formats() -> None:
    columns = ("zone", "id", "cpu_registered")
    one = instance("i-6eeedfde", 60, 3, 2912, availability_zone="us-east-1a")

    assert as_table([one], NOW, columns).splitlines() == [
        "ZONE        ID          CPU REGISTERED",
        "us-east-1a  i-6eeedfde  1024",
    ]
    assert as_csv([one], NOW, columns) == "zone,id,cpu_registered\nus-east-1a,i-6eeedfde,1024"
    assert json.loads(as_json([one], NOW, columns)) == [
        {"zone": "us-east-1a", "id": "i-6eeedfde", "cpu_registered": 1024}
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\uff1d"])
def test_csv_cells_cannot_be_formulas(start: str) -> None:
    """OWASP, CSV Injection: "Prepend each cell field with a single quote, so that … read as text"."""
    text = f"{start}cmd|' /C calc'!A0"

    header, line = csv.reader(io.StringIO(render("csv", instance("i-6eeedfde", 60, 3, 2912, key_name=text))))

    assert dict(zip(header, line, strict=True))["key_name"] == f"'{text}"


@pytest.mark.parametrize("text", ["\x1b[2J", "\r=1+1", "\t=1+1", "two\nlines"])
def test_the_csv_escapes_control_characters_and_has_one_line_per_instance(text: str) -> None:
    lines = render("csv", instance("i-6eeedfde", 60, 3, 2912, key_name=text)).split("\n")

    assert len(lines) == 2
    assert lines[1].isprintable()
    assert text.encode("unicode_escape").decode() in lines[1]


def test_problems_are_coloured_without_moving_a_column() -> None:
    draining = RackInstance(
        "i-0a321c8b",
        Instance("i-0a321c8b", "running", NOW),
        (ContainerInstance("arn", "i-0a321c8b", "DRAINING", agent_connected=False),),
    )
    gone = RackInstance("i-0b321c8b", registrations=(ContainerInstance("arn", "i-0b321c8b", "ACTIVE", False),))
    plain = as_table([*DOCUMENT, draining, gone], NOW)

    coloured = as_table([*DOCUMENT, draining, gone], NOW, canvas=Canvas(color=True))

    assert click.unstyle(coloured) == plain
    assert coloured.splitlines()[:4] == plain.splitlines()[:4]
    assert click.style("off", fg="red") in coloured.splitlines()[4]
    assert click.style("draining", fg="yellow") in coloured.splitlines()[4]
    assert click.style("gone", fg="red") in coloured.splitlines()[5]


def test_wide_drops_blank_columns_then_columns_from_the_right_until_it_fits() -> None:
    one = instance("i-6eeedfde", 60, 3, 2912, instance_type="t3.small", availability_zone="us-east-1a", key_name="k")
    widest = max(map(len, as_table([one], NOW, WIDE).splitlines()))

    def left_out(width: int) -> list[str]:
        columns, out = fitting([one], NOW, width)
        assert columns == [name for name in WIDE if name in columns]
        shown = as_table([one], NOW, columns).splitlines()
        assert columns == list(TABLE) or max(map(len, shown)) <= width
        return list(out)

    assert left_out(widest) == []
    assert left_out(widest - 1) == ["IMAGE"]
    launch = ["AGENT VERSION", "TEMPLATE", "IMAGE"]
    assert left_out(86) == ["NAME", "OUTDATED", "PRIVATE", "PUBLIC", *launch]
    assert left_out(10) == ["NAME", "TYPE", "ZONE", "OUTDATED", "PRIVATE", "PUBLIC", "KEY", *launch]


def test_the_last_column_of_a_table_is_wrapped_below_itself_on_a_terminal_and_nothing_is_cut() -> None:
    rows = [["1", "the first of several words"], ["22", ""], ["3", "unbreakable" * 4]]

    assert table(["N", "WHY"], rows, width=20).splitlines() == [
        "N   WHY",
        "1   the first of",
        "    several words",
        "22",
        f"3   {'unbreakable' * 4}",
    ]
    for width in (0, 4, 19):
        assert table(["N", "WHY"], rows, width=width).splitlines()[1] == "1   the first of several words"
    assert table(["WHY"], [], width=80) == "WHY"


def test_every_format_works_at_five_thousand() -> None:
    many = [instance(f"i-{n:08x}", n, n % 7, n % 9999) for n in range(5000)]

    for output in FORMATS:
        assert len(render(output, *many).splitlines()) >= 5000
    assert len(fields(many[0], NOW)) == len(FIELDS)


def test_wide_shows_how_many_registrations_an_instance_has_where_it_has_several() -> None:
    once, twice = rack_of_one("i-6eeedfde"), rack_of_one("i-ed7b8c5c", registrations=2)

    assert "registrations" not in wide([once])
    header, *rows = as_table([once, twice], NOW, wide([once, twice])).splitlines()
    assert header.endswith("REGS")
    assert [row.rsplit(maxsplit=1)[-1] == "2" for row in rows] == [False, True]


def rack_of_one(id_: str, *, registrations: int = 1) -> RackInstance:
    found = [ContainerInstance(f"arn:{n}", id_, "ACTIVE", agent_connected=n == 0) for n in range(registrations)]
    return rack_instance(id_, None, found)
