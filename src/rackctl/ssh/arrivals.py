"""The two output streams of a session, read in the order of arrival."""

from __future__ import annotations

import threading
from collections import deque

from rackctl.clock import SystemClock

# Seconds for which a blocked reader (its pipe is full, for example) delays the other stream's reader.
_PATIENCE = 0.1


class Arrivals:
    """Both streams of a session. Each has one reader, which has finished a piece when it reads the next.

    A piece is returned once the readers have finished all pieces that arrived before it, on either stream. A blocked
    reader delays the other one only briefly, unless the order is ``strict`` because both write to one place. ``fed``
    collects the streams whose readers are to be notified.
    """

    def __init__(self, fed: list[Stream], window: int, *, strict: bool) -> None:
        self.fed = fed
        self.lock = threading.Lock()
        self.patience = None if strict else _PATIENCE
        self.taken = 0
        self._window = window
        self._arrived = 0
        self._number = 0
        self.stdout, self.stderr = Stream(self), Stream(self)
        self.stdout.other, self.stderr.other = self.stderr, self.stdout

    def count(self, data: bytes) -> int:
        """Count a piece that has arrived, and return its number. Raises OverflowError beyond the window."""
        self._arrived += len(data)
        if self._arrived - self.taken > self._window:
            raise OverflowError("more than the window that it was granted")
        self._number += 1
        return self._number


class Stream:
    """One stream's received data, in place of paramiko's BufferedPipe.

    Each read of paramiko's pipe, an array, moves all remaining data. This stream's reader is notified when the socket
    is empty, not for each packet.
    """

    other: Stream

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._clock = SystemClock()
        self.ready = threading.Condition(arrivals.lock)
        self.pieces: deque[tuple[int, bytes]] = deque()
        self._closed = False
        # The number of the last piece that was read, until its reader has finished it, and the time of that read.
        self.busy = 0
        self.busy_since = 0.0

    def feed(self, data: bytes) -> None:
        self.pieces.append((self._arrivals.count(data), data))
        if self not in self._arrivals.fed:
            self._arrivals.fed.append(self)

    def notify_reader(self) -> None:
        with self.ready:
            self.ready.notify()

    def read(self, nbytes: int) -> bytes:
        """Wait for data and its turn, and return up to ``nbytes``; empty at the end."""
        with self.ready:
            self.busy = 0
            if self.other.pieces:
                self.other.ready.notify()
            while not (self.pieces and self._is_next()):
                if self._closed and not self.pieces:
                    return b""
                # A blocked reader sends no notification, so wait no longer than its patience.
                self.ready.wait(self._arrivals.patience if self.pieces else None)
            return self._take(nbytes)

    def _is_next(self) -> bool:
        """Return whether the other reader has finished every earlier piece, or is blocked."""
        other, number = self.other, self.pieces[0][0]
        if 0 < other.busy < number:
            patience = self._arrivals.patience
            return patience is not None and self._clock.monotonic() - other.busy_since >= patience
        return not (other.pieces and other.pieces[0][0] < number)

    def _take(self, nbytes: int) -> bytes:
        """Take whole pieces up to a size; stop before a piece that arrived after one of the other stream."""
        self.busy, piece = self.pieces.popleft()
        if len(piece) > nbytes:
            self.pieces.appendleft((self.busy, piece[nbytes:]))
            piece = piece[:nbytes]
        taken = [piece]
        left = nbytes - len(piece)
        # In this order, a piece that the other stream gets meanwhile arrived after the last one of this stream.
        until = self.pieces[-1][0] + 1 if self.pieces else 0
        if self.other.pieces:
            until = min(until, self.other.pieces[0][0])
        while self.pieces and self.pieces[0][0] < until and len(self.pieces[0][1]) <= left:
            self.busy, piece = self.pieces.popleft()
            taken.append(piece)
            left -= len(piece)
        data = piece if len(taken) == 1 else b"".join(taken)
        self.busy_since = self._clock.monotonic()
        self._arrivals.taken += len(data)
        return data

    def close(self) -> None:
        with self.ready:
            self._closed = True
            self.ready.notify()
