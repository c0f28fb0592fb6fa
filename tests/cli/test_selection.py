"""`--filter`, `--sort` and `--columns`."""

from __future__ import annotations

import pytest

from rackctl.cli.selection import columns_of, filtered, ordered
from rackctl.errors import UsageError
from rackctl.rack_instance import RackInstance
from tests.cli.test_render import DOCUMENT, NOW


@pytest.mark.parametrize(
    ("expressions", "found"),
    [
        ((), ["i-44e66af2", "i-6eeedfde", "i-ed7b8c5c"]),
        (("id=i-6eeedfde",), ["i-6eeedfde"]),
        (("running_tasks=0",), ["i-ed7b8c5c"]),
        (("agent_connected=true", "memory_percent=12.94"), ["i-44e66af2"]),
        (("agent_connected=false",), []),
        (("public_ip=", "status=active"), ["i-44e66af2", "i-6eeedfde", "i-ed7b8c5c"]),
        (("id!=i-6eeedfde",), ["i-44e66af2", "i-ed7b8c5c"]),
        (("id==i-6eeedfde",), ["i-6eeedfde"]),
        (("id=i-6eeedfde,i-ed7b8c5c",), ["i-6eeedfde", "i-ed7b8c5c"]),
        (("id!=i-6eeedfde,i-ed7b8c5c",), ["i-44e66af2"]),
        (("id=~i-6*",), ["i-6eeedfde"]),
        (("id=~i-6*,*5c",), ["i-6eeedfde", "i-ed7b8c5c"]),
        (("id=~I-6*",), []),
        (("memory_percent>12.94",), ["i-6eeedfde"]),
        (("memory_percent>=12.94",), ["i-44e66af2", "i-6eeedfde"]),
        (("memory_percent<=12.94", "running_tasks>0"), ["i-44e66af2"]),
        (("running_tasks<3",), ["i-44e66af2", "i-ed7b8c5c"]),
        (("running_tasks=2.0",), ["i-44e66af2"]),
        (("public_ip!=",), []),
        (("age>3599",), ["i-44e66af2", "i-6eeedfde"]),
        (("age<=3540",), ["i-ed7b8c5c"]),
        (("outdated=",), ["i-44e66af2", "i-6eeedfde", "i-ed7b8c5c"]),
        (("outdated=true,false",), []),
    ],
)
def test_filters_compare_with_what_the_json_says_and_all_must_hold(
    expressions: tuple[str, ...], found: list[str]
) -> None:
    assert [i.ec2_instance_id for i in filtered(DOCUMENT, expressions, NOW)] == found


@pytest.mark.parametrize(
    ("expression", "says"),
    [("stats=x", 'no field "stats"'), ("status", "is not FIELD=VALUE"), ("", "is not FIELD=VALUE")],
)
def test_a_filter_that_can_match_nothing_is_refused_with_the_fields_there_are(expression: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        filtered([], [expression], NOW)


def test_sorting_is_by_value_either_way_and_what_has_none_comes_last() -> None:
    without = RackInstance("i-00000000")

    def ids(by: str) -> list[str]:
        return [i.ec2_instance_id for i in ordered([without, *DOCUMENT], by, NOW)]

    assert ids("running_tasks") == ["i-ed7b8c5c", "i-44e66af2", "i-6eeedfde", "i-00000000"]
    assert ids("-running_tasks") == ["i-6eeedfde", "i-44e66af2", "i-ed7b8c5c", "i-00000000"]
    with pytest.raises(UsageError, match='no field "ps"'):
        ids("ps")


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("cpu_percent>much", 'cpu_percent is a number, not "much"'),
        ("cpu_percent>", 'cpu_percent is a number, not ""'),
        ("running_tasks=three", 'running_tasks is a number, not "three"'),
        ("running_tasks=٣", "running_tasks is a number"),
        ("agent_connected=yes", 'agent_connected is true or false, not "yes"'),
        ("outdated=yes", 'outdated is true or false, not "yes"'),
        ("age>30d", 'age is a number, not "30d"'),
        ("zone>us-east-1a", "zone has no order"),
        ("\x1b[2J=1", r'no field "\\x1b\[2J"'),
    ],
)
def test_a_value_of_the_wrong_type_for_its_field_is_refused(expression: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        filtered([], [expression], NOW)


def test_a_missing_value_is_unequal_to_every_number_and_has_no_order() -> None:
    without = [RackInstance("i-00000000")]

    assert filtered(without, ["cpu_percent>0"], NOW) == []
    assert filtered(without, ["cpu_percent<=0"], NOW) == []
    assert filtered(without, ["cpu_percent!=0"], NOW) == without
    assert filtered(without, ["cpu_percent="], NOW) == without


def test_columns_are_fields_with_commas_between() -> None:
    assert columns_of("zone, id") == ("zone", "id")
    for text in ("zone,", "", "zone,colour"):
        with pytest.raises(UsageError, match="--columns: there is no field"):
            columns_of(text)
