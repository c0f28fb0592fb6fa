"""The real command line as a process, on an AWS in memory whose one instance is a real sshd.

``RACKCTL_TEST_INSTANCE`` is a JSON object: ``key`` (path of the private key), ``port``, ``user``, and any field of
`rackctl.model.Instance` to be other than usual; ``settings`` are further ones of the rack; ``others`` are the ids and
fields of further instances, at the same sshd unless told otherwise. ``generations`` maps times
(``20260102T030405Z``) to the private keys that are stored in the place of ``key``; without it there is one of
`GENERATION`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rackctl.cli.invocation import Invocation
from rackctl.cli.main import main as run_command_line
from rackctl.config import Config
from rackctl.keys import KeyStore, SshKey
from rackctl.model import Instance
from rackctl.rack import Rack, Sources
from tests.fakes.aws import FakeAws

ID = "i-0a0000000000000aa"
GENERATION = "20260102T030405Z"
KEY_NAME = f"prod-keypair-{GENERATION}"


@dataclass
class OneInstance(FakeAws):
    console: str = ""
    region: str = "us-east-1"
    endpoint_url: str = field(default="", kw_only=True)

    def console_output(self, ec2_instance_id: str) -> str:
        return self.console


def invocation(description: dict[str, Any]) -> Invocation:
    """Put together what the command line works with."""
    given = dict(description)
    path, port, user = given.pop("key"), str(given.pop("port")), given.pop("user")
    generations = given.pop("generations", {GENERATION: path})
    console, others = given.pop("console", ""), given.pop("others", {})
    further_settings = given.pop("settings", {})
    usual = Instance(
        ID, "running", datetime(2026, 1, 3, tzinfo=UTC), public_ip="127.0.0.1", key_name=KEY_NAME, tags={"Rack": "prod"}
    )
    first = replace(usual, **given)
    further = {id_: replace(usual, ec2_instance_id=id_, **fields) for id_, fields in others.items()}
    aws = OneInstance(instances={ID: first, **further}, console=console)
    store = {"bucket": "rackctl-test", "kms_key": "alias/k", "prefix": "p"}
    settings = {"cluster": "prod", **store, "ssh_port": port, "ssh_user": user}
    settings = {name: value for name, value in (settings | further_settings).items() if value != ""}

    class Options(Invocation):
        """Settings of the test's rack come last, as a config file's would."""

        @property
        def rack(self) -> Rack:
            config = Config(Path("/config.toml"), "", {"prod": {name: str(value) for name, value in settings.items()}})
            sources = Sources({**self.options, "rack": "prod"}, {}, config, None)
            return Rack(sources.current(), sources.settings("prod"), aws=aws)  # type: ignore[arg-type]

    run = Options()
    for time, private in generations.items():
        public = " ".join(Path(private).with_suffix(".pub").read_text().split()[:2])
        created = datetime.strptime(time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        KeyStore(run.rack).store(SshKey(KEY_NAME, "ed25519", public, created, Path(private).read_bytes()))
    return run


def main() -> None:
    run_command_line(invocation(json.loads(os.environ["RACKCTL_TEST_INSTANCE"])))


if __name__ == "__main__":
    main()
