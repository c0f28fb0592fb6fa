"""The recording in README.md is what rackctl shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


# Over two seconds: the session has a keyroll of three instances in it, sixty times faster than on AWS.
@pytest.mark.timeout(240)
def test_a_new_recording_shows_the_content_of_the_stored_one_which_the_pictures_are_drawn_from() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "record.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("picture", ["session-light.svg", "session-dark.svg"])
def test_the_readme_shows_the_recording_and_it_loads_nothing_from_elsewhere(picture: str) -> None:
    svg = (ROOT / "docs" / picture).read_text(encoding="utf-8")

    assert f'"docs/{picture}"' in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "url(http" not in svg
    assert "<image" not in svg
    assert "keyroll" in svg
