"""The local rack's daemon: ``python -m rackctl.local.daemon STATE_DIRECTORY …``, started by `rackctl local up`.

It reports its progress on standard output, a line for each step, ``ready`` last; then it detaches.
"""

from __future__ import annotations

import argparse
import os
import resource
import secrets
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rackctl.keys import forbid_core_files
from rackctl.local import network
from rackctl.local.api import Api
from rackctl.local.endpoint import Endpoint
from rackctl.local.hosts import HostKeys, Hosts
from rackctl.local.http_server import HttpServer
from rackctl.local.moto_services import ACCOUNT_ID, MotoServices
from rackctl.local.seeding import REGION, seed_foreign, seed_rack
from rackctl.local.signature import Verifier
from rackctl.local.state import TAKEN, Kept, Options, RackDescription, StateDir
from rackctl.local.world import World
from rackctl.local.world.stacks import foreign_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rackctl.local.world import Host

_TICK: Final = 0.05
_SNAPSHOT_EVERY: Final = 1.0
# A longer pause than this, in seconds, is a sleep of the machine, in which the world's time does not advance.
_LONGEST_PAUSE: Final = 30.0
_LOG_SIZE: Final = 2**20


class Daemon:
    """One local rack, from its start to its end.

    One lock lets requests, time steps and snapshots access the world in turn.
    """

    def __init__(self, state: StateDir, options: Options) -> None:
        self._state = state
        self._stopping = threading.Event()
        self._lock = threading.RLock()
        found, self._word = state.load()
        self._is_new = found is None
        self._kept: Kept = found or _new(options)
        self._world.resume(time.time())
        self._network = self._claim_network(options.gateway)
        self._moto = MotoServices(REGION)
        if self._kept.moto:
            self._moto.restore(self._kept.moto)
        self._host_keys = HostKeys(self._kept.host_secret)
        self._hosts = Hosts(
            state,
            self._host_keys,
            port=self._network.ssh_port,
            gateway=self._network.claim is None,
            containers=self._containers,
        )
        self._shown: list[Host] = []
        self._seen_version = self._saved = -1
        self._dumped = 0
        self._server = HttpServer(wished_port=self._kept.port)
        self._kept.port = self._server.port
        self._endpoint = Endpoint(
            Api(self._world),
            self._moto,
            Verifier(self._kept.access_key_id, self._kept.secret_access_key),
            region=REGION,
            turn=self._turn,
            controls=self._controls(),
        )
        self._started = time.time()

    @property
    def _world(self) -> World:
        return self._kept.world

    def _claim_network(self, gateway: bool | None) -> network.Network:
        claimed = network.claim(self._kept.network, self._kept.ssh_port, gateway=gateway)
        if claimed.prefix != self._world.network:
            if not self._is_new:
                self._word = (
                    f"another rack now uses the network {self._world.network}.0.0/16: "
                    f"the instances have moved to {claimed.prefix}.0.0/16"
                )
            self._world.move(claimed.prefix)
        self._kept.network, self._kept.ssh_port = claimed.prefix, claimed.ssh_port
        return claimed

    def run(self) -> None:
        """Start, report readiness, run until SIGTERM, and write a snapshot."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        if self._word:
            _say(f"note {self._word}")
        self._server.start(self._endpoint)
        self._hosts.start()
        if self._is_new:
            self._seed()
        _say(f"progress {len(self._world.hosts())} instances")
        with self._turn():
            pass
        self._hosts.set(self._shown)
        self._save()
        self._state.describe(self._description())
        _say("ready")
        _detach()
        self._let_time_pass()
        self._state.undescribe()
        self._server.close()
        self._hosts.close()
        self._save()

    def _seed(self) -> None:
        if self._kept.options.foreign:
            seed_foreign(self._kept, self._state.key_file, turn=self._turn, say=_say)
        else:
            seed_rack(self._kept, self._moto, turn=self._turn, say=_say)

    def _description(self) -> RackDescription:
        return RackDescription(
            name=self._kept.cluster,
            endpoint_url=f"http://127.0.0.1:{self._kept.port}",
            region=REGION,
            access_key_id=self._kept.access_key_id,
            secret_access_key=self._kept.secret_access_key,
            proxy_command=self._hosts.proxy_command,
            ssh_port=str(self._network.ssh_port) if self._kept.options.foreign else "",
            key_file=str(self._state.key_file) if self._kept.options.foreign else "",
            pid=os.getpid(),
            options=asdict(self._kept.options),
        )

    # Time, and turns

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the world's lock, and advance the world to now."""
        with self._lock:
            now = time.time()
            if now - self._world.now > _LONGEST_PAUSE:
                self._world.resume(now)
            self._world.alarms = self._moto.alarm_states()
            self._world.advance(now)
            yield
            self._endpoint.remember()
            if self._world.version != self._seen_version:
                self._seen_version = self._world.version
                self._show()

    def _show(self) -> None:
        """Update the SSH hosts to the world's state."""
        for instance in self._world.ec2.instances.values():
            if not instance.host_keys:
                instance.host_keys = (self._host_keys.public(instance.instance_id),)
        hosts = self._world.hosts()
        if hosts != self._shown:
            self._shown = hosts
            self._hosts.set_soon(hosts)

    def _let_time_pass(self) -> None:
        snapshot_due, pause = time.monotonic() + _SNAPSHOT_EVERY, _TICK
        while not self._stopping.wait(pause):
            try:
                with self._turn():
                    due = self._world.next_due()
                pause = min(_TICK, max(0.002, (due or time.time() + 1) - time.time()))
                if time.monotonic() >= snapshot_due:
                    self._save()
                    _limit_log(self._state.log)
                    snapshot_due = time.monotonic() + _SNAPSHOT_EVERY
            except Exception:  # noqa: BLE001 - a world with an error in it still answers, and its log says what happened
                traceback.print_exc()
                pause = _SNAPSHOT_EVERY

    def _save(self) -> None:
        with self._lock:
            version = self._world.version + self._moto.version
            if version == self._saved:
                return
            if self._moto.version != self._dumped or not self._kept.moto:
                self._kept.moto, self._dumped = self._moto.dumped(), self._moto.version
            snapshot = self._state.sealed(self._kept)
        self._state.save(snapshot)
        self._saved = version

    def _containers(self, instance_id: str) -> Sequence[Any]:
        with self._turn():
            return self._world.containers(instance_id)

    # Control calls

    def _controls(self) -> dict[str, Any]:
        def turned(act: Any) -> Any:
            def take_turn(**arguments: Any) -> Any:
                with self._turn():
                    return act(**arguments)

            return take_turn

        return {
            "status": turned(self._status),
            "calls": lambda since=0: self._endpoint.calls.since(since),
            "faults": lambda: [asdict(fault) for fault in self._endpoint.faults],
            "add_fault": turned(lambda **details: self._endpoint.faults.add(**details).number),
            "clear_faults": lambda number=None: self._endpoint.faults.clear(number),
            "set_policy": turned(lambda policy=None: self._endpoint.set_policy(policy)),
            "set_condition": turned(self._world.set_condition),
            "clear_condition": turned(self._world.clear_condition),
            "befall": turned(self._befall),
            "tag_as_stack": turned(self._world.tag_as_stack),
            "services": turned(self._services),
            "seed_service": turned(self._seed_service),
        }

    def _status(self) -> dict[str, Any]:
        states: dict[str, int] = {}
        for instance in self._world.ec2.instances.values():
            states[instance.state] = states.get(instance.state, 0) + 1
        usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "up_since": self._started,
            "speed": self._world.speed,
            "network": f"{self._kept.network}.0.0/16",
            "ssh_port": self._kept.ssh_port,
            "instances": states,
            "instance_ids": sorted(i.instance_id for i in self._world.ec2.instances.values() if i.exists),
            "conditions": dict(self._world.conditions),
            "faults": len(list(self._endpoint.faults)),
            "peak_memory_bytes": usage if sys.platform == "darwin" else usage * 1024,
        }

    def _befall(self, incident: str, instance: str) -> None:
        self._world.befall(incident, instance)

    def _services(self, cluster: str) -> dict[str, dict[str, Any]]:
        """Return each service's running tasks as they are in the world, for tests that do not rely on the API."""
        found = self._world.ecs.cluster(cluster)
        return {
            service.name: {
                "running": self._world.running_tasks(found.name, service.name),
                "desired": service.desired,
                "minimum_percent": service.minimum_percent,
                "strategy": service.strategy,
            }
            for service in found.services.values()
        }

    def _seed_service(self, cluster: str, name: str, **details: Any) -> None:
        settings = {"image": f"example/{name}:1", "command": f"bin/{name}", **details}
        self._world.seed_service(self._world.ecs.cluster(cluster), name, **settings)


def _new(options: Options) -> Kept:
    world = World(region=REGION, account_id=ACCOUNT_ID, now=time.time(), network=network.FIRST, speed=options.speed)
    # AWS's form of a key id, except for the beginning, which shows that it is not AWS's.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    access_key_id = "LOCALRACK" + "".join(secrets.choice(alphabet) for _ in range(11))
    return Kept(
        options,
        access_key_id,
        secrets.token_urlsafe(30),
        secrets.token_bytes(32),
        world,
        moto=b"",
        network=network.FIRST,
        ssh_port=network.SSH_PORT,
        port=0,
        cluster=foreign_cluster(options.name, world.ids) if options.foreign else options.name,
    )


# The process


def _say(line: str) -> None:
    # The starting process may have been interrupted; `rackctl local down` stops the daemon.
    with suppress(BrokenPipeError):
        os.write(1, f"{line}\n".encode())


def _detach() -> None:
    """Close standard output, which the starting process reads."""
    os.dup2(2, 1)


def _limit_log(log: Path) -> None:
    """Rotate the log when it is too long; keep the last one."""
    if os.fstat(2).st_size > _LOG_SIZE:
        log.replace(log.with_name(f"{log.name}.1"))
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)


def _allow_many_files() -> None:
    """Raise the limit of open files, since each instance has a listener."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _options(arguments: Sequence[str]) -> tuple[Path, Options]:
    parser = argparse.ArgumentParser(prog="rackctl.local.daemon", description="The local rack's daemon.")
    parser.add_argument("state_directory", type=Path)
    parser.add_argument("--name", default="local")
    parser.add_argument("--instances", type=int, default=3)
    parser.add_argument("--speed", type=float, default=10.0)
    parser.add_argument("--no-key", dest="key", action="store_false")
    parser.add_argument("--foreign", action="store_true")
    parser.add_argument("--gateway", action="store_true", default=None)
    given = vars(parser.parse_args(arguments))
    return given.pop("state_directory"), Options(**given)


def main(arguments: Sequence[str]) -> int:
    directory, options = _options(arguments)
    os.umask(0o077)
    forbid_core_files()
    _allow_many_files()
    state = StateDir(directory)
    state.make()
    lock = state.acquire()
    if lock is None:
        return TAKEN
    state.undescribe()  # files that a killed daemon left
    Daemon(state, options).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
