"""The local terminal during a session with a PTY: raw, resized, and always restored."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from typing import Self

Size = tuple[int, int, int, int]

# Python's termios has no IUTF8 before 3.13; it is this number on Linux, macOS and the BSDs.
_IUTF8 = 0x4000

# RFC 4254, section 8, and RFC 8160 for IUTF8: each mode's opcode, by its name in termios(3).
_CHARACTERS = {
    "VINTR": 1, "VQUIT": 2, "VERASE": 3, "VKILL": 4, "VEOF": 5, "VEOL": 6, "VEOL2": 7, "VSTART": 8, "VSTOP": 9,
    "VSUSP": 10, "VDSUSP": 11, "VREPRINT": 12, "VWERASE": 13, "VLNEXT": 14, "VSTATUS": 17, "VDISCARD": 18,
}  # fmt: skip
_INPUT_FLAGS = {
    "IGNPAR": 30, "PARMRK": 31, "INPCK": 32, "ISTRIP": 33, "INLCR": 34, "IGNCR": 35, "ICRNL": 36, "IUCLC": 37,
    "IXON": 38, "IXANY": 39, "IXOFF": 40, "IMAXBEL": 41, "IUTF8": 42,
}  # fmt: skip
_LOCAL_FLAGS = {
    "ISIG": 50, "ICANON": 51, "XCASE": 52, "ECHO": 53, "ECHOE": 54, "ECHOK": 55, "ECHONL": 56, "NOFLSH": 57,
    "TOSTOP": 58, "IEXTEN": 59, "ECHOCTL": 60, "ECHOKE": 61, "PENDIN": 62,
}  # fmt: skip
_OUTPUT_FLAGS = {"OPOST": 70, "OLCUC": 71, "ONLCR": 72, "OCRNL": 73, "ONOCR": 74, "ONLRET": 75}
_CONTROL_FLAGS = {"CS7": 90, "CS8": 91, "PARENB": 92, "PARODD": 93}
_INPUT_SPEED, _OUTPUT_SPEED, _END = 128, 129, 0
_NO_CHARACTER = 255

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _ISPEED, _OSPEED, _CC = range(7)

# Beyond every signal's number.
_ENDED, QUIT = 200, 201

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


class Terminated(BaseException):
    """Raised in the main thread by a signal that ends this process while its terminal is raw."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Terminal:
    """The terminal on a descriptor. The constructor raises OSError if it is not a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        try:
            self._cooked: list[Any] = termios.tcgetattr(descriptor)
        except termios.error as error:
            raise OSError(*error.args) from error

    @property
    def size(self) -> Size:
        """Columns and rows, and both in pixels; zeros if unknown."""
        return size_of(self._descriptor) or (0, 0, 0, 0)

    @property
    def modes(self) -> bytes:
        """The terminal's modes, for the PTY of the server."""
        return encode_modes(self._cooked)

    def make_raw(self) -> None:
        """Make the terminal raw, unless this process is in the background."""
        with suppress(OSError):
            if os.tcgetpgrp(self._descriptor) == os.getpgrp():
                self._set(_raw(self._cooked))

    def restore(self) -> None:
        """Restore the terminal, unless it has hung up."""
        self._set(self._cooked)

    def _set(self, attributes: list[Any]) -> None:
        # Block signals that end this process, and SIGTTOU, which would stop a background process.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGTTOU})
        try:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, attributes)
        except termios.error:
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def run_raw(self, result: Future[int], resize: Callable[[Size], None], escapes: Escapes) -> int | None:
        """Keep the terminal raw until the session ends; return its exit status, or None after ``~.``.

        Call it in the main thread. Several resizes are sent as one, with the latest size. SIGTSTP restores the terminal
        and SIGCONT makes it raw again. SIGTERM, SIGHUP, SIGINT and SIGQUIT raise Terminated.
        """
        sent = self.size
        with _News() as news, self._raw():
            result.add_done_callback(lambda _: news.tell(_ENDED))
            escapes.listen(news.tell)
            news.tell(signal.SIGWINCH)
            while True:
                events = news.wait()
                if result.done():
                    return result.result()
                if QUIT in events:
                    return None
                if signal.SIGTSTP in events:
                    self._stop()
                if signal.SIGCONT in events:
                    self.make_raw()
                if (size := self.size) != sent:
                    resize(size)
                    sent = size

    @contextmanager
    def _raw(self) -> Iterator[None]:
        try:
            self.make_raw()
            yield
        finally:
            self.restore()

    def _stop(self) -> None:
        """Stop this process as an unhandled SIGTSTP does; return when it is continued."""
        self.restore()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.make_raw()


class Escapes:
    """Escapes at the start of a line, as in ssh: a tilde and one more character.

    ``~.`` ends the session, ``~^Z`` stops rackctl, ``~?`` lists them, ``~~`` is a tilde.
    """

    HELP = "\r\n ~.   end the session\r\n ~^Z  stop rackctl\r\n ~?   this\r\n ~~   a tilde\r\n"

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._tell: Callable[[int], None] = lambda _: None
        self._at_start = True
        self._escaping = False

    def listen(self, tell: Callable[[int], None]) -> None:
        """Call ``tell`` with QUIT for ``~.`` and with SIGTSTP for ``~^Z``."""
        self._tell = tell

    def __call__(self, typed: bytes) -> bytes:
        """Return the input without escapes, for the server."""
        passed = bytearray()
        for byte in typed:
            if self._escaping:
                self._escaping = False
                if self._obey(byte):
                    continue
                passed += b"~"
                if byte != ord("~"):
                    passed.append(byte)
                self._at_start = byte in b"\r\n"
            elif self._at_start and byte == ord("~"):
                self._escaping = True
            else:
                passed.append(byte)
                self._at_start = byte in b"\r\n"
        return bytes(passed)

    def _obey(self, byte: int) -> bool:
        if byte == ord("."):
            self._tell(QUIT)
        elif byte == 0x1A:
            self._tell(signal.SIGTSTP)
        elif byte == ord("?"):
            self._show(self.HELP)
        else:
            return False
        return True


def size_of(descriptor: int) -> Size | None:
    """Return the size of the terminal on a descriptor; None if it is not a terminal."""
    try:
        packed = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    rows, columns, width, height = struct.unpack("HHHH", packed)
    return columns, rows, width, height


def encode_modes(attributes: list[Any]) -> bytes:
    """Encode the result of tcgetattr for a PTY request (RFC 4254, section 8)."""
    modes: dict[int, int] = {}
    for name, opcode in _CHARACTERS.items():
        if (index := getattr(termios, name, None)) is not None:
            character = ord(attributes[_CC][index]) if isinstance(attributes[_CC][index], bytes) else 0
            modes[opcode] = character or _NO_CHARACTER
    for which, flags in (
        (_IFLAG, _INPUT_FLAGS),
        (_LFLAG, _LOCAL_FLAGS),
        (_OFLAG, _OUTPUT_FLAGS),
        (_CFLAG, _CONTROL_FLAGS),
    ):
        for name, opcode in flags.items():
            bit = _IUTF8 if name == "IUTF8" else getattr(termios, name, None)
            if bit is not None:
                modes[opcode] = int(attributes[which] & bit == bit)
    speeds = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[:1] == "B" and name[1:].isdigit()}
    modes[_INPUT_SPEED] = speeds.get(attributes[_ISPEED], 38400)
    modes[_OUTPUT_SPEED] = speeds.get(attributes[_OSPEED], 38400)
    return b"".join(struct.pack(">BI", opcode, value) for opcode, value in modes.items()) + bytes([_END])


def _raw(cooked: list[Any]) -> list[Any]:
    """Return terminal attributes made raw as OpenSSH's client does."""
    raw = [*cooked[:_CC], list(cooked[_CC])]
    raw[_IFLAG] |= termios.IGNPAR
    raw[_IFLAG] &= ~(
        termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
        | termios.IXANY
        | termios.IXOFF
        | getattr(termios, "IUCLC", 0)
    )
    raw[_LFLAG] &= ~(
        termios.ISIG | termios.ICANON | termios.ECHO | termios.ECHOE | termios.ECHOK | termios.ECHONL | termios.IEXTEN
    )
    raw[_OFLAG] &= ~termios.OPOST
    raw[_CC][termios.VMIN], raw[_CC][termios.VTIME] = 1, 0
    return raw


class _News:
    """Events for the main thread: signals and messages of other threads, each a number in a pipe.

    The system may deliver a signal to any thread, so it need not interrupt the main one; in either case Python writes
    its number into the pipe. If SIGHUP is ignored, as under nohup, it stays ignored.
    """

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        handlers: dict[signal.Signals, Any] = {
            **dict.fromkeys((signal.SIGWINCH, signal.SIGCONT, signal.SIGTSTP), lambda *_: None),
            **dict.fromkeys(_ENDING, _end),
        }
        self._wake_up = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before = {
            signum: signal.signal(signum, handler)
            for signum, handler in handlers.items()
            if signal.getsignal(signum) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._wake_up)
        # The pipe stays open until the process ends: a thread may still write to it.

    def tell(self, number: int) -> None:
        # A full pipe has woken its reader already.
        with suppress(BlockingIOError):
            os.write(self._writing, bytes([number]))

    def wait(self) -> bytes:
        """Wait for a number; return it and those that follow it."""
        return os.read(self._reading, 65536)


def _end(signum: int, _: object) -> None:
    raise Terminated(signum)
