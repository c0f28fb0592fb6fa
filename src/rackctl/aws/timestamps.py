"""Times in AWS's answers, read by the standard library."""

from __future__ import annotations

from datetime import UTC, datetime


def parse_timestamp(value: str | float) -> datetime:
    """Return the time that an answer tells, in seconds since 1970 or as text.

    botocore reads both as well, text by dateutil, which takes a third of the time that a long list of instances does.
    What is neither seconds nor ISO 8601 with an offset is left to botocore. Raises ValueError for what is no time.
    """
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        time = None
    if time and time.tzinfo:
        return time

    from botocore.utils import parse_timestamp as parse_any_timestamp

    parsed: datetime = parse_any_timestamp(value)
    return parsed
