"""The check that instances can be reached by SSH, as `ssh` would connect, and accept their keys."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rackctl.background import in_background
from rackctl.doctor.finding import Finding
from rackctl.errors import NotFound, RackctlError
from rackctl.text import counted, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rackctl.model import Instance
    from rackctl.rack_instance import RackInstance
    from rackctl.ssh.login import Proof

    Prove = Callable[[Instance, float], Proof]

# The number of subnets that are tried, and seconds for each login.
_SUBNETS, _LOGIN_TIMEOUT = 10, 20.0
_REFUSED = "check the user (--user), and whether the instance was launched with the stored key"
_UNREACHABLE = "check --jump, --proxy-command and --via, the security group, and the route from this machine"


def logins(instances: Sequence[RackInstance], prove: Prove) -> Iterator[Finding]:
    """Log in to an instance of each subnet, all at once."""
    running = [i.instance for i in instances if i.instance and i.instance.state == "running" and i.instance.key_name]
    one = {instance.subnet_id: instance for instance in reversed(running)}
    if not one:
        yield Finding("ssh", "skipped", "no instance with a key is running")
        return
    chosen = [instance for _, instance in sorted(one.items())[:_SUBNETS]]
    started = [in_background(partial(_login, instance, prove)) for instance in chosen]
    yield from _together(login.result() for login in started)
    if left := len(one) - len(chosen):
        yield Finding("ssh", "skipped", f"{counted(left, 'more subnet')}: only {_SUBNETS} are tried")


def _together(found: Iterable[tuple[str, Finding]]) -> Iterator[Finding]:
    """Yield a finding for each instance; instances with the same problem share one."""
    instances: dict[Finding, list[str]] = {}
    for which, finding in found:
        if finding.status == "ok":
            yield replace(finding, message=f"{which}: {finding.message}")
        else:
            instances.setdefault(finding, []).append(which)
    for finding, those in instances.items():
        yield replace(finding, message=f"{listed(those)}: {finding.message}")


def _login(instance: Instance, prove: Prove) -> tuple[str, Finding]:
    which = f"{instance.ec2_instance_id} in {instance.subnet_id or 'its subnet'}"
    return which, _proven(instance, prove)


def _proven(instance: Instance, prove: Prove) -> Finding:
    try:
        proof = prove(instance, _LOGIN_TIMEOUT)
    except NotFound as error:
        return Finding("ssh", "skipped", str(error), error.hint)
    except RackctlError as error:
        return Finding("ssh", "problem", str(error), error.hint)
    match proof.outcome:
        case "accepted":
            return Finding("ssh", "ok", "reached, and the key is accepted")
        case "refused":
            return Finding("ssh", "problem", f"the key is refused: {proof.detail}", _REFUSED)
        case "unreachable":
            return Finding("ssh", "warning", f"not reachable from here: {proof.detail}", _UNREACHABLE)
