"""What a session's two output streams have brought, read in the order in which it has arrived."""

from __future__ import annotations

import threading
from collections import deque

from rackctl.clock import SystemClock

# How long a reader that is held up, as by a full pipe, keeps the other stream's reader waiting, in seconds.
_PATIENCE = 0.1


class Arrivals:
    """Both streams of a session. Each has one reader, which has dealt with a piece when it asks for the next.

    A piece is given out when all pieces that arrived before it, on either stream, have been dealt with. A reader that
    is held up does not hold up the other one for long, unless the order is ``strict``: then both write to one place.
    ``fed`` collects the streams whose readers are to be told of new pieces.
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
        """Note that a piece has arrived, and give its number. Raises OverflowError beyond the window."""
        self._arrived += len(data)
        if self._arrived - self.taken > self._window:
            raise OverflowError("more than the window that it was granted")
        self._number += 1
        return self._number


class Stream:
    """One stream's received data; stands in for paramiko's BufferedPipe.

    That one keeps an array, from whose front each read moves all the rest down. This one's reader is told what is
    there when nothing more can be had without waiting for the network.
    """

    other: Stream

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._clock = SystemClock()
        self.ready = threading.Condition(arrivals.lock)
        self.pieces: deque[tuple[int, bytes]] = deque()
        self._closed = False
        # The number of the last piece that was given out, until it has been dealt with; and since when.
        self.busy = 0
        self.busy_since = 0.0

    def feed(self, data: bytes) -> None:
        self.pieces.append((self._arrivals.count(data), data))
        if self not in self._arrivals.fed:
            self._arrivals.fed.append(self)

    def tell_reader(self) -> None:
        with self.ready:
            self.ready.notify()

    def read(self, nbytes: int) -> bytes:
        """Wait for data and its turn, and give up to so many bytes; empty at the end."""
        with self.ready:
            self.busy = 0
            if self.other.pieces:
                self.other.ready.notify()
            while not (self.pieces and self._is_next()):
                if self._closed and not self.pieces:
                    return b""
                # A reader that is held up tells nobody, so its patience has to be looked after here.
                self.ready.wait(self._arrivals.patience if self.pieces else None)
            return self._take(nbytes)

    def _is_next(self) -> bool:
        """Tell whether all that arrived before the first piece has been dealt with, or is held up."""
        other, number = self.other, self.pieces[0][0]
        if 0 < other.busy < number:
            patience = self._arrivals.patience
            return patience is not None and self._clock.monotonic() - other.busy_since >= patience
        return not (other.pieces and other.pieces[0][0] < number)

    def _take(self, nbytes: int) -> bytes:
        """Take whole pieces up to a size, and none that arrived after one of the other stream."""
        self.busy, piece = self.pieces.popleft()
        if len(piece) > nbytes:
            self.pieces.appendleft((self.busy, piece[nbytes:]))
            piece = piece[:nbytes]
        taken = [piece]
        left = nbytes - len(piece)
        # In this order: what the other stream gets meanwhile has arrived after the last piece of this one.
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
