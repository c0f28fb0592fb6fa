"""The steps of docs/getting-started.md, typed one after the other on a cluster that is not a rack yet."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.conftest import eventually, hurry, with_rack
from tests.local_rack import needs_openssh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import Shell

PAGE = (Path(__file__).parents[2] / "docs" / "getting-started.md").read_text("utf-8")
BLOCK = re.search(r"^## The steps$.*?^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# Without the comments; what stands for a person's own names is put in below.
STEPS = [line.partition("  #")[0].rstrip() for line in BLOCK[1].splitlines() if line] if BLOCK else []
ID = re.compile(r"^(i-[0-9a-f]{17}) ", re.MULTILINE)


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Shell]:
    yield from with_rack(tmp_path, "--foreign")


class Person:
    """Types steps of the page on a terminal, each of which must succeed."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.status = shell.json("rackctl local status -o json")
        self.cluster = "prod-ecs"
        self.id = "i-0a321c8b"

    @property
    def key_file(self) -> str:
        return str(self.status["key_file"])

    def __call__(self, step: str, *, typed: str = "") -> str:
        own = {"prod-ecs": self.cluster, "~/.ssh/ops.pem": shlex.quote(self.key_file), "i-0a321c8b": self.id}
        for example, real in own.items():
            step = step.replace(example, real)
        status, drawn = self.shell.on_terminal(step, columns=200, typed=typed)
        assert status == 0, f"{step}: {drawn}"
        return drawn

    def openssh(self, ec2_instance_id: str) -> tuple[int, str]:
        """Log in as `ssh -i ~/.ssh/ops.pem` does, with that key and no other; return its status and what it said."""
        listed = self.shell.json(f"rackctl -r {self.cluster} instances -o json")
        (address,) = [one["private_ip"] for one in listed if one["id"] == ec2_instance_id]
        options = [
            "IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes", "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null", "ConnectTimeout=10",
        ]  # fmt: skip
        done = subprocess.run(
            [
                "ssh", "-F", "none", "-i", self.key_file, "-p", str(self.status["ssh_port"]),
                *(word for option in options for word in ("-o", option)), f"ec2-user@{address}", "whoami",
            ],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


def test_the_page_has_five_commands_to_the_first_login_and_nine_to_the_end_of_a_keyroll() -> None:
    typed = [step.replace("rackctl -r prod-ecs ", "rackctl ").split()[1:3] for step in STEPS]

    assert typed.index(["instances", "ssh"]) == 4
    assert (len(typed), typed[-1]) == (9, ["instances", "keyroll"])
    assert STEPS[-1].endswith(" instances keyroll")


@pytest.mark.timeout(300)
@needs_openssh
def test_the_steps_lead_to_a_login_and_to_instances_that_the_key_in_the_file_does_not_open(foreign: Shell) -> None:
    """Over two seconds: a rack of its own, and a keyroll.

    That the key in the file opens the old instances and not the new ones, OpenSSH's own client says, which exits with
    255 if it cannot log in: ssh(1), EXIT STATUS.
    """
    find, adopt, import_, list_, ssh, doctor, policy, plan, keyroll = STEPS
    person = Person(foreign)

    (person.cluster,) = re.findall(r"^(Local-ClusterEB0386A7-\w+) ", person(find), re.MULTILINE)
    person(adopt, typed="y\n")
    person(import_)
    before = ID.findall(person(list_))
    person.id = before[0]
    assert "I am ec2-user" in person(ssh, typed="echo I am $(whoami)\nexit\n")
    assert person.openssh(before[0])[0] == 0

    assert "problem" not in person(doctor)
    assert ":key-pair/ops" in person(policy)
    assert "renews key pair ops under the same name" in person(plan)
    hurry(foreign)
    person(keyroll)

    eventually(lambda: set(before).isdisjoint(ID.findall(person(list_))), "the end of the last old instance")
    after = ID.findall(person(list_))
    assert len(after) == len(before)
    for new in after:
        status, said = person.openssh(new)
        assert (status, "Permission denied (publickey" in said) == (255, True), said
        person.id = new
        assert "I am ec2-user" in person(ssh, typed="echo I am $(whoami)\nexit\n")
