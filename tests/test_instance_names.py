"""Texts that match one instance: an id, the start of one, an address, a DNS name, a Name tag."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from rackctl.errors import NotFound, UsageError
from tests.fakes.aws import FakeAws
from tests.test_instances import EXTERNAL, A, B, C, Recording, ec2, ecs, instances_of, rack_of

if TYPE_CHECKING:
    from rackctl.model import Instance


@pytest.mark.parametrize(
    "text", ["", " ", "i-", "i-zzzz", "i-0a", "0a321c8b", "i-0A321C8B", "i-0a321c8b0", "web", EXTERNAL]
)
def test_a_text_that_is_not_a_whole_instance_id_is_refused_before_any_call(text: str) -> None:
    with pytest.raises(UsageError):
        instances_of(FakeAws(cluster_name="unasked")).find(text)


def test_an_instance_of_another_rack_is_not_found_and_that_rack_is_named() -> None:
    with pytest.raises(NotFound, match="is tagged Rack=staging") as caught:
        instances_of(rack_of(ec2(A, Rack="staging"))).find(A)

    assert "--rack staging" in caught.value.hint


def test_an_instance_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound, match=f'no instance {A} in rack "prod"'):
        instances_of(FakeAws()).find(A)


def test_an_untagged_instance_is_the_racks_if_it_is_registered_with_its_cluster() -> None:
    assert instances_of(rack_of(replace(ec2(A), tags={}), registered=[ecs(A)])).find(A).ec2_instance_id == A


def test_the_start_of_an_id_is_enough_if_only_one_instance_has_it() -> None:
    aws = rack_of(ec2("i-0aaa1111"), ec2("i-0aaa2222"), ec2("i-0bbb3333"))

    assert instances_of(aws).match("i-0bbb").ec2_instance_id == "i-0bbb3333"
    with pytest.raises(UsageError, match="i-0aaa matches 2 instances: i-0aaa1111 and i-0aaa2222"):
        instances_of(aws).match("i-0aaa")
    with pytest.raises(NotFound, match="starts with i-0ccc"):
        instances_of(aws).match("i-0ccc")


def test_three_characters_are_too_short_for_the_start_of_an_id() -> None:
    with pytest.raises(UsageError, match='"i-0bb" is too short') as caught:
        instances_of(rack_of(ec2("i-0bbb3333"))).match("i-0bb")

    assert 'at least 4 characters after "i-"' in caught.value.hint


def test_several_ids_are_matched_by_one_call_and_each_is_returned_once() -> None:
    aws = Recording(instances={i: ec2(i) for i in (A, B, C)})

    assert [i.ec2_instance_id for i in instances_of(aws).match_all([C, A, C])] == [C, A]
    assert aws.asked == [[C, A, C]]


def test_ids_and_starts_of_ids_are_matched_in_the_order_they_were_given() -> None:
    aws = rack_of(ec2(A), ec2(B), ec2(C))

    assert [i.ec2_instance_id for i in instances_of(aws).match_all(["i-0c00", A, "i-0a00", "i-0b00"])] == [C, A, B]


def test_eight_digits_are_the_start_of_an_id_unless_an_instance_has_them_as_its_id() -> None:
    assert instances_of(rack_of(ec2(A))).match(A[:10]).ec2_instance_id == A
    assert instances_of(rack_of(ec2(A), ec2(A[:10]))).match(A[:10]).ec2_instance_id == A[:10]


def named(id_: str, name: str = "web", **fields: str) -> Instance:
    return replace(ec2(id_, Name=name), **fields)  # type: ignore[arg-type]


WEB = named(
    A,
    private_ip="10.0.0.9",
    public_ip="198.51.100.7",
    ipv6_address="2001:db8::a",
    private_dns_name="ip-10-0-0-9.ec2.internal",
    public_dns_name="ec2-198-51-100-7.compute-1.amazonaws.com",
)


@pytest.mark.parametrize(
    "name",
    [
        A,
        A[:6],
        "10.0.0.9",
        "198.51.100.7",
        "2001:db8::a",
        "2001:DB8:0:0::000A",
        "ip-10-0-0-9.ec2.internal",
        "IP-10-0-0-9.EC2.internal.",
        "ec2-198-51-100-7.compute-1.amazonaws.com",
        "web",
    ],
)
def test_an_id_an_address_a_dns_name_or_a_name_tag_names_an_instance(name: str) -> None:
    """RFC 5952 section 2 has the forms of one IPv6 address; RFC 1034 section 3.1, that case is ignored in DNS names."""
    others = (named(B, "db", private_ip="10.0.0.99", ipv6_address="2001:db8::b"), ec2(C))

    assert instances_of(rack_of(*others, WEB)).match(name).ec2_instance_id == A


@pytest.mark.parametrize("name", ["10.0.0", "ip-10-0-0-9", "We", "WEB", "i-web", "::1", "."])
def test_a_name_that_is_not_whole_names_nothing(name: str) -> None:
    with pytest.raises(NotFound, match=f"no instance has {re.escape(name)} as its address, DNS name or Name tag"):
        instances_of(rack_of(WEB, ec2(B))).match(name)


def test_a_name_tag_of_several_instances_is_refused_with_their_ids() -> None:
    with pytest.raises(UsageError, match=f"web matches 2 instances: {A} and {B}") as caught:
        instances_of(rack_of(WEB, named(B), ec2(C))).match("web")

    assert "give its id" in caught.value.hint


def test_of_a_long_list_of_matching_instances_ten_are_named_and_the_others_counted() -> None:
    many = [named(f"i-{n:017x}") for n in range(12)]

    with pytest.raises(UsageError, match=r"web matches 12 instances: .*, i-00000000000000009 and 2 more"):
        instances_of(rack_of(*many)).match("web")


def test_a_terminating_instance_leaves_its_name_to_its_replacement() -> None:
    aws = rack_of(replace(WEB, state="shutting-down"), named(B))

    assert instances_of(aws).match("web").ec2_instance_id == B
    assert instances_of(rack_of(replace(WEB, state="shutting-down"), ec2(B))).match("web").ec2_instance_id == A


@pytest.mark.parametrize("wrong", ["", " ", "i-0a", "i-"])
def test_one_invalid_id_among_others_is_refused_before_any_call(wrong: str) -> None:
    aws = Recording(instances={A: ec2(A)})

    with pytest.raises(UsageError):
        instances_of(aws).match_all([A, wrong])
    assert aws.asked == []
