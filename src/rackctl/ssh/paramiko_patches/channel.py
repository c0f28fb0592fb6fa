# ruff: noqa: SLF001 - private members of paramiko are what this module is about
"""A session's channel: its window and its requests."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from rackctl.ssh.arrivals import Arrivals
from rackctl.ssh.paramiko_patches.library import inside, paramiko

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.ssh.arrivals import Stream
    from rackctl.ssh.paramiko_patches.transport import Transport


def open_session(
    transport: Transport, window: int, listener: Callable[[str, str], None], *, strict: bool
) -> tuple[paramiko.Channel, Arrivals]:
    """Open a session's channel with a window of so many bytes. Raises what paramiko raises."""
    channel = transport.open_session(window_size=window)
    arrivals = Arrivals(transport.packetizer.fed, window, strict=strict)
    # Nothing is received on a session before its command or shell is asked for.
    channel.in_buffer = arrivals.stdout  # type: ignore[assignment]
    channel.in_stderr_buffer = arrivals.stderr  # type: ignore[assignment]
    transport.listen(channel, listener)
    return channel, arrivals


def receive(channel: paramiko.Channel, stream: Stream, nbytes: int) -> bytes:
    """Wait for data of a stream, and grant the server as much more; empty at the end.

    What has arrived is given even when the connection has been lost since, which `Channel.recv` does not do.
    """
    data = stream.read(nbytes)
    if grant := inside(channel)._check_add_window(len(data)):
        message = paramiko.Message()
        message.add_byte(paramiko.common.cMSG_CHANNEL_WINDOW_ADJUST)
        message.add_int(channel.remote_chanid)
        message.add_int(grant)
        with suppress(EOFError, OSError, paramiko.SSHException):
            inside(channel).transport._send_user_message(message)
    return data


def request(channel: paramiko.Channel, kind: str, *arguments: str | bytes | int) -> bool:
    """Ask something of a session (RFC 4254, 6), and tell whether the server grants it."""
    message = _channel_request(channel, kind, *arguments, reply=True)
    within = inside(channel)
    within._event_pending()
    # In this order: a channel that is closed later than this sets the event.
    if not channel.closed:
        within.transport._send_user_message(message)
        within.event.wait()
    # What was granted may have ended since.
    if channel.closed and not within.event_ready:
        raise within.transport.get_exception() or EOFError
    return bool(within.event_ready)


def tell(channel: paramiko.Channel, kind: str, *arguments: str | bytes | int) -> None:
    """Tell a session something that wants no answer."""
    inside(channel).transport._send_user_message(_channel_request(channel, kind, *arguments, reply=False))


def _channel_request(
    channel: paramiko.Channel, kind: str, *arguments: str | bytes | int, reply: bool
) -> paramiko.Message:
    message = paramiko.Message()
    message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string(kind)
    message.add_boolean(reply)
    for argument in arguments:
        if isinstance(argument, int):
            message.add_int(argument)
        else:
            message.add_string(argument)
    return message
