"""The caller's permissions on a rack, as IAM simulates them from the policies of the caller's user or role.

A simulation includes neither the policies of resources nor that of a session. Either may deny an action that the
simulation allows, and the policy of a bucket or of a KMS key may allow an action that it denies.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from typing import TYPE_CHECKING, Literal

from rackctl.aws.errors import AwsError
from rackctl.errors import AccessDenied, RackctlError
from rackctl.policies import Facts, grants
from rackctl.text import listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rackctl.aws.iam import Decision
    from rackctl.aws.session import Aws
    from rackctl.policies import Grant
    from rackctl.rack import Rack

# Names that a rack may lack. Then actions on them, or under a condition that names them, are not needed.
_OPTIONAL = {
    "<bucket's key>",
    "<caller>",
    "<caller's role>",
    "<image parameter>",
    "<instance role>",
    "<key pair>",
    "<launch template>",
    "<numbered template>",
    "<tagging template>",
}
# The resources of these services have policies, which can allow an action that no policy of the caller's allows.
_WITH_POLICIES = ("kms:", "s3:")
# IAM throttles simulations beyond a few a second.
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Permission:
    """An action on a resource, and whether it is allowed; ``reason`` says why not, or why that is not known.

    If the resource is not known, it is empty.
    """

    action: str
    resource: str
    verdict: Literal["allowed", "denied", "unknown"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Question:
    """One simulation. ``context`` are the context keys and their values."""

    resources: tuple[str, ...]
    context: Mapping[str, str]
    actions: list[str] = field(default_factory=list)


def principal_of(aws: Aws, caller: str) -> str:
    """Return the ARN of the caller's user or role, by the caller's ARN from STS.

    Raises RackctlError for a caller that IAM does not simulate, and if the role may not be read: the ARN of a session
    lacks the role's path. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
    """
    kind, _, name = caller.split(":", 5)[5].partition("/")
    match kind:
        case "user":
            return caller
        case "assumed-role":
            return aws.iam.role_arn(name.partition("/")[0])
        case "root":
            raise RackctlError("the caller is the account's root user: IAM policies do not limit it")
        case _:
            raise RackctlError(f"IAM simulates users and roles, and the caller is {caller}")


def facts_of(rack: Rack, groups: Iterable[str]) -> Facts:
    """Return a rack's names for policies, with these groups. A name that could not be read is left out."""
    named = {
        "<region>": [rack.aws.region],
        "<account>": [rack.ecs_cluster.account],
        "<cluster>": [rack.ecs_cluster.name],
        "<rack>": [rack.name],
        "<prefix>": [rack["prefix"]],
        "<group>": list(groups),
    }
    if rack["bucket"]:
        store = rack.store
        named |= {"<bucket>": [store.name], "<bucket owner>": [store.owner]}
        settings = rack.aws.s3.bucket_settings(store.name, owner=store.owner)
        if key := _read(lambda: _key_id(rack, settings.encryption()[1])):
            named["<bucket's key>"] = [key]
    if rack["kms_key"] and (key := _read(lambda: _key_id(rack, rack.kms_key))):
        named["<key>"] = [key]
    return Facts(named, rack.ecs_cluster.cluster_arn.split(":")[1])


def _key_id(rack: Rack, name: str) -> str:
    """Return the id of a KMS key by its id, ARN or alias, empty for none; policies cannot name aliases."""
    found = rack.aws.kms.key(name) if name else None
    return found.arn.rpartition("/")[2] if found else ""


def _read(read: Callable[[], str]) -> str:
    try:
        return read()
    except RackctlError:
        return ""


def simulate(aws: Aws, principal: str, role: str, facts: Facts, known: Iterable[str] = ()) -> Iterator[Permission]:
    """Yield each action that a role of rackctl's needs, and whether a user or a role is allowed it.

    ``known`` are the ARNs of the rack's resources: one of them is simulated in place of a resource with an asterisk.
    """
    questions, unasked = _questions(grants(role), facts, [*known])
    yield from unasked
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for answers in pool.map(lambda question: list(_ask(aws, principal, question)), questions):
            yield from answers


def _questions(needed: Iterable[Grant], facts: Facts, known: Sequence[str]) -> tuple[list[_Question], list[Permission]]:
    """Return the simulations to run, and the actions that cannot be simulated because a name is not known."""
    found: dict[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], _Question] = {}
    unasked = []
    for grant in needed:
        conditions = {key: value for keys in grant.conditions.values() for key, value in keys.items()}
        lacking = {name for name in grant.names if not facts.named.get(name)}
        if lacking & (_OPTIONAL | {grant.needs}):
            continue
        # With an asterisk in place of a resource, an action that a policy allows on one resource would be denied.
        lacking |= {name for name in grant.names if facts.named.get(name) == ["*"]}
        if lacking:
            names = listed(sorted(name.strip("<>") for name in lacking - {"<bucket owner>"}))
            reason = f"not simulated: the rack's {names} is not known"
            unasked += [Permission(action, "", "unknown", reason) for action in grant.actions]
            continue
        resources = tuple(dict.fromkeys(_known(resource, known) for resource in facts.fill(grant.resource)))
        for values in product(*(facts.fill(value) for value in conditions.values())):
            context = {"aws:RequestedRegion": facts.named["<region>"][0], **dict(zip(conditions, values, strict=True))}
            question = found.setdefault((resources, tuple(context.items())), _Question(resources, context))
            question.actions.extend(action for action in grant.actions if action not in question.actions)
    return list(found.values()), unasked


def _known(resource: str, known: Sequence[str]) -> str:
    """Return a resource of the rack that matches a text with asterisks; the text itself if none does."""
    if "*" not in resource or resource == "*":
        return resource
    return next((arn for arn in known if fnmatchcase(arn, resource)), resource)


def _ask(aws: Aws, principal: str, question: _Question) -> Iterator[Permission]:
    """Yield IAM's decisions. If IAM refuses to simulate some actions together, they are simulated one by one."""
    try:
        decisions = aws.iam.simulate(principal, question.actions, question.resources, question.context)
    except AccessDenied:
        raise
    except AwsError as error:
        if error.code == "InvalidInput" and len(question.actions) > 1:
            for action in question.actions:
                yield from _ask(aws, principal, _Question(question.resources, question.context, [action]))
            return
        yield from _unknown(question, str(error))
        return
    except RackctlError as error:
        yield from _unknown(question, str(error))
        return
    told = {(decision.action.lower(), decision.resource) for decision in decisions}
    for decision in decisions:
        yield Permission(decision.action, decision.resource, *_judged(decision))
    for action, resource in product(question.actions, question.resources):
        if (action.lower(), resource) not in told:
            yield Permission(action, resource, "unknown", "IAM's simulation gave no verdict")


def _unknown(question: _Question, reason: str) -> Iterator[Permission]:
    for action, resource in product(question.actions, question.resources):
        yield Permission(action, resource, "unknown", reason)


def _judged(decision: Decision) -> tuple[Literal["allowed", "denied", "unknown"], str]:
    policies = f" {listed(sorted(set(decision.policies)))}" if decision.policies else ""
    if not decision.allowed_by_organization:
        return "denied", "a service control policy of the organization does not allow it"
    if decision.decision == "explicitDeny":
        return "denied", f"a policy{policies} denies it"
    if not decision.allowed_by_boundary:
        return "denied", "the permissions boundary does not allow it"
    if decision.unknown:
        return "unknown", f"it depends on {listed(decision.unknown)}, which a simulation does not include"
    if decision.decision == "allowed":
        return "allowed", ""
    if decision.decision != "implicitDeny":
        return "unknown", f"IAM's simulation says {decision.decision}"
    if decision.action.lower().startswith(_WITH_POLICIES):
        return "unknown", "no policy of the caller's allows it; the resource's policy may"
    return "denied", "no policy allows it"
