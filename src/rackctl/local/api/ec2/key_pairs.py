"""EC2's operations on key pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rackctl.local.api.ec2.common import specified_tags, tags_of
from rackctl.local.api.filters import Filters
from rackctl.local.api.operations import Asked, Result, Room, tag_documents
from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rackctl.local.api.wire_query import Ec2Protocol
    from rackctl.local.world import World
    from rackctl.local.world.key_pairs import KeyPair


class KeyPairs(Room["Ec2Protocol"]):
    def __init__(self, world: World, protocol: Ec2Protocol) -> None:
        super().__init__(world, protocol)
        self._ec2 = world.ec2

    def import_key_pair(self, asked: Asked) -> Result:
        tags = specified_tags(asked, "key-pair")
        pair = self._ec2.import_key_pair(asked["KeyName"], asked["PublicKeyMaterial"], tags)
        return {
            "KeyFingerprint": pair.fingerprint,
            "KeyName": pair.key_name,
            "KeyPairId": pair.key_pair_id,
            "Tags": tag_documents(pair.tags) or None,
        }

    def describe_key_pairs(self, asked: Asked) -> Result:
        known = self._ec2.key_pairs.to_describe()
        pairs = list(known.values())
        for name in asked.get("KeyNames", ()):
            if name not in known:
                raise Refused("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")
        ids = {pair.key_pair_id for pair in pairs}
        for id_ in asked.get("KeyPairIds", ()):
            if id_ not in ids:
                raise Refused("InvalidKeyPair.NotFound", f"The key pair ID '{id_}' does not exist")
        if asked.get("KeyNames") or asked.get("KeyPairIds"):
            wanted = {*asked.get("KeyNames", ()), *asked.get("KeyPairIds", ())}
            pairs = [pair for pair in pairs if {pair.key_name, pair.key_pair_id} & wanted]
        values: dict[str, Callable[[KeyPair], Iterable[str]]] = {
            "key-name": lambda pair: [pair.key_name],
            "key-pair-id": lambda pair: [pair.key_pair_id],
            "fingerprint": lambda pair: [pair.fingerprint],
        }
        passes = Filters(asked.get("Filters", []), values, tags_of)
        return {
            "KeyPairs": [
                {
                    "KeyPairId": pair.key_pair_id,
                    "KeyFingerprint": pair.fingerprint,
                    "KeyName": pair.key_name,
                    "KeyType": pair.key_type,
                    "Tags": tag_documents(pair.tags),
                    "CreateTime": pair.created,
                    "PublicKey": f"{pair.public_key} {pair.key_name}\n" if asked.get("IncludePublicKey") else None,
                }
                for pair in pairs
                if passes(pair)
            ]
        }

    def delete_key_pair(self, asked: Asked) -> Result:
        """Delete a key pair. If it does not exist, that is no error."""
        if "KeyName" not in asked and "KeyPairId" not in asked:
            raise Refused("MissingParameter", "The request must contain the parameter KeyName or KeyPairId")
        for pair in list(self._ec2.key_pairs.values()):
            if asked.get("KeyName") == pair.key_name or asked.get("KeyPairId") == pair.key_pair_id:
                self._ec2.key_pairs.change(pair.key_name, None)
                return {"Return": True, "KeyPairId": pair.key_pair_id}
        return {"Return": True}
