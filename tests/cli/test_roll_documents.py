"""`rackctl instances keyroll plan` and `status`: the text, the JSON, and the exit status."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from rackctl.rack import Rack
from rackctl.roll.view import RollOptions
from rackctl.settings import Origin, Source, Value
from tests.cli.test_keyroll import killed
from tests.fakes.world import OLD_KEY, Scene
from tests.fakes.world_aws import RACK
from tests.roll.acts import JOURNAL, NEW_KEY

if TYPE_CHECKING:
    from tests.cli.prompt import Prompt


# The plan


def test_the_plan_is_text_that_a_person_can_read(typed: Prompt) -> None:
    scene = typed.scene
    scene.world.seed_service(scene.seeded, "single", "i", "c", desired=1, minimum_percent=0)
    scene.world.seed_service(scene.seeded, "rigid", "i", "c", desired=2, minimum_percent=100, maximum_percent=100)

    result = typed("plan")

    assert result.exit_code == 0
    text = result.stdout
    said = 'A keyroll of rack "prod" would replace 3 instances, in about 14 minutes, with 1 extra instance'
    assert said in text.splitlines()[0]
    assert f"  launches    prod-instances version 1, with key {OLD_KEY}" in text
    assert "  single: 1 task, 0 at least (minimum 0 %, maximum 200 %" in text
    assert "  rigid: 2 tasks, 2 at least (minimum 100 %, maximum 100 %" in text
    assert all(id_ in text for id_ in scene.old)
    assert scene.aws.mutations == []


def with_tags(scene: Scene, **tags: str) -> None:
    """Have tags of the cluster name settings in the place of what the scene gives."""
    given = {"cluster": RACK, "prefix": "rackctl/prod", "bucket": "b", "kms_key": "alias/k"}
    origins = {name: Value(value, Origin(Source.OPTION, "test")) for name, value in given.items() if name not in tags}
    scene.aws.tags.update({f"rackctl:{name.replace('_', '-')}": value for name, value in tags.items()})
    scene.rack = Rack(Value(RACK, origins["cluster"].origin), origins, aws=scene.aws)  # type: ignore[arg-type]


def test_the_plan_names_the_bucket_and_the_kms_key_and_where_each_comes_from(typed: Prompt) -> None:
    with_tags(typed.scene, kms_key="alias/tagged")

    text = typed("plan").stdout
    plan = json.loads(typed("plan", "-o", "json").stdout)

    assert "\n  journal and keys in s3://b (test), sealed by KMS key alias/tagged (tag rackctl:kms-key)\n" in text
    assert plan["bucket"] == {"value": "b", "origin": "test"}
    assert plan["kms_key"] == {"value": "alias/tagged", "origin": "tag rackctl:kms-key"}


def test_a_kms_key_of_another_account_that_only_a_tag_names_blocks_the_plan(typed: Prompt) -> None:
    foreign = "arn:aws:kms:us-east-1:999999999999:key/1234"
    with_tags(typed.scene, kms_key=foreign)

    result = typed("plan")

    assert result.exit_code == 1
    assert f"sealed by KMS key {foreign} (tag rackctl:kms-key)" in result.stdout
    assert "belongs to account 999999999999 and not to the cluster's, 123456789012" in result.stdout


def test_a_blocked_plan_says_why_and_how_to_lift_it_and_exits_with_one(typed: Prompt) -> None:
    typed.scene.template.versions[1].data.pop("KeyName")
    typed.scene.template.tags["aws:cloudformation:stack-name"] = "prod-stack"

    result = typed("plan")

    assert result.exit_code == 1
    assert "Blocked:\n  group prod-instances launches without a key, and launch template prod-inst" in result.stdout
    assert "    → name a key pair there: CloudFormation, stack prod-stack: KeyName: NAME; or use --out" in result.stdout
    assert typed("plan", "--out-of-band").exit_code == 0


def test_the_plan_says_how_each_group_gets_its_key_and_why(typed: Prompt) -> None:
    def said() -> tuple[str, dict[str, object]]:
        (group,) = json.loads(typed("plan", "-o", "json").stdout)["groups"]
        return typed("plan").stdout, group["key"]

    text, key = said()
    why = f"key pair {OLD_KEY} is one of rackctl's own"
    assert (
        f"\n  new key     creates a key pair with a new name and launch template versions that name it ({why})\n"
        in text
    )
    assert key == {"way": "new", "reason": why, "key_pairs": [], "lines": []}

    with_tags(typed.scene, key_name="keep")
    text, key = said()
    why = "key_name is keep (tag rackctl:key-name)"
    assert f"\n  new key     renews key pair {OLD_KEY} under the same name ({why})\n" in text
    assert key == {"way": "keep", "reason": why, "key_pairs": [OLD_KEY], "lines": []}


def test_a_blocked_plan_says_so_in_its_first_line(typed: Prompt) -> None:
    typed.scene.group.suspended["Launch"] = "by hand"

    assert typed("plan").stdout.splitlines()[0].endswith("; blocked: see below.")


PLAN_FIELDS = {
    "rack", "selection", "engine", "refused", "refusals", "bucket", "kms_key", "groups", "services", "standalone_tasks",
    "left_alone", "warnings", "pause", "checked", "alarms", "total", "seconds", "instance_hours",
}  # fmt: skip
GROUP_FIELDS = {
    "group", "desired_capacity", "max_size", "launch_templates", "replace", "surge", "surge_reason", "at_once",
    "missing", "seconds", "key", "launches", "launched_from",
}  # fmt: skip


def test_the_plan_as_json_has_the_documented_fields(typed: Prompt) -> None:
    plan = json.loads(typed("plan", "-o", "json", "--batch", "5").stdout)

    assert set(plan) == PLAN_FIELDS
    (group,) = plan["groups"]
    assert set(group) == GROUP_FIELDS
    assert sorted(group["replace"]) == sorted(typed.scene.old)
    assert (group["surge"], group["surge_reason"]) == (2, "the group's maximum size of 5 allows no more")
    assert group["launch_templates"] == [
        {
            "launch_template_id": typed.scene.template.launch_template_id,
            "launch_template_name": "prod-instances",
            "version": "1",
            "version_number": 1,
            "key_name": OLD_KEY,
        }
    ]


def test_the_plan_says_how_many_instances_a_group_lacks(typed: Prompt) -> None:
    scene = typed.scene
    scene.group.suspended["Launch"] = "by hand"
    scene.group.desired = 4

    text = typed("plan").stdout
    (group,) = json.loads(typed("plan", "-o", "json").stdout)["groups"]

    assert "  capacity    4, at most 5; 1 of 4 missing\n" in text
    assert group["missing"] == 1


def test_the_plan_of_a_rack_with_a_running_roll_is_blocked_and_names_the_holder(typed: Prompt) -> None:
    killed(typed.scene, 12)

    result = typed("plan")

    assert result.exit_code == 1
    assert 'holds the keyroll of rack "prod", started at 2026-01-02T03:04:35Z' in result.stdout


# The status


STATUS_FIELDS = {
    "state", "phase", "rack", "selection", "engine", "key_name", "key_pairs", "reason", "started", "owner",
    "heartbeat", "problem", "settling", "total", "left", "groups", "instances",
}  # fmt: skip


def test_status_says_when_there_is_no_roll(typed: Prompt) -> None:
    assert typed("status").stdout == 'There is no roll on rack "prod".\n'
    assert json.loads(typed("status", "-o", "json").stdout) == {"state": "none"}


def test_status_shows_who_is_running_the_roll_and_how_far_each_group_is(typed: Prompt) -> None:
    killed(typed.scene, 20)

    text = typed("status").stdout
    found = json.loads(typed("status", "-o", "json").stdout)

    assert "  state       still running; last heartbeat 1 second ago\n" in text
    assert re.search(r"\n  run by      \S+@\S+ \(process \d+\)\n", text)
    assert "  capacity    4, 1 of it surge (was 3)" in text
    assert set(found) == STATUS_FIELDS
    assert (found["state"], found["phase"], found["key_name"]) == ("running", "replacing", NEW_KEY)
    assert {i["phase"] for i in found["instances"]} >= {"waiting", "terminating"}


def test_status_names_the_services_that_the_next_batch_waits_for(typed: Prompt) -> None:
    scene = typed.scene
    service = scene.world.seed_service(
        scene.seeded, "api", "i", "c", desired=3, memory=1100, minimum_percent=0, maximum_percent=100
    )
    scene.clock.sleep(60)
    scene.when(lambda: bool(scene.draining), lambda: setattr(service, "desired", 99))
    assert typed("--drain-timeout", "5m").exit_code == 6

    assert "\n  settling    api\n" in typed("status").stdout
    assert json.loads(typed("status", "-o", "json").stdout)["settling"] == ["api"]


def test_status_counts_an_instance_as_replaced_only_when_it_is_gone(typed: Prompt) -> None:
    events = typed.scene.roll.start(RollOptions())
    next(event for event in events if event.phase == "terminating")
    assert "  replaced    0 of 3\n" in typed("status").stdout

    next(event for event in events if event.phase == "gone")
    assert "  replaced    1 of 3\n" in typed("status").stdout


@pytest.mark.parametrize("sleep", [0, 400])
def test_nothing_that_status_shows_of_a_roll_that_stopped_is_cut_at_80_columns(typed: Prompt, sleep: float) -> None:
    """The commands to type fit on a line of their own; the reason of the stop is whole, however long it is."""
    scene = typed.scene
    scene.world.set_condition("stuck-drain")
    typed("--drain-timeout", "1m", "--reason", "a laptop was lost")
    scene.clock.sleep(sleep)
    problem = json.loads(scene.aws.objects[JOURNAL].body)["journal"]["problem"]

    lines = typed("status").stdout.splitlines()

    assert f"  problem     {problem}" in lines
    assert "  reason      a laptop was lost" in lines
    assert lines[-3:] == [
        "Continue with:",
        "  rackctl instances keyroll resume --rack prod",
        "  rackctl instances keyroll abort --rack prod",
    ]
    assert [line for line in lines if len(line) > 80] == [f"  problem     {problem}"]


def test_status_says_that_a_roll_died_and_how_to_continue(typed: Prompt) -> None:
    killed(typed.scene, 20)
    typed.scene.clock.sleep(400)

    text = typed("status").stdout

    assert "  state       died without releasing its lock; last heartbeat 7 minutes ago\n" in text
    assert "  rackctl instances keyroll resume --rack prod\n  rackctl instances keyroll abort --rack prod\n" in text


def test_status_of_an_abort_that_stopped_names_abort_alone(typed: Prompt) -> None:
    scene = typed.scene
    killed(scene, 20)
    scene.clock.sleep(400)
    next(event for event in scene.roll.abort() if event.kind == "restored")
    scene.clock.sleep(400)

    text = typed("status").stdout

    assert text.splitlines()[0].endswith(": being aborted")
    assert text.endswith("Continue with:\n  rackctl instances keyroll abort --rack prod\n")


def test_status_shows_what_is_under_way_and_what_is_suspended(typed: Prompt) -> None:
    events = typed.scene.roll.start(RollOptions())
    id_ = next(event.ec2_instance_id for event in events if event.phase == "draining")

    text = typed("status").stdout

    assert re.search(rf"{id_}  draining since 2026-\S+Z", text)
    assert "  suspended   AZRebalance" in text


def test_status_is_watched_until_no_process_runs_the_roll(typed: Prompt) -> None:
    scene = typed.scene
    events = scene.roll.start(RollOptions())
    next(event for event in events if event.phase == "draining")
    scene.later(15, lambda: scene.roll.unlock(force=True))

    text = typed("status", "--watch", "5").stdout

    assert text.count("still running") >= 2
    assert "  state       stopped; last heartbeat" in text
    assert text.rstrip().endswith("keyroll abort --rack prod")
    assert typed("status", "--watch", "0").exit_code == 2
