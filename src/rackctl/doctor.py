"""Everything that could go wrong with a rack, before it does. Reads AWS, and changes nothing.

The checks run at once and are told in one order. What could not be read is never well: a check that failed says so,
and hides no other.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from rackctl.aws.sts import clock_skew
from rackctl.errors import AccessDenied, NotFound, RackctlError
from rackctl.permissions import facts_of, principal_of, simulate
from rackctl.roll.problems import Topic
from rackctl.roll.view import RollOptions
from rackctl.text import counted, listed, roughly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from rackctl.clock import Clock
    from rackctl.keys import KeyStore
    from rackctl.model import Instance
    from rackctl.permissions import Permission
    from rackctl.rack import Rack
    from rackctl.rack_instance import RackInstance
    from rackctl.roll.plan import Plan
    from rackctl.roll.problems import Problem
    from rackctl.roll.roll import Roll
    from rackctl.ssh.login import Proof

Status = Literal["ok", "warning", "problem", "skipped"]
# AWS refuses a request whose time is off by more than five minutes: https://docs.aws.amazon.com/IAM/latest/UserGuide/
# reference_sigv-troubleshooting.html. Half a minute is more than a clock that is kept has.
_SKEW_PROBLEM, _SKEW_WARNING = 240.0, 30.0
# How many subnets are tried by SSH, and for how long each, in seconds.
_SUBNETS, _LOGIN_TIMEOUT = 10, 20.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; ``remedy`` is what to do about it, empty where nothing is to be done."""

    check: str
    status: Status
    message: str
    remedy: str = ""


class Doctor:
    """The checks of one rack. ``prove`` logs in to an instance with its own key, within so many seconds."""

    def __init__(
        self, rack: Rack, keys: KeyStore, roll: Roll, clock: Clock, *, prove: Callable[[Instance, float], Proof]
    ) -> None:
        self._rack = rack
        self._aws = rack.aws
        self._keys = keys
        self._roll = roll
        self._clock = clock
        self._prove = prove

    def examine(self, listed: Callable[[], Sequence[RackInstance]], role: str = "") -> Iterator[Finding]:
        """Yield what each check finds, in a fixed order. Nothing is raised.

        ``role`` is the one of `policies.ROLES` whose permissions the caller is to have.
        """
        account = _told("credentials", self._credentials)
        yield from account
        if account[0].status == "problem":
            yield from _skipped("there are no credentials that AWS accepts", *_AFTER_CREDENTIALS)
            return
        cluster = _told("cluster", self._cluster)
        yield from cluster
        if cluster[0].status == "problem":
            yield from _skipped("the cluster could not be read", *_AFTER_CLUSTER)
            return
        with ThreadPoolExecutor() as pool:
            instances = pool.submit(listed)
            plan = pool.submit(self._roll.plan, RollOptions())
            checks: dict[str, Callable[[], Iterator[Finding]]] = {
                "plan": lambda: self._plan(plan.result()),
                "providers": self._providers,
                "bucket": self._bucket,
                "kms": self._kms,
                "keys": lambda: self._stored_keys(instances.result()),
                "ssh": lambda: self._ssh(instances.result()),
            }
            if role:
                checks["permissions"] = lambda: self._permissions(role, plan, instances.result())
            results = [pool.submit(_told, name, check) for name, check in checks.items()]
            for result in results:
                yield from result.result()

    # The account

    def _credentials(self) -> Iterator[Finding]:
        caller = self._aws.sts.caller()
        region = self._aws.region
        yield Finding("credentials", "ok", f"{caller.arn} in account {caller.account}, region {region or 'not set'}")
        skew = clock_skew(caller, self._clock.now())
        if skew is None:
            yield Finding("clock", "skipped", "AWS's answer has no Date")
        elif abs(skew) < _SKEW_WARNING:
            yield Finding("clock", "ok", "this machine's clock agrees with AWS's")
        else:
            which = "behind" if skew > 0 else "ahead of"
            status: Status = "problem" if abs(skew) >= _SKEW_PROBLEM else "warning"
            yield Finding(
                "clock", status, f"this machine's clock is {roughly(abs(skew))} {which} AWS's, which refuses requests "
                "that are five minutes off", "set the clock, or start its time service (NTP)",
            )  # fmt: skip

    def _cluster(self) -> Iterator[Finding]:
        cluster = self._rack.ecs_cluster
        tags = [name for name in cluster.tags if name.startswith("rackctl:")]
        told = f"; tagged {listed(sorted(tags))}" if tags else "; not tagged for rackctl"
        yield Finding("cluster", "ok", f"{cluster.cluster_arn}{told}")

    # What a keyroll would say

    def _plan(self, plan: Plan) -> Iterator[Finding]:
        for topic in get_args(Topic):
            problems = [problem for problem in plan.problems if problem.topic == topic]
            yield from map(_finding, problems)
            if not problems:
                yield Finding(topic, "ok", _WELL[topic](plan))

    def _providers(self) -> Iterator[Finding]:
        providers = self._aws.ecs.capacity_providers(self._rack.ecs_cluster.capacity_providers)
        if not providers:
            yield Finding(
                "providers", "ok", "the cluster has no capacity provider of an Auto Scaling group: nothing scales it"
            )
        for provider in providers:
            scaling = "scales its group" if provider.managed_scaling else "does not scale its group"
            name = f"capacity provider {provider.name}"
            if provider.managed_draining:
                yield Finding("providers", "ok", f"{name} {scaling}, and drains instances that terminate")
            else:
                yield Finding(
                    "providers", "warning", f"{name} {scaling}, and does not drain instances that Auto Scaling "
                    "terminates by itself: their tasks are stopped with them",
                    f"`aws ecs update-capacity-provider --name {provider.name} --auto-scaling-group-provider "
                    "managedDraining=ENABLED`",
                )  # fmt: skip

    # The store

    def _bucket(self) -> Iterator[Finding]:
        if not self._rack["bucket"]:
            yield Finding("bucket", "skipped", "no bucket is set")
            return
        settings = self._aws.s3.bucket_settings(self._rack["bucket"], owner=self._rack.store.owner)
        region = settings.region()
        if region is None:
            yield Finding("bucket", "problem", f"there is no bucket {settings.name}", "check the setting `bucket`")
            return
        if region and region != self._aws.region:
            yield Finding(
                "bucket", "warning", f"bucket {settings.name} is in {region}, and the rack in {self._aws.region}: each "
                "depends on both regions", "use a bucket of the rack's region",
            )  # fmt: skip
        checks: dict[tuple[str, str], Callable[[], bool]] = {
            ("is versioned", "is not versioned"): lambda: settings.versioning() == "Enabled",
            ("blocks public access", "does not block public access itself"): settings.public_access_is_blocked,
            ("encrypts new objects with a KMS key", "does not encrypt new objects with a KMS key"): (
                lambda: settings.encryption()[0].startswith("aws:kms")
            ),
        }
        for (what, otherwise), check in checks.items():
            try:
                holds = check()
            except AccessDenied as error:
                yield Finding("bucket", "skipped", f"whether bucket {settings.name} {what}: {error}", error.hint)
                continue
            if holds:
                yield Finding("bucket", "ok", f"bucket {settings.name} {what}")
            else:
                adopt = f"`rackctl racks adopt {self._rack.name} --bucket {settings.name} --create` sets it"
                yield Finding("bucket", "warning", f"bucket {settings.name} {otherwise}", adopt)

    def _kms(self) -> Iterator[Finding]:
        if not self._rack["kms_key"]:
            yield Finding("kms", "skipped", "no KMS key is set")
            return
        name = self._rack.kms_key
        try:
            key = self._aws.kms.key(name)
        except AccessDenied as error:
            yield Finding("kms", "skipped", str(error), error.hint)
            return
        if key is None:
            yield Finding("kms", "problem", f"there is no KMS key {name}", "check the setting `kms_key`")
            return
        if key.state != "Enabled":
            yield Finding("kms", "problem", f"KMS key {name} is {key.state}", "enable it, or cancel its deletion")
            return
        yield Finding("kms", "ok", f"KMS key {name} is enabled")
        try:
            rotates = self._aws.kms.rotates(key.arn)
        except AccessDenied as error:
            yield Finding("kms", "skipped", f"whether KMS key {name} rotates: {error}", error.hint)
            return
        if rotates:
            yield Finding("kms", "ok", f"KMS key {name} rotates")
        else:
            yield Finding(
                "kms", "warning", f"KMS key {name} does not rotate", f"`aws kms enable-key-rotation --key-id {key.arn}`"
            )

    def _stored_keys(self, listed_: Sequence[RackInstance]) -> Iterator[Finding]:
        used = Counter(i.instance.key_name for i in listed_ if i.instance and not i.is_terminating)
        if not self._rack["bucket"]:
            yield Finding("keys", "skipped", "no bucket is set")
            return
        stored = set(self._keys.names())
        for name, count in sorted(used.items()):
            of = f"of {counted(count, 'instance')}"
            if not name:
                yield Finding(
                    "keys", "warning", f"{counted(count, 'instance')} without a key: nobody can log in with one",
                    "a keyroll gives them one, if their launch template can name a key",
                )  # fmt: skip
            elif name in stored:
                yield Finding("keys", "ok", f"key {name} {of} is stored")
            else:
                yield Finding(
                    "keys", "warning", f"key {name} {of} is not stored: rackctl cannot log in to them",
                    f"`rackctl instances keys import --name {name} FILE` stores it, if you have the private key",
                )  # fmt: skip

    # The instances

    def _ssh(self, listed_: Sequence[RackInstance]) -> Iterator[Finding]:
        running = [i.instance for i in listed_ if i.instance and i.instance.state == "running"]
        one = {instance.subnet_id: instance for instance in reversed(running)}
        if not one:
            yield Finding("ssh", "skipped", "no instance is running")
            return
        chosen = sorted(one.items())[:_SUBNETS]
        with ThreadPoolExecutor(len(chosen)) as pool:
            yield from pool.map(self._login, [instance for _, instance in chosen])
        if len(one) > len(chosen):
            yield Finding("ssh", "skipped", f"{len(one) - len(chosen)} more subnets: {_SUBNETS} are tried")

    def _login(self, instance: Instance) -> Finding:
        which = f"{instance.ec2_instance_id} in {instance.subnet_id or 'its subnet'}"
        try:
            proof = self._prove(instance, _LOGIN_TIMEOUT)
        except NotFound as error:
            return Finding("ssh", "skipped", f"{which}: its key is not stored ({error.hint or error})")
        except RackctlError as error:
            return Finding("ssh", "problem", f"{which}: {error}", error.hint)
        match proof.outcome:
            case "accepted":
                return Finding("ssh", "ok", f"{which} accepts its key")
            case "refused":
                return Finding("ssh", "problem", f"{which} refuses its key: {proof.detail}", _REFUSED)
            case "unreachable":
                return Finding("ssh", "warning", f"{which} is not reachable from here: {proof.detail}", _UNREACHABLE)

    # The caller

    def _permissions(self, role: str, planned: Future[Plan], listed_: Sequence[RackInstance]) -> Iterator[Finding]:
        try:
            principal = principal_of(self._aws, self._aws.sts.caller().arn)
            groups = () if planned.exception() else planned.result().groups
            templates = [(use.launch_template_id, use.version) for group in groups for use in group.templates]
            facts = facts_of(self._rack, [group.auto_scaling_group_name for group in groups], templates)
            found = list(simulate(self._aws, principal, role, facts, self._arns(listed_)))
        except RackctlError as error:
            yield Finding("permissions", "skipped", f"what the caller may do: {error}", error.hint)
            return
        for verdict in ("denied", "unknown"):
            for (resource, reason), actions in _by_reason(found, verdict).items():
                status: Status = "problem" if verdict == "denied" else "skipped"
                remedy = f"`rackctl racks policy --for {role}` prints what it needs" if verdict == "denied" else ""
                yield Finding("permissions", status, f"{listed(actions)} on {resource}: {reason}", remedy)
        allowed = [permission for permission in found if permission.verdict == "allowed"]
        rest = "" if len(allowed) == len(found) else f" of {len({p.action for p in found})}"
        count = len({permission.action for permission in allowed})
        if count:
            yield Finding("permissions", "ok", f"{principal} may take {count}{rest} actions that `{role}` needs")

    def _arns(self, listed_: Sequence[RackInstance]) -> Iterator[str]:
        cluster = self._rack.ecs_cluster
        start = f"arn:{cluster.cluster_arn.split(':')[1]}:ec2:{cluster.region}:{cluster.account}:instance"
        for instance in listed_:
            yield f"{start}/{instance.ec2_instance_id}"
            yield from (registration.container_instance_arn for registration in instance.registrations)


_AFTER_CREDENTIALS = ("cluster", *get_args(Topic), "providers", "bucket", "kms", "keys", "ssh")
_AFTER_CLUSTER = _AFTER_CREDENTIALS[1:]
_REFUSED = "check the user (`--user`), and whether the stored key is the one that it was launched with"
_UNREACHABLE = "check --jump, --proxy-command, --via, the security group, and the route from this machine"
_WELL: dict[str, Callable[[Plan], str]] = {
    "roll": lambda plan: f"no roll of rack {plan.rack} is unfinished",
    "store": lambda plan: (
        f"s3://{plan.bucket.value} ({plan.bucket.origin}) takes conditional writes; KMS key {plan.kms_key.value} "
        f"({plan.kms_key.origin}) encrypts and decrypts"
    ),
    "groups": lambda plan: listed(f"{g.auto_scaling_group_name} ({_form(g)})" for g in plan.groups) + " can be rolled",
    "processes": lambda _: "Launch and Terminate run in each group, and no instance refresh does",
    "capacity": lambda plan: "; ".join(
        f"{g.auto_scaling_group_name} has {g.desired_capacity} of at most {g.max_size}" for g in plan.groups
    ),
    "hooks": lambda _: "no lifecycle hook holds what terminates",
    "agents": lambda _: "the ECS agent of each instance is connected",
    "registrations": lambda _: "each instance is registered with this cluster, and with no other",
    "key": lambda _: "a keyroll can renew the key",
}


def _form(group: object) -> str:
    templates = getattr(group, "templates", ())
    named = [f"{use.launch_template_name or use.launch_template_id} version {use.version}" for use in templates]
    return listed(named) or "a launch configuration"


def _by_reason(permissions: Sequence[Permission], verdict: str) -> dict[tuple[str, str], list[str]]:
    """Return the actions by the resource and the reason for which they may not be taken."""
    found: dict[tuple[str, str], list[str]] = {}
    for permission in permissions:
        if permission.verdict == verdict:
            actions = found.setdefault((permission.resource, permission.reason), [])
            if permission.action not in actions:
                actions.append(permission.action)
    return found


def _finding(problem: Problem) -> Finding:
    return Finding(problem.topic, "warning" if problem.warns else "problem", problem.reason, problem.remedy)


def _skipped(reason: str, *checks: str) -> Iterator[Finding]:
    return (Finding(check, "skipped", reason) for check in checks)


def _told(name: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Return what a check finds, and what keeps it from finding more."""
    found: list[Finding] = []
    try:
        for finding in check():
            found.append(finding)  # noqa: PERF402 - what came before an error counts
    except RackctlError as error:
        found.append(Finding(name, "problem", f"could not be checked: {error}", error.hint))
    except Exception as error:  # noqa: BLE001 - a mistake in one check hides no other
        reason = f"an error in rackctl itself: {type(error).__name__}: {error}"
        found.append(Finding(name, "problem", f"could not be checked: {reason}", "report it"))
    return found
