"""`rackctl instances keys`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from rackctl.cli.command import LazyGroup, RackCommand
from rackctl.cli.completers import complete_key
from rackctl.cli.console import confirm, note, say
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import described, output_option
from rackctl.cli.ssh_options import ask_passphrase
from rackctl.errors import NotFound, UsageError
from rackctl.text import ago, counted, printable, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from rackctl.keys.files import KeyFile
    from rackctl.keys.pruning import Verdict


@click.group("keys", cls=LazyGroup)
def keys() -> None:
    """List, import, show and prune the stored SSH keys.

    EC2's key pair of one name may have had several keys, one after the other. Each is stored as a generation of it.
    """


@keys.command("list", cls=RackCommand)
@output_option("table")
@pass_invocation
def list_(invocation: Invocation, output: str) -> None:
    """List the keys that are stored or that instances have, with those instances.

    An instance is expected to have the generation that was the newest when it was launched.
    """
    from rackctl.cli.render import table

    rows = list(_listed(invocation))
    now = invocation.clock.now()
    if output == "json":
        documents = [
            {
                "key_name": name,
                "generation": rfc3339(since) if since else None,
                "stored": since is not None,
                "age_seconds": int((now - since).total_seconds()) if since else None,
                "instances": ids,
            }
            for name, since, ids in rows
        ]
        click.echo(json.dumps(documents, indent=2))
        return
    cells = [
        [name, rfc3339(since) if since else "not stored", ago(since, now) if since else "", ", ".join(ids)]
        for name, since, ids in rows
    ]
    click.echo(table(["KEY", "GENERATION", "AGE", "INSTANCES"], cells))


def _listed(invocation: Invocation) -> Iterator[tuple[str, datetime | None, list[str]]]:
    """Yield the generations of each key, None for one that is not stored, with the instances expected to have them."""
    from rackctl.keys import expected

    stored = invocation.keys.everything()
    instances = invocation.instances.instances()
    having: dict[tuple[str, datetime | None], list[str]] = {}
    for instance in instances:
        generations = stored.get(instance.key_name)
        since = expected(generations, instance.first_launch_time) if generations else None
        having.setdefault((instance.key_name, since), []).append(instance.ec2_instance_id)
    for name in sorted(stored.keys() | {i.key_name for i in instances if i.key_name}):
        for since in stored.get(name) or [None]:  # type: ignore[list-item]
            yield name, since, having.get((name, since), [])
    if without := having.get(("", None)):
        note(f"launched without a key pair: {', '.join(without)}")


@keys.command("import", cls=RackCommand)
@click.option(
    "--name",
    metavar="NAME",
    shell_complete=complete_key,
    help=described("Name of the key pair in EC2.", default="the pair with this key"),
)
@click.option("--convox", is_flag=True, help="Take the key from the settings bucket of the convox v2 rack.")
@click.argument("file", metavar="(FILE | --convox)", type=click.Path(), required=False)
@pass_invocation
def import_(invocation: Invocation, file: str | None, name: str | None, convox: bool) -> None:
    """Store the private key in FILE, sealed by KMS; the file stays as it is.

    EC2 must have a key pair with this key. Importing it again changes nothing.

    \b
    Examples:
      rackctl instances keys import ~/.ssh/ops.pem
      rackctl instances keys import --name ops ~/.ssh/id_rsa
      rackctl instances keys import --convox --rack prod
    """
    from rackctl.keys.imports import import_key

    if name == "":
        raise UsageError("--name is empty", hint="is a variable in your script unset?")
    key = _key_to_import(invocation, file, convox=convox)
    # The names serve to choose between several pairs with the same key.
    in_use = {i.key_name for i in invocation.instances.instances()} if name is None else set()
    imported = import_key(invocation.rack, invocation.keys, key, name=name or "", in_use=in_use)
    done = "stored" if imported.is_new else "already stored:"
    since = rfc3339(imported.key.generation)
    click.echo(printable(f"{done} key {imported.key.key_name}, generation {since}, {imported.key.fingerprint}"))


def _key_to_import(invocation: Invocation, file: str | None, *, convox: bool) -> KeyFile:
    if convox and file is not None:
        raise UsageError("FILE and --convox contradict each other", hint="leave one of them out")
    if convox:
        from rackctl.keys.convox import instance_key

        return instance_key(invocation.rack)
    if file is None:
        raise UsageError("no key given", hint="name the file of the private key, or use --convox")
    from rackctl.keys.files import read_key_file

    return read_key_file(file, ask_passphrase)


@keys.command("show", cls=RackCommand)
@click.argument("name", metavar="NAME", shell_complete=complete_key)
@output_option("lines")
@pass_invocation
def show(invocation: Invocation, name: str, output: str) -> None:
    """Print the public keys of the stored key NAME, oldest first.

    Each line is one as in an authorized_keys file, with the generation as its comment.
    """
    store = invocation.keys
    found = [store.open(name, generation) for generation in store.generations(name)]
    if not found:
        raise NotFound(f"no key {name} is stored", hint="`rackctl instances keys list` lists the stored keys")
    if output == "json":
        documents = [
            {
                "key_name": key.key_name,
                "generation": rfc3339(key.generation),
                "type": key.key_type,
                "fingerprint": key.fingerprint,
                "public_key": key.public_key,
                "created": rfc3339(key.created),
                "imported": rfc3339(key.imported) if key.imported else None,
                "reason": key.reason or None,
            }
            for key in found
        ]
        click.echo(json.dumps(documents, indent=2))
        return
    for key in found:
        click.echo(printable(f"{key.public_key} {key.key_name} {rfc3339(key.generation)}"))


@keys.command("prune", cls=RackCommand)
@click.option("--dry-run", is_flag=True, help="Show what would be deleted, and delete nothing.")
@click.option("--yes", "-y", is_flag=True, help="Start without asking; required without a terminal.")
@pass_invocation
def prune(invocation: Invocation, dry_run: bool, yes: bool) -> None:
    """Delete the stored generations that no instance can have.

    A generation is kept if an instance in the region may have it, of this rack or another. The newest is always kept,
    and so are all generations of a name that no key pair in EC2 has.
    """
    verdicts = _verdicts(invocation)
    useless = [verdict for verdict in verdicts if not verdict.kept]
    for verdict in verdicts:
        what = f"kept: {verdict.kept}" if verdict.kept else ("would be deleted" if dry_run else "to be deleted")
        say(f"{verdict.key_name} {rfc3339(verdict.generation)}  {what}")
    if not useless:
        note("nothing to delete")
    if not useless or dry_run:
        return
    if not yes:
        confirm(f"Delete {counted(len(useless), 'generation')}?", done="deleted")
    # The answer may have taken its time.
    still = [verdict for verdict in _verdicts(invocation) if not verdict.kept]
    for verdict in useless:
        if verdict in still:
            invocation.keys.delete(verdict.key_name, verdict.generation)
            click.echo(printable(f"deleted key {verdict.key_name}, generation {rfc3339(verdict.generation)}"))
        else:
            note(f"kept key {verdict.key_name}, generation {rfc3339(verdict.generation)}: it is needed now")


def _verdicts(invocation: Invocation) -> Sequence[Verdict]:
    from rackctl.keys.pruning import examine

    return examine(invocation.rack, invocation.keys, invocation.instances.list())
