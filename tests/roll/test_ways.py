"""The way in which each group gets its new key: the rule of `--key-name`, as a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rackctl.owners import Owner
from rackctl.roll.reasons.ways import Launching, line_for, problems_of, ways_of

OWN = "prod-keypair-20250101T000000Z"
SHOP = Owner("cloudformation", "shop")
PLAIN = Launching("plain", (OWN,), frozenset({OWN}), ("lt-1",))
TERRAFORMS = Launching("terraforms", ("ops",), launch_template_ids=("lt-2",))
STACKS = replace(PLAIN, auto_scaling_group_name="stacks", key_names=("deploy",), own=frozenset(),
                 launch_template_ids=("lt-3",), owner=SHOP, owned="group stacks")  # fmt: skip
CONFIGURED = Launching("configured", ("legacy",), launch_configuration_name="old-style")
KEYLESS = Launching("keyless", ("",), launch_template_ids=("lt-4",))
HALF = Launching("half", ("ops", ""), launch_template_ids=("lt-5", "lt-6"))


@pytest.mark.parametrize(
    ("group", "way", "says"),
    [
        (PLAIN, "new", f"key pair {OWN} is one of rackctl's own"),
        (TERRAFORMS, "keep", "rackctl has not given key pair ops its name"),
        (STACKS, "keep", "group stacks belongs to stack shop"),
        (CONFIGURED, "keep", "launch configuration old-style cannot be changed"),
        (replace(STACKS, key_names=(OWN,), own=frozenset({OWN})), "keep", "belongs to stack shop"),
        (replace(CONFIGURED, key_names=(OWN,), own=frozenset({OWN})), "keep", "old-style cannot be changed"),
        (replace(PLAIN, key_names=(OWN, "ops")), "keep", "rackctl has not given key pair ops its name"),
        (KEYLESS, "new", "it launches without a key"),
        (HALF, "new", "it launches without a key"),
        # The name of a convox v2 rack's key, which rackctl gives no key.
        (replace(PLAIN, key_names=("prod-keypair-2061",), own=frozenset()), "keep", "prod-keypair-2061"),
    ],
)
def test_a_name_that_somebody_else_has_given_is_kept(group: Launching, way: str, says: str) -> None:
    found = ways_of([group], "auto", "because", "new-name")[group.auto_scaling_group_name]

    assert found.way == way
    assert says in found.reason
    assert bool(found.key_names) == (way == "keep")


@pytest.mark.parametrize("wanted", ["keep", "new"])
@pytest.mark.parametrize("group", [PLAIN, TERRAFORMS, STACKS, CONFIGURED])
def test_key_name_keep_and_new_hold_for_every_group(wanted: str, group: Launching) -> None:
    found = ways_of([group], wanted, "because", "new-name")[group.auto_scaling_group_name]

    assert (found.way, found.reason) == (wanted, "because")


def test_one_rack_may_have_groups_of_both_ways() -> None:
    found = ways_of([PLAIN, TERRAFORMS, CONFIGURED], "auto", "because", "new-name")

    assert {name: way.way for name, way in found.items()} == {
        "plain": "new", "terraforms": "keep", "configured": "keep"
    }  # fmt: skip


def test_groups_that_share_a_template_or_a_key_pair_go_the_same_way() -> None:
    """A new version would be `$Latest` to the others as well; and a renewed pair is renewed for all that name it."""
    by_template = replace(PLAIN, auto_scaling_group_name="a", launch_template_ids=("lt-2", "lt-9"))
    by_its_template = replace(PLAIN, auto_scaling_group_name="b", launch_template_ids=("lt-9",))
    by_key = replace(CONFIGURED, key_names=(OWN,), own=frozenset({OWN}))

    found = ways_of([by_its_template, by_template, TERRAFORMS], "auto", "because", "new-name")
    assert {name: way.way for name, way in found.items()} == dict.fromkeys(["a", "b", "terraforms"], "keep")
    assert found["b"].reason == "it shares a launch template with a"
    found = ways_of([PLAIN, by_key], "auto", "because", "new-name")
    assert found["plain"].reason == "it shares a key pair with configured"
    assert found["plain"].key_names == (OWN,)


def test_a_group_without_a_key_gets_a_new_name_even_if_groups_that_share_its_template_keep_theirs() -> None:
    shared = replace(KEYLESS, launch_template_ids=("lt-2",))

    assert ways_of([shared, TERRAFORMS], "auto", "because", "new-name")["keyless"].way == "new"


@pytest.mark.parametrize(
    ("group", "wanted", "lines"),
    [
        (PLAIN, "auto", ()),
        (TERRAFORMS, "auto", ()),
        (PLAIN, "new", ()),
        (TERRAFORMS, "new", ('Terraform: key_name = "NEW"',)),
        (KEYLESS, "auto", ('Terraform: key_name = "NEW"',)),
        (STACKS, "new", ("CloudFormation, stack shop: KeyName: NEW",)),
        (replace(STACKS, owner=Owner("cdk", "shop")), "new",
         ('CDK, stack shop (CDK): keyPair: ec2.KeyPair.fromKeyPairName(this, "KeyPair", "NEW"),',)),
    ],
)  # fmt: skip
def test_the_line_to_write_is_told_where_the_name_changes_for_somebody_else(
    group: Launching, wanted: str, lines: tuple[str, ...]
) -> None:
    assert ways_of([group], wanted, "because", "NEW")[group.auto_scaling_group_name].lines == lines


@pytest.mark.parametrize(
    ("group", "wanted", "out_of_band", "refused", "says"),
    [
        (PLAIN, "auto", False, None, ""),
        (TERRAFORMS, "auto", False, None, ""),
        (STACKS, "auto", False, None, ""),
        (CONFIGURED, "auto", False, None, ""),
        (STACKS, "new", False, False, "may bring the old key back"),
        (CONFIGURED, "new", True, True, "whose key cannot be changed"),
        (KEYLESS, "auto", False, None, ""),
        (KEYLESS, "keep", True, True, "there is no name to keep"),
        (HALF, "auto", False, True, "another template of it names key pair ops"),
        (HALF, "auto", True, False, "may take the new key away"),
        (replace(KEYLESS, owner=SHOP, owned="group keyless"), "auto", False, True, "stack shop"),
        (replace(KEYLESS, owner=SHOP, owned="group keyless"), "auto", True, False, "may take the new key away"),
        (replace(CONFIGURED, key_names=("",)), "auto", True, True, "launches without a key from launch configuration"),
    ],
)  # fmt: skip
def test_what_cannot_be_renewed_is_refused(
    group: Launching, wanted: str, out_of_band: bool, refused: bool | None, says: str
) -> None:
    """``refused`` is None where there is nothing to say, and False where a plan only warns."""
    found = list(problems_of([group], ways_of([group], wanted, "because", "NEW"), out_of_band=out_of_band))

    assert [not problem.warns for problem in found] == ([] if refused is None else [refused])
    assert all(says in problem.reason for problem in found)
    assert all(problem.remedy for problem in found if not problem.warns)


def test_a_group_without_a_key_is_told_the_line_that_gives_it_one() -> None:
    (problem,) = problems_of([HALF], ways_of([HALF], "auto", "because", "NEW"), out_of_band=False)

    assert line_for(None, "NAME") in problem.remedy
    assert "--out-of-band" in problem.remedy
