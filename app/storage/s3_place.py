"""One object of one S3 account: its signed calls, and what the store's answers mean.

Used by s3; may import its folder alone.
"""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import unescape

from yarl import URL

from app.storage.calls import Answer, Call, MakeCall
from app.storage.faults import Fault, status_fault
from app.storage.s3_signing import S3Account, S3Signer
from app.storage.threads import in_thread
from app.storage.urls import check_path, check_text

__all__ = ["S3Place", "s3_location", "tag_text"]

_TAG: Final = re.compile(rb"<(Code|UploadId)>([^<]{1,1024})</")

_CURES: Final = {
    "NoSuchBucket": "there is no such bucket; correct its name or create it",
    "NoSuchKey": "there is no such object; correct the key",
    "AccessDenied": "these keys may not do that; give them the right, or other keys",
    "InvalidAccessKeyId": "the access key is not known there; correct the keys or the endpoint",
    "SignatureDoesNotMatch": "the secret key is wrong; correct it",
    "ExpiredToken": "the session token has expired; get a new one",
    "InvalidToken": "the session token is wrong; correct it",
    "RequestTimeTooSkewed": "this machine's clock is wrong; correct it",
    "InvalidObjectState": "the object is archived; restore it first",
    "EntityTooLarge": "the file is too large for the store",
}
# Those with a 4xx status that another try may change; 5xx are by their status.
_PASSING: Final = frozenset({"BadDigest", "OperationAborted", "RequestTimeout", "SlowDown", "Throttling"})


def s3_location(url: str) -> tuple[str, str]:
    """Bucket and key of ``s3://bucket/key``; the key is verbatim, as the AWS tools take it, not percent-encoded.

    Raises:
        Fault: It is no such URL.
    """
    check_text(url)
    bucket, _, key = url[len("s3://") :].partition("/")
    if not bucket or not key or "@" in bucket or ":" in bucket:
        raise Fault("it is no s3://bucket/key; correct it", passing=False)
    check_path(key)
    return bucket, key


class S3Place:
    """One object of one account."""

    def __init__(self, signer: S3Signer, account: S3Account, bucket: str, key: str) -> None:
        self._signer = signer
        self._account = account
        self._bucket = bucket
        self.key = key
        self.where = f"s3://{bucket}/{key}"

    def call(self, method: str, operation: str, **params: object) -> MakeCall:
        """A signed call, made anew for each try."""
        wanted = {"Bucket": self._bucket, **({"Key": self.key} if self.key else {}), **params}
        named = {"ContentMD5": "Content-MD5", "ContentType": "Content-Type"}
        headers = {header: str(params[name]) for name, header in named.items() if name in params}

        async def make() -> Call:
            url = await in_thread(self._signer.sign, self._account, operation, wanted)
            return Call(method, URL(url, encoded=True), headers, expect=method == "PUT")

        return make

    def explain(self, answer: Answer) -> Fault:
        """The fault behind an answer; one that names another region is worth another try."""
        region = answer.headers.get("x-amz-bucket-region", "")
        if region and self._signer.learn_region(self._account, self._bucket, region):
            return Fault(f"the bucket lives in {region}; set AWS_REGION", passing=True, status=answer.status)
        return _explain(tag_text(answer.body, "Code"), answer)


def _explain(code: str, answer: Answer) -> Fault:
    fault = status_fault(answer.status, answer.headers)
    if not code:
        return fault
    cure = _CURES.get(code, "correct the request, or look into the store's log")
    passing = fault.passing or code in _PASSING or answer.status == 200
    return Fault(f"S3 answers {code}: {cure}", passing=passing, retry_after_s=fault.retry_after_s, status=fault.status)


def tag_text(body: bytes, name: str) -> str:
    """The text of the first such element, without an XML parser: the answer is a stranger's."""
    found = next((match for match in _TAG.finditer(body) if match.group(1).decode() == name), None)
    return unescape(found.group(2).decode(errors="replace")) if found else ""
