"""The instances' key of a convox v2 rack, decrypted as convox decrypts it.

The stack has the rack's name; its resources are the cluster, ``Cluster``, and the settings bucket, ``Settings``. The
object ``instance-key`` in it is an envelope: a NaCl secretbox, ``c``, with the nonce ``n``, under a data key that KMS
has encrypted, ``k`` (convox/rack, provider/aws/keys.go and instances.go).
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from rackctl.errors import NotFound, RackctlError
from rackctl.keys.files import key_of

if TYPE_CHECKING:
    from rackctl.aws.session import Aws
    from rackctl.keys.files import KeyFile
    from rackctl.rack import Rack

_OBJECT = "instance-key"


def cluster_of(aws: Aws, rack: str) -> str:
    """Return the name of a convox rack's cluster, empty if there is no stack of such a rack."""
    cluster, settings = (aws.cloudformation.resource(rack, name) for name in ("Cluster", "Settings"))
    if cluster is None or settings is None:
        return ""
    is_convox = (cluster.resource_type, settings.resource_type) == ("AWS::ECS::Cluster", "AWS::S3::Bucket")
    return cluster.physical_resource_id if is_convox else ""


def instance_key(rack: Rack) -> KeyFile:
    """Return the key of a convox rack's instances. Raises NotFound, AccessDenied, RackctlError."""
    settings = rack.aws.cloudformation.resource(rack.name, "Settings")
    if settings is None:
        raise NotFound(
            f'this account and region has no stack "{rack.name}" with a settings bucket',
            hint="a convox v2 rack is named after its stack: pass that name with --rack",
        )
    bucket = rack.aws.s3.bucket(settings.physical_resource_id, owner=rack.ecs_cluster.account)
    url = bucket.url(_OBJECT)
    stored = bucket.get(_OBJECT)
    if stored is None:
        raise NotFound(f"there is no {url}", hint="convox stores the key at `convox instances keyroll`")
    return key_of(url, _opened(rack, url, stored.body), _no_passphrase)


def _opened(rack: Rack, url: str, envelope: bytes) -> bytes:
    try:
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox
    except ImportError as error:
        raise RackctlError(
            "the keys of a convox rack need PyNaCl, which is not installed",
            hint="install it: `pipx install --force '.[convox]'` in a clone of rackctl",
        ) from error
    try:
        document = json.loads(envelope)
        ciphertext, data_key, nonce = (base64.b64decode(document[name], validate=True) for name in "ckn")
    except (ValueError, TypeError, KeyError) as error:
        raise RackctlError(f"{url} is not a key that convox has stored ({error})") from error
    plain_key = rack.aws.kms.decrypt(data_key, {}, what=f"the data key of {url}")
    try:
        return SecretBox(plain_key).decrypt(ciphertext, nonce)
    except (CryptoError, ValueError, TypeError) as error:
        raise RackctlError(f"{url} was not sealed under its data key, or has been altered") from error


def _no_passphrase(prompt: str) -> bytes:
    raise RackctlError(f"{prompt.rstrip(': ')}: convox stores keys without one")
