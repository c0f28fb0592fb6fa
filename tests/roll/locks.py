"""Locks on the journal of a scene's rack, and changes of that object by others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rackctl.aws.s3 import StoredObject
from rackctl.roll.lock import Found, Lock
from rackctl.roll.owner import Owner
from tests.fakes.world import START
from tests.roll.acts import JOURNAL
from tests.roll.test_journal import journal

if TYPE_CHECKING:
    from rackctl.roll.journal import Journal
    from tests.fakes.world import Scene

ME, OTHER = Owner("me@here", 1, "token-1"), Owner("other@there", 2, "token-2")


def lock_of(scene: Scene) -> Lock:
    """Return the lock as another process would have it."""
    return Lock(scene.rack, scene.clock)


def created(scene: Scene) -> tuple[Lock, Journal]:
    """Return a lock that holds a new journal, and that journal."""
    lock, held = lock_of(scene), journal()
    assert lock.create(held, ME)
    return lock, held


def found(scene: Scene) -> Found:
    read = lock_of(scene).read()
    assert read
    return read


def stored(scene: Scene, document: dict[str, Any]) -> None:
    """Write an object in the journal's place, as any writer of the bucket can."""
    scene.aws.objects[JOURNAL] = StoredObject(json.dumps(document).encode(), '"9"', START)


def document_of(scene: Scene) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(scene.aws.objects[JOURNAL].body)
    return document
