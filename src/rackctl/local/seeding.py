"""The initial state of a local rack: a rack with its store and its key, or a cluster that is not a rack yet."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rackctl.files import write_private
from rackctl.keys import KeyStore, generate, key_name
from rackctl.local.moto_services import ACCOUNT_ID, OTHER_ACCOUNT_ID

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rackctl.local.moto_services import MotoServices
    from rackctl.local.state import Kept

    Turn = Callable[[], AbstractContextManager[None]]
    Say = Callable[[str], None]

REGION: Final = "us-east-1"
_FOREIGN_KEY: Final = "ops"
# The age of the key pair when its instances were launched, in seconds.
_BEFORE: Final = 86_400.0


def seed_foreign(kept: Kept, key_file: Path, *, turn: Turn, say: Say) -> None:
    """Create a cluster as a CloudFormation stack does, and the private key of its instances in a file."""
    key = generate(_FOREIGN_KEY, created=datetime.now(UTC))
    write_private(key_file, key.private_key)
    say(f"progress seeding {kept.options.instances} instances")
    with turn():
        pair = kept.world.ec2.import_key_pair(_FOREIGN_KEY, key.public_key.encode(), {})
        pair.created -= _BEFORE
        kept.world.seed_stack(kept.cluster, kept.options.instances, key_name=_FOREIGN_KEY)


def seed_rack(kept: Kept, moto: MotoServices, *, turn: Turn, say: Say) -> None:
    """Create a rack: bucket and KMS key, an SSH key unless the options say not to, instances and services."""
    options = kept.options
    bucket, alias = f"rackctl-{options.name}-{ACCOUNT_ID}", f"alias/rackctl-{options.name}"
    with turn():
        moto.create_bucket_and_key(bucket, alias)
        moto.create_another_account_s(
            f"rackctl-{options.name}-{OTHER_ACCOUNT_ID}", f"alias/rackctl-{options.name}-{OTHER_ACCOUNT_ID}"
        )
    key = ""
    if options.key:
        say("progress making an SSH key")
        key = _store_key(kept, bucket, alias, turn)
    say(f"progress seeding {options.instances} instances")
    tags = {"rackctl:bucket": bucket, "rackctl:kms-key": alias, "rackctl:ssh-port": str(kept.ssh_port)}
    with turn():
        kept.world.seed(options.name, options.instances, key_name=key, tags=tags)


def _store_key(kept: Kept, bucket: str, alias: str, turn: Turn) -> str:
    """Generate an SSH key and store it through the API, as a keyroll does."""
    from rackctl.aws.session import Credentials
    from rackctl.rack import Rack
    from rackctl.settings import SETTINGS, Origin, Source, Value

    name = kept.options.name
    given = {
        "region": REGION,
        "endpoint_url": f"http://127.0.0.1:{kept.port}",
        "bucket": bucket,
        "bucket_owner": ACCOUNT_ID,
        "kms_key": alias,
        "prefix": SETTINGS["prefix"].default(name),
    }
    seeded = Origin(Source.LOCAL_RACK)
    rack = Rack(
        Value(name, seeded),
        {setting: Value(value, seeded) for setting, value in given.items()},
        Credentials(kept.access_key_id, kept.secret_access_key),
    )
    now = datetime.now(UTC)
    key = generate(key_name(name, now), created=now)
    KeyStore(rack).store(key)
    with turn():
        kept.world.ec2.import_key_pair(key.key_name, key.public_key.encode(), {"Rack": name})
    return key.key_name
