"""One command on many instances at once, with one connection for each."""

from __future__ import annotations

import signal
import threading
from collections import deque
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

from rackctl.background import in_background
from rackctl.errors import RackctlError
from rackctl.ssh.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from rackctl.ssh.connect import Connection
    from rackctl.ssh.session import Sink

# Seconds between signalling the commands and closing their connections.
_GRACE = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a command on an instance: its exit status, or the error."""

    ec2_instance_id: str
    exit_status: int | None = None
    error: RackctlError | None = None

    @property
    def succeeded(self) -> bool:
        return self.exit_status == 0


def run_on_all(
    ec2_instance_ids: Iterable[str],
    command: bytes,
    *,
    connect: Callable[[str], Connection],
    output: Callable[[str], tuple[Sink, Sink]],
    parallel: int,
    one_place: bool = False,
    environment: Mapping[bytes, bytes] | None = None,
) -> Generator[Outcome, None, None]:
    """Run a command without input on many instances, ``parallel`` at a time; yield each outcome as it ends.

    Several threads call ``connect``, and the sinks for stdout and stderr that ``output`` returns. ``one_place`` and
    ``environment`` are those of `Session`. An error of one instance is its outcome and does not affect the others. If
    the caller closes the iterator or is interrupted, or if a stdout raises BrokenPipeError, which is then raised here,
    every command gets SIGINT, as from ^C, and the connections are closed.
    """
    start = partial(Session, stdin=None, one_place=one_place, environment=environment)
    running = _Running(ec2_instance_ids, command, connect, output, start)
    try:
        yield from running.outcomes(parallel)
    finally:
        running.stop()


class _Running:
    def __init__(
        self,
        ec2_instance_ids: Iterable[str],
        command: bytes,
        connect: Callable[[str], Connection],
        output: Callable[[str], tuple[Sink, Sink]],
        start: Callable[..., Session],
    ) -> None:
        self._waiting = deque(ec2_instance_ids)
        self._command = command
        self._connect = connect
        self._output = output
        self._start = start
        self._sessions: dict[str, tuple[Session, Connection]] = {}
        self._lock = threading.Lock()
        self._stopped = False
        self._news: SimpleQueue[Outcome | BaseException] = SimpleQueue()

    def outcomes(self, parallel: int) -> Iterator[Outcome]:
        left = len(self._waiting)
        for _ in range(min(parallel, left)):
            in_background(self._work)
        while left:
            news = self._news.get()
            if isinstance(news, BaseException):
                raise news
            left -= 1
            yield news

    def stop(self) -> None:
        """Stop the running commands, within twice the grace."""
        with self._lock:
            self._stopped = True
            running = list(self._sessions.values())
        # In a thread for each: a silent server must not delay the others.
        for session, _ in running:
            in_background(partial(session.signal, signal.SIGINT))
        wait([session.result for session, _ in running], timeout=_GRACE)
        wait([in_background(connection.close) for _, connection in running], timeout=_GRACE)

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._stopped or not self._waiting:
                    return
                id_ = self._waiting.popleft()
            try:
                self._news.put(self._run(id_))
            except BaseException as error:  # noqa: BLE001 - the main thread raises it
                self._news.put(error)

    def _run(self, id_: str) -> Outcome:
        try:
            with self._connect(id_) as connection:
                stdout, stderr = self._output(id_)
                session = self._start(connection, self._command, stdout=self._watched(stdout), stderr=stderr)
                with self._lock:
                    self._sessions[id_] = session, connection
                    stopped = self._stopped
                if stopped:
                    # The connection was made only after all others had been closed.
                    session.signal(signal.SIGINT)
                    raise RackctlError(f"{id_} was stopped")
                return Outcome(id_, session.wait())
        except RackctlError as error:
            return Outcome(id_, error=error)
        finally:
            with self._lock:
                self._sessions.pop(id_, None)

    def _watched(self, sink: Sink) -> Sink:
        def write(data: bytes) -> None:
            try:
                sink(data)
            except BrokenPipeError as error:
                self._news.put(error)
                raise

        return write
