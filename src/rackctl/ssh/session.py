"""One session on a connection: a thread for each stream, and the exit status."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rackctl.errors import SIGNALLED, SshError
from rackctl.ssh.failures import shorten
from rackctl.ssh.paramiko_patches import notify, open_session, paramiko, receive, request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rackctl.ssh.arrivals import Stream
    from rackctl.ssh.connect import Connection

    Sink = Callable[[bytes], None]

# Windows: large for a command, enough for a round trip of 50 ms; small for a terminal, so that ^C takes effect at once.
_WINDOW = 8 * 1024 * 1024
_PTY_WINDOW = 256 * 1024
_READ = 1024 * 1024
# The most data that paramiko puts into one packet of 32,768 bytes.
_PACKET = 32_704

_READER_GONE = b"e"


@dataclass(frozen=True, slots=True)
class Pty:
    """A PTY to request: columns, rows, and both in pixels; modes as RFC 4254, section 8, encodes them.

    If it is ``required`` and the server refuses it, the session fails.
    """

    term: str
    size: tuple[int, int, int, int]
    modes: bytes = b"\0"
    required: bool = False


class Session:
    """A command on the server, or a login shell.

    ``stdin`` is a descriptor that is read to its end, or None for no input. Two threads call ``stdout`` and ``stderr``
    with the output in the order of arrival; a call that blocks slows the server down. If both write to ``one_place``,
    the order is strict; else a blocked one does not block the other. If one raises BrokenPipeError, an OpenSSH server
    sends SIGPIPE to the command. If the command closes its stdin, ``stdin`` is replaced by /dev/null, so that its
    writer gets SIGPIPE. ``typed`` may change the input to a PTY.

    If the server refuses the ``pty``, the session continues without one (see ``has_pty``), unless it is required. The
    server may ignore the ``environment``.

    ``result`` is the exit status, or 128 plus the signal's number for a command that a signal has ended, or an
    SshError. As in OpenSSH, it is set when both streams have ended.
    """

    def __init__(
        self,
        connection: Connection,
        command: bytes | None,
        *,
        stdin: int | None,
        stdout: Sink,
        stderr: Sink,
        one_place: bool = False,
        pty: Pty | None = None,
        typed: Callable[[bytes], bytes] = lambda data: data,
        environment: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.result: Future[int] = Future()
        self.has_pty = False
        self._connection = connection
        self._stdin = stdin
        self._typed = typed
        self._exit_signal = ""
        self._failure: Exception | None = None
        self._abandoned = False
        self._outputs_left = 2
        self._lock = threading.Lock()
        # A byte in this pipe, or its end, wakes the thread that waits for input.
        self._wake_reading, self._wake_writing = os.pipe() if stdin is not None else (-1, -1)
        if stdin is not None:
            os.set_blocking(self._wake_writing, False)
        try:
            self._start(command, pty, environment or {}, one_place=one_place)
        except BaseException:
            self._wake_input(b"")
            if self._wake_reading >= 0:
                os.close(self._wake_reading)
            raise
        for stream, sink, gone in (
            (self._arrivals.stdout, stdout, self._reader_gone),
            (self._arrivals.stderr, stderr, lambda: None),
        ):
            threading.Thread(target=self._pump_out, args=(stream, sink, gone), daemon=True).start()
        threading.Thread(target=self._pump_in, daemon=True).start()

    def _start(
        self, command: bytes | None, pty: Pty | None, environment: Mapping[bytes, bytes], *, one_place: bool
    ) -> None:
        connection = self._connection
        with self._errors():
            window = _PTY_WINDOW if pty else _WINDOW
            self._channel, self._arrivals = open_session(
                connection.transport, window, self._on_request, strict=one_place
            )
            for name, value in environment.items():
                notify(self._channel, "env", name, value)
            if pty:
                self.has_pty = request(self._channel, "pty-req", os.fsencode(pty.term), *pty.size, pty.modes)
                if pty.required and not self.has_pty:
                    self._channel.close()
                    raise SshError(f"{connection.target} refused a terminal", hint="use -T for a session without one")
            begun = request(self._channel, "exec", command) if command else request(self._channel, "shell")
            if not begun:
                self._channel.close()
                what = "run the command" if command else "start a shell"
                raise SshError(f"{connection.target} refused to {what}")
        connection.transport.packetizer.allow_delayed_acks()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        connection = self._connection
        try:
            yield
        except paramiko.ChannelException as error:
            refusal = shorten(connection.transport.channel_refusal)
            raise SshError(f"{connection.target} refused a session: {refusal}") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise connection.loss from error

    def resize(self, size: tuple[int, int, int, int]) -> None:
        """Send the terminal's new size. Does nothing if the session has ended."""
        try:
            self._channel.resize_pty(*size)
        except (paramiko.SSHException, EOFError, OSError):
            return

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal to the command through the server. Does nothing if the session has ended."""
        try:
            notify(self._channel, "signal", signum.name.removeprefix("SIG"))
        except (paramiko.SSHException, EOFError, OSError):
            return

    def wait(self) -> int:
        """Wait for the result and return or raise it."""
        return self.result.result()

    def _on_request(self, request: str, argument: str) -> None:
        if request == "exit-signal":
            self._exit_signal = argument
            self._channel.status_event.set()
        else:
            self._wake_input(_READER_GONE)

    def _wake_input(self, news: bytes) -> None:
        """Wake the thread that reads the input: with a byte, or at the end by closing the pipe."""
        with self._lock:
            if self._wake_writing < 0:
                return
            if news:
                # The input may have ended already, and a full pipe has woken its reader already.
                with suppress(BrokenPipeError, BlockingIOError):
                    os.write(self._wake_writing, news)
            else:
                os.close(self._wake_writing)
                self._wake_writing = -1

    def _pump_out(self, stream: Stream, sink: Sink, gone: Callable[[], None]) -> None:
        unread = False
        while data := receive(self._channel, stream, _READ):
            if unread:
                continue
            try:
                sink(data)
            except Exception as error:  # noqa: BLE001 - the result carries it
                unread = True
                if not isinstance(error, BrokenPipeError):
                    self._failure = error
                gone()
        with self._lock:
            self._outputs_left -= 1
            last = self._outputs_left == 0
        if last:
            self._end()

    def _reader_gone(self) -> None:
        if self._connection.is_openssh:
            with suppress(paramiko.SSHException, EOFError, OSError):
                notify(self._channel, "eow@openssh.com")
        else:
            # Other servers would not signal the command, which would then block on a pipe that is never read.
            self._abandoned = True
            self._channel.close()

    def _pump_in(self) -> None:
        try:
            if self._stdin is not None:
                self._pump_from(self._stdin)
            self._channel.shutdown_write()
        except (paramiko.SSHException, EOFError, OSError):
            return

    def _pump_from(self, descriptor: int) -> None:
        """Send the input to its end. Raises EOFError if the session accepts no more."""
        poll = select.poll()
        poll.register(self._wake_reading, select.POLLIN)
        poll.register(descriptor, select.POLLIN)
        try:
            while True:
                if self._wake_reading in dict(poll.poll()):
                    if os.read(self._wake_reading, 1) == _READER_GONE:
                        _replace_by_null(descriptor)
                    raise EOFError
                try:
                    data = os.read(descriptor, _PACKET)
                except BlockingIOError:
                    continue
                except OSError:
                    # The input is closed, or is a terminal that has hung up.
                    return
                if not data:
                    return
                self._send(self._typed(data) if self.has_pty else data)
        finally:
            os.close(self._wake_reading)

    def _send(self, data: bytes) -> None:
        while data:
            sent = self._channel.send(data)
            if not sent:
                raise EOFError
            data = data[sent:]

    def _end(self) -> None:
        self._channel.status_event.wait()
        self._wake_input(b"")
        try:
            self.result.set_result(self._status())
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            self.result.set_exception(error)

    def _status(self) -> int:
        if isinstance(self._failure, OSError):
            id_ = self._connection.target.ec2_instance_id
            raise SshError(f"cannot write the output of {id_}: {self._failure.strerror}") from self._failure
        if self._failure:
            raise self._failure
        if self._exit_signal:
            number = signal.Signals.__members__.get(f"SIG{self._exit_signal}")
            if number is None:
                name = shorten(self._exit_signal)
                raise SshError(f"the command was ended by signal {name}, which this system does not have")
            return SIGNALLED + number
        status = self._channel.exit_status
        if status != -1:
            return status & 0xFF
        if self._abandoned:
            return SIGNALLED + signal.SIGPIPE
        if self._connection.transport.is_active():
            raise SshError(f"{self._connection.target} ended the command without an exit status")
        raise self._connection.loss


def to_descriptor(descriptor: int) -> Sink:
    """Return a sink that writes to a descriptor, which may be non-blocking."""

    def write(data: bytes) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(descriptor, left) :]
            except BlockingIOError:
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()
            except OSError as error:
                # The output is a terminal that has hung up.
                if error.errno == errno.EIO:
                    raise BrokenPipeError from error
                raise

    return write


def _replace_by_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, descriptor)
    os.close(null)
