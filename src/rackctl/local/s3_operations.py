"""S3's operations, by a request's method, path and query, and the IAM actions that they need.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rackctl.local.signature import Request

# Operations whose IAM action has another name.
S3_ACTIONS: Final = {
    "HeadObject": "GetObject",
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "ListBuckets": "ListAllMyBuckets",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "CopyObject": "PutObject",
    "DeleteObjects": "DeleteObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
}
_S3_OBJECT: Final = {
    "GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject", "POST": "PostObject",
}  # fmt: skip
_S3_BUCKET: Final = {"GET": "ListObjects", "HEAD": "HeadBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}


def s3_operation(request: Request) -> str:
    """Return the S3 operation of a request, by its method, path and query."""
    bucket, _, key = request.path.lstrip("/").partition("/")
    words = {part.partition("=")[0] for part in request.query.split("&")}
    if not bucket:
        return "ListBuckets"
    verb = {"GET": "Get", "PUT": "Put", "DELETE": "Delete", "POST": "Post", "HEAD": "Head"}.get(request.method, "")
    if key:
        special = {
            ("POST", "uploads"): "CreateMultipartUpload",
            ("POST", "uploadId"): "CompleteMultipartUpload",
            ("PUT", "uploadId"): "UploadPart",
            ("DELETE", "uploadId"): "AbortMultipartUpload",
            ("GET", "uploadId"): "ListParts",
        }
        of_object = ("acl", "tagging", "attributes", "retention", "legal-hold")
        named = next(
            (name for (method, word), name in special.items() if method == request.method and word in words), ""
        )
        named = named or next((f"{verb}Object{_camel(word)}" for word in of_object if word in words), "")
        if not named and request.method == "PUT" and request.header("x-amz-copy-source"):
            return "CopyObject"
        return named or _S3_OBJECT.get(request.method, "")
    if request.method == "POST":
        return "DeleteObjects" if "delete" in words else ""
    if "list-type" in words:
        return "ListObjectsV2"
    of_bucket = ("versioning", "location", "tagging", "policy", "acl", "encryption", "lifecycle", "cors")
    if special_word := next((word for word in of_bucket if word in words), ""):
        return f"{verb}Bucket{_camel(special_word)}"
    if "publicAccessBlock" in words:
        return f"{verb}PublicAccessBlock"
    if "versions" in words:
        return "ListObjectVersions"
    return "ListMultipartUploads" if "uploads" in words else _S3_BUCKET.get(request.method, "")


def _camel(word: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in word.split("-"))
