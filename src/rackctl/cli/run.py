"""`rackctl instances run`."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import click

from rackctl.cli.command import RackCommand
from rackctl.cli.completers import complete_filter, complete_instance
from rackctl.cli.console import AWS, note, waiting_for
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.signals import ending_at_once
from rackctl.cli.ssh_options import identity_option, keys_of, reach_options
from rackctl.errors import NotFound, SshError, UsageError
from rackctl.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rackctl.model import Instance
    from rackctl.rack_instance import RackInstance
    from rackctl.ssh.connect import Connection
    from rackctl.ssh.fleet import Outcome
    from rackctl.ssh.login import Keys
    from rackctl.ssh.session import Sink

# Longer lines are split, to limit memory; in bytes.
_LONGEST_LINE = 1024 * 1024
_PIECE = 64 * 1024


class _AfterDashes(RackCommand):
    """A command whose arguments after ``--`` are another command's; they are kept under `_COMMAND` of ``ctx.meta``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, dashes, words = args, False, list[str]()
        if "--" in args:
            at = args.index("--")
            own, dashes, words = args[:at], True, args[at + 1 :]
        rest = super().parse_args(ctx, own)
        if not ctx.resilient_parsing and not any(words):
            problem = "no command after --" if dashes else "put the command after --"
            raise click.UsageError(f"{problem}, for example: {ctx.command_path} --all -- uptime", ctx)
        ctx.meta[_COMMAND] = words
        return rest


_COMMAND = "rackctl.run.command"


@click.command(cls=_AfterDashes)
@click.argument("ids", metavar="(--all | ID...) -- COMMAND...", nargs=-1, shell_complete=complete_instance)
@click.option("--all", "on_all", is_flag=True, help="Run on every running instance.")
@click.option(
    "--filter",
    "filters",
    metavar="FIELD=VALUE",
    shell_complete=complete_filter,
    multiple=True,
    help="With --all: run on instances whose field matches: = != =~ (glob) < > <= >=. Repeat to combine.",
)
@click.option(
    "--parallel",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    metavar="N",
    help="Run on at most N at a time.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["lines", "json"]),
    default="lines",
    show_default=True,
    help="Output format; json prints one object a line, when an instance is done.",
)
@identity_option
@reach_options
@click.pass_context
@pass_invocation
def run(
    invocation: Invocation,
    ctx: click.Context,
    ids: tuple[str, ...],
    on_all: bool,
    filters: tuple[str, ...],
    parallel: int,
    output: str,
    identity: str | None,
) -> None:  # fmt: skip
    """Run COMMAND on many instances at once.

    ID is the id, its start (at least 4 characters after "i-"), an address, a DNS name or a Name tag that only one
    instance has. --all includes draining and unregistered instances; instances that are not running are left out and
    named. The login shell runs COMMAND without a terminal and
    with empty standard input. Each line of output is prefixed with the instance's id and goes to stdout or stderr, as
    COMMAND wrote it. Ctrl-C stops COMMAND everywhere.

    The exit status is 0 if COMMAND exited with 0 everywhere, else 1.

    \b
    Examples:
      rackctl instances run --all -- docker system prune -f
      rackctl instances run i-0a321c8b i-0b81 -- uptime
      rackctl instances run --all --filter status=draining -- 'docker ps | wc -l'
      rackctl instances run --all -o json -- df / | jq 'select(.exit_status > 0)'
    """
    command = b" ".join(map(os.fsencode, ctx.meta[_COMMAND]))
    from rackctl.background import in_background
    from rackctl.ssh.login import import_paramiko, locale

    importing = in_background(import_paramiko)
    keys = keys_of(invocation, identity)
    with waiting_for(AWS):
        instances = _chosen(invocation, ids, on_all, filters)
    importing.result()
    stdout, stderr = _whole_writes()

    def say(message: str) -> None:
        stderr(f"rackctl: {printable(message)}\n".encode())

    connect = _connector(invocation, keys, instances, say)
    show = _Json(stdout) if output == "json" else _Lines(stdout, stderr)
    environment = locale(invocation.rack, invocation.environment)
    if failed := _run(instances, command, connect, show, say, parallel, environment):
        say(f"failed on {len(failed)} of {len(instances)}: {', '.join(failed)}")
        sys.exit(1)


def _chosen(invocation: Invocation, ids: Sequence[str], on_all: bool, filters: Sequence[str]) -> Sequence[Instance]:
    from rackctl.cli.selection import filtered, names_outdated
    from rackctl.launches import with_outdated

    if on_all and ids:
        raise UsageError("--all and ids contradict each other", hint="remove one of them")
    if ids and filters:
        raise UsageError("--filter goes with --all, not with ids", hint="remove one of them")
    if ids:
        return invocation.instances.match_all(ids)
    if not on_all:
        raise UsageError("no instances given", hint="pass ids or --all")
    is_compared = names_outdated(filters)
    everything: Sequence[RackInstance] = invocation.instances.list()
    if is_compared:
        everything = with_outdated(invocation.rack.aws, everything)
    listed = filtered(everything, filters, invocation.clock.now())
    running = [i.instance for i in listed if i.instance and i.instance.state == "running"]
    if left_out := [f"{i.ec2_instance_id} ({i.status})" for i in listed if i.instance not in running]:
        note(f"not running, left out: {', '.join(left_out)}")
    if not running:
        matches = " matches" if filters else ""
        raise NotFound(f'no running instance of rack "{invocation.rack.name}"{matches}; nothing was run')
    return running


def _connector(
    invocation: Invocation, keys: Keys, instances: Sequence[Instance], say: Callable[[str], None]
) -> Callable[[str], Connection]:
    """Check the settings before anything is run; return a function that connects to an instance by its id."""
    from rackctl.ssh.login import connect
    from rackctl.ssh.reach import reach

    for instance in instances:
        # An SshError is the outcome of its instance; an invalid setting ends the command.
        with suppress(SshError):
            reach(invocation.rack, instance)
    by_id = {instance.ec2_instance_id: instance for instance in instances}

    def connect_to(id_: str) -> Connection:
        with waiting_for(f"the login to {id_}", say):
            return connect(invocation.rack, keys, by_id[id_], state_directory=invocation.state_directory, notify=say)

    return connect_to


def _run(
    instances: Sequence[Instance],
    command: bytes,
    connect: Callable[[str], Connection],
    show: _Lines | _Json,
    say: Callable[[str], None],
    parallel: int,
    environment: Mapping[bytes, bytes],
) -> list[str]:
    """Run the command on all, show the output, and return the ids of those on which it failed."""
    from rackctl.ssh.fleet import run_on_all

    ids = [instance.ec2_instance_id for instance in instances]
    failed = []
    outcomes = run_on_all(
        ids,
        command,
        connect=connect,
        output=show.output,
        one_place=os.path.sameopenfile(1, 2),
        environment=environment,
        parallel=parallel,
    )
    # Stopping the commands takes up to two seconds.
    with ending_at_once(deaf_then=True), closing(outcomes):
        for outcome in outcomes:
            show.done(outcome)
            if not outcome.succeeded:
                failed.append(outcome.ec2_instance_id)
                say(_failure(outcome))
    return failed


def _failure(outcome: Outcome) -> str:
    id_, error = outcome.ec2_instance_id, outcome.error
    if error is None:
        return f"{id_}: exit status {outcome.exit_status}"
    return f"{id_}: {error} ({error.hint})" if error.hint else f"{id_}: {error}"


def _whole_writes() -> tuple[Sink, Sink]:
    """Return sinks for stdout and stderr that keep each write together.

    If both are the same file, as a terminal, writes to both take turns.
    """
    from rackctl.ssh.session import to_descriptor

    def locked(sink: Sink, lock: threading.Lock) -> Sink:
        def write(data: bytes) -> None:
            with lock:
                sink(data)

        return write

    first = threading.Lock()
    second = first if os.path.sameopenfile(1, 2) else threading.Lock()
    return locked(to_descriptor(1), first), locked(to_descriptor(2), second)


# Characters that end a line for some readers (Python's str.splitlines, a terminal). With them an output could
# begin a line with another instance's id: a carriage return without a newline, VT, FF, FS to RS, NEL, LS and PS.
_BREAKS = rb"\r(?!\n|\Z)|[\x0b\x0c\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9]"
# On a terminal also control characters, which move its cursor, and bidirectional ones, which reorder its text.
_CONTROLS = rb"[\x00-\x08\x0e-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]"


def _escaper(*, for_terminal: bool) -> Callable[[bytes], bytes]:
    """Return a function that escapes these characters as ``\\r`` or ``\\x1b``."""
    unsafe = re.compile(_BREAKS + b"|" + _CONTROLS if for_terminal else _BREAKS)
    return lambda data: unsafe.sub(lambda found: found[0].decode().encode("unicode_escape"), data)


class _Lines:
    """Shows each line as it comes, with the instance's id before it."""

    def __init__(self, stdout: Sink, stderr: Sink) -> None:
        self._sinks = (
            (stdout, _escaper(for_terminal=os.isatty(1))),
            (stderr, _escaper(for_terminal=os.isatty(2))),
        )
        self._streams: dict[str, tuple[_Prefixed, _Prefixed]] = {}

    def output(self, id_: str) -> tuple[Sink, Sink]:
        prefix = f"{id_}: ".encode("ascii")
        (stdout, escape), (stderr, escape_errors) = self._sinks
        self._streams[id_] = streams = (
            _Prefixed(prefix, stdout, escape),
            _Prefixed(prefix, stderr, escape_errors),
        )
        return streams

    def done(self, outcome: Outcome) -> None:
        for stream in self._streams.pop(outcome.ec2_instance_id, ()):
            stream.end()


class _Prefixed:
    """Puts a prefix before each line of what it is given, and writes whole lines only."""

    def __init__(self, prefix: bytes, write: Sink, escape: Callable[[bytes], bytes]) -> None:
        self._prefix = prefix
        self._write = write
        self._escape = escape
        self._rest = bytearray()

    def __call__(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            ended = piece.rfind(b"\n") + 1
            if ended:
                lines = self._escape(bytes(self._rest) + piece[: ended - 1])
                self._rest[:] = piece[ended:]
                self._write(self._prefix + lines.replace(b"\n", b"\n" + self._prefix) + b"\n")
            else:
                self._rest += piece
            if len(self._rest) >= _LONGEST_LINE:
                self.end()

    def end(self) -> None:
        """End a line that has not ended itself."""
        if self._rest:
            self._write(self._prefix + self._escape(bytes(self._rest)) + b"\n")
            self._rest.clear()


class _Json:
    """Shows one object for each instance when it is done."""

    def __init__(self, stdout: Sink) -> None:
        self._stdout = stdout
        self._kept: dict[str, tuple[list[bytes], list[bytes]]] = {}

    def output(self, id_: str) -> tuple[Sink, Sink]:
        self._kept[id_] = ([], [])
        out, err = self._kept[id_]
        return out.append, err.append

    def done(self, outcome: Outcome) -> None:
        out, err = self._kept.pop(outcome.ec2_instance_id, ([], []))
        described = {
            "id": outcome.ec2_instance_id,
            "exit_status": outcome.exit_status,
            "stdout": b"".join(out).decode("utf-8", "replace"),
            "stderr": b"".join(err).decode("utf-8", "replace"),
            "error": str(outcome.error) if outcome.error else None,
        }
        self._stdout(json.dumps(described).encode("ascii") + b"\n")
