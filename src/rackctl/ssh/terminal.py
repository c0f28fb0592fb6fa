"""The local terminal while a PTY on the other side answers to it: raw, resized with it, and always put back."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

Size = tuple[int, int, int, int]

# Not in Python's termios before 3.13, and the same number on Linux, macOS and the BSDs.
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

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Terminated(BaseException):
    """Raised in the main thread when a signal has asked this process to end while its terminal is raw."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Terminal:
    """The terminal on a descriptor. Raises OSError, on being made, where there is none."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        try:
            self._cooked: list[Any] = termios.tcgetattr(descriptor)
        except termios.error as error:
            raise OSError(*error.args) from error

    @property
    def size(self) -> Size:
        """Columns and rows, and both in pixels; zeros where the terminal does not know."""
        return size_of(self._descriptor) or (0, 0, 0, 0)

    @property
    def modes(self) -> bytes:
        """The terminal's modes, for the PTY on the other side to start with."""
        return encode_modes(self._cooked)

    def make_raw(self) -> None:
        """Pass every byte through as it is, in both directions, unless this process is in the background."""
        if os.tcgetpgrp(self._descriptor) == os.getpgrp():
            self._set(_raw(self._cooked))

    def restore(self) -> None:
        """Put the terminal back to what it was; one that has hung up is left alone."""
        self._set(self._cooked)

    def _set(self, attributes: list[Any]) -> None:
        # Not torn by a signal that ends us; and a background process that is no longer to be stopped for this.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGTTOU})
        try:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, attributes)
        except termios.error:
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    def attend(self, result: Future[int], resize: Callable[[Size], None], escapes: Escapes) -> int | None:
        """Be raw until a result is there, and give it; None when the user has ended the session by an escape.

        For the main thread. Resizes are passed on, however many, as the latest size. A stop restores the
        terminal and going on makes it raw again. SIGTERM, SIGHUP and SIGINT raise Terminated.
        """
        news: SimpleQueue[str] = SimpleQueue()
        result.add_done_callback(lambda _: news.put("ended"))
        escapes.listen(news.put)
        told = self.size
        with _handling(news.put), self._raw():
            news.put("resized")
            while True:
                heard = _all_of(news)
                if "ended" in heard:
                    return result.result()
                if "quit" in heard:
                    return None
                if "stop" in heard:
                    self._stop()
                if "continued" in heard:
                    self.make_raw()
                if (size := self.size) != told:
                    resize(size)
                    told = size

    @contextmanager
    def _raw(self) -> Iterator[None]:
        try:
            self.make_raw()
            yield
        finally:
            self.restore()

    def _stop(self) -> None:
        """Stop this process as SIGTSTP does to one that does not handle it; return when it is continued."""
        self.restore()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self.make_raw()


class Escapes:
    """What a person can type to rackctl itself: at the start of a line a tilde and one more character, as in ssh.

    ``~.`` ends the session, ``~^Z`` stops rackctl, ``~?`` lists them, ``~~`` is a tilde.
    """

    HELP = "\r\n ~.   end the session\r\n ~^Z  stop rackctl\r\n ~?   this\r\n ~~   a tilde\r\n"

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._tell: Callable[[str], None] = lambda _: None
        self._at_start = True
        self._escaping = False

    def listen(self, tell: Callable[[str], None]) -> None:
        """Have ``quit`` and ``stop`` told."""
        self._tell = tell

    def __call__(self, typed: bytes) -> bytes:
        """Give what of the typed is for the other side."""
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
            self._tell("quit")
        elif byte == 0x1A:
            self._tell("stop")
        elif byte == ord("?"):
            self._show(self.HELP)
        else:
            return False
        return True


def size_of(descriptor: int) -> Size | None:
    """Give the size of the terminal on a descriptor; None where there is none."""
    try:
        packed = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    rows, columns, width, height = struct.unpack("HHHH", packed)
    return columns, rows, width, height


def encode_modes(attributes: list[Any]) -> bytes:
    """Encode what tcgetattr gave as a PTY request carries it (RFC 4254, section 8)."""
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
    """Give the attributes that OpenSSH's client sets, made of those there are."""
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


@contextmanager
def _handling(tell: Callable[[str], None]) -> Iterator[None]:
    """Handle the signals that matter to a raw terminal; a SIGHUP that nohup has ignored stays so.

    A handler does no more than to put a word into a queue, which may be done anywhere.
    """

    def end(signum: int, _: object) -> None:
        raise Terminated(signum)

    handlers: dict[signal.Signals, Any] = {
        signal.SIGWINCH: lambda *_: tell("resized"),
        signal.SIGCONT: lambda *_: tell("continued"),
        signal.SIGTSTP: lambda *_: tell("stop"),
        **dict.fromkeys(_ENDING, end),
    }
    before = {
        signum: signal.signal(signum, handler)
        for signum, handler in handlers.items()
        if signal.getsignal(signum) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _all_of(news: SimpleQueue[str]) -> set[str]:
    """Wait for a word, and give it with all that have come since."""
    heard = {news.get()}
    while True:
        try:
            heard.add(news.get_nowait())
        except Empty:
            return heard
