"""Signatures of AWS's documentation, and wrong ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from rackctl.local.signature import Request, Verifier, claim_of
from rackctl.local.world.base import Refused

# The suite's get-vanilla. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-examples.html
SUITE = Verifier("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SUITE_TIME = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
VANILLA = Request(
    "GET",
    "/",
    [
        ("Host", "example.amazonaws.com"),
        ("X-Amz-Date", "20150830T123600Z"),
        (
            "Authorization",
            (
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
                "SignedHeaders=host;x-amz-date, "
                "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
            ),
        ),
    ],
)

# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
S3 = Verifier("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
S3_TIME = datetime(2013, 5, 24, tzinfo=UTC).timestamp()
CHUNKS = (
    (b"10000", b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648", b"a" * 65536),
    (b"400", b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497", b"a" * 1024),
    (b"0", b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9", b""),
)
CHUNKED = Request(
    "PUT",
    "/examplebucket/chunkObject.txt",
    [
        ("Host", "s3.amazonaws.com"),
        ("x-amz-date", "20130524T000000Z"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
        ("Content-Encoding", "aws-chunked"),
        ("x-amz-decoded-content-length", "66560"),
        ("Content-Length", "66824"),
        (
            "Authorization",
            (
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
                "SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;"
                "x-amz-decoded-content-length;x-amz-storage-class,"
                "Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
            ),
        ),
    ],
    b"".join(size + b";chunk-signature=" + signature + b"\r\n" + data + b"\r\n" for size, signature, data in CHUNKS),
)
# https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
PRESIGNED = Request(
    "GET",
    "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
    "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    [("Host", "examplebucket.s3.amazonaws.com")],
)


def refusal(verifier: Verifier, request: Request, now: float) -> str:
    with pytest.raises(Refused) as caught:
        verifier.verify(request, claim_of(request), now=now)
    return caught.value.code


def with_header(request: Request, name: str, value: str) -> Request:
    return replace(request, headers=[*((n, v) for n, v in request.headers if n.lower() != name.lower()), (name, value)])


def test_a_signature_of_aws_s_test_suite_is_accepted() -> None:
    assert SUITE.verify(VANILLA, claim_of(VANILLA), now=SUITE_TIME) is VANILLA


@pytest.mark.parametrize(
    "changed",
    [
        replace(VANILLA, method="POST"),
        replace(VANILLA, target="/?Action=TerminateInstances"),
        replace(VANILLA, target="/other"),
        replace(VANILLA, body=b"x"),
        with_header(VANILLA, "Host", "elsewhere"),
        with_header(VANILLA, "X-Amz-Target", "unsigned"),
    ],
)
def test_a_request_that_was_changed_after_signing_is_refused(changed: Request) -> None:
    assert refusal(SUITE, changed, SUITE_TIME) == "SignatureDoesNotMatch"


def test_a_wrong_secret_and_an_unknown_key_are_refused() -> None:
    assert refusal(Verifier("AKIDEXAMPLE", "other"), VANILLA, SUITE_TIME) == "SignatureDoesNotMatch"
    assert refusal(Verifier("OTHER", SUITE.secret_access_key), VANILLA, SUITE_TIME) == "InvalidClientTokenId"


@pytest.mark.parametrize(("seconds", "accepted"), [(-299, True), (299, True), (-301, False), (301, False)])
def test_a_clock_may_be_wrong_by_five_minutes(seconds: float, accepted: bool) -> None:
    if accepted:
        SUITE.verify(VANILLA, claim_of(VANILLA), now=SUITE_TIME + seconds)
    else:
        assert refusal(SUITE, VANILLA, SUITE_TIME + seconds) == "RequestTimeTooSkewed"


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic dXNlcjpwYXNz",
        "AWS4-HMAC-SHA256 Credential=A/b/c, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA256 Credential=A/20150830/r/s/aws4_request, SignedHeaders=host",
        "AWS4-HMAC-SHA256",
    ],
)
def test_an_incomplete_signature_is_refused(authorization: str) -> None:
    with pytest.raises(Refused) as caught:
        claim_of(with_header(VANILLA, "Authorization", authorization))

    assert caught.value.code == "IncompleteSignature"


def test_chunks_that_are_signed_one_by_one_are_joined() -> None:
    unwrapped = S3.verify(CHUNKED, claim_of(CHUNKED), now=S3_TIME)

    assert unwrapped.body == b"a" * 66560
    assert unwrapped.header("content-encoding") is None
    assert unwrapped.header("content-length") == "66560"


def test_an_altered_chunk_is_refused() -> None:
    assert refusal(S3, replace(CHUNKED, body=CHUNKED.body.replace(b"a\r\n", b"b\r\n", 1)), S3_TIME) == (
        "SignatureDoesNotMatch"
    )
    assert refusal(S3, replace(CHUNKED, body=CHUNKED.body[:66000]), S3_TIME) in {
        "SignatureDoesNotMatch",
        "IncompleteBody",
    }


def test_a_presigned_url_is_accepted_until_it_expires() -> None:
    S3.verify(PRESIGNED, claim_of(PRESIGNED), now=S3_TIME + 86000)

    assert refusal(S3, PRESIGNED, S3_TIME + 86401) == "RequestExpired"
    forged = replace(PRESIGNED, target=PRESIGNED.target.replace("86400", "99999"))
    assert refusal(S3, forged, S3_TIME) == "SignatureDoesNotMatch"


def test_no_repr_shows_the_secret() -> None:
    assert S3.secret_access_key not in repr(S3)
