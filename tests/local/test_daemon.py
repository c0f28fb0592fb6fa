"""The local rack's daemon as a process: its files, start, stop and restart."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rackctl.keys import KeyStore
from rackctl.local import control, network
from rackctl.local.state import StateDir
from rackctl.local.world import World
from rackctl.local_rack import find_local_rack
from rackctl.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.local_rack import LocalRackProcess

    Start = Callable[..., LocalRackProcess]

BUCKET = "rackctl-local-123456789012"
NOW = datetime.now(UTC)


def tree(root: Path) -> dict[str, str]:
    """Map each path below a directory to its mode."""
    return {
        str(path.relative_to(root)): stat.filemode(path.lstat().st_mode) for path in sorted([root, *root.rglob("*")])
    }


# A running rack


def test_a_seeded_rack_has_cluster_instances_store_and_key(local_rack: LocalRackProcess) -> None:
    rack = local_rack.rack
    instances = list(rack.aws.ec2.instances_tagged({"Rack": "local"}))

    assert rack.chosen_by.source is Source.LOCAL_RACK
    assert len(instances) == 3
    assert {instance.state for instance in instances} == {"running"}
    assert (rack["bucket"], rack["kms_key"], rack["ssh_port"]) == (BUCKET, "alias/rackctl-local", "2222")
    names = KeyStore(rack).names()
    assert {instance.key_name for instance in instances} == set(names)
    assert KeyStore(rack).fetch(names[0], NOW).private_key.startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    services = local_rack.services()
    assert {name: service["running"] for name, service in services.items()} == {"web": 2, "worker": 1, "log-agent": 3}


def test_no_key_stores_no_ssh_key(start_local_rack: Start) -> None:
    rack = start_local_rack(key=False)

    assert KeyStore(rack.rack).names() == []
    assert {i.key_name for i in rack.aws.ec2.instances_tagged({"Rack": "local"})} == {""}


def test_an_instance_answers_to_the_rack_s_key_with_the_host_key_its_console_shows(
    local_rack: LocalRackProcess, tmp_path: Path
) -> None:
    import paramiko

    instance = next(iter(local_rack.aws.ec2.instances_tagged({"Rack": "local"})))
    transport = paramiko.Transport((instance.private_ip, 2222))
    transport.start_client(timeout=10)
    shown = transport.get_remote_server_key().get_base64()
    transport.close()

    assert shown in local_rack.aws.ec2.console_output(instance.ec2_instance_id)


def test_terminated_instances_are_replaced_by_ones_that_accept_ssh(own_local_rack: LocalRackProcess) -> None:
    import socket

    rack = own_local_rack
    before = rack.ids()
    rack.client("autoscaling").terminate_instance_in_auto_scaling_group(
        InstanceId=before[0], ShouldDecrementDesiredCapacity=False
    )

    def replacement() -> Any:
        new = [i for i in rack.aws.ec2.instances_tagged({"Rack": "local"}) if i.ec2_instance_id not in before]
        try:
            with socket.create_connection((new[0].private_ip, 2222), timeout=1) as connection:
                return connection.recv(4) == b"SSH-" and new[0]
        except (IndexError, OSError):
            return None

    found = rack.wait_for(replacement, "the replacement")

    rack.wait_for(lambda: rack.services()["log-agent"]["running"] == 3, "its tasks")
    assert found.key_name
    assert before[0] not in rack.ids()


# Longer than two seconds: a thousand servers are started, which is the point.
def test_a_thousand_instances_are_up_at_once(start_local_rack: Start) -> None:
    import socket

    rack = start_local_rack(instances=1000, key=False)

    instances = list(rack.aws.ec2.instances_tagged({"Rack": "local"}))
    assert len({instance.private_ip for instance in instances}) == 1000
    for instance in (instances[0], instances[-1]):
        with socket.create_connection((instance.private_ip, 2222), timeout=5) as connection:
            assert connection.recv(4) == b"SSH-"


def test_only_its_owner_can_read_its_files(own_local_rack: LocalRackProcess) -> None:
    modes = tree(own_local_rack.state.root)

    assert modes.pop(".") == "drwx------"
    assert {"rack.json", "lock", "snapshot", "daemon.log"} <= modes.keys()
    assert all(mode[4:] == "------" for mode in modes.values()), modes


def test_a_state_directory_that_others_could_read_is_closed(start_local_rack: Start, tmp_path: Path) -> None:
    (tmp_path / "open" / "local").mkdir(parents=True)
    (tmp_path / "open" / "local").chmod(0o755)

    start_local_rack(directory=tmp_path / "open", key=False)

    assert tree(tmp_path / "open" / "local")["."] == "drwx------"


def test_no_secret_is_in_arguments_environment_or_log(own_local_rack: LocalRackProcess) -> None:
    secret = own_local_rack.description.secret_access_key
    own_local_rack.client("ecs").list_clusters()
    pid = own_local_rack.description.pid
    shown = subprocess.run(["ps", "eww", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    process = Path(f"/proc/{pid}")

    assert "rackctl.local.daemon" in shown
    texts = [shown, own_local_rack.state.log.read_text(), repr(own_local_rack.description)]
    if os.getuid() == 0 and process.exists():
        texts += [(process / "environ").read_text(), (process / "cmdline").read_text()]
    assert not [text for text in texts if secret in text or "PRIVATE KEY" in text]


def test_the_user_s_own_aws_settings_do_not_reach_the_daemon(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from rackctl.local import control;"
        "from rackctl.local.state import Options;"
        "print(control.start(Path(sys.argv[1]), Options(key=False)).rack.pid)"
    )
    own = {"AWS_SECRET_ACCESS_KEY": "users-own", "AWS_PROFILE": "nonesuch", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={**os.environ, **own}, capture_output=True, check=True
    )
    try:
        environment = Path(f"/proc/{int(done.stdout)}/environ")
        if not environment.exists() or os.getuid() != 0:
            pytest.skip("only Linux shows a process's environment, and this one's only to root")
        assert b"users-own" not in environment.read_bytes()
        assert b"nonesuch" not in environment.read_bytes()
    finally:
        control.down(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_daemon_writes_no_core_file(own_local_rack: LocalRackProcess) -> None:
    limits = Path(f"/proc/{own_local_rack.description.pid}/limits").read_text()

    assert [line.split()[4] for line in limits.splitlines() if line.startswith("Max core")] == ["0"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root; for another user all the other tests show the same")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux), to become another user")
def test_the_daemon_runs_as_any_user() -> None:
    nobody = pwd.getpwnam("nobody")
    directory = Path(tempfile.mkdtemp(prefix="rackctl-"))  # tmp_path is root's alone
    os.chown(directory, nobody.pw_uid, nobody.pw_gid)
    source = Path(sys.modules["rackctl"].__file__ or "").parent.parent
    script = (
        "import os, sys; from pathlib import Path; from rackctl.local import control;"
        "from rackctl.local.state import Options; d = Path(sys.argv[1]); up = control.start(d, Options());"
        "print(os.getuid(), control.Control(up.rack)('status')); control.down(d)"
    )
    # This Python may be in root's own home: to read is all of root's rights that is left.
    as_nobody = [
        *("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
        *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
    ]
    done = subprocess.run(
        [*as_nobody, sys.executable, "-c", script, str(directory)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(source), "HOME": str(directory)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    left = list(directory.iterdir())
    shutil.rmtree(directory)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{nobody.pw_uid} ")
    assert "'running': 3" in done.stdout
    assert left == []


# Ending


def test_down_removes_everything(own_local_rack: LocalRackProcess) -> None:
    import paramiko

    instance = next(iter(own_local_rack.aws.ec2.instances_tagged({"Rack": "local"})))
    key = KeyStore(own_local_rack.rack).fetch(instance.key_name, instance.first_launch_time)
    transport = paramiko.Transport((instance.private_ip, 2222))
    from io import StringIO

    transport.connect(
        username="ec2-user", pkey=paramiko.Ed25519Key.from_private_key(StringIO(key.private_key.decode()))
    )
    channel = transport.open_session()
    channel.exec_command("trap '' HUP TERM; sleep 300 & echo $!; wait")
    pid = channel.makefile("r").readline().strip()
    directory, daemon = own_local_rack.directory, own_local_rack.description.pid

    assert control.down(directory) is True
    transport.close()

    shown = subprocess.run(["ps", "-o", "stat=", "-p", f"{pid},{daemon}"], capture_output=True, text=True, check=False)
    assert [line for line in shown.stdout.split() if not line.startswith("Z")] == []
    assert list(directory.iterdir()) == []
    assert control.down(directory) is False


def hosts_of(rack: LocalRackProcess) -> dict[str, str]:
    """Map instances to the latter half of their addresses: another rack may have taken the former meanwhile."""
    instances = rack.aws.ec2.instances_tagged({"Rack": "local"})
    return {i.ec2_instance_id: i.private_ip.split(".", 2)[2] for i in instances}


# Longer than two seconds: a daemon gets ten to end by itself.
def test_down_ends_a_rack_that_does_not_answer(own_local_rack: LocalRackProcess) -> None:
    os.kill(own_local_rack.description.pid, signal.SIGSTOP)

    assert control.down(own_local_rack.directory) is True
    assert list(own_local_rack.directory.iterdir()) == []


def test_a_stopped_rack_continues_from_its_last_state(own_local_rack: LocalRackProcess) -> None:
    rack, before = own_local_rack, own_local_rack.description
    ids = rack.ids()
    os.kill(before.pid, signal.SIGTERM)
    rack.wait_for(lambda: rack.state.holder() is None, "its end")
    assert find_local_rack(rack.directory) is None

    rack.up()

    assert rack.ids() == ids
    assert not [note for note in rack.notes if "cannot be read" in note]
    assert (rack.description.endpoint_url, rack.description.secret_access_key) == (
        before.endpoint_url,
        before.secret_access_key,
    )


# Longer than two seconds: snapshots come once a second, and two racks start.
def test_a_rack_that_was_killed_is_restored(own_local_rack: LocalRackProcess) -> None:
    rack = own_local_rack
    s3, kms = rack.client("s3"), rack.client("kms")
    s3.put_object(Bucket=BUCKET, Key="kept", Body=b"here")
    sealed = kms.encrypt(KeyId="alias/rackctl-local", Plaintext=b"secret")["CiphertextBlob"]
    group = rack.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"][0]
    rack.client("autoscaling").set_desired_capacity(
        AutoScalingGroupName=group["AutoScalingGroupName"], DesiredCapacity=4
    )
    rack.wait_for(lambda: len(rack.ids()) == 4, "the fourth")
    ids, written = rack.ids(), rack.state.snapshot.stat().st_mtime_ns
    rack.wait_for(lambda: rack.state.snapshot.stat().st_mtime_ns > written, "a snapshot")
    rack.wait_for(lambda: time.time_ns() > rack.state.snapshot.stat().st_mtime_ns + 2_000_000_000, "its last snapshot")
    addresses = hosts_of(rack)
    rack.kill()
    assert find_local_rack(rack.directory) is None

    rack.up()

    assert rack.ids() == ids
    assert hosts_of(rack) == addresses
    assert s3.get_object(Bucket=BUCKET, Key="kept")["Body"].read() == b"here"
    assert kms.decrypt(CiphertextBlob=sealed)["Plaintext"] == b"secret"
    assert KeyStore(rack.rack).fetch(KeyStore(rack.rack).names()[0], NOW).private_key
    rack.wait_for(lambda: rack.services()["log-agent"]["running"] == 4, "its services")


def test_a_damaged_snapshot_is_renamed_and_a_new_rack_made_with_a_note(own_local_rack: LocalRackProcess) -> None:
    rack, before = own_local_rack, own_local_rack.ids()
    rack.kill()
    rack.state.snapshot.write_bytes(b"nonsense")

    rack.up()

    assert len(rack.ids()) == 3
    assert not set(rack.ids()) & set(before)
    assert "cannot be read" in rack.notes[0]
    assert (rack.state.root / "snapshot.unreadable").read_bytes() == b"nonsense"


# Longer than two seconds: two racks start, one after the other.
def test_a_restored_rack_whose_network_is_taken_moves_to_another(start_local_rack: Start) -> None:
    rack = start_local_rack(key=False)
    before = rack.control("status")["network"]
    rack.kill()
    taken = network.claim(before.removesuffix(".0.0/16"))
    try:
        rack.up()
    finally:
        assert taken.claim
        taken.claim.close()

    now = rack.control("status")["network"]
    assert now != before
    assert f"the instances have moved to {now}" in rack.notes[0]
    prefix = now.removesuffix(".0.0/16")
    assert all(i.private_ip.startswith(f"{prefix}.") for i in rack.aws.ec2.instances_tagged({"Rack": "local"}))
    (subnet, *_) = rack.client("ec2").describe_subnets()["Subnets"]
    assert subnet["CidrBlock"].startswith(prefix)


def test_a_stale_description_is_not_used(own_local_rack: LocalRackProcess) -> None:
    """A process id may be another's by now: what counts is the lock."""
    described = (own_local_rack.state.root / "rack.json").read_text()
    own_local_rack.kill()
    changed = {**json.loads(described), "pid": os.getpid()}
    (own_local_rack.state.root / "rack.json").write_text(json.dumps(changed))

    assert find_local_rack(own_local_rack.directory) is None
    assert control.describe(own_local_rack.directory) is None


def test_taking_the_lock_waits_out_processes_that_check_it(tmp_path: Path) -> None:
    state = StateDir(tmp_path)
    state.make()
    held = state.acquire()
    assert held is not None
    assert state.holder() == os.getpid()
    assert state.acquire(patience=0.0) is None
    held.release()

    with (state.root / "lock").open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        with ThreadPoolExecutor(1) as pool:
            taken = pool.submit(state.acquire, patience=5.0)
            time.sleep(0.05)
            fcntl.flock(looking, fcntl.LOCK_UN)
            lock = taken.result()
    assert lock is not None
    lock.release()


# Time and place


def test_the_world_s_time_does_not_advance_while_the_machine_sleeps() -> None:
    world = World(region="us-east-1", account_id="123456789012", now=1000.0, seed=1)
    world.seed("local", 1)
    world.advance(1001.0)
    due = world.next_due()
    assert due is not None

    world.resume(5001.0)

    assert world.now == 5001.0
    assert world.next_due() == due + 4000.0


def test_a_world_that_moves_keeps_its_addresses_within_the_new_network() -> None:
    world = World(region="us-east-1", account_id="123456789012", now=1000.0, seed=1)
    world.seed("local", 4)
    before = [host.private_ip for host in world.hosts()]

    world.move("127.99")

    assert [host.private_ip for host in world.hosts()] == [ip.replace("127.77.", "127.99.") for ip in before]
    assert {subnet.network.supernet(new_prefix=16) for subnet in world.ec2.subnets.values()} == {
        IPv4Network("127.99.0.0/16")
    }
    assert world.ec2.cidr == "127.99.0.0/16"


# Where 127.0.0.1 is the only address


# Longer than two seconds: a rack starts, and two whole commands after it.
def test_if_only_one_address_can_be_bound_instances_are_reached_through_the_gateway(start_local_rack: Start) -> None:
    rack = start_local_rack(gateway=True)
    ids = rack.ids()
    assert "rackctl.local.connect" in rack.description.proxy_command

    done = [
        subprocess.run(
            ["rackctl", "instances", "ssh", id_, "hostname -s; docker ps -q | wc -l"],
            env=rack.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        for id_ in ids[:2]
    ]

    instances = {i.ec2_instance_id: i.private_ip for i in rack.aws.ec2.instances_by_id(ids)}
    for ran, id_ in zip(done, ids, strict=False):
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.split()[0] == f"ip-{instances[id_].replace('.', '-')}"
        assert int(ran.stdout.split()[1]) >= 2
