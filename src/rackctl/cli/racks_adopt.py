"""`rackctl racks adopt`: a bucket, a KMS key and tags, which make a rack of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.console import AWS, confirm, note, say, waiting_for
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import options
from rackctl.errors import RackctlError
from rackctl.settings import SETTINGS
from rackctl.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.adopt.adoption import Adopter, Adoption
    from rackctl.model import EcsCluster


def _checked(setting: str) -> Callable[[click.Context, click.Parameter, str | None], str]:
    """Return a callback that refuses a value that the setting would refuse."""

    def check(_: click.Context, param: click.Parameter, value: str | None) -> str:
        if value is None:
            return ""
        if not value:
            raise click.BadParameter("it is empty: is a variable in your script unset?", param=param)
        if problem := SETTINGS[setting].problem(value):
            raise click.BadParameter(f"{quoted(value)}: {problem}", param=param)
        return value

    return check


@click.command(cls=RackCommand)
@click.argument("cluster")
@options(
    click.option(
        "--bucket",
        "bucket_name",
        metavar="NAME",
        callback=_checked("bucket"),
        help="S3 bucket for SSH keys and journals.",
    ),
    click.option(
        "--kms-key", "key_id", metavar="KEY", callback=_checked("kms_key"), help="KMS key that seals the SSH keys."
    ),
    click.option(
        "--create", is_flag=True, help="Create the bucket and the KMS key, or correct the settings of those that exist."
    ),
    click.option("--yes", "-y", is_flag=True, help="Start without asking; required without a terminal."),
    click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing."),
)
@pass_invocation
def adopt(
    invocation: Invocation, cluster: str, bucket_name: str, key_id: str, create: bool, yes: bool, dry_run: bool
) -> None:
    """Adopt the ECS cluster CLUSTER as a rack: a bucket and a KMS key for its SSH keys, and tags that name them.

    Without --create, an existing bucket and key are checked and the cluster is tagged. With it, what is missing is
    created: a bucket that is versioned, private, takes TLS only and encrypts with KMS, and a KMS key with an alias and
    yearly rotation. Neither instances nor groups are changed. If the command is repeated, it does what is still
    missing.

    \b
    Examples:
      rackctl racks adopt prod-ecs --create
      rackctl racks adopt prod-ecs --create --yes --region eu-west-1
      rackctl racks adopt prod-ecs --bucket my-bucket --kms-key alias/my-key
    """
    from rackctl.adopt.adoption import Adopter

    aws = invocation.sources.account(notify=note)
    with waiting_for(AWS):
        rack = invocation.sources.rack_of(aws.ecs.cluster(cluster), aws)
        adopter = Adopter(rack)
        adoption = adopter.plan(bucket=bucket_name, kms_key=key_id, create=create)
    for warning in adoption.warnings:
        note(warning)
    if dry_run:
        click.echo(printable(_text(adoption, would=True)))
        return
    if not adoption.steps:
        click.echo(printable(f"Cluster {adoption.cluster.name} is a rack already; nothing was changed"))
        return
    if not yes:
        say(_text(adoption, would=False))
        confirm("Do this?", done="changed")
    _carry_out(adopter, adoption)
    click.echo(printable(f"Cluster {adoption.cluster.name} is now a rack"))
    _say_what_is_next(aws.ecs.cluster(cluster), rack.name)


def _text(adoption: Adoption, *, would: bool) -> str:
    lines = [
        f"cluster  {adoption.cluster.cluster_arn}",
        f"bucket   {adoption.bucket}",
        f"KMS key  {adoption.kms_key or f'{adoption.alias} (new)'}",
        *(f"  ok: {line}" for line in adoption.there),
        *(f"  {'would ' if would else ''}{adoption.describe(step)}" for step in adoption.steps),
    ]
    return "\n".join(lines if adoption.steps else [*lines, "  nothing is missing"])


def _carry_out(adopter: Adopter, adoption: Adoption) -> None:
    left = list(adoption.steps)
    try:
        for step in adopter.carry_out(adoption):
            left.remove(step)
            note(f"done: {adoption.describe(step)}")
    except (RackctlError, KeyboardInterrupt):
        note(f"stopped; left to do: {'; '.join(map(adoption.describe, left))}")
        say("  solve the problem, then run the same command again")
        raise


def _say_what_is_next(cluster: EcsCluster, rack: str) -> None:
    from rackctl.owners import owner_of

    owner = owner_of(cluster.tags)
    if owner is None:
        note("if Terraform manages the cluster, add these tags to its aws_ecs_cluster, or its next apply removes them:")
        for tag in (SETTINGS["bucket"].tag, SETTINGS["kms_key"].tag):
            say(f'  "{tag}" = "{cluster.tags.get(tag, "")}"')
    if owner and owner.kind == "convox":
        note(f"next: `rackctl -r {rack} instances keys import --convox` stores the key that convox has")
    else:
        note(f"next: `rackctl -r {rack} instances keys import FILE`, with the private key that the instances have")
