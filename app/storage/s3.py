"""S3 and whatever speaks it: boto3 signs, the carrier moves the bytes to addresses that were checked.

Used by azure_blob, backends, app.bridge.links; may import schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import anyio
import structlog
from typing_extensions import override

from app.storage.base import Downloaded, Progress, Storage, Uploaded
from app.storage.calls import FilePart
from app.storage.carrier import Carrier
from app.storage.config import S3Config
from app.storage.faults import Fault, as_input, as_upload
from app.storage.http import media_type_of
from app.storage.media_types import safe_filename
from app.storage.parallel import in_parallel
from app.storage.s3_place import S3Place, s3_location, tag_text
from app.storage.s3_signing import S3Account, S3Signer
from app.storage.secrets import public_url
from app.storage.threads import disk
from app.storage.urls import parse_http
from schemas.credentials import Auth, S3Auth

__all__ = ["PROBE", "S3Storage", "part_sizes", "s3_location"]

PROBE: Final = "comfybus-probe"
MIB: Final = 1024 * 1024
PART_BYTES: Final = 16 * MIB
# S3 takes 10 000 parts.
_MOST_PARTS: Final = 9_000
_PARTS_AT_ONCE: Final = 4
_ABORT_WITHIN_S: Final = 10
log = structlog.get_logger("comfybus.storage")


def part_sizes(size_bytes: int) -> list[tuple[int, int]]:
    """Offset and length of each part of a file: 16 MiB, doubled as often as there would be too many."""
    length = PART_BYTES
    while size_bytes > length * _MOST_PARTS:
        length *= 2
    return [(offset, min(length, size_bytes - offset)) for offset in range(0, size_bytes, length)]


class S3Storage(Storage):
    """See ``Storage``. Files over 16 MiB go in parts, four at once; every part's MD5 is checked by the server.

    An upload that is broken off is aborted; one whose process was killed leaves invisible parts, for the bucket's
    life-cycle rule to remove. A bucket of another region is found by what its server answers.
    """

    name = "s3"
    auth_types = frozenset({"s3"})

    def __init__(self, carrier: Carrier, config: S3Config, store: str | None = None) -> None:
        self._carrier = carrier
        self._config = config
        self._signer = S3Signer(config)
        self._store = store

    @override
    def accepts(self, url: str) -> bool:
        """Every s3 URL."""
        return url[:5].lower() == "s3://"

    @override
    def uses_operator_credentials(self, url: str) -> bool:
        """Always, when the request brings none."""
        return True

    @override
    async def download(
        self, url: str, into: Path, *, auth: Auth | None = None, progress: Progress | None = None
    ) -> Downloaded:
        """GetObject; see ``Storage``."""
        with as_input(url):
            place = self._place(url, auth)
            received = await self._carrier.receive(
                place.call("GET", "get_object"), into, where=place.where, progress=progress, explain=place.explain
            )
        name = safe_filename(place.key)
        return Downloaded(into, received.size_bytes, received.sha256, name, media_type_of(received))

    @override
    async def upload(self, path: Path, url: str, *, media_type: str | None, auth: Auth | None = None) -> Uploaded:
        """PutObject, or a multipart upload; see ``Storage``."""
        with as_upload(url):
            place = self._place(url, auth)
            size = (await disk(path.stat)).st_size
            kind = {"ContentType": media_type} if media_type else {}
            if size <= PART_BYTES:
                await self._put(place, "put_object", FilePart(path, 0, size), kind)
            else:
                await self._put_in_parts(place, path, size, kind)
        return Uploaded(public_url(url), size)

    @override
    async def check_access(self, url: str, *, auth: Auth | None = None) -> None:
        """GetObject of the first byte; see ``Storage``."""
        with as_input(url):
            place = self._place(url, auth)
            await self._carrier.may_read(place.call("GET", "get_object"), where=place.where, explain=place.explain)

    @override
    async def probe(self) -> str:
        """Write an empty object to OUTPUT_STORE and remove it, else show the keys to the store; see ``Storage``."""
        if self._store is None:
            return await self._probe_keys()
        with as_upload(self._store):
            place = self._place(f"{self._store.rstrip('/')}/{PROBE}", None)
            await self._carrier.ask(place.call("PUT", "put_object"), where=place.where, body=b"", explain=place.explain)
            await self._remove(place, "delete_object")
        return f"{self._store} takes objects"

    async def _probe_keys(self) -> str:
        config = self._config
        where = public_url(config.endpoint_url or "https://s3.amazonaws.com")
        if not (config.access_key_id or config.profile):
            return "no keys are configured: requests bring their own, or the machine's role is used"
        with as_upload(where):
            place = S3Place(self._signer, S3Account(), PROBE, PROBE)
            try:
                await self._carrier.may_read(place.call("GET", "get_object"), where=where, explain=place.explain)
            except Fault as exc:
                # Keys are judged before names: one that is not there, or is somebody's, proves that they are known.
                if exc.status != 404 and "AccessDenied" not in exc.reason:
                    raise
        return f"{where} knows the keys"

    def _place(self, url: str, auth: Auth | None) -> S3Place:
        bucket, key = s3_location(url)
        if auth is None:
            return S3Place(self._signer, S3Account(), bucket, key)
        if not isinstance(auth, S3Auth):
            raise TypeError(auth.type)
        if auth.endpoint is not None and parse_http(auth.endpoint).authorization is not None:
            raise Fault("the endpoint of the credentials holds user info; remove it", passing=False)
        account = S3Account(
            auth.access_key_id,
            auth.secret_access_key.get_secret_value(),
            auth.session_token.get_secret_value() if auth.session_token else None,
            auth.endpoint,
            auth.region,
        )
        return S3Place(self._signer, account, bucket, key)

    async def _put(self, place: S3Place, operation: str, part: FilePart, params: Mapping[str, object]) -> str:
        """Send one body with its MD5; returns the ETag."""
        call = place.call("PUT", operation, **params, ContentMD5=await disk(part.md5))
        answer = await self._carrier.send(call, part, where=place.where, explain=place.explain)
        return answer.headers.get("ETag", "")

    async def _put_in_parts(self, place: S3Place, path: Path, size: int, kind: Mapping[str, object]) -> None:
        begin = place.call("POST", "create_multipart_upload", **kind)
        answer = await self._carrier.ask(begin, where=place.where, body=b"", explain=place.explain)
        upload = tag_text(answer.body, "UploadId")
        if not upload:
            raise Fault("the server begins no multipart upload; is it S3?", passing=False)
        try:
            steps = [
                partial(
                    self._put, place, "upload_part", FilePart(path, *span), {"UploadId": upload, "PartNumber": number}
                )
                for number, span in enumerate(part_sizes(size), start=1)
            ]
            etags = await in_parallel(steps, _PARTS_AT_ONCE)
            await self._complete(place, upload, etags, size)
        except BaseException:
            with anyio.move_on_after(_ABORT_WITHIN_S, shield=True):
                await self._remove(place, "abort_multipart_upload", UploadId=upload)
            raise

    async def _complete(self, place: S3Place, upload: str, etags: list[str], size: int) -> None:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
            for number, etag in enumerate(etags, start=1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        call = place.call("POST", "complete_multipart_upload", UploadId=upload)
        try:
            # S3 begins to answer with 200 before it knows how the joining ends.
            await self._carrier.ask(
                call,
                where=place.where,
                body=body,
                explain=place.explain,
                is_refusal=lambda answer: bool(tag_text(answer.body, "Code")),
            )
        except Fault as exc:
            # After an answer that was lost the upload is gone because it is complete.
            if exc.status != 404:
                raise
            log.info("multipart upload is gone, looking for the object", where=place.where)
        await self._verify(place, size)

    async def _verify(self, place: S3Place, size: int) -> None:
        try:
            answer = await self._carrier.ask(
                place.call("HEAD", "head_object"), where=place.where, explain=place.explain
            )
        except Fault as exc:
            if exc.status == 403:
                return  # keys that may write only
            raise
        if answer.headers.get("Content-Length", "") != str(size):
            raise Fault("the object has another size than the file; try again later", passing=True)

    async def _remove(self, place: S3Place, operation: str, **params: object) -> None:
        """Take something away; keys that may only write leave it."""
        try:
            call = place.call("DELETE", operation, **params)
            await self._carrier.ask(call, where=place.where, explain=place.explain)
        except Fault as exc:
            log.warning("object not removed", where=place.where, operation=operation, reason=exc.reason)
