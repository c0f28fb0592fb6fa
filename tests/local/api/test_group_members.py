"""Hooks, warm pools, and instances that are attached, stopped and started, through boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.local.api.clients import refusal
from tests.local.api.test_autoscaling import GROUP, group_of, members_of

if TYPE_CHECKING:
    from tests.local.api.clients import Rack


def put_hook(rack: Rack, **settings: Any) -> None:
    rack.autoscaling.put_lifecycle_hook(
        AutoScalingGroupName=GROUP,
        LifecycleHookName="bye",
        LifecycleTransition="autoscaling:EC2_INSTANCE_TERMINATING",
        **settings,
    )


def state_of(rack: Rack, instance_id: str) -> str:
    found = rack.autoscaling.describe_auto_scaling_instances(InstanceIds=[instance_id])["AutoScalingInstances"]
    return str(found[0]["LifecycleState"])


def test_a_hook_is_described_with_its_timeouts(seeded: Rack) -> None:
    """LifecycleHook: HeartbeatTimeout, DefaultResult, and a GlobalTimeout of 100 heartbeats, or 48 hours."""
    put_hook(seeded, HeartbeatTimeout=60, DefaultResult="CONTINUE", NotificationMetadata="m", RoleARN="arn:r")

    hook = seeded.autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=GROUP)["LifecycleHooks"][0]

    assert hook == {
        "LifecycleHookName": "bye",
        "AutoScalingGroupName": GROUP,
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
        "HeartbeatTimeout": 60,
        "GlobalTimeout": 6000,
        "DefaultResult": "CONTINUE",
        "NotificationMetadata": "m",
        "RoleARN": "arn:r",
    }
    put_hook(seeded, HeartbeatTimeout=7200)
    hook = seeded.autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=GROUP)["LifecycleHooks"][0]
    assert hook["GlobalTimeout"] == 172800


def test_a_heartbeat_puts_off_a_hook_s_timeout(seeded: Rack) -> None:
    """RecordLifecycleActionHeartbeat: "This extends the timeout by the length of time defined …"."""
    put_hook(seeded, HeartbeatTimeout=60, DefaultResult="CONTINUE")
    id_ = members_of(seeded)[0]
    seeded.autoscaling.terminate_instance_in_auto_scaling_group(InstanceId=id_, ShouldDecrementDesiredCapacity=False)
    seeded.pass_time(50)
    named = {"AutoScalingGroupName": GROUP, "LifecycleHookName": "bye", "InstanceId": id_}

    seeded.autoscaling.record_lifecycle_action_heartbeat(**named)
    seeded.pass_time(50)
    assert state_of(seeded, id_) == "Terminating:Wait"

    seeded.pass_time(15)
    assert state_of(seeded, id_) == "Terminating:Proceed"
    assert "No active Lifecycle Action" in refusal(seeded.autoscaling.record_lifecycle_action_heartbeat, **named)[1]


def test_the_hook_of_managed_draining_is_described_with_the_group_s_own(seeded: Rack) -> None:
    seeded.world.set_condition("managed-draining")

    (hook,) = seeded.autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=GROUP)["LifecycleHooks"]

    assert hook["LifecycleHookName"] == "ecs-managed-draining-termination-hook"
    assert (hook["GlobalTimeout"], hook["DefaultResult"]) == (172800, "CONTINUE")
    cluster = seeded.ecs.describe_clusters(clusters=["rack"])["clusters"][0]
    assert cluster["capacityProviders"] == [f"{GROUP}-provider"]


def test_a_capacity_provider_that_drains_puts_its_hook_on_the_group(seeded: Rack) -> None:
    seeded.ecs.create_capacity_provider(
        name="p", autoScalingGroupProvider={"autoScalingGroupArn": group_of(seeded)["AutoScalingGroupARN"]}
    )
    seeded.ecs.put_cluster_capacity_providers(
        cluster="rack", capacityProviders=["p"], defaultCapacityProviderStrategy=[]
    )
    hooks = seeded.autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=GROUP)["LifecycleHooks"]
    assert len(hooks) == 1

    seeded.ecs.update_capacity_provider(name="p", autoScalingGroupProvider={"managedDraining": "DISABLED"})

    assert not seeded.autoscaling.describe_lifecycle_hooks(AutoScalingGroupName=GROUP)["LifecycleHooks"]


def test_a_warm_pool_is_described_apart_from_its_group(seeded: Rack) -> None:
    """DescribeWarmPool, Instances: "The instances that are currently in the warm pool"."""
    seeded.autoscaling.put_warm_pool(AutoScalingGroupName=GROUP, MaxGroupPreparedCapacity=5, MinSize=1)
    seeded.pass_time(90)

    pool = seeded.autoscaling.describe_warm_pool(AutoScalingGroupName=GROUP)

    assert pool["WarmPoolConfiguration"] == {"MaxGroupPreparedCapacity": 5, "MinSize": 1, "PoolState": "Stopped"}
    assert [instance["LifecycleState"] for instance in pool["Instances"]] == ["Warmed:Stopped"] * 2
    warm = pool["Instances"][0]["InstanceId"]
    assert warm not in members_of(seeded)
    assert state_of(seeded, warm) == "Warmed:Stopped"
    group = group_of(seeded)
    assert (group["WarmPoolSize"], group["DesiredCapacity"]) == (2, 3)
    instance = seeded.ec2.describe_instances(InstanceIds=[warm])["Reservations"][0]["Instances"][0]
    assert instance["State"]["Name"] == "stopped"


def test_a_warm_pool_is_deleted(seeded: Rack) -> None:
    seeded.autoscaling.put_warm_pool(AutoScalingGroupName=GROUP)
    seeded.pass_time(60)
    delete = seeded.autoscaling.delete_warm_pool
    assert refusal(delete, AutoScalingGroupName=GROUP)[0] == "ResourceInUse"

    delete(AutoScalingGroupName=GROUP, ForceDelete=True)
    pool = seeded.autoscaling.describe_warm_pool(AutoScalingGroupName=GROUP)
    assert pool["WarmPoolConfiguration"]["Status"] == "PendingDelete"

    seeded.pass_time(60)
    assert "WarmPoolConfiguration" not in seeded.autoscaling.describe_warm_pool(AutoScalingGroupName=GROUP)


def test_a_launched_instance_is_attached(seeded: Rack) -> None:
    launched = seeded.ec2.run_instances(ImageId="ami-1", InstanceType="t3.small", MinCount=1, MaxCount=1)
    id_ = launched["Instances"][0]["InstanceId"]
    attach = seeded.autoscaling.attach_instances
    assert refusal(attach, AutoScalingGroupName=GROUP, InstanceIds=[id_])[0] == "ValidationError"
    seeded.pass_time(30)

    attach(AutoScalingGroupName=GROUP, InstanceIds=[id_])

    assert id_ in members_of(seeded)
    assert group_of(seeded)["DesiredCapacity"] == 4


def test_an_instance_is_stopped_and_started(rack: Rack) -> None:
    """StartInstances, StopInstances; one that is terminated gives IncorrectInstanceState."""
    launched = rack.ec2.run_instances(ImageId="ami-1", InstanceType="t3.small", MinCount=1, MaxCount=1)
    ids = {"InstanceIds": [launched["Instances"][0]["InstanceId"]]}
    rack.pass_time(30)

    change = rack.ec2.stop_instances(**ids)["StoppingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    assert refusal(rack.ec2.start_instances, **ids)[0] == "IncorrectInstanceState"
    rack.pass_time(30)

    change = rack.ec2.start_instances(**ids)["StartingInstances"][0]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("stopped", "pending")
    rack.ec2.terminate_instances(**ids)
    assert refusal(rack.ec2.stop_instances, **ids)[0] == "IncorrectInstanceState"
