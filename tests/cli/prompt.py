"""Commands on a rack in memory, all of whose instances can be reached by SSH."""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.testing import CliRunner, Result

from rackctl.cli.invocation import Invocation
from rackctl.cli.main import cli
from rackctl.instances import Instances

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.world import Scene


class Prompt:
    """Types `rackctl instances keyroll …`, or another ``command``, each time as a process of its own would."""

    def __init__(self, scene: Scene, directory: Path) -> None:
        self.scene = scene
        self._directory = directory
        self.command = "keyroll"

    def __call__(self, *words: str) -> Result:
        invocation = Invocation(environment={"RACKCTL_CONFIG": "/nowhere", "RACKCTL_STATE_DIR": str(self._directory)})
        invocation.clock = self.scene.clock
        invocation.rack = self.scene.rack
        invocation.instances = Instances(self.scene.rack, self.scene.clock)
        invocation.keys = self.scene.keys
        invocation.start_proof = self.scene.start_login
        return CliRunner().invoke(cli, ["instances", self.command, *words], obj=invocation)
