"""A rack in a world in memory, with a clock whose time passes only in sleep(), and an observer of its services.

There is no network, so that a roll of hours takes a moment and can be interrupted at any of its calls.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from rackctl.instances import Instances
from rackctl.keys import KeyStore, generate
from rackctl.local.world.world import World
from rackctl.rack import Rack
from rackctl.roll.hold import StopRequest
from rackctl.roll.roll import Roll
from rackctl.roll.view import KEYROLL, Selection
from rackctl.settings import Value
from rackctl.ssh.login import Proof
from tests.fakes.aws import FakeAws
from tests.fakes.origin import GIVEN
from tests.fakes.world_aws import RACK, WorldAws

if TYPE_CHECKING:
    from collections.abc import Callable

    from rackctl.model import (
        Instance,
    )
    from rackctl.roll.check import Check
    from rackctl.roll.view import Kind

OLD_KEY = "prod-keypair-20250101T000000Z"
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Killed(BaseException):
    """The process has been killed: nothing may catch it."""


@dataclass
class WorldClock:
    """sleep() advances the world, a tenth of a second at a time; ``watching`` is called at each step."""

    world: World
    watching: list[Callable[[], None]] = field(default_factory=list)
    at: float = START.timestamp()
    step: float = 0.5

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        end = self.at + seconds
        while self.at < end:
            self.at = min(self.at + self.step, end)
            self.world.advance(self.at)
            for watch in self.watching:
                watch()


@dataclass(frozen=True, slots=True)
class Login(Proof):
    outcome: Literal["accepted", "refused", "unreachable"] = "accepted"


class Scene:
    """A rack in a world, its rolls, and an observer of its services."""

    def __init__(self, instances: int = 3, *, max_size: int | None = None, key_name: str = OLD_KEY) -> None:
        self.world = World(region="us-east-1", account_id="123456789012", now=START.timestamp(), seed=instances)
        self.aws = WorldAws(self.world)
        self.clock = WorldClock(self.world)
        given = {"bucket": "b", "kms_key": "alias/k", "prefix": "rackctl/prod", "cluster": RACK}
        values = {name: Value(value, GIVEN) for name, value in given.items()}
        self.values = values
        self.rack = self.another_rack()
        self.keys = KeyStore(self.rack)
        old = generate(key_name, created=START - timedelta(days=366))
        self.key_name, self.old_public_key = key_name, old.public_key
        self.old_pair = self.world.ec2.import_key_pair(key_name, old.public_key.encode(), {"team": "ops"})
        self.seeded = self.world.seed(RACK, instances, key_name=key_name)
        self.keys.store(old)
        self.group = next(iter(self.world.autoscaling.groups.values()))
        if max_size is not None:
            self.group.max_size = max_size
        self.template = next(iter(self.world.ec2.templates.values()))
        self.broken_promises: list[str] = []
        self.clock.watching.append(self._watch)
        self.stop = StopRequest()
        self.logins: list[str] = []
        self.login: Callable[[Instance], Proof | None] | None = None
        self.check: Check | None = None
        self.selection = KEYROLL
        self.first = [i.instance_id for i in self.world.ec2.instances.values()]
        self.clock.sleep(30)
        self.aws.mutations.clear()
        self.aws.reads.clear()

    def another_rack(self) -> Rack:
        """Return the rack as another process sees it: a Rack reads its cluster once."""
        return Rack(Value(RACK, GIVEN), self.values, aws=self.aws)  # type: ignore[arg-type]

    @property
    def roll(self) -> Roll:
        """Return a roll as another process would begin it."""
        return Roll(
            self.rack,
            Instances(self.rack, self.clock),
            self.keys,
            self.clock,
            login=self.start_login,
            stop=self.stop,
            check=self.check,
        )

    def start_login(self, instance: Instance, generation: datetime) -> Callable[[], Proof | None]:
        """Begin a login with one generation of an instance's key; it goes as `login` says, or else by that key."""
        self.logins.append(instance.ec2_instance_id)
        has = self.world.ec2.instances[instance.ec2_instance_id].authorized_key
        # Reading the key here is not a call of the roll.
        quiet = FakeAws(cluster_name=RACK, objects=self.aws.objects)
        keys = KeyStore(Rack(Value(RACK, GIVEN), self.values, aws=quiet))  # type: ignore[arg-type]
        accepts = has == keys.open(instance.key_name, generation).public_key
        by_key = Login() if accepts else Login("refused", "no key was accepted")
        return lambda: self.login(instance) if self.login else by_key

    def later(self, seconds: float, do: Callable[[], object]) -> None:
        """Have something done when so much time has passed."""
        due = self.clock.at + seconds

        def watch() -> None:
            if self.clock.at >= due and watch in self.clock.watching:
                self.clock.watching.remove(watch)
                do()

        self.clock.watching.append(watch)

    def when(self, condition: Callable[[], bool], do: Callable[[], object]) -> None:
        """Have something done once when a condition first holds."""

        def watch() -> None:
            if condition() and watch in self.clock.watching:
                self.clock.watching.remove(watch)
                do()

        self.clock.watching.append(watch)

    def _watch(self) -> None:
        for service in self.seeded.services.values():
            promised = math.ceil(service.desired * service.minimum_percent / 100)
            running = self.world.running_tasks(RACK, service.name)
            if running < promised:
                self.broken_promises.append(f"{service.name} had {running} of {promised} at {self.clock.now()}")

    # State

    @property
    def key_names(self) -> list[str]:
        """The keys of the instances that exist, as often as there are instances."""
        return [i.key_name for i in self.world.ec2.instances.values() if i.exists]

    @property
    def key_pairs(self) -> set[str]:
        return set(self.world.ec2.key_pairs)

    @property
    def draining(self) -> list[str]:
        # ECS keeps the registration of an instance that was terminated while its agent was off.
        instances = self.world.ec2.instances
        return [
            r.instance_id
            for r in self.seeded.registrations.values()
            if r.status == "DRAINING" and r.instance_id in instances and instances[r.instance_id].exists
        ]

    def is_old(self, instance: Any) -> bool:
        """Return whether an instance is old: by its key, or for other rolls by whether it existed at the start."""
        if self.selection.kind == "key":
            return bool(instance.key_name == self.key_name and instance.authorized_key in {"", self.old_public_key})
        return instance.instance_id in self.first

    @property
    def old(self) -> list[str]:
        return [i.instance_id for i in self.world.ec2.instances.values() if i.exists and self.is_old(i)]

    @property
    def new(self) -> list[str]:
        return [i.instance_id for i in self.world.ec2.instances.values() if i.exists and not self.is_old(i)]

    @property
    def public_keys(self) -> dict[str, str]:
        """The public keys of the instances that exist, by their ids: what their SSH servers accept."""
        return {i.instance_id: i.authorized_key for i in self.world.ec2.instances.values() if i.exists}

    @property
    def desired(self) -> int:
        return sum(group.desired for group in self.world.autoscaling.groups.values())

    @property
    def templates(self) -> Any:
        """The versions that the groups name, and the existing versions."""
        groups = self.world.autoscaling.groups.values()
        named = [(g.launch_template, g.mixed_instances_policy) for g in groups]
        templates = self.world.ec2.templates.values()
        return deepcopy((named, [(t.default_version, max(t.versions), t.versions) for t in templates]))

    @property
    def keys_in_templates(self) -> set[str]:
        """The keys that the groups launch with, whichever of their instance types is chosen."""
        refs = {ref for group in self.aws.all_groups() for ref in group.launch_templates}
        return {self.aws.launch_template_version(ref).key_name for ref in refs}

    @property
    def template_in_use(self) -> Any:
        specification = self.group.own_source.specification
        assert specification
        return self.template.resolve(specification["Version"])


def add_group(
    scene: Scene,
    name: str = "prod-spot",
    instances: int = 2,
    version: str = "",
    specification: dict[str, str] | None = None,
    **tags: str,
) -> Any:
    group = replace(
        scene.group, name=name, arn=f"{scene.group.arn}-{name}", members={}, activities=[], suspended={},
        desired=instances, max_size=instances + 1,
        launch_template=specification
        or {**(scene.group.launch_template or {}), **({"Version": version} if version else {})},
        tags=[{"Key": k, "Value": v, "PropagateAtLaunch": True} for k, v in {"Rack": RACK, **tags}.items()],
    )  # fmt: skip
    scene.world.autoscaling.add(group)
    scene.clock.sleep(120)
    return group


def outdate(scene: Scene) -> Scene:
    """Have the groups launch from another version with another image, and roll what is outdated."""
    scene.world.ec2.add_version(scene.template, {"ImageId": "ami-0123456789abcdef0"}, source="1")
    name_version(scene, "$Latest")
    return replacing(scene, "outdated")


def replacing(scene: Scene, kind: Kind) -> Scene:
    """Have the rolls of a scene replace the instances that it has now, for another reason than a key."""
    scene.first = [i.instance_id for i in scene.world.ec2.instances.values() if i.exists]
    ids = tuple(scene.first) if kind == "ids" else ()
    scene.selection = Selection(kind, ec2_instance_ids=ids)
    return scene


def drained(scene: Scene) -> Scene:
    """Put the groups behind capacity providers with managed draining."""
    scene.world.set_condition("managed-draining")
    scene.rack = scene.another_rack()
    return scene


def name_version(scene: Scene, version: str) -> None:
    assert scene.group.launch_template
    scene.group.launch_template["Version"] = version


def mixed(scene: Scene) -> dict[str, Any]:
    own = scene.world.ec2.create_template("prod-arm", {**scene.template.versions[1].data, "ImageId": "ami-arm"}, {})
    assert scene.group.launch_template
    policy = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": dict(scene.group.launch_template),
            "Overrides": [
                {"InstanceType": "t3.medium"},
                {
                    "InstanceType": "m5.large",
                    "LaunchTemplateSpecification": {
                        "LaunchTemplateId": own.launch_template_id,
                        "LaunchTemplateName": own.launch_template_name,
                        "Version": "1",
                    },
                },
            ],
        },
        "InstancesDistribution": {"OnDemandBaseCapacity": 1},
    }
    scene.group.mixed_instances_policy, scene.group.launch_template = policy, None
    return policy
