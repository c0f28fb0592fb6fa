"""An instance refresh of a group whose key pair is renewed under its name, over HTTP: boto3 reads what was asked for.

Sources: RefreshPreferences, DesiredConfiguration, CancelInstanceRefresh and RollbackInstanceRefresh in botocore's model
of Auto Scaling, https://docs.aws.amazon.com/autoscaling/ec2/userguide/asg-instance-refresh-skip-matching.html and
https://docs.aws.amazon.com/autoscaling/ec2/userguide/instance-refresh-rollback.html.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rackctl.roll.view import RollOptions
from tests.local.kept import NAME, KeptRolls
from tests.local.rolls import SPEED, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess

REFRESH = RollOptions(engine="refresh")


@pytest.fixture(params=["template", "configuration"])
def rolls(request: pytest.FixtureRequest, start_local_rack: Callable[..., LocalRackProcess]) -> KeptRolls:
    rolls = KeptRolls(start_local_rack(speed=SPEED), configuration=request.param == "configuration")
    rolls.drain_by_ecs()
    return rolls


def refreshes(rolls: KeptRolls) -> Any:
    name = rolls.group.auto_scaling_group_name
    return rolls.autoscaling.describe_instance_refreshes(AutoScalingGroupName=name)["InstanceRefreshes"]


@pytest.mark.timeout(300)
def test_all_instances_are_replaced_and_templates_and_groups_are_unchanged(rolls: KeptRolls) -> None:
    """SkipMatching "skips replacing instances that have the same launch template": with a kept key that is all of them.

    Over two seconds: a whole roll.
    """
    before, pair, old = rolls.made(), rolls.pair(), set(rolls.process.ids())

    events = start(rolls, REFRESH)

    [refresh] = refreshes(rolls)
    assert refresh["Status"] == "Successful"
    assert refresh["Preferences"]["SkipMatching"] is False
    assert "DesiredConfiguration" not in refresh
    assert rolls.made() == before
    assert not old & set(rolls.process.ids())
    assert rolls.pair()["PublicKey"] != pair["PublicKey"]
    assert f"the new key of key pair {NAME}" in events[-1].message
    rolls.assert_given_back(3)
    rolls.assert_each_lets_in_a_stored_key()


@pytest.mark.timeout(300)
def test_abort_cancels_a_refresh_that_cannot_be_rolled_back_and_restores_the_old_key(rolls: KeptRolls) -> None:
    """RollbackInstanceRefresh: "not supported" if "there is no desired configuration specified"; so it is not called.

    CancelInstanceRefresh: "this does not roll back any changes that it made". Over two seconds: most of a roll.
    """
    before, pair, old = rolls.made(), rolls.pair(), set(rolls.process.ids())
    said, _ = rolls.command("plan", "--engine", "refresh").communicate()
    detached = rolls.command("--engine", "refresh", "--detach")
    detached.communicate()
    assert detached.returncode == 0
    rolls.process.wait_for(lambda: refreshes(rolls)[0].get("PercentageComplete"), "the first replacement")
    since = rolls.process.calls()[-1]["number"]

    for event in rolls.roll.abort():
        print(event.message)

    assert "replaces all of its instances, and Auto Scaling cannot roll it back" in " ".join(said.split())
    called = rolls.process.actions(since=since, mutating=True)
    assert "autoscaling:CancelInstanceRefresh" in called
    assert "autoscaling:RollbackInstanceRefresh" not in called
    assert refreshes(rolls)[0]["Status"] == "Cancelled"
    assert rolls.made() == before
    assert rolls.pair()["PublicKey"] == pair["PublicKey"]
    rolls.assert_given_back(3)
    assert old & set(rolls.process.ids())
    assert set(rolls.process.ids()) - old
    rolls.assert_each_lets_in_a_stored_key()
