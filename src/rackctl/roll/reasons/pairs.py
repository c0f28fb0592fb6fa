"""A key pair that is renewed under its name: which public key EC2 has, and which one an instance has. Pure.

EC2 gives an instance the public key that the pair of that name has at its launch, for as long as it exists. Only EC2's
own times are compared: the instance's first launch and the CreateTime of the pair.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rackctl.model import Instance, KeyPair

PairState = Literal["old", "changing", "new"]
# What is next for a name to have a public key: delete the other key, import this one, or nothing; *foreign*: the name
# has a third key, which the roll does not touch.
Step = Literal["delete", "import", "done", "foreign"]
# Which of the two public keys an instance has; *unknown*: it was launched while EC2 may have had either.
Has = Literal["old", "new", "unknown"]
_PUBLIC_KEY = re.compile(r"ssh-(ed25519|rsa) [A-Za-z0-9+/]+={0,2}", re.ASCII)


@dataclass(slots=True)
class KeyPairRecord:
    """A key pair that is renewed under its name: as it was before, and what the roll has made of it.

    Both public keys are here before the old one is deleted. ``state`` is which of them EC2 has, or
    *changing* while it may have neither. ``created`` and ``restored`` are EC2's times of the new one's import and of
    the old one's, where it had to be imported again; ``generation`` names the new key in the store. ``doubtful`` are
    instances that something else launched at that time: they may have either key.
    """

    key_name: str
    old_key_pair_id: str
    old_public_key: str
    tags: dict[str, str]
    generation: str = ""
    new_public_key: str = ""
    state: PairState = "old"
    created: str = ""
    restored: str = ""
    doubtful: list[str] = field(default_factory=list)


def is_public_key(text: str) -> bool:
    """Tell whether a text is a public key that EC2 imports, as ``TYPE BASE64``."""
    return _PUBLIC_KEY.fullmatch(text) is not None


def next_step(there: KeyPair | None, wanted: str, other: str) -> Step:
    """Return what is to be done so that a name has the ``wanted`` public key and not the ``other`` one."""
    if there is None:
        return "import"
    if there.public_key == wanted:
        return "done"
    return "delete" if there.public_key == other else "foreign"


def which_key(record: KeyPairRecord, instance: Instance) -> Has:
    """Return which public key an instance has that was launched with a renewed pair's name.

    EC2's times have whole seconds: an instance that was launched in the second of an import may have either key. So may
    the doubtful ones, which something else launched soon after an import.
    """
    if instance.ec2_instance_id in record.doubtful:
        return "unknown"
    launched = instance.first_launch_time
    imports: tuple[tuple[str, Has], ...] = ((record.restored, "old"), (record.created, "new"))
    for at, key in imports:
        if at and launched >= (imported := datetime.fromisoformat(at)):
            return key if launched > imported else "unknown"
    return "old"


def doubtful(record: KeyPairRecord, instances: Iterable[Instance]) -> list[str]:
    """Return which of the pair's instances were launched since its last import, while the groups could not launch."""
    since = datetime.fromisoformat(record.restored or record.created)
    return sorted(i.ec2_instance_id for i in instances if i.first_launch_time >= since)
