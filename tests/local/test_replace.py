"""`rackctl instances replace` over HTTP: an image update, watched by an observer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.local.rolls import SPEED, Rolls, assert_ssh_works_on_each, start, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess


def test_an_image_update_replaces_every_instance_and_no_service_falls_short(
    start_local_rack: Callable[..., LocalRackProcess],
) -> None:
    rolls = Rolls(start_local_rack(speed=SPEED))
    keys = rolls.keys_of_instances()
    rolls.outdate()

    events = start(rolls)

    assert rolls.images() == {rolls.image_in_use()}
    assert sorted(rolls.keys_of_instances()) == sorted(keys)
    assert "replaced 3 instances" in texts(events)
    assert_ssh_works_on_each(rolls)
    rolls.assert_given_back(3)
