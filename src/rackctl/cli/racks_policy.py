"""`rackctl racks policy`: the least IAM policy for commands on a rack."""

from __future__ import annotations

import json

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.console import AWS, note, waiting_for
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.policies import ROLES

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html, which does not count white space
_MANAGED_POLICY = 6144


@click.command(cls=RackCommand)
@click.option(
    "--for",
    "roles",
    type=click.Choice(list(ROLES)),
    multiple=True,
    required=True,
    metavar="COMMAND",
    help=f"Command to allow: {', '.join(ROLES)}. Repeat to combine.",
)
@pass_invocation
def policy(invocation: Invocation, roles: tuple[str, ...]) -> None:
    """Print the least IAM policy that lets a user or role run commands on this rack.

    Actions, resources and conditions name this rack's cluster, groups, launch templates, bucket and keys as they are
    now. Print it again when the rack gets other groups, another bucket or another key_name setting.

    \b
    Examples:
      rackctl racks policy --for ssh
      rackctl racks policy --for list --for terminate
      rackctl racks policy --for keyroll > keyroll.json
    """
    from rackctl.adopt.facts import rack_facts
    from rackctl.policies import policy as policy_for

    with waiting_for(AWS):
        facts = rack_facts(invocation.rack, invocation.instances, roles, note)
    document = policy_for(roles, facts)
    click.echo(json.dumps(document, indent=2))
    if (length := len("".join(json.dumps(document).split()))) > _MANAGED_POLICY:
        note(
            f"the policy has {length} characters, and a managed policy at most {_MANAGED_POLICY}: put it into the role"
        )
    if facts.named.get("<instance role>") == ["*"] and any("iam:PassRole" in str(s) for s in document["Statement"]):
        note("it allows iam:PassRole for any role: put the role of the instance profile in place of role/*")
