"""Two streams read in the order in which their pieces have arrived."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rackctl.ssh.arrivals import Arrivals, Stream


def arrivals(*, strict: bool = True, window: int = 1 << 20) -> Arrivals:
    return Arrivals([], window, strict=strict)


def test_read_returns_whole_pieces_up_to_the_size_then_the_end() -> None:
    both = arrivals()
    for piece in (b"aa", b"bbb", b"cccccc"):
        both.stdout.feed(piece)
    both.stdout.close()

    assert both.fed == [both.stdout]
    assert [both.stdout.read(6), both.stdout.read(4), both.stdout.read(4)] == [b"aabbb", b"cccc", b"cc"]
    assert both.stdout.read(4) == b""


def test_read_stops_before_a_piece_that_arrived_after_one_of_the_other_stream() -> None:
    both = arrivals()
    both.stdout.feed(b"1")
    both.stdout.feed(b"2")
    both.stderr.feed(b"3")
    both.stdout.feed(b"4")

    assert both.stdout.read(100) == b"12"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=5)), max_size=40), st.integers(1, 7))
def test_two_strict_readers_write_in_the_order_of_arrival(pieces: list[tuple[bool, bytes]], size: int) -> None:
    both = arrivals()
    written = bytearray()

    def read(stream: Stream) -> None:
        while data := stream.read(size):
            written.extend(data)

    readers = [threading.Thread(target=read, args=(stream,)) for stream in (both.stdout, both.stderr)]
    for reader in readers:
        reader.start()
    for is_stdout, piece in pieces:
        (both.stdout if is_stdout else both.stderr).feed(piece)
        while both.fed:
            both.fed.pop().notify_reader()
    both.stdout.close()
    both.stderr.close()
    for reader in readers:
        reader.join(10)

    assert bytes(written) == b"".join(piece for _, piece in pieces)


def test_a_blocked_reader_does_not_block_the_other_one() -> None:
    both = arrivals(strict=False)
    both.stdout.feed(b"held up")
    assert both.stdout.read(100) == b"held up"
    both.stderr.feed(b"error")

    # stdout's reader never comes back.
    assert both.stderr.read(100) == b"error"


def test_a_blocked_reader_blocks_the_other_one_if_the_order_is_strict() -> None:
    both = arrivals(strict=True)
    both.stdout.feed(b"held up")
    assert both.stdout.read(100) == b"held up"
    both.stderr.feed(b"error")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(both.stderr.read(100)), daemon=True)
    reader.start()
    reader.join(0.3)
    assert read == []

    both.stdout.close()
    assert both.stdout.read(100) == b""
    reader.join(10)
    assert read == [b"error"]


def test_feeding_more_than_the_window_raises() -> None:
    both = arrivals(window=10)
    both.stdout.feed(b"12345")
    both.stderr.feed(b"12345")
    with pytest.raises(OverflowError, match="more than the window"):
        both.stdout.feed(b"1")
