"""Wording for people, in one place: counts, lists, times and sizes; and escapes for terminals."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime


def counted(count: int, noun: str) -> str:
    """Write a count with its noun: ``1 task``, ``2 tasks``, ``1,000 instances``."""
    if count >= 1000:
        import humanize

        number = humanize.intcomma(count)
    else:
        number = str(count)
    return f"{number} {noun if count == 1 else f'{noun}s'}"


def listed(words: Iterable[str], *, most: int = 0, last: str = "and") -> str:
    """Write a list in words: ``a, b and c``; beyond ``most`` of them, if given, ``a, b and 7 more``."""
    items = list(words)
    if most and len(items) > most:
        items[most:] = [f"{len(items) - most} more"]
    if last != "and":
        return f" {last} ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))
    import humanize

    return humanize.natural_list(items)


def size(count: int) -> str:
    """Write a number of bytes in the largest binary unit that fits: ``1.5 MiB``."""
    import humanize

    return humanize.naturalsize(count, binary=True)


def rfc3339(moment: datetime) -> str:
    """Write a time as RFC 3339 in UTC, to the second: ``2026-01-31T09:30:00Z``."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def roughly(seconds: float) -> str:
    """Write a length of time for people: ``40 seconds``, ``12 minutes``, ``2 hours and 5 minutes``."""
    from datetime import timedelta

    import humanize

    # Beyond a minute, seconds would only look exact.
    whole = max(int(seconds), 1) if seconds < 60 else round(seconds / 60) * 60
    return humanize.precisedelta(timedelta(seconds=whole), minimum_unit="seconds", format="%d")


def as_typed(seconds: int) -> str:
    """Write a length of time as an option takes it: ``90s`` is ``1m30s``."""
    parts = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def minutes_and_seconds(seconds: float) -> str:
    """Write a length of time as a clock shows it: ``0:05``, ``12:34``, ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(text: str, *, kept: str = "\n\t") -> str:
    """Escape control characters, which could control the terminal: tags, servers and AWS may send any text.

    A character that is not printable and not in ``kept`` becomes its Python escape, such as ``\\x1b``.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in kept
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def quoted(text: str) -> str:
    """Quote a user's text for a message, on one line."""
    return f'"{printable(text, kept="")}"'


# Units as convox counted them (its library has months of 30 days and years of 12 such months).
_UNITS = (
    (360 * 86400, "year"),
    (30 * 86400, "month"),
    (7 * 86400, "week"),
    (86400, "day"),
    (3600, "hour"),
    (60, "minute"),
    (1, "second"),
)
_TWO_YEARS_FROM = 540 * 86400


def ago(then: datetime | None, now: datetime) -> str:
    """Return how long ago something was, in whole units, rounded down: ``1 hour ago``, ``now``, ``5 minutes from now``.

    (`humanize.naturaltime` says "an hour ago", which is not how `convox instances` words it.)
    """
    if then is None:
        return ""
    seconds = int(abs((now - then).total_seconds()))
    for unit_seconds, unit in _UNITS:
        if seconds >= unit_seconds:
            # All counts are rounded down, except that convox counts the second year from its middle.
            count = max(seconds // unit_seconds, 2 if seconds >= _TWO_YEARS_FROM else 1)
            return f"{counted(count, unit)} {'ago' if then <= now else 'from now'}"
    return "now"
