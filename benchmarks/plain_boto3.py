"""What `rackctl instances` is measured against: the same list by boto3 as its documentation teaches it.

The same calls, as concurrently, and the same table; each page becomes rows as soon as it is there. It has nothing
of rackctl's, and none of what makes rackctl fast.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import boto3
import humanize
from botocore.config import Config
from tabulate import tabulate

CLUSTER = "bench"
WORKERS = 8


def container_instances(ecs: Any, arns: list[str]) -> dict[str, list[Any]]:
    answer = ecs.describe_container_instances(cluster=CLUSTER, containerInstances=arns)
    return {
        found["ec2InstanceId"]: [
            "on" if found["agentConnected"] else "off",
            found["status"].lower(),
            found["runningTasksCount"],
            percent(found, "CPU"),
            percent(found, "MEMORY"),
        ]
        for found in answer["containerInstances"]
    }


def percent(found: dict[str, Any], name: str) -> str:
    registered, remaining = (
        next(resource["integerValue"] for resource in found[kind] if resource["name"] == name)
        for kind in ("registeredResources", "remainingResources")
    )
    return f"{(registered - remaining) / registered * 100:.2f}%"


def instances(ec2: Any) -> dict[str, datetime]:
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[
            {"Name": "tag:Rack", "Values": [CLUSTER]},
            {"Name": "instance-state-name", "Values": ["pending", "running", "shutting-down", "stopping", "stopped"]},
        ],
        PaginationConfig={"PageSize": 1000},
    )
    return {
        instance["InstanceId"]: instance["LaunchTime"]
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    }


def main() -> None:
    config = Config(max_pool_connections=16)
    ecs, ec2 = boto3.client("ecs", config=config), boto3.client("ec2", config=config)
    with ThreadPoolExecutor(WORKERS) as pool:
        launched = pool.submit(instances, ec2)
        described = [
            pool.submit(container_instances, ecs, page["containerInstanceArns"])
            for page in ecs.get_paginator("list_container_instances").paginate(cluster=CLUSTER)
        ]
        registered = {id_: found for page in described for id_, found in page.result().items()}
    now = datetime.now(UTC)
    rows = []
    for id_, launch_time in sorted(launched.result().items()):
        agent, status, tasks, cpu, memory = registered[id_]
        rows.append([id_, agent, status, humanize.naturaltime(now - launch_time), tasks, cpu, memory])
    headers = ["ID", "AGENT", "STATUS", "STARTED", "PS", "CPU", "MEM"]
    print(tabulate(rows, headers=headers, tablefmt="plain", disable_numparse=True))


if __name__ == "__main__":
    main()
