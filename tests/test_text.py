from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from rackctl.text import ago, as_typed, counted, listed, minutes_and_seconds, printable, rfc3339, roughly, size


def test_a_count_agrees_with_its_noun() -> None:
    assert [counted(n, "task") for n in (0, 1, 2, 999, 1000, 12345)] == [
        "0 tasks", "1 task", "2 tasks", "999 tasks", "1,000 tasks", "12,345 tasks",
    ]  # fmt: skip


def test_a_list_is_written_in_words_and_counts_what_it_omits() -> None:
    assert [listed("abc"[:n]) for n in range(4)] == ["", "a", "a and b", "a, b and c"]
    assert listed("abcdefg", most=2) == "a, b and 5 more"
    assert listed("abc", most=3) == "a, b and c"


def test_a_size_has_the_largest_binary_unit_that_fits() -> None:
    assert [size(n) for n in (1, 10, 1024, 1536 * 1024)] == ["1 Byte", "10 Bytes", "1.0 KiB", "1.5 MiB"]


def test_a_time_is_written_as_rfc_3339_in_utc_to_the_second() -> None:
    """RFC 3339, 5.6: ``date-time = full-date "T" full-time``, and ``Z`` for UTC."""
    assert rfc3339(datetime(2026, 1, 2, 3, 4, 5, 999_999, UTC)) == "2026-01-02T03:04:05Z"
    assert rfc3339(datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))) == "2026-01-02T01:04:05Z"


def test_durations_are_written_for_people_for_options_and_as_a_clock() -> None:
    assert [minutes_and_seconds(s) for s in (5, 754, 3723)] == ["0:05", "12:34", "1:02:03"]
    assert [roughly(s) for s in (0, 1, 40, 59.9, 61, 7500, 7200, 90000)] == [
        "1 second", "1 second", "40 seconds", "59 seconds", "1 minute", "2 hours and 5 minutes", "2 hours",
        "1 day and 1 hour",
    ]  # fmt: skip
    assert [as_typed(s) for s in (0, 90, 3600, 5400, 3661)] == ["0s", "1m30s", "1h", "1h30m", "1h1m1s"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢", "plain ü 漢"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m\u202e\r", r"\x9b31m\u202e\r"),
        ("\udcff", r"\udcff"),
    ],
)
def test_printable_escapes_control_characters(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text, kept="").isprintable()


NOW = datetime(2015, 12, 10, 23, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (0.9, "now"), (1, "1 second ago"), (59.9, "59 seconds ago"), (60, "1 minute ago"), (119, "1 minute ago"),
        (120, "2 minutes ago"), (3600, "1 hour ago"), (7199, "1 hour ago"), (86400, "1 day ago"),
        (47 * 3600, "1 day ago"), (7 * 86400, "1 week ago"), (13 * 86400, "1 week ago"), (29 * 86400, "4 weeks ago"),
        (30 * 86400, "1 month ago"), (59 * 86400, "1 month ago"), (360 * 86400, "1 year ago"),
        (540 * 86400, "2 years ago"), (1080 * 86400, "3 years ago"),
        (-1, "1 second from now"), (-7200, "2 hours from now"), (-0.5, "now"),
    ],
)  # fmt: skip
def test_ago_counts_units_as_convox_did(seconds: float, says: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == says


def test_ago_is_blank_without_a_time() -> None:
    assert ago(None, NOW) == ""
