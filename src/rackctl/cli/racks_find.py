"""`rackctl racks find`: the clusters of the account and region, and what each lacks to be a rack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.console import AWS, note, waiting_for
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import output_option
from rackctl.text import listed

if TYPE_CHECKING:
    from rackctl.adopt.find import FoundCluster
    from rackctl.owners import Owner


@click.command(cls=RackCommand)
@output_option("table")
@pass_invocation
def find(invocation: Invocation, output: str) -> None:
    """List the ECS clusters of this account and region, and what each lacks to be a rack.

    The region and the credentials are those of the selected rack, or AWS's own if none is selected. OWNER is the
    CloudFormation stack that the cluster's groups belong to; nothing marks what Terraform made.

    \b
    Examples:
      rackctl racks find
      rackctl racks find --region eu-west-1 -o json
    """
    from rackctl.adopt.find import find_clusters
    from rackctl.cli.render import table

    aws = invocation.sources.account(notify=note)
    with waiting_for(AWS):
        found = find_clusters(aws, lambda cluster: invocation.sources.rack_of(cluster, aws))
    if output == "json":
        click.echo(json.dumps([_document(cluster) for cluster in found], indent=2))
    else:
        rows = [
            [
                c.name,
                str(c.instances),
                listed((group.auto_scaling_group_name for group in c.groups), most=2),
                str(c.owner) if c.owner else "unknown",
                "nothing" if c.is_ready else ", ".join((*c.lacks, *("unknown" for _ in c.unknown[:1]))),
            ]
            for c in found
        ]
        click.echo(table(["CLUSTER", "INSTANCES", "GROUPS", "OWNER", "LACKS"], rows))
    for cluster in found:
        for reason in cluster.unknown:
            note(f"cluster {cluster.name}: cannot check the store: {reason}")
    if not found:
        note(f"there are no ECS clusters in region {aws.region}")
    elif lacking := next((c for c in found if c.instances and {"a bucket", "a KMS key"} & set(c.lacks)), None):
        note(f"make a rack of one with `rackctl racks adopt {lacking.name} --create`")


def _document(cluster: FoundCluster) -> dict[str, Any]:
    return {
        "cluster": cluster.name,
        "cluster_arn": cluster.cluster_arn,
        "rack": cluster.rack,
        "instances": cluster.instances,
        "groups": [
            {"name": g.auto_scaling_group_name, "instances": g.instances, "owner": _owner(g.owner)}
            for g in cluster.groups
        ],
        "owner": _owner(cluster.owner),
        "key_names": [name for name in cluster.key_names if name],
        "ready": cluster.is_ready,
        "lacks": list(cluster.lacks),
        "unknown": list(cluster.unknown),
    }


def _owner(owner: Owner | None) -> dict[str, str] | None:
    return {"kind": owner.kind, "stack": owner.stack} if owner else None
