# ruff: noqa: SLF001 - this module exists to access paramiko's private members
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
    """Open a session's channel with a window of ``window`` bytes. Raises paramiko's errors."""
    channel = transport.open_session(window_size=window)
    arrivals = Arrivals(transport.packetizer.fed, window, strict=strict)
    # The server sends nothing on a session before its command or shell is requested.
    channel.in_buffer = arrivals.stdout  # type: ignore[assignment]
    channel.in_stderr_buffer = arrivals.stderr  # type: ignore[assignment]
    transport.listen(channel, listener)
    return channel, arrivals


def receive(channel: paramiko.Channel, stream: Stream, nbytes: int) -> bytes:
    """Wait for data of a stream, and grant the server as much window again; empty at the end.

    Data that has arrived is returned even if the connection is lost; `Channel.recv` would raise.
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
    """Send a channel request (RFC 4254, 5.4) and return whether the server grants it."""
    message = _channel_request(channel, kind, *arguments, reply=True)
    within = inside(channel)
    within._event_pending()
    # In this order: closing the channel after this check sets the event.
    if not channel.closed:
        within.transport._send_user_message(message)
        within.event.wait()
    # The command of a granted request may have ended already.
    if channel.closed and not within.event_ready:
        raise within.transport.get_exception() or EOFError
    return bool(within.event_ready)


def notify(channel: paramiko.Channel, kind: str, *arguments: str | bytes | int) -> None:
    """Send a channel request without asking for a reply."""
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
