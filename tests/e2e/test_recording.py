"""The recordings in README.md and keyroll.md are up to date."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


# Over two seconds: there is a keyroll in the session, and the beginning of another, sixty times faster than on AWS.
@pytest.mark.timeout(240)
def test_a_new_recording_shows_the_content_of_the_stored_one_which_the_pictures_are_drawn_from() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "record.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("picture", "page"),
    [
        ("session-light.svg", "README.md"),
        ("session-dark.svg", "README.md"),
        ("keyroll-light.svg", "docs/keyroll.md"),
        ("keyroll-dark.svg", "docs/keyroll.md"),
    ],
)
def test_a_page_shows_each_picture_and_it_loads_nothing_from_elsewhere(picture: str, page: str) -> None:
    svg = (ROOT / "docs" / picture).read_text(encoding="utf-8")

    shown = re.findall(r'(?:src|srcset)="([^"]+)"', (ROOT / page).read_text(encoding="utf-8"))
    assert (ROOT / "docs" / picture) in [(ROOT / page).parent / path for path in shown]
    assert "url(http" not in svg
    assert "<image" not in svg
    assert "keyroll" in svg
