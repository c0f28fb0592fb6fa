"""Verification of Signature Version 4.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html, and for S3
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from rackctl.local.world.base import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_STREAMING: Final = "STREAMING-"
_EMPTY: Final = sha256(b"").hexdigest()
_SKEW: Final = 300.0
_S3_SKEW: Final = 900.0


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request as received; the target is its path and query, not decoded."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]

    def header(self, name: str) -> str | None:
        """Return a header's value; several of the same name are joined by commas."""
        found = [value for key, value in self.headers if key.lower() == name]
        return ",".join(found) if found else None

    def header_map(self) -> dict[str, str]:
        """Map the headers' names, in lower case, to their values."""
        return {name: self.header(name) or "" for name in {key.lower() for key, _ in self.headers}}


@dataclass(frozen=True, slots=True)
class Claim:
    """A request's signature, not verified yet."""

    access_key_id: str
    date: str
    region: str
    service: str
    signed_headers: Sequence[str]
    signature: str
    timestamp: str
    expires: float | None = None  # of a presigned URL, seconds

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def claim_of(request: Request) -> Claim:
    """Parse the signature in a request's Authorization header or query. Raises Refused."""
    header = request.header("authorization")
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    if header is not None:
        algorithm, _, rest = header.strip().partition(" ")
        parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        timestamp = request.header("x-amz-date") or _from_http_date(request.header("date") or "")
        return _claim(algorithm, parts, timestamp, None)
    if "X-Amz-Signature" in query:
        parts = {name: query.get(f"X-Amz-{name}", "") for name in ("Credential", "SignedHeaders", "Signature")}
        expires = query.get("X-Amz-Expires", "")
        return _claim(
            query.get("X-Amz-Algorithm", ""),
            parts,
            query.get("X-Amz-Date", ""),
            float(expires) if expires.isdecimal() else 0.0,
        )
    raise Refused("MissingAuthenticationToken", "Request is missing Authentication Token", 403)


def _claim(algorithm: str, parts: Mapping[str, str], timestamp: str, expires: float | None) -> Claim:
    scope = parts.get("Credential", "").split("/")
    if algorithm != ALGORITHM or len(scope) != 5 or scope[4] != "aws4_request":
        raise Refused(
            "IncompleteSignature", f"The request is not signed as {ALGORITHM} asks: Credential must be a whole scope"
        )
    if not parts.get("Signature") or not parts.get("SignedHeaders") or not re.fullmatch(r"\d{8}T\d{6}Z", timestamp):
        raise Refused(
            "IncompleteSignature", "Authorization requires the existence of Signature, SignedHeaders and X-Amz-Date"
        )
    access_key_id, date, region, service, _ = scope
    signed = parts["SignedHeaders"].lower().split(";")
    return Claim(access_key_id, date, region, service, signed, parts["Signature"], timestamp, expires)


def _from_http_date(text: str) -> str:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies claims against the rack's access key."""

    access_key_id: str
    secret_access_key: str = field(repr=False)

    def verify(self, request: Request, claim: Claim, *, now: float) -> Request:
        """Verify a request's signature; return the request, its body decoded from aws-chunked.

        ``now`` is epoch seconds. Raises Refused, with the query protocol's codes.
        """
        self._check_time(claim, now)
        payload = self._payload_hash(request, claim)
        self._check_signed_headers(request, claim)
        expected = self._signature(request, claim, payload)
        if claim.access_key_id != self.access_key_id:
            raise Refused("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
        if not hmac.compare_digest(expected, claim.signature):
            raise _mismatch()
        if payload.startswith(_STREAMING):
            return self._unwrapped(request, claim, payload)
        return request

    @staticmethod
    def _check_time(claim: Claim, now: float) -> None:
        at = datetime.strptime(claim.timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        if claim.expires is not None:
            if not at - _S3_SKEW <= now <= at + claim.expires:
                raise Refused("RequestExpired", "Request has expired", 403)
            return
        if claim.date != claim.timestamp[:8]:
            raise Refused(
                "SignatureDoesNotMatch", "Date in Credential scope does not match YYYYMMDD from X-Amz-Date", 403
            )
        allowed = _S3_SKEW if claim.service == "s3" else _SKEW
        if abs(now - at) > allowed:
            then, today = (datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%SZ") for moment in (at, now))
            verb = "expired" if at < now else "not yet current"
            raise Refused(
                "RequestTimeTooSkewed",
                f"Signature {verb}: {then} is too far from the local rack's time {today} ({allowed / 60:.0f} min.)",
                403,
            )

    @staticmethod
    def _check_signed_headers(request: Request, claim: Claim) -> None:
        present = {name.lower() for name, _ in request.headers}
        needed = {"host"} if claim.expires is None else {"host"} & present
        needed |= {name for name in present if name.startswith("x-amz-")} if claim.expires is None else set()
        if unsigned := sorted(needed - set(claim.signed_headers)):
            raise Refused(
                "SignatureDoesNotMatch",
                f"There were headers present in the request which were not signed: {', '.join(unsigned)}",
                403,
            )

    @staticmethod
    def _payload_hash(request: Request, claim: Claim) -> str:
        """Return the payload hash of the canonical request, after checking it against the body."""
        actual = sha256(request.body).hexdigest()
        if claim.service != "s3":
            declared = request.header("x-amz-content-sha256") or actual
        elif claim.expires is not None:
            return UNSIGNED
        else:
            declared = request.header("x-amz-content-sha256") or ""
            if declared == UNSIGNED or declared.startswith(_STREAMING):
                return declared
        if declared != actual:
            code = "XAmzContentSHA256Mismatch" if claim.service == "s3" else "SignatureDoesNotMatch"
            raise Refused(code, "The provided 'x-amz-content-sha256' header does not match what was computed.", 400)
        return actual

    def _signature(self, request: Request, claim: Claim, payload: str) -> str:
        signer = _signer(self.secret_access_key, claim)
        headers = HTTPHeaders()
        for name, value in request.headers:
            if name.lower() in claim.signed_headers and name.lower() != "x-amz-content-sha256":
                headers[name.lower()] = value
        if "x-amz-content-sha256" in claim.signed_headers:
            headers["x-amz-content-sha256"] = payload
        query = "&".join(part for part in request.query.split("&") if not part.startswith("X-Amz-Signature="))
        stands_for = AWSRequest(method=request.method, url=f"http://rack{request.path}?{query}")
        stands_for.headers = headers
        stands_for.context |= {"timestamp": claim.timestamp, "payload": payload}
        return str(
            signer.signature(signer.string_to_sign(stands_for, signer.canonical_request(stands_for)), stands_for)
        )

    # aws-chunked: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html

    def _unwrapped(self, request: Request, claim: Claim, payload: str) -> Request:
        signer = _signer(self.secret_access_key, claim)
        signed = not payload.startswith("STREAMING-UNSIGNED")
        previous, body, rest = claim.signature, bytearray(), request.body
        while True:
            line, _, rest = rest.partition(b"\r\n")
            size_text, _, extension = line.partition(b";")
            if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", size_text):
                raise Refused("IncompleteBody", "The request body is not aws-chunked as its headers say")
            size = int(size_text, 16)
            chunk = rest[:size]
            if signed:
                to_sign = "\n".join((
                    f"{ALGORITHM}-PAYLOAD", claim.timestamp, claim.scope, previous, _EMPTY, sha256(chunk).hexdigest(),
                ))  # fmt: skip
                stands_for = AWSRequest()
                stands_for.context["timestamp"] = claim.timestamp
                previous = str(signer.signature(to_sign, stands_for))
                if not hmac.compare_digest(f"chunk-signature={previous}".encode(), extension):
                    raise _mismatch()
            if size == 0:
                break
            body += chunk
            rest = rest[size:].removeprefix(b"\r\n")
        if str(len(body)) != (request.header("x-amz-decoded-content-length") or str(len(body))):
            raise Refused("IncompleteBody", "You did not provide the number of bytes specified by the header")
        return Request(request.method, request.target, _plain_headers(request, rest, len(body)), bytes(body))


def _plain_headers(request: Request, trailer: bytes, length: int) -> list[tuple[str, str]]:
    """Return the headers of a request as they would be without aws-chunked, with its trailer."""
    headers = []
    for name, value in request.headers:
        match name.lower():
            case "content-length" | "transfer-encoding" | "x-amz-decoded-content-length" | "x-amz-trailer":
                continue
            case "content-encoding":
                kept = [e for e in re.split(r"\s*,\s*", value) if e != "aws-chunked"]
                headers += [(name, ",".join(kept))] if kept else []
            case _:
                headers.append((name, value))
    for line in trailer.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon and name.lower().startswith("x-amz-checksum-"):
            headers.append((name, value.strip()))
    return [*headers, ("Content-Length", str(length))]


def _mismatch() -> Refused:
    return Refused(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. "
        "Check your AWS Secret Access Key and signing method.",
        403,
    )


class _Signer(SigV4Auth):  # type: ignore[misc] # botocore brings no types
    """botocore's signer, which signs the request as it was received."""

    def headers_to_sign(self, request: Any) -> Any:
        return request.headers

    def payload(self, request: Any) -> Any:
        return request.context["payload"]


class _S3Signer(_Signer):
    def _normalize_url_path(self, path: str) -> str:
        return path  # S3 does not normalize the path


def _signer(secret_access_key: str, claim: Claim) -> Any:
    kind = _S3Signer if claim.service == "s3" else _Signer
    return kind(Credentials(claim.access_key_id, secret_access_key), claim.service, claim.region)
