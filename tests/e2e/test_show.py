"""`instances show` compared with boto3's answers from the same local rack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.conftest import boto3_client

if TYPE_CHECKING:
    from tests.e2e.conftest import Shell


def test_instances_show_and_boto3_agree_on_tasks_images_and_ports(shell: Shell) -> None:
    ecs = boto3_client(shell, "ecs")

    shown = [shell.json(f"rackctl -r local instances show -o json {id_}") for id_ in shell.ids()]

    for instance in shown:
        arns = ecs.list_tasks(cluster="local", containerInstance=instance["container_instance_arn"])["taskArns"]
        told = ecs.describe_tasks(cluster="local", tasks=arns)["tasks"]
        assert {
            (c["taskArn"], c["image"], b["hostPort"], b["containerPort"])
            for t in told
            for c in t["containers"]
            for b in c["networkBindings"]
        } == {
            (t["arn"], c["image"], p["host"], p["container"])
            for t in instance["tasks"]
            for c in t["containers"]
            for p in c["ports"]
        }
        assert {t["taskArn"] for t in told} == {t["arn"] for t in instance["tasks"]}
    assert any(c["ports"] for i in shown for t in i["tasks"] for c in t["containers"])


def test_show_ssh_and_run_reach_an_instance_by_the_addresses_and_names_that_aws_shows(shell: Shell) -> None:
    ec2 = boto3_client(shell, "ec2")
    id_, other = shell.ids()[:2]
    (told,) = ec2.describe_instances(InstanceIds=[id_])["Reservations"][0]["Instances"]
    address, dns_name = told["PrivateIpAddress"], told["PrivateDnsName"]

    assert shell.json(f"rackctl instances show -o json {address}")["id"] == id_
    assert f"DNS names     {dns_name}\n" in shell(f"rackctl instances show {dns_name}").stdout
    assert shell(f"rackctl instances ssh {address} hostname -f").stdout == dns_name + "\n"
    ran = shell(f"rackctl instances run {dns_name} {other} -- echo up")
    assert sorted(ran.stdout.splitlines()) == [f"{id_}: up", f"{other}: up"], ran.stderr


def test_instances_show_accepts_an_abbreviated_id_and_agrees_with_docker(shell: Shell) -> None:
    id_ = shell.ids()[0]
    text = shell(f"rackctl -r local instances show {id_[:12]}").stdout
    images = shell(f"rackctl -r local instances ssh {id_} docker ps --format '{{{{.Image}}}}'").stdout.split()
    assert [image for image in images if image not in text] == ["amazon/amazon-ecs-agent:latest"]
