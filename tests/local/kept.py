"""A local rack whose key pair was not named by rackctl, and its state through boto3 and OpenSSH."""

from __future__ import annotations

import base64
import json
import subprocess
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from rackctl.cli.invocation import Invocation
from rackctl.keys import SshKey, generate
from rackctl.ssh.login import start_proof
from tests.local.rolls import Rolls

if TYPE_CHECKING:
    from pathlib import Path

    from rackctl.model import Instance
    from rackctl.ssh.login import Proof
    from tests.local_rack import LocalRackProcess

NAME = "ops"
_CHANGING = {"Instances", "SuspendedProcesses", "DesiredCapacity", "Activities"}


class KeptRolls(Rolls):
    """The rolls of a rack whose group launches with the key pair `ops`, from a template or a launch configuration.

    ``private_key`` is the user's own, from a file.
    """

    def __init__(self, process: LocalRackProcess, *, configuration: bool) -> None:
        super().__init__(process)
        self.ec2 = process.client("ec2")
        self.autoscaling = process.client("autoscaling")
        self.in_a_file = generate(NAME, created=self.clock.now())
        self.ec2.import_key_pair(
            KeyName=NAME,
            PublicKeyMaterial=self.in_a_file.public_key.encode(),
            TagSpecifications=[{"ResourceType": "key-pair", "Tags": [{"Key": "team", "Value": "ops"}]}],
        )
        self.keys.store(self.in_a_file)
        if configuration:
            self._launch_from_a_configuration()
        else:
            self._launch_from_a_version()
        group = self.group
        for member in group.instances:
            self.autoscaling.terminate_instance_in_auto_scaling_group(
                InstanceId=member.ec2_instance_id, ShouldDecrementDesiredCapacity=False
            )
        process.wait_for(lambda: self.keys_of_instances() == [NAME] * group.desired_capacity, "instances with that key")
        able = self.statuses_by_id
        process.wait_for(lambda: sum(able().values()) == group.desired_capacity, "instances that can take tasks")
        for name in self.keys.names():
            for generation in self.keys.generations(name) if name != NAME else ():
                self.ec2.delete_key_pair(KeyName=name)
                self.keys.delete(name, generation)

    def _launch_from_a_configuration(self) -> None:
        (ref,) = self.group.launch_templates
        data = self.aws.ec2.launch_template_version(ref).data
        self.autoscaling.create_launch_configuration(
            LaunchConfigurationName="old-style", ImageId=data["ImageId"], InstanceType=data["InstanceType"],
            UserData=base64.b64decode(data["UserData"]).decode(), KeyName=NAME,  # boto3 encodes it
        )  # fmt: skip
        self.autoscaling.update_auto_scaling_group(
            AutoScalingGroupName=self.group.auto_scaling_group_name, LaunchConfigurationName="old-style"
        )
        self.ec2.delete_launch_template(LaunchTemplateId=ref.launch_template_id)

    def _launch_from_a_version(self) -> None:
        (ref,) = self.group.launch_templates
        made = self.ec2.create_launch_template_version(
            LaunchTemplateId=ref.launch_template_id, SourceVersion=ref.version, LaunchTemplateData={"KeyName": NAME}
        )["LaunchTemplateVersion"]["VersionNumber"]
        self.autoscaling.update_auto_scaling_group(
            AutoScalingGroupName=self.group.auto_scaling_group_name,
            LaunchTemplate={"LaunchTemplateId": ref.launch_template_id, "Version": str(made)},
        )
        self.ec2.modify_launch_template(LaunchTemplateId=ref.launch_template_id, DefaultVersion=str(made))

    # The state through boto3 and OpenSSH

    def made(self) -> str:
        """Return what a stack or Terraform has made here, as boto3 reads it, without what goes on in it."""
        templates = self.ec2.describe_launch_templates()["LaunchTemplates"]
        versions = [
            self.ec2.describe_launch_template_versions(LaunchTemplateId=t["LaunchTemplateId"])["LaunchTemplateVersions"]
            for t in templates
        ]
        configurations = self.autoscaling.describe_launch_configurations()["LaunchConfigurations"]
        groups = self.autoscaling.describe_auto_scaling_groups()["AutoScalingGroups"]
        lasting = [{k: v for k, v in group.items() if k not in _CHANGING} for group in groups]
        return json.dumps([templates, versions, configurations, lasting], default=str, sort_keys=True)

    def pair(self) -> dict[str, Any]:
        (pair,) = self.ec2.describe_key_pairs(KeyNames=[NAME], IncludePublicKey=True)["KeyPairs"]
        return {**pair, "PublicKey": " ".join(pair["PublicKey"].split()[:2])}

    def key_in_use(self) -> str:
        return NAME

    def launch_one_more(self) -> str:
        """Have the group launch, as it may have to at any time, and return the instance."""
        group = self.group
        before = {m.ec2_instance_id for m in group.instances}
        name, desired = group.auto_scaling_group_name, group.desired_capacity
        self.autoscaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=desired + 1)

        def launched() -> str:
            new = [m.ec2_instance_id for m in self.group.instances if m.in_service and m.ec2_instance_id not in before]
            return new[0] if new else ""

        id_: str = self.process.wait_for(launched, "another instance")
        return id_

    def take_away(self, ec2_instance_id: str) -> None:
        self.autoscaling.terminate_instance_in_auto_scaling_group(
            InstanceId=ec2_instance_id, ShouldDecrementDesiredCapacity=True
        )

    def assert_each_lets_in_a_stored_key(self) -> None:
        """Check that `ssh`, which tries the generations of an instance's key, gets into each."""
        invocation = Invocation(environment=self.process.environment)
        for instance in self.aws.ec2.instances_tagged({"Rack": self.rack.name}):
            if instance.is_terminating:
                continue
            login = self.process.wait_for(
                partial(self._login, instance, invocation.state_directory),
                f"the outcome of the login to {instance.ec2_instance_id}",
            )
            assert (login.outcome, login.detail) == ("accepted", ""), instance

    def _login(self, instance: Instance, state_directory: Path) -> Proof | None:
        """Log in with the stored generations; None while the instance's SSH server is not up yet."""
        proof = start_proof(self.rack, self.keys, instance, state_directory=state_directory)
        login: Proof = self.process.wait_for(proof, f"a login to {instance.ec2_instance_id}")
        return None if login.outcome == "unreachable" else login

    def write_key(self, directory: Path) -> Path:
        """Write the user's private key to a file, as in ~/.ssh."""
        return write_key(self.in_a_file, directory)

    def openssh_logs_in(self, key: Path, address: str) -> bool:
        """Log in as `ssh -i FILE` does, with that key and no other."""
        port = self.rack["ssh_port"]
        options = [
            "IdentitiesOnly=yes", "IdentityAgent=none", "BatchMode=yes", "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null", "ConnectTimeout=10",
        ]  # fmt: skip
        words = [word for option in options for word in ("-o", option)]
        asked = ["ssh", "-F", "none", "-i", str(key), "-p", port, *words, f"ec2-user@{address}", "true"]
        return subprocess.run(asked, capture_output=True, check=False, timeout=60).returncode == 0


def write_key(key: SshKey, directory: Path) -> Path:
    path = directory / f"{key.key_name}-{datetime.now().timestamp()}"
    path.touch(mode=0o600)
    path.write_bytes(key.private_key)
    return path
