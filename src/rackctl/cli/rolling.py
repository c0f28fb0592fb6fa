"""What the commands that roll a rack share: their options, their subcommands, and how a roll is shown."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from rackctl.cli.command import LazyGroup, RackCommand
from rackctl.cli.console import AWS, draws_on, note, quiet_keyboard, waiting_for
from rackctl.cli.duration import Duration
from rackctl.cli.invocation import Invocation, pass_invocation
from rackctl.cli.options import options, output_option
from rackctl.cli.signals import signal_handlers
from rackctl.cli.watching import print_text, repeat, seconds_of, watch_option
from rackctl.errors import RackctlError, UsageError
from rackctl.roll.view import KEYROLL
from rackctl.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rackctl.cli.roll_progress import View
    from rackctl.roll.check import Check
    from rackctl.roll.hold import StopRequest
    from rackctl.roll.report import Event, Status
    from rackctl.roll.roll import Roll
    from rackctl.roll.view import RollOptions, Selection

    # Takes the options of a group, and returns which instances they mean and the options that are left.
    Select = Callable[..., tuple[Selection, dict[str, Any]]]

_REFUSED = 1
_BEGIN = {"keyroll": "Rebooting instances...", "replace": "Replacing instances..."}


def _not_empty(_: click.Context, parameter: click.Parameter, given: str | tuple[str, ...] | None) -> Any:
    """Refuse a value, or one of several, that is empty."""
    values = given if isinstance(given, tuple) else (given,)
    if any(value is not None and not value.strip() for value in values):
        raise UsageError(f"{parameter.opts[0]} is empty", hint="is a variable in your script unset?")
    return given


class _Count(click.IntRange):
    """A number of instances; what is empty is said to be."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not value.strip():
            self.fail("it is empty: is a variable in your script unset?", param, ctx)
        return super().convert(value, param, ctx)


def along_the_way(noun: str, *, begun: bool = False) -> dict[str, Callable[..., Any]]:
    """Make the options that may change during a roll: for its start, or for one that has ``begun``."""

    def unless(default: str) -> str:
        return f"  [default: {'as started' if begun else default}]"

    def switch(name: str, text: str) -> Callable[..., Any]:
        # What was asked for at the start can be taken back.
        spelling = f"--{name}/--no-{name}" if begun else f"--{name}"
        return click.option(spelling, is_flag=True, default=None, help=text + (unless("") if begun else ""))

    shared = {
        "batch": click.option("--batch", type=_Count(1), metavar="N",
                              help=f"Instances to drain and terminate at the same time.{unless('1')}"),
        "surge": click.option("--surge", type=_Count(0), metavar="N",
                              help="Instances to launch before old ones are terminated, within the group's maximum "
                              f"size.{unless('the batch')}"),
        "no-surge": click.option("--no-surge", is_flag=True, default=None,
                                 help="Launch no instance before one is terminated, as with --surge 0."),
        "pause": click.option("--pause", type=Duration(),
                              help=f"Wait this long between two batches.{unless('0s')}"),
        "alarm": click.option("--alarm", "alarms", metavar="NAME", multiple=True, callback=_not_empty,
                              help=f"Stop the {noun} while this CloudWatch alarm is in state ALARM. Repeat for "
                              f"several.{unless('none')}"),
        "check": click.option("--check", metavar="COMMAND", callback=_not_empty,
                              help="Run this shell command on this machine after each batch, and stop the "
                              f"{noun} if it fails."),
        "check-timeout": click.option("--check-timeout", type=Duration(),
                                      help=f"Stop the {noun} if the check takes longer.{unless('10m')}"),
        **({
            "no-alarm": click.option("--no-alarm", is_flag=True, default=None, help="Continue without the alarms."),
            "no-check": click.option("--no-check", is_flag=True, default=None,
                                     help=f"Continue without the check that the {noun} was started with."),
        } if begun else {}),
        "drain": click.option("--drain-timeout", type=Duration(),
                              help=f"Stop the {noun} if a drain takes longer, or the services take longer to be "
                              f"steady again.{unless('15m')}"),
        "boot": click.option("--boot-timeout", type=Duration(),
                             help=f"Stop the {noun} if a new instance cannot take tasks after this time."
                             f"{unless('15m')}"),
        "force": switch("force", "Continue if a drain times out or an agent is off; tasks that still run there are "
                        "stopped."),
        "standalone": switch("stop-standalone",
                             "Stop tasks that belong to no service instead of waiting for them to end."),
        "unregistered": switch("include-unregistered",
                               "Terminate instances that are not registered with the cluster, undrained, with "
                               "whatever runs on them."),
    }  # fmt: skip
    if begun:
        shared["engine"] = click.option(
            "--engine", type=click.Choice(["rackctl"]),
            help="Have rackctl itself replace what an instance refresh has left.  [default: as started]",
        )  # fmt: skip
    if noun != KEYROLL.noun:
        return shared
    return shared | {
        "ssh": switch(
            "require-ssh", "Stop the keyroll if the first new instance cannot be reached to try the new key."
        ),
        "keep": switch("keep-old-keys", "Keep old keys that no instance uses any more."),
    }


engine_options = options(
    click.option(
        "--engine", type=click.Choice(["rackctl", "refresh"]),
        help="Replace the instances by rackctl itself, or by Auto Scaling's instance refresh, which goes on without "
        "rackctl.  [default: rackctl]",
    ),
    click.option(
        "--drain-hook", metavar="NAME", callback=_not_empty,
        help="Trust this lifecycle hook to drain what an instance refresh terminates, where managed draining is off.",
    ),
)  # fmt: skip
_detach_option = click.option(
    "--detach", is_flag=True, help="Return when the instance refresh is started, instead of waiting for its end."
)
group_option = click.option(
    "--group", "groups", metavar="NAME", multiple=True, callback=_not_empty,
    help="Roll this Auto Scaling group only. Repeat for several.",
)  # fmt: skip
reason_option = click.option("--reason", metavar="TEXT", callback=_not_empty, help="Record this reason in the journal.")
_events_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True,
    help="Output format; json prints one event a line on stdout.",
)  # fmt: skip
start_options = options(
    _detach_option,
    click.option("--dry-run", is_flag=True, help="Show what would be done, as `plan` does, and change nothing."),
    _events_option,
)
_document_option = output_option("text")


def start_roll(ctx: click.Context, select: Select, options: dict[str, Any]) -> None:
    """Do what a group does without a subcommand: roll, or with --dry-run show the plan."""
    if ctx.invoked_subcommand is not None:
        _refuse_options_before(ctx)
        return
    selection, rest = select(**options)
    output, dry_run, detach = rest.pop("output"), rest.pop("dry_run"), rest.pop("detach")
    if dry_run:
        _show_plan(ctx, output, selection, rest)
        return
    _carry_out(
        ctx.ensure_object(Invocation), output, selection.command,
        lambda roll: roll.start(_roll_options(rest), selection, detach=detach), rest["check"],
        begin=_BEGIN[selection.command],
    )  # fmt: skip


def _show_plan(ctx: click.Context, output: str, selection: Selection, options: dict[str, Any]) -> None:
    """Print the plan of a roll; the exit status is 1 if it would be refused."""
    from rackctl.cli.roll_documents import plan_fields, plan_text

    with waiting_for(AWS):
        invocation = ctx.ensure_object(Invocation)
        roll = invocation.roll(check=_shell_command(invocation, options["check"]))
        made = roll.plan(_roll_options(options), selection)
    click.echo(json.dumps(plan_fields(made), indent=2) if output == "json" else printable(plan_text(made)))
    if made.refusals:
        ctx.exit(_REFUSED)


def add_commands(group: LazyGroup, any_selection: Selection, select: Select, plan_options: Callable[..., Any]) -> None:
    """Add the commands to a group that every roll has; ``any_selection`` says what its rolls are called."""
    noun, command = any_selection.noun, any_selection.command

    @group.command(
        cls=RackCommand,
        help=f"Show what a {noun} with these options would do, and change nothing.\n\n"
        f"The exit status is 1 if the {noun} would be refused.",
    )
    @options(plan_options, _document_option)
    @click.pass_context
    def plan(ctx: click.Context, /, output: str, **options: Any) -> None:
        _show_plan(ctx, output, *select(**options))

    @group.command(cls=RackCommand, help=f"Show the progress of the current {noun} and who is running it.")
    @_document_option
    @watch_option(f" until no process runs a {noun}")
    @pass_invocation
    def status(invocation: Invocation, output: str, watch: str | None) -> None:
        _show_status(invocation, output, watch)

    @group.command(
        cls=RackCommand,
        help=f"Resume a {noun} that has stopped or crashed, from this machine.\n\nOptions given here replace those "
        f"that the {noun} was started with.",
    )
    @options(*along_the_way(noun, begun=True).values(), _detach_option, _events_option)
    @pass_invocation
    def resume(invocation: Invocation, /, output: str, detach: bool, **options: Any) -> None:
        _carry_out(
            invocation, output, command, lambda roll: roll.resume(detach=detach, **_given(options)), options["check"],
            begin=_BEGIN[command],
        )  # fmt: skip

    @group.command(
        cls=RackCommand,
        help=f"Roll back a {noun} that has stopped or crashed.\n\nThe groups launch as before the {noun} and get back "
        "their capacity and processes. Draining instances become ACTIVE again. Instances that have been replaced stay "
        "replaced; if they have a new key, it stays stored.",
    )
    @options(
        *(along_the_way(noun, begun=True)[name] for name in ("drain", "boot", "force", "standalone", "unregistered")),
        _events_option,
    )
    @pass_invocation
    def abort(invocation: Invocation, /, output: str, **options: Any) -> None:
        _carry_out(invocation, output, command, lambda roll: roll.abort(**_given(options)))

    @group.command(
        cls=RackCommand,
        help=f"Take the {noun}'s lock from the process that holds it.\n\nNot needed after a crash: `resume` and "
        "`abort` take over after five minutes of silence.",
    )
    @click.option("--force", is_flag=True, help="Take the lock even if its holder seems to be running.")
    @pass_invocation
    def unlock(invocation: Invocation, force: bool) -> None:
        found = invocation.roll().unlock(force=force)
        journal, owner = found.journal, found.journal.owner
        who = f"taken from {owner}" if owner else "not locked"
        ways = " or ".join(map(journal.command, journal.ways_on))
        note(f"the {journal.selection.noun} started at {journal.started}: {who}; continue with {ways}")


def _refuse_options_before(ctx: click.Context) -> None:
    """Refuse options of a group's own that stand before one of its subcommands."""
    before = [p for p in ctx.params if ctx.get_parameter_source(p) is click.core.ParameterSource.COMMANDLINE]
    if before:
        flag = next(p.opts[-1] for p in ctx.command.params if p.name == before[0])
        ctx.fail(f"put {flag} after `{ctx.invoked_subcommand}`, if that takes it")


def _show_status(invocation: Invocation, output: str, watch: str | None) -> None:
    from rackctl.cli.roll_documents import status_fields, status_text

    seconds = seconds_of(watch) if watch is not None else None
    roll = invocation.roll()
    latest: list[Status | None] = []

    def text() -> str:
        latest[:] = [roll.status()]
        if output == "json":
            return json.dumps(status_fields(latest[0]), indent=None if seconds else 2)
        return printable(status_text(latest[0], invocation.rack.name))

    if seconds is None:
        with waiting_for(AWS):
            now = text()
        print_text(now)
    else:
        repeat(invocation, text, seconds, is_over=lambda: not (latest[0] and latest[0].found.is_live))


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given. --no-X becomes the value that turns X off; --check is not among them."""
    found = {name: value for name, value in options.items() if value not in {None, ()}}
    for name, option, nothing in (("surge", "surge", 0), ("alarm", "alarms", ()), ("check", "checked", False)):
        value = found.pop("check", None) if name == "check" else found.get(option)
        if found.pop(f"no_{name}", False):
            if value:
                raise UsageError(f"--{name} and --no-{name} exclude each other", hint="give one of them")
            found[option] = nothing
    return found


def _roll_options(options: dict[str, Any]) -> RollOptions:
    """Return the options of a roll from those that were given."""
    from rackctl.roll.view import RollOptions

    return RollOptions(**_given(options))


def _shell_command(invocation: Invocation, check: str | None) -> Check | None:
    from rackctl.roll.check import ShellCommand

    return ShellCommand(check, invocation.environment) if check else None


def _carry_out(
    invocation: Invocation,
    output: str,
    command: str,
    begin_roll: Callable[[Roll], Iterator[Event]],
    check: str | None = None,
    *,
    begin: str = "",
) -> None:
    """Run a roll and show its events, until its end or a signal; ``check`` is run after each batch."""
    from rackctl.roll.hold import StopRequest

    stop = StopRequest()
    live = output != "json" and draws_on(sys.stderr, invocation.environment)
    try:
        quiet = quiet_keyboard() if live else nullcontext()
        with _signals(stop, say=not live), quiet, _view(invocation, output, begin, stop, live=live) as view:
            _show(view, begin_roll(invocation.roll(stop, check=_shell_command(invocation, check))), stop)
    except KeyboardInterrupt:
        note(
            f"stopped at once: instances may still be DRAINING. `rackctl instances {command} status` shows where the "
            "roll stands and how to continue it"
        )
        raise


def _show(view: View, events: Iterator[Event], stop: StopRequest) -> None:
    watched = True
    try:
        with waiting_for(AWS):
            first = list(islice(events, 1))
        for event in chain(first, events):
            try:
                if watched:
                    view.show(event)
            except OSError:
                # The pipe's reader or the terminal is gone: stop the roll at the next safe point.
                watched, stop.signal = False, stop.signal or signal.SIGPIPE
                _silence_stdout()
    except RackctlError as error:
        if watched:
            view.fail(error)
        raise


def _silence_stdout() -> None:
    """Keep buffered output from being written to a closed stdout at the end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _view(invocation: Invocation, output: str, begin: str, stop: StopRequest, *, live: bool) -> View:
    from rackctl.cli.roll_progress import JsonView, LineView, LiveView

    if output == "json":
        return JsonView(invocation.clock)
    begun: list[bool] = []

    def say_begin() -> None:
        if begin and not begun:
            begun.append(True)
            click.echo(begin)
            sys.stdout.flush()

    if not live:
        return LineView(say_begin)
    from rich.console import Console

    return LiveView(Console(stderr=True), invocation.clock, invocation.rack.name, say_begin, lambda: bool(stop))


@contextmanager
def _signals(stop: StopRequest, *, say: bool) -> Iterator[None]:
    """Have the first signal ask for a stop at a safe point, and the second end the process at once."""

    def handle(number: int, _: object) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.signal = number
        if say:
            # Nothing buffered may be written to from a signal handler.
            os.write(2, b"\nrackctl: stopping at the next safe point; press Ctrl-C again to stop at once\n")

    with signal_handlers(handle):
        yield
