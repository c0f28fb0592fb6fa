"""The local rack's endpoint: authentication, injected faults, dispatch to the services."""

from __future__ import annotations

import json
import re
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from rackctl.local.api import Answer
from rackctl.local.api.twists import KINDS as TWISTS
from rackctl.local.api.twists import Twist
from rackctl.local.calls import Call, CallLog, loggable
from rackctl.local.denials import Denials, denial
from rackctl.local.faults import SPOILED, THROTTLING, Fault, Faults
from rackctl.local.iam_policy import Need, Policy
from rackctl.local.moto_services import refusal
from rackctl.local.signature import Claim, Request, Verifier, claim_of
from rackctl.local.spoiled import spoiled
from rackctl.local.world.base import Refused, validation_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from rackctl.local.api import Api
    from rackctl.local.moto_services import MotoServices

# The service name in the signatures of control calls, which are not calls of an AWS service.
CONTROL: Final = "rackctl-local"


class Dropped(Exception):
    """Raised to close the connection without a response."""


class Caller(Protocol):
    """The client that waits for a response."""

    def is_gone(self, seconds: float) -> bool:
        """Wait up to a number of seconds for the client to close the connection; return whether it has."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A parsed call."""

    service: str
    action: str
    mutating: bool
    request: Request
    headers: Mapping[str, str]
    body: bytes


class Endpoint:
    """Answers requests: verifies them, injects faults, carries them out.

    ``turn`` returns a context that holds the world's lock. ``controls`` are the control calls by name.
    """

    def __init__(
        self,
        api: Api,
        moto: MotoServices,
        verifier: Verifier,
        *,
        region: str,
        turn: Callable[[], AbstractContextManager[None]],
        controls: Mapping[str, Callable[..., Any]],
    ) -> None:
        self._api = api
        self._moto = moto
        self._verifier = verifier
        self._region = region
        self._turn = turn
        self._controls = controls
        self._denials = Denials(api.world, moto)
        self.faults = Faults(self._all_calls)
        api.decide = self._decide
        self.calls = CallLog()
        self._policy: Policy | None = None
        self._stopping = threading.Event()

    def _all_calls(self) -> list[str]:
        return [
            f"{service}:{operation}"
            for services in (self._api, self._moto)
            for service in services.SERVICES
            for operation in services.operations(service)
        ]

    def remember(self) -> None:
        """Take a snapshot of the world while a `late` fault is in force. The caller holds the lock."""
        seconds = max((fault.seconds for fault in self.faults if fault.kind == "late"), default=0.0)
        if seconds:
            self._api.past.remember(seconds)
        else:
            self._api.past.forget()

    def stop(self) -> None:
        """Release the held calls."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def knows(self, head: Request) -> bool:
        """Return whether a request claims the rack's access key; the body of another is not read."""
        try:
            return head.header("origin") is None and claim_of(head).access_key_id == self._verifier.access_key_id
        except Refused:
            return False

    def respond(self, request: Request, caller: Caller) -> Answer:
        """Answer a request. Raises Dropped."""
        if request.header("origin") is not None:
            return Answer(403, {"Content-Type": "text/plain"}, b"The local rack answers no browsers.\n")
        claim = None
        try:
            claim = claim_of(request)
            request = self._verifier.verify(request, claim, now=time.time())
            self._check_scope(claim)
        except Refused as refused:
            service = claim.service if claim else _service_by_looks(request)
            return self._refuse(service, in_words_of(service, refused))
        if claim.service == CONTROL:
            return self._control(request)
        service = self._moto.SIGNED_AS.get(claim.service, claim.service)
        if service not in self._api.SERVICES | self._moto.SERVICES:
            there_are = ", ".join(sorted(self._api.SERVICES | self._moto.SERVICES))
            message = f'the local rack has no service "{claim.service}"; it has {there_are}'
            return refusal(_service_by_looks(request), Refused("UnknownService", message, 400))
        return self._call(service, request, caller)

    def _check_scope(self, claim: Claim) -> None:
        if claim.region != self._region:
            raise Refused(
                "SignatureDoesNotMatch",
                f"Credential should be scoped to a valid region: the local rack is in {self._region}, "
                f"not in {claim.region}.",
                403,
            )

    def _refuse(self, service: str, refused: Refused) -> Answer:
        if service in self._api.SERVICES:
            return self._api.refuse(service, refused)
        return refusal(service, refused)

    def _call(self, service: str, request: Request, caller: Caller) -> Answer:
        # STS and the query services accept parameters in a GET's query too.
        body = request.body or (request.query.encode() if service in {"ec2", "autoscaling", "iam"} else b"")
        headers = request.header_map()
        if service in self._api.SERVICES:
            action = self._api.action_of(service, headers, body)
            mutating = not self._api.is_read(action)
        else:
            action = self._moto.action_of(service, request)
            mutating = not self._moto.is_read(action)
        call = self.calls.add(service, action, loggable(service, request), mutating=mutating)
        conditional = service == "s3" and any(request.header(name) for name in ("if-match", "if-none-match"))
        faults = self.faults.befalling(f"{service}:{action}", mutating=mutating, conditional=conditional)
        call.faults = [fault.kind for fault in faults]
        asked = _Asked(service, action, mutating, request, headers, body)
        answer = self._spoilt_before(service, faults, caller) or self._denied(asked, call)
        if answer is None:
            answer = self._carried_out(asked, faults)
            call.carried_out = answer.status < 300
            answer = self._hidden(asked, answer, call)
            self._spoil_after(faults, caller)
            for fault in faults:
                if fault.kind in SPOILED:
                    answer = spoiled(answer, fault)
        call.status = answer.status
        if answer.status >= 400:
            found = re.search(rb'<Code>([\w.]+)</Code>|"__type": ?"(?:[\w.]+#)?([\w.]+)"', answer.body)
            call.error = (found[1] or found[2]).decode() if found else ""
        return answer

    def _denied(self, asked: _Asked, call: Call) -> Answer | None:
        """Return the refusal of a call that needs a denied IAM action."""
        missing = self.faults.denied(self._needs(asked), mutating=asked.mutating) or self._not_allowed(asked, call)
        return self._refuse(asked.service, denial(asked.service, missing)) if missing else None

    def _not_allowed(self, asked: _Asked, call: Call) -> Need | None:
        """Return the first IAM action that the user's policy does not allow, if a policy is set."""
        policy = self._policy
        if policy is None:
            return None
        needs = list(self._needs(asked))
        call.needs = [need.action for need in needs]
        return next((need for need in needs if not policy.allows(need)), None)

    def _needs(self, asked: _Asked) -> Iterator[Need]:
        if asked.service in self._api.SERVICES:
            parameters = self._api.parameters(asked.service, asked.headers, asked.body)
        else:
            parameters = self._moto.parameters(asked.service, asked.request)
        with self._turn():
            yield from self._denials.needs(asked.service, asked.action, parameters, asked.request)

    def _hidden(self, asked: _Asked, answer: Answer, call: Call) -> Answer:
        """Replace 404 by 403 if s3:ListBucket is denied."""
        if answer.status != 404 or asked.service != "s3" or asked.action not in {"GetObject", "HeadObject"}:
            return answer
        resource = f"arn:aws:s3:::{asked.request.path.lstrip('/').partition('/')[0]}"
        need = Need("s3:ListBucket", resource, {"s3:ResourceAccount": self._moto.owner_of(resource.rpartition(":")[2])})
        call.needs += [need.action] if self._policy else []
        missing = self.faults.denied([need], mutating=False)
        if missing or (self._policy and not self._policy.allows(need)):
            return self._refuse("s3", denial("s3", need))
        return answer

    def _decide(self, need: Need) -> tuple[str, list[str]]:
        """Return IAM's decision on an action, and the missing condition keys on which it depends."""
        if self.faults.denies(need.action):
            return "implicitDeny", []
        if self._policy is None:
            return "allowed", []
        return self._policy.decision(need), self._policy.unknown_keys(need)

    def set_policy(self, document: Any) -> None:
        """Restrict the rack's user to an IAM policy; None lifts the restriction. Raises Refused."""
        self._policy = None if document is None else Policy(document)

    def _carried_out(self, asked: _Asked, faults: Sequence[Fault]) -> Answer:
        twists = [Twist(fault.kind, fault.which) for fault in faults if fault.kind in TWISTS]
        late = max((fault.seconds for fault in faults if fault.kind == "late" and not asked.mutating), default=0.0)
        service = asked.service
        try:
            with self._turn():
                if service in self._api.SERVICES:
                    api = self._api.as_of(late) if late else self._api
                    return api.respond(service, asked.headers, asked.body, twists)
                answer = self._moto.respond(service, asked.request)
        except Exception:  # noqa: BLE001 - the daemon goes on, and its log says what happened
            traceback.print_exc()
            message = "An error in the local rack itself: see its log."
            return self._refuse(service, Refused("InternalFailure", message, 500))
        for twist in twists if answer.status == 200 else ():
            answer = twist.body(answer)
        return answer

    def _spoilt_before(self, service: str, faults: Sequence[Fault], caller: Caller) -> Answer | None:
        for fault in faults:
            match fault.kind:
                case "delay":
                    self._stopping.wait(fault.seconds)
                case "throttle":
                    return self._refuse(service, Refused(*THROTTLING[service]))
                case "error":
                    message = "The local rack was told to answer with this error."
                    return self._refuse(service, Refused(fault.code, message, fault.status))
                case "conflict":
                    message = (
                        "The conditional request cannot succeed due to a conflicting operation against this resource."
                    )
                    return self._refuse(service, Refused("ConditionalRequestConflict", message, 409))
                case "drop-before":
                    raise Dropped
                case "hang-before":
                    self._hold(caller)
        return None

    def _spoil_after(self, faults: Sequence[Fault], caller: Caller) -> None:
        for fault in faults:
            if fault.kind == "drop-after":
                raise Dropped
            if fault.kind == "hang-after":
                self._hold(caller)

    def _hold(self, caller: Caller) -> None:
        while not self._stopping.is_set() and not caller.is_gone(0.1):
            pass
        raise Dropped

    def _control(self, request: Request) -> Answer:
        try:
            asked = json.loads(request.body)
            control = self._controls.get(asked["call"])
            if control is None:
                raise validation_error(f"the local rack has no control call {asked['call']}")
            result = control(**asked.get("arguments", {}))
        except Refused as refused:
            return refusal("json", refused)
        except (KeyError, TypeError, ValueError) as error:
            return refusal("json", validation_error(f"{type(error).__name__}: {error}"))
        return Answer(200, {"Content-Type": "application/json"}, json.dumps(result).encode())


def _service_by_looks(request: Request) -> str:
    """Guess the protocol of a request that names no service."""
    content_type = request.header("content-type") or ""
    if request.header("x-amz-target") or "json" in content_type:
        return "json"
    return "query" if "x-www-form-urlencoded" in content_type or "Action=" in request.query else "s3"


# The services' codes for the same refusal; a code that is not here is the query protocol's.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_JSON_WORDS: Final = {
    "MissingAuthenticationToken": ("MissingAuthenticationTokenException", 400),
    "InvalidClientTokenId": ("UnrecognizedClientException", 400),
    "SignatureDoesNotMatch": ("InvalidSignatureException", 400),
    "IncompleteSignature": ("IncompleteSignatureException", 400),
    "RequestTimeTooSkewed": ("InvalidSignatureException", 400),
}
_EC2_WORDS: Final = {
    "InvalidClientTokenId": ("AuthFailure", 401),
    "SignatureDoesNotMatch": ("AuthFailure", 401),
    "RequestTimeTooSkewed": ("RequestExpired", 400),
}
_QUERY_WORDS: Final = {"RequestTimeTooSkewed": ("SignatureDoesNotMatch", 403)}
_S3_WORDS: Final = {
    "MissingAuthenticationToken": ("AccessDenied", 403),
    "InvalidClientTokenId": ("InvalidAccessKeyId", 403),
    "IncompleteSignature": ("AuthorizationHeaderMalformed", 400),
    "RequestExpired": ("AccessDenied", 403),
}


def in_words_of(service: str, refused: Refused) -> Refused:
    """Return the refusal of a signature with the service's own code."""
    words = {
        "ec2": _EC2_WORDS,
        "s3": _S3_WORDS,
        "autoscaling": _QUERY_WORDS,
        "iam": _QUERY_WORDS,
        "sts": _QUERY_WORDS,
        "query": _QUERY_WORDS,
    }
    code, status = words.get(service, _JSON_WORDS).get(refused.code, (refused.code, refused.status))
    return Refused(code, refused.message, status)
