"""The ids that were listed last, kept for a few minutes so that completion need not ask AWS at each Tab.

Nothing but completion reads them. They are kept by rack, account and region, in a file for its owner only.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rackctl.errors import RackctlError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rackctl.cli.invocation import Invocation
    from rackctl.rack_instance import RackInstance

# In seconds; a new instance is missing from the completions for as long, unless nothing else begins as typed.
KEPT = 180.0
_FILE = "last_listed.json"
_LARGEST = 8 * 1024 * 1024
# What selects a rack, an account and a region, beside rackctl's own variables and options. No secret is among them.
_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_DEFAULT_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_PROFILE",
              "AWS_REGION")  # fmt: skip


def remember(invocation: Invocation, listed: Iterable[RackInstance]) -> dict[str, str]:
    """Keep the ids, each with its status and name; return them. If they cannot be kept, nothing happens."""
    from rackctl.files import make_own_directory, write_private

    ids = {
        i.ec2_instance_id: f"{i.status} {i.instance.tags.get('Name', '') if i.instance else ''}".strip() for i in listed
    }
    with suppress(OSError, RackctlError):
        path = invocation.state_directory / _FILE
        make_own_directory(path.parent)
        kept = {**_fresh(invocation), _key(invocation): {"at": invocation.clock.now().timestamp(), "ids": ids}}
        write_private(path, json.dumps(kept).encode())
    return ids


def recall(invocation: Invocation) -> dict[str, str]:
    """Return the ids that were kept; none if they are too old or cannot be read."""
    with suppress(LookupError, TypeError, AttributeError):
        ids = _fresh(invocation)[_key(invocation)]["ids"]
        return {str(id_): str(described) for id_, described in ids.items()}
    return {}


def _fresh(invocation: Invocation) -> dict[str, Any]:
    """Return what is kept and not too old; nothing if the file cannot be read."""
    from rackctl.files import read_own

    now = invocation.clock.now().timestamp()
    with suppress(OSError, RackctlError, ValueError, LookupError, TypeError, AttributeError):
        kept = json.loads(read_own(invocation.state_directory / _FILE, limit=_LARGEST))
        return {key: entry for key, entry in kept.items() if 0 <= now - entry["at"] < KEPT}
    return {}


def _key(invocation: Invocation) -> str:
    """Return a digest of what selects the rack, the account and the region."""
    import hashlib

    given = invocation.environment
    chosen = {name: given[name] for name in given if name.startswith("RACKCTL_") or name in _VARIABLES}
    return hashlib.sha256(json.dumps([sorted(chosen.items()), sorted(invocation.options.items())]).encode()).hexdigest()
