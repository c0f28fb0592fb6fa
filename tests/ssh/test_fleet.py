"""`rackctl instances run`: one command on many instances, which are all one real sshd under several ids."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.ssh.conftest import CommandLine
from tests.ssh.entry import ID
from tests.ssh.person import Person

if TYPE_CHECKING:
    from pathlib import Path


B, C, DEAD, PENDING = ("i-0b0000000000000bb", "i-0c0000000000000cc", "i-0d0000000000000dd", "i-0e0000000000000ee")


@dataclass
class Fleet:
    cli: CommandLine
    others: dict[str, dict[str, Any]]

    def __call__(self, *words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        return self.cli.run("run", *words, instance={"others": self.others}, **more)

    def popen(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.cli.argv("run", *words), env=self.cli.environment(others=self.others), stdin=subprocess.DEVNULL, **more
        )


@pytest.fixture
def fleet(cli: CommandLine) -> Fleet:
    with (cli.state / "host_keys").open("a") as pins:
        pins.writelines(f"{id_} {cli.server.host_key}\n" for id_ in (B, C))
    return Fleet(cli, {B: {}, C: {}})


def lines(output: bytes) -> list[bytes]:
    return sorted(output.splitlines())


def prefixed(line: str, *ids: str) -> list[bytes]:
    return sorted(f"{id_}: {line}".encode() for id_ in ids)


def test_every_line_comes_with_its_instance_on_the_stream_it_was_written_to(fleet: Fleet) -> None:
    ran = fleet("--all", "--", "echo out; echo err >&2; echo; printf unended")

    assert ran.returncode == 0
    assert lines(ran.stdout) == sorted(
        [*prefixed("out", ID, B, C), *prefixed("", ID, B, C), *prefixed("unended", ID, B, C)]
    )
    assert ran.stdout.endswith(b"unended\n")
    assert lines(ran.stderr) == prefixed("err", ID, B, C)


def test_ids_and_starts_of_ids_choose_the_instances_each_once(fleet: Fleet) -> None:
    ran = fleet(C, "i-0b00", C, "--", "echo", "here")

    assert (ran.returncode, lines(ran.stdout)) == (0, prefixed("here", B, C))


def test_a_filter_chooses_among_all(fleet: Fleet) -> None:
    fleet.others[B] = {"availability_zone": "us-east-1b"}

    ran = fleet("--all", "--filter", "zone=us-east-1b", "--", "echo here")

    assert (ran.returncode, ran.stdout) == (0, f"{B}: here\n".encode())


def test_all_leaves_out_and_names_instances_that_are_not_running(fleet: Fleet) -> None:
    fleet.others |= {PENDING: {"state": "pending"}, DEAD: {"state": "shutting-down"}}

    ran = fleet("--all", "--", "echo here")

    assert (ran.returncode, lines(ran.stdout)) == (0, prefixed("here", ID, B, C))
    left_out = f"rackctl: not running, left out: {DEAD} (shutting-down), {PENDING} (pending)\n"
    assert ran.stderr == left_out.encode()


def test_an_instance_that_is_named_and_does_not_run_is_a_failure(fleet: Fleet) -> None:
    fleet.others[PENDING] = {"state": "pending"}

    ran = fleet(PENDING, B, "--", "echo here")

    assert (ran.returncode, ran.stdout) == (1, f"{B}: here\n".encode())
    assert f"rackctl: {PENDING}: {PENDING} is pending, not running".encode() in ran.stderr


def test_a_failure_is_named_with_its_status_and_stops_no_other(fleet: Fleet) -> None:
    # Refused: nothing listens there at this port.
    fleet.others[DEAD] = {"public_ip": "127.77.77.77"}

    ran = fleet("--all", "--", f"mkdir {fleet.cli.state}/first && exit 7; echo here")

    assert ran.returncode == 1
    assert len(ran.stdout.splitlines()) == 2
    told = ran.stderr.decode()
    assert f"rackctl: {DEAD}: {DEAD} (127.77.77.77 port {fleet.cli.server.port}) refused the connection" in told
    assert ": exit status 7\n" in told
    assert "rackctl: failed on 2 of 4: " in told
    assert "Traceback" not in told


def test_json_has_one_object_an_instance_and_a_line(fleet: Fleet) -> None:
    fleet.others = {DEAD: {"public_ip": "127.77.77.77"}}

    ran = fleet("--all", "-o", "json", "--", r"printf 'a\nb\377'; echo err >&2; exit 3")

    told = {described["id"]: described for described in map(json.loads, ran.stdout.splitlines())}
    assert ran.returncode == 1
    assert told[ID] == {"id": ID, "exit_status": 3, "stdout": "a\nb�", "stderr": "err\n", "error": None}
    assert told[DEAD].items() >= {"exit_status": None, "stdout": "", "stderr": ""}.items()
    assert "refused the connection" in told[DEAD]["error"]
    assert len(told) == 2


def test_all_run_at_once_where_parallel_allows(fleet: Fleet) -> None:
    there = fleet.cli.state / "there"
    there.mkdir()

    # Each ends only when all three are there.
    ran = fleet("--all", "--", f"touch {there}/$$; until [ $(ls {there} | wc -l) = 3 ]; do sleep 0.02; done")

    assert (ran.returncode, ran.stderr) == (0, b"")


def test_one_runs_after_the_other_with_parallel_1(fleet: Fleet) -> None:
    alone = fleet.cli.state / "alone"

    ran = fleet("--all", "--parallel", "1", "--", f"mkdir {alone} && sleep 0.2 && rmdir {alone}")

    assert (ran.returncode, ran.stderr) == (0, b"")


def test_lines_never_mix_even_with_both_streams_in_one_pipe(fleet: Fleet) -> None:
    body = "x" * 3000
    process = fleet.popen(
        "--all", "--", f"for n in $(seq 300); do echo out{body}; echo err{body} >&2; done",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    seen, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    expected = {f"{id_}: {kind}{body}".encode() for id_ in (ID, B, C) for kind in ("out", "err")}
    assert set(seen.splitlines()) == expected
    assert len(seen.splitlines()) == 3 * 2 * 300


def test_every_byte_but_line_breaks_passes_unchanged(fleet: Fleet) -> None:
    data = fleet.cli.state / "data"
    data.write_bytes(bytes(sorted({*range(256)} - {*b"\r\x0b\x0c\x1c\x1d\x1e"})) * 4000 + b"\n")

    ran = fleet(B, "--", f"cat {data}")

    assert ran.stdout.replace(f"{B}: ".encode(), b"") == data.read_bytes()


def test_an_output_cannot_fake_a_line_of_another_instance(fleet: Fleet) -> None:
    faked = r"printf 'a\r%s: b\vc\fd\034e\302\205f\342\200\250g\r\n' i-0fake; printf 'x\ry' >&2"
    ran = fleet(ID, "--", faked)

    assert ran.stdout == f"{ID}: ".encode() + rb"a\ri-0fake: b\x0bc\x0cd\x1ce\x85f\u2028g" + b"\r\n"
    assert ran.stderr == f"{ID}: ".encode() + rb"x\ry" + b"\n"
    assert len(ran.stdout.decode().splitlines()) == 1


def test_on_a_terminal_control_characters_are_escaped(fleet: Fleet) -> None:
    faked = r"printf 'a\033[2K\033[Gi-0fake: b\007\302\233c\342\200\256d\te\n'"
    with Person(fleet.cli.argv("run", ID, "--", faked), fleet.cli.environment()) as person:
        assert person.wait() == 0

    assert person.seen == f"{ID}: ".encode() + rb"a\x1b[2K\x1b[Gi-0fake: b\x07\x9bc\u202ed" + b"\te\r\n"


def test_an_endless_line_is_split(fleet: Fleet) -> None:
    ran = fleet(B, "--", "head -c 5000000 /dev/zero")

    pieces = ran.stdout.split(b"\n")[:-1]
    assert b"".join(piece.removeprefix(f"{B}: ".encode()) for piece in pieces) == bytes(5_000_000)
    assert len(pieces) == 5


def test_standard_input_is_empty(fleet: Fleet) -> None:
    ran = fleet(B, "--", "cat; echo ended", input=b"not for them")

    assert ran.stdout == f"{B}: ended\n".encode()


def test_words_after_the_dashes_are_the_commands_own(fleet: Fleet) -> None:
    assert fleet(B, "--", "echo", "--all", "--", "-o").stdout == f"{B}: --all -- -o\n".encode()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--", "true"), "no instances given"),
        ((B,), "put the command after --"),
        (("--all", "--"), "no command after --"),
        (("--all", B, "--", "true"), "contradict each other"),
        ((B, "", "--", "true"), "the instance id is empty"),
        ((B, "--filter", "zone=a", "--", "true"), "--filter goes with --all"),
        (("--all", "--filter", "zoen=a", "--", "true"), 'there is no field "zoen"'),
        (("--all", "--parallel", "0", "--", "true"), "0 is not in the range"),
        (("--all", "--via", "ssm", "--jump", "host", "--", "true"), "two connection methods"),
    ],
)
def test_bad_input_exits_with_two_and_runs_nothing(fleet: Fleet, words: tuple[str, ...], says: str) -> None:
    ran = fleet(*words)

    assert (ran.returncode, ran.stdout) == (2, b"")
    assert says in ran.stderr.decode()


@pytest.mark.parametrize("words", [("--all", "--filter", "zone=nowhere"), (DEAD,)])
def test_nothing_to_run_on_exits_with_three(fleet: Fleet, words: tuple[str, ...]) -> None:
    assert fleet(*words, "--", "true").returncode == 3


def started(process: subprocess.Popen[bytes], count: int) -> None:
    """Wait until so many commands have said something."""
    assert process.stdout
    for _ in range(count):
        assert process.stdout.readline()


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_it_with_the_signals_status(fleet: Fleet, signum: signal.Signals, status: int) -> None:
    # tests/local checks the commands' end: OpenSSH's server forwards no signals in a session of root.
    with fleet.popen("--all", "--", "echo $$; exec sleep 600", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        started(run, 3)
        run.send_signal(signum)
        run.send_signal(signum)
        _, told = run.communicate(timeout=30)

    assert (run.returncode, told) == (status, b"")


def test_an_interrupt_starts_no_further_instance(fleet: Fleet) -> None:
    seen = fleet.cli.state / "seen"
    command = f"echo $$ | tee -a {seen}; exec sleep 600"
    with fleet.popen("--all", "--parallel", "1", "--", command, stdout=subprocess.PIPE) as run:
        started(run, 1)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)

    assert run.returncode == 130
    assert len(seen.read_text().splitlines()) == 1


def test_local_reader_gone_ends_it_quietly(fleet: Fleet) -> None:
    with fleet.popen("--all", "--", "yes", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout
        assert run.stdout.readline().endswith(b": y\n")
        run.stdout.close()
        assert run.stderr
        told = run.stderr.read()

    assert (run.returncode, told) == (141, b"")


def test_new_host_keys_are_reported_and_pinned(fleet: Fleet, tmp_path: Path) -> None:
    cli = CommandLine(fleet.cli.server, tmp_path / "new")
    ran = Fleet(cli, {B: {}})("--all", "--", "true")

    assert ran.returncode == 0
    assert ran.stderr.decode().count("trusting its host key") == 2
    assert len((cli.state / "host_keys").read_text().splitlines()) == 2
