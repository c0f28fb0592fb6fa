"""`rackctl instances history` on a local rack, with boto3 as the witness of what is stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.e2e.conftest import boto3_client

if TYPE_CHECKING:
    from tests.e2e.conftest import Shell


# Over two seconds: an instance is replaced, sixty times faster than on AWS.
def test_a_replacement_is_in_the_history_and_in_the_bucket(hurried: Shell) -> None:
    assert hurried.json("rackctl instances history -o json") == []
    (id_, *_) = hurried.ids()

    ran = hurried(f"rackctl instances replace --reason 'disk is worn' {id_}")

    assert ran.status == 0, ran.stderr
    (entry,) = hurried.json("rackctl instances history -o json")
    assert (entry["roll"], entry["selection"], entry["result"]) == ("replace", "ids", "finished")
    assert (entry["replaced"], entry["total"], entry["reason"]) == (1, 1, "disk is worn")
    caller = boto3_client(hurried, "sts").get_caller_identity()["Arn"]
    assert [operator["caller_arn"] for operator in entry["operators"]] == [caller]
    settings = hurried.json("rackctl racks show -o json")["settings"]
    s3, bucket = boto3_client(hurried, "s3"), settings["bucket"]["value"]
    objects = s3.list_objects_v2(Bucket=bucket, Prefix=f"{settings['prefix']['value']}/history/")["Contents"]
    assert [found["Key"].rpartition("/")[2] for found in objects] == [f"{entry['started']}.json"]
    stored = json.loads(s3.get_object(Bucket=bucket, Key=objects[0]["Key"])["Body"].read())
    assert stored["reason"] == "disk is worn"
