"""`rackctl racks template`: what `racks adopt` makes, as code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rackctl.cli.command import RackCommand

if TYPE_CHECKING:
    from rackctl.adopt.templates import Format, Kind


@click.command(cls=RackCommand)
@click.option(
    "--for",
    "kind",
    type=click.Choice(["store", "rack"]),
    required=True,
    help="Contents: bucket and KMS key of an existing cluster (store), or a whole cluster (rack).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["cloudformation", "terraform"]),
    default="cloudformation",
    show_default=True,
    help="Language of the template; terraform is for the store alone.",
)
def template(kind: Kind, form: Format) -> None:
    """Print a template of CloudFormation or Terraform that makes a rack's store, or a rack.

    The store is what `racks adopt --create` makes; bucket and key are kept when their stack is deleted. The rack is an
    ECS cluster of Amazon Linux 2023 instances with IMDSv2, encrypted volumes, managed draining, a least instance role
    and SSH from the addresses that you state. The first lines say how to deploy it. AWS is not called.

    \b
    Examples:
      rackctl racks template --for store > store.yaml
      rackctl racks template --for store --format terraform > store.tf
      rackctl racks template --for rack > rack.yaml
    """
    from rackctl.adopt.templates import template as text_of

    click.echo(text_of(kind, form), nl=False)
