"""One session on a connection: its streams pumped by a thread each, and the exit status they end in."""

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
from rackctl.ssh.paramiko_patches import open_session, paramiko, receive, request, tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rackctl.ssh.arrivals import Stream
    from rackctl.ssh.connect import Connection

    Sink = Callable[[bytes], None]

# A window for each direction of use: one that fills a line of 50 ms round trip, and one that does not keep ^C waiting
# behind output that is still on its way.
_WINDOW = 8 * 1024 * 1024
_PTY_WINDOW = 256 * 1024
_READ = 1024 * 1024
# The most that goes into one packet of 32,768 bytes, by paramiko's reckoning.
_PACKET = 32_704

_NOBODY_READS = b"e"


@dataclass(frozen=True, slots=True)
class Pty:
    """A PTY to ask for: columns, rows, and both in pixels; modes as RFC 4254, section 8, encodes them.

    One that is ``required`` is not done without.
    """

    term: str
    size: tuple[int, int, int, int]
    modes: bytes = b"\0"
    required: bool = False


class Session:
    """A command, or without one a login shell, that runs on the other side.

    ``stdin`` is a descriptor that is read to its end, or None for no input. ``stdout`` and ``stderr`` are called
    with what arrives, in the order in which it arrives, each by a thread of its own; while one does not return, the
    other side is held up. Where both write to ``one_place``, neither ever overtakes the other; where not, one that is
    held up does not hold up the other. One that raises BrokenPipeError has nobody reading on: an OpenSSH server tells
    the command, which gets a SIGPIPE. When the command stops reading, ``stdin`` is replaced by /dev/null, so that
    whoever writes to it learns that. ``typed`` may change what is read from ``stdin`` for a PTY.

    A ``pty`` that the server refuses is done without: ``has_pty`` tells. Of ``environment`` the server takes what it
    likes, and says nothing about the rest.

    ``result`` is the exit status, 128 and the signal's number for a command that a signal has ended, or an SshError.
    It is there when both streams have ended and not before, as OpenSSH does it.
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
        # By what is written to it, and by being closed, the one that waits for input learns not to.
        self._told, self._teller = os.pipe() if stdin is not None else (-1, -1)
        try:
            self._start(command, pty, environment or {}, one_place=one_place)
        except BaseException:
            self._tell_input(b"")
            if self._told >= 0:
                os.close(self._told)
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
            self._channel, self._arrivals = open_session(connection.transport, window, self._hear, strict=one_place)
            for name, value in environment.items():
                tell(self._channel, "env", name, value)
            if pty:
                self.has_pty = request(self._channel, "pty-req", os.fsencode(pty.term), *pty.size, pty.modes)
                if pty.required and not self.has_pty:
                    self._channel.close()
                    raise SshError(f"{connection.target} refused a terminal", hint="-T does without one")
            begun = request(self._channel, "exec", command) if command else request(self._channel, "shell")
            if not begun:
                self._channel.close()
                what = "run the command" if command else "start a shell"
                raise SshError(f"{connection.target} refused to {what}")
        connection.transport.packetizer.stop_hurrying()

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
        """Tell the other side the terminal's new size. On a session that has ended it does nothing."""
        try:
            self._channel.resize_pty(*size)
        except (paramiko.SSHException, EOFError, OSError):
            return

    def signal(self, signum: signal.Signals) -> None:
        """Have the server signal the command and what it has started. On a session that has ended it does nothing."""
        try:
            tell(self._channel, "signal", signum.name.removeprefix("SIG"))
        except (paramiko.SSHException, EOFError, OSError):
            return

    def wait(self) -> int:
        """Give the result when it is there, or raise it."""
        return self.result.result()

    def _hear(self, request: str, argument: str) -> None:
        if request == "exit-signal":
            self._exit_signal = argument
            self._channel.status_event.set()
        else:
            self._tell_input(_NOBODY_READS)

    def _tell_input(self, news: bytes) -> None:
        """Tell the thread that reads the input something, or with nothing that all is over."""
        with self._lock:
            if self._teller < 0:
                return
            if news:
                os.write(self._teller, news)
            else:
                os.close(self._teller)
                self._teller = -1

    def _pump_out(self, stream: Stream, sink: Sink, gone: Callable[[], None]) -> None:
        unread = False
        while data := receive(self._channel, stream, _READ):
            if unread:
                continue
            try:
                sink(data)
            except Exception as error:  # noqa: BLE001 - whatever it is, the result carries it
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
                tell(self._channel, "eow@openssh.com")
        else:
            # No other server would tell the command; it would fill a pipe that nobody reads, for ever.
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
        """Send what is read until its end, or until it is of no more use: then raise EOFError."""
        poll = select.poll()
        poll.register(self._told, select.POLLIN)
        poll.register(descriptor, select.POLLIN)
        try:
            while True:
                if self._told in dict(poll.poll()):
                    if os.read(self._told, 1) == _NOBODY_READS:
                        _replace_by_null(descriptor)
                    raise EOFError
                try:
                    data = os.read(descriptor, _PACKET)
                except BlockingIOError:
                    continue
                except OSError:
                    # Closed, or a terminal that has hung up: nothing more will come.
                    return
                if not data:
                    return
                self._send(self._typed(data) if self.has_pty else data)
        finally:
            os.close(self._told)

    def _send(self, data: bytes) -> None:
        while data:
            sent = self._channel.send(data)
            if not sent:
                raise EOFError
            data = data[sent:]

    def _end(self) -> None:
        self._channel.status_event.wait()
        self._tell_input(b"")
        try:
            self.result.set_result(self._status())
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            self.result.set_exception(error)

    def _status(self) -> int:
        if isinstance(self._failure, OSError):
            id_ = self._connection.target.ec2_instance_id
            raise SshError(f"cannot write what {id_} sends: {self._failure.strerror}") from self._failure
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
    """Make a sink of a descriptor, which may be a non-blocking one."""

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
                # A terminal that has hung up.
                if error.errno == errno.EIO:
                    raise BrokenPipeError from error
                raise

    return write


def _replace_by_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, descriptor)
    os.close(null)
