from __future__ import annotations

import pytest

from rackctl.clock import wait_until
from rackctl.errors import Timeout
from tests.fakes.clock import FakeClock


def test_wait_until_returns_the_first_answer_that_is_not_none() -> None:
    answers, said = iter([None, None, 0]), list[str]()

    found = wait_until(
        lambda: next(answers), clock=FakeClock(), timeout=10, interval=1, what=lambda: "it", notify=said.append
    )

    assert found == 0
    assert said == ["waiting for it"]


def test_wait_until_probes_once_more_at_the_deadline_and_names_what_it_waited_for() -> None:
    clock, looks = FakeClock(), []

    with pytest.raises(Timeout, match="gave up after 5 s waiting for the tide, which is out"):
        wait_until(
            lambda: looks.append(clock.monotonic()),
            clock=clock,
            timeout=5,
            interval=2,
            what=lambda: "the tide, which is out",
            notify=lambda _: None,
        )

    assert clock.slept == [2, 2, 1]
    assert len(looks) == 4


def test_wait_until_with_no_time_at_all_still_looks() -> None:
    said: list[str] = []

    assert wait_until(lambda: True, clock=FakeClock(), timeout=0, interval=1, what=lambda: "it", notify=said.append)
    assert said == []
