"""The `rackctl` command, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn, TypeGuard

import click

from rackctl.cli.command import LazyGroup
from rackctl.cli.console import note, say
from rackctl.cli.invocation import Invocation
from rackctl.errors import SIGNALLED, NotFound, RackctlError

# What was typed, among a context's meta.
_TYPED = "rackctl.typed"


class Root(LazyGroup):
    """The outermost group. It handles every error inside click, so that tests and the shell see the same."""

    def make_context(self, info_name: str | None, args: list[str], **more: Any) -> click.Context:  # type: ignore[override]
        typed = list(args)
        try:
            made = super().make_context(info_name, args, **more)
        except click.exceptions.NoArgsIsHelpError:
            raise
        except click.ClickException as error:
            if more.get("resilient_parsing"):
                raise
            _exit_with(error)
        made.meta[_TYPED] = typed
        return made

    def invoke(self, ctx: click.Context) -> Any:
        invocation = ctx.ensure_object(Invocation)
        try:
            result = self._invoke(ctx)
            sys.stdout.flush()
        except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError):
            raise
        except click.ClickException as error:
            _exit_with(error)
        except BrokenPipeError:
            # The reader has closed the pipe: exit silently.
            ctx.exit(SIGNALLED + signal.SIGPIPE)
        except (KeyboardInterrupt, click.Abort):
            ctx.exit(SIGNALLED + signal.SIGINT)
        except RackctlError as error:
            if invocation.debug:
                raise
            _tell(error)
            ctx.exit(error.exit_code)
        except Exception as error:
            if invocation.debug:
                raise
            if _is_unwritable(error):
                _tell(_unwritable(error))
            else:
                _tell(_internal(error))
            ctx.exit(RackctlError.exit_code)
        return result

    def _invoke(self, ctx: click.Context) -> Any:
        """Run the command, and once more if the cluster that it did not find is that of a convox rack."""
        try:
            return super().invoke(ctx)
        except NotFound as error:
            from rackctl.aws.ecs import NoCluster

            invocation = ctx.ensure_object(Invocation)
            # Whatever a command does begins with its cluster: nothing was done yet.
            if not isinstance(error, NoCluster) or not invocation.select_convox_cluster():
                raise
        with self.make_context(ctx.info_name, ctx.meta[_TYPED], obj=invocation) as again:
            return super().invoke(again)


def _exit_with(error: click.ClickException) -> NoReturn:
    from rackctl.cli.usage import in_our_words

    told = in_our_words(error)
    _tell(told)
    raise click.exceptions.Exit(told.exit_code)


# Errors of writing to a stream, which come without a file name.
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def _is_unwritable(error: Exception) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None


def _unwritable(error: OSError) -> RackctlError:
    return RackctlError(f"cannot write the output: {error.strerror}")


def _tell(error: RackctlError) -> None:
    """Print an error and its hint."""
    note(str(error))
    if error.hint:
        say(f"  {error.hint}")


def _internal(error: Exception) -> RackctlError:
    return RackctlError(
        f"an error in rackctl itself: {type(error).__name__}: {error}",
        hint="run the command with --debug and report what it prints",
    )


@click.group(
    cls=Root,
    context_settings={"help_option_names": ["-h", "--help"]},
    lazy={
        "completion": ("rackctl.cli.completion:completion", "Print a shell's completion script."),
        "doctor": ("rackctl.cli.doctor:doctor", "Check everything that a rack needs, and change nothing."),
        "instances": ("rackctl.cli.instances:instances", "List instances, log in to them, replace and re-key them."),
        "local": ("rackctl.local.command:local", "Run a rack on this machine, for trials and tests."),
        "racks": ("rackctl.cli.racks:racks", "List racks and their settings, find clusters and adopt them."),
    },
)
@click.version_option(package_name="rackctl", message="%(prog)s %(version)s")
def cli() -> None:
    """List, log in to, replace and re-key the EC2 instances of an ECS cluster.

    \b
      rackctl instances                 list the instances
      rackctl instances ssh ID          log in to an instance
      rackctl instances terminate ID    replace an instance
      rackctl instances keyroll         replace all instances, with a new SSH key
      rackctl local up                  start a rack on this machine, without AWS
    """


def main(invocation: Invocation | None = None) -> None:
    """Run the command line of this process."""
    _open_closed_streams()
    if "_RACKCTL_COMPLETE" in os.environ:
        from rackctl.cli.completion import use_these_scripts

        use_these_scripts()
    # A command uses nearly all of its objects to its end: frequent garbage collections free next to nothing.
    gc.set_threshold(100_000)
    try:
        cli(prog_name="rackctl", obj=invocation)
    except SystemExit as ended:
        _leave(ended.code)
    except OSError as error:
        if not _is_unwritable(error):
            raise
        _tell(_unwritable(error))
        _leave(RackctlError.exit_code)


def _open_closed_streams() -> None:
    """Open /dev/null where a standard stream is closed, as OpenSSH does, before a socket or a file gets its number."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            # open() returns the lowest free descriptor: this one.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - open until the process ends


def _leave(status: object) -> NoReturn:
    """End the process without tearing the interpreter down.

    The teardown crashes if a background thread is importing a compiled module, and takes a tenth of a short command's
    time.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else 0 if status is None else 1)
