"""The real command line in a process of its own, on an AWS in memory whose one instance is a real sshd.

``RACKCTL_TEST_INSTANCE`` is a JSON object: ``key`` (path of the private key), ``port``, ``user``, and any field of
`rackctl.model.Instance` to be other than usual; ``settings`` are further ones of the rack; ``others`` are the ids and
fields of further instances, at the same sshd unless told otherwise.
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
KEY_NAME = "prod-keypair-20260102T030405Z"


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
    path, port, user = Path(given.pop("key")), str(given.pop("port")), given.pop("user")
    console, others = given.pop("console", ""), given.pop("others", {})
    further_settings = given.pop("settings", {})
    usual = Instance(
        ID, "running", datetime(2026, 1, 2, tzinfo=UTC), public_ip="127.0.0.1", key_name=KEY_NAME, tags={"Rack": "prod"}
    )
    first = replace(usual, **given)
    further = {id_: replace(usual, ec2_instance_id=id_, **fields) for id_, fields in others.items()}
    aws = OneInstance(instances={ID: first, **further}, console=console)
    store = {"bucket": "rackctl-test", "kms_key": "alias/k", "prefix": "p"}
    settings = {"cluster": "prod", **store, "ssh_port": port, "ssh_user": user}
    settings |= further_settings

    class Options(Invocation):
        """Settings of the test's rack come last, as a config file's would."""

        @property
        def rack(self) -> Rack:
            config = Config(Path("/config.toml"), "", {"prod": {name: str(value) for name, value in settings.items()}})
            sources = Sources({**self.options, "rack": "prod"}, {}, config, None)
            return Rack(sources.current(), sources._settings("prod"), aws=aws)  # type: ignore[arg-type]

    run = Options()
    public = path.with_suffix(".pub").read_text()
    key = SshKey(KEY_NAME, "ed25519", " ".join(public.split()[:2]), datetime.now(UTC), path.read_bytes())
    KeyStore(run.rack).store(key)
    return run


def main() -> None:
    run_command_line(invocation(json.loads(os.environ["RACKCTL_TEST_INSTANCE"])))


if __name__ == "__main__":
    main()
