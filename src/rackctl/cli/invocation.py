"""The objects of one run of rackctl: its options, its clock, and the rack that they select."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import click

from rackctl.cli.console import note
from rackctl.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from rackctl.instances import Instances
    from rackctl.keys import KeyStore
    from rackctl.model import Instance
    from rackctl.rack import Rack, Sources
    from rackctl.roll.check import Check
    from rackctl.roll.hold import StopRequest
    from rackctl.roll.roll import Roll
    from rackctl.ssh.login import Proof


@dataclass
class Invocation:
    """The composition root: commands take their dependencies from here, and tests replace them."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = field(default_factory=SystemClock)
    options: dict[str, str] = field(default_factory=dict)
    debug: bool = False

    @cached_property
    def state_directory(self) -> Path:
        from rackctl.files import state_dir

        return state_dir(self.environment)

    @cached_property
    def sources(self) -> Sources:
        from rackctl.config import read_config
        from rackctl.files import config_file
        from rackctl.local_rack import find_local_rack
        from rackctl.rack import Sources

        return Sources(
            options=self.options,
            environment=self.environment,
            config=read_config(config_file(self.environment)),
            local=find_local_rack(self.state_directory),
        )

    @cached_property
    def rack(self) -> Rack:
        from rackctl.settings import Source

        rack = self.sources.rack(notify=note)
        if rack.chosen_by.source is Source.LOCAL_RACK:
            note(f'using the local rack "{rack.name}": no other is selected')
        return rack

    def select_convox_cluster(self) -> bool:
        """Select the cluster of the convox stack that has the rack's name; return whether there is one."""
        from rackctl.errors import RackctlError
        from rackctl.keys.convox import cluster_of

        rack = self.rack
        if rack.is_given("cluster"):
            return False
        try:
            cluster = cluster_of(rack.aws, rack.name)
        except RackctlError:
            return False  # who may not ask CloudFormation is told that there is no such cluster
        if not cluster:
            return False
        note(f'"{rack.name}" is a convox rack: its cluster is {cluster} (select it at once with --cluster)')
        self.options["cluster"] = cluster
        for built in ("rack", "instances", "keys", "start_proof"):
            self.__dict__.pop(built, None)
        return True

    @cached_property
    def instances(self) -> Instances:
        from rackctl.instances import Instances

        return Instances(self.rack, self.clock)

    @cached_property
    def keys(self) -> KeyStore:
        from rackctl.keys import KeyStore

        return KeyStore(self.rack)

    @cached_property
    def start_proof(self) -> Callable[[Instance, datetime], Callable[[], Proof | None]]:
        """Start a login with one generation of an instance's key; the returned function gives the Proof, or None until
        it is known.
        """
        from rackctl.keys import OneGeneration
        from rackctl.ssh.login import start_proof

        def start(instance: Instance, generation: datetime) -> Callable[[], Proof | None]:
            keys = OneGeneration(self.keys, generation)
            return start_proof(self.rack, keys, instance, state_directory=self.state_directory)

        return start

    def roll(self, stop: StopRequest | None = None, *, check: Check | None = None) -> Roll:
        """Make the rolls of the rack, with what asks them to stop, and what is run after each batch."""
        from rackctl.roll.roll import Roll

        return Roll(self.rack, self.instances, self.keys, self.clock, login=self.start_proof, stop=stop, check=check)


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)
