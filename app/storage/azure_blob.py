"""Azure Blob Storage: the SDK signs, the carrier moves the bytes to addresses that were checked.

Used by backends; may import schemas.
"""

from __future__ import annotations

import base64
import uuid
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog
from typing_extensions import override
from yarl import URL

from app.storage.azure_access import AzureAccount, BlobAccess, BlobPlace, blob_place
from app.storage.base import ANY_AUTH, Downloaded, Progress, Storage, Uploaded
from app.storage.calls import Answer, Call, FilePart, MakeCall
from app.storage.carrier import Carrier
from app.storage.faults import Fault, as_input, as_upload, status_fault
from app.storage.http import media_type_of
from app.storage.media_types import safe_filename
from app.storage.parallel import in_parallel
from app.storage.s3 import PROBE, part_sizes
from app.storage.secrets import public_url
from app.storage.threads import disk, in_thread
from schemas.credentials import Auth

__all__ = ["AzureBlobStorage"]

# Blocks of more than 4 MiB and single puts of more than 256 MiB came with earlier versions.
_VERSION: Final = "2021-08-06"
_SINGLE_PUT_BYTES: Final = 16 * 1024 * 1024
_BLOCKS_AT_ONCE: Final = 4

_CURES: Final = {
    "ContainerNotFound": "there is no such container; correct its name or create it",
    "BlobNotFound": "there is no such blob; correct its name",
    "ResourceNotFound": "there is no such blob, or it is not public; correct the URL or send credentials",
    "AuthenticationFailed": "the key or signature is wrong or has expired; correct it",
    "AuthorizationFailure": "these credentials may not do that; give them the right",
    "AuthorizationPermissionMismatch": "the signature does not allow that; make one that does",
    "PublicAccessNotPermitted": "the account gives nothing to strangers; send credentials",
    "NoAuthenticationInformation": "it wants credentials; send some",
    "BlobArchived": "the blob is archived; restore it first",
}
_PASSING: Final = frozenset({"Md5Mismatch", "ContainerBeingDeleted", "OperationTimedOut"})

log = structlog.get_logger("comfybus.storage")


class AzureBlobStorage(Storage):
    """See ``Storage``. Files over 16 MiB go in blocks, four at once; every block's MD5 is checked by the server.

    A blob appears when its blocks are committed; blocks of an upload that was broken off vanish after a week. URLs of
    other accounts are read with the request's credentials, the signature in the URL, or as anybody.
    """

    name = "azure"
    auth_types = ANY_AUTH - {"s3"}

    def __init__(self, carrier: Carrier, account: AzureAccount | None, store: str | None = None) -> None:
        self._carrier = carrier
        self._account = account
        self._access = BlobAccess(account)
        self._store = store

    @override
    def accepts(self, url: str) -> bool:
        """URLs of the configured account, and of Azure's public blob services."""
        try:
            return blob_place(url, self._account) is not None
        except Fault:
            return False

    @override
    def uses_operator_credentials(self, url: str) -> bool:
        """For the configured account, unless the URL is signed."""
        place = self._place(url)
        return self._account is not None and place.base == self._account.url and not place.is_signed

    @override
    async def download(
        self, url: str, into: Path, *, auth: Auth | None = None, progress: Progress | None = None
    ) -> Downloaded:
        """Get Blob; see ``Storage``."""
        with as_input(url):
            place = self._place(url)
            call = self._call("GET", place, auth, "r")
            received = await self._carrier.receive(call, into, where=place.url, progress=progress, explain=_explain)
        name = safe_filename(place.blob)
        return Downloaded(into, received.size_bytes, received.sha256, name, media_type_of(received))

    @override
    async def upload(self, path: Path, url: str, *, media_type: str | None, auth: Auth | None = None) -> Uploaded:
        """Put Blob, or blocks and their list; see ``Storage``."""
        with as_upload(url):
            place = self._place(url)
            size = (await disk(path.stat)).st_size
            kind = {"x-ms-blob-content-type": media_type} if media_type else {}
            if size <= _SINGLE_PUT_BYTES:
                headers = {"x-ms-blob-type": "BlockBlob", **kind}
                await self._send(place, auth, FilePart(path, 0, size), "", headers)
            else:
                await self._put_blocks(place, auth, path, size, kind)
        return Uploaded(public_url(place.url), size)

    @override
    async def check_access(self, url: str, *, auth: Auth | None = None) -> None:
        """Get Blob of the first byte; see ``Storage``."""
        with as_input(url):
            place = self._place(url)
            call = self._call("GET", place, auth, "r")
            await self._carrier.may_read(call, where=place.url, explain=_explain)

    @override
    async def probe(self) -> str:
        """Write an empty blob to OUTPUT_STORE and remove it, else show the key to the account; see ``Storage``."""
        if self._store is None:
            return await self._probe_account()
        with as_upload(self._store):
            place = self._place(f"{self._store.rstrip('/')}/{PROBE}")
            put = self._call("PUT", place, None, "cw", headers={"x-ms-blob-type": "BlockBlob"})
            await self._carrier.ask(put, where=place.url, body=b"", explain=_explain)
            try:
                await self._carrier.ask(self._call("DELETE", place, None, "d"), where=place.url, explain=_explain)
            except Fault as exc:
                log.warning("blob of the probe not removed", where=place.url, reason=exc.reason)
        return f"{self._store} takes blobs"

    async def _probe_account(self) -> str:
        if self._account is None:
            return "no account is configured: requests bring their own credentials, or signed URLs"
        if self._account.sas and not self._account.key:
            # It may be one for a single container, which nothing here names.
            return f"{self._account.url} by AZURE_STORAGE_SAS_TOKEN; no OUTPUT_STORE of this kind to ask"
        with as_upload(self._account.url):
            place = BlobPlace(self._account.url, PROBE, PROBE)
            try:
                await self._carrier.may_read(
                    self._call("GET", place, None, "r"), where=self._account.url, explain=_explain
                )
            except Fault as exc:
                # Credentials are judged before names: a blob that is not there proves that they are good.
                if exc.status != 404 and "AuthorizationPermissionMismatch" not in exc.reason:
                    raise
        return f"{self._account.url} takes the credentials of the account {self._account.name}"

    def _place(self, url: str) -> BlobPlace:
        place = blob_place(url, self._account)
        if place is None:
            raise Fault("it is no blob of an Azure account; correct the URL", passing=False)
        return place

    def _call(
        self,
        method: str,
        place: BlobPlace,
        auth: Auth | None,
        permission: str,
        *,
        query: str = "",
        headers: dict[str, str] | None = None,
    ) -> MakeCall:
        async def make() -> Call:
            granted, secret = await in_thread(self._access.grant, place, auth, permission)
            joined = "&".join(part for part in (query, granted) if part)
            url = URL(f"{place.url}?{joined}" if joined else place.url, encoded=True)
            return Call(method, url, {"x-ms-version": _VERSION, **(headers or {})}, secret, expect=method == "PUT")

        return make

    async def _send(
        self, place: BlobPlace, auth: Auth | None, part: FilePart, query: str, headers: dict[str, str]
    ) -> None:
        sent = {"Content-MD5": await disk(part.md5), **headers}
        call = self._call("PUT", place, auth, "cw", query=query, headers=sent)
        await self._carrier.send(call, part, where=place.url, explain=_explain)

    async def _put_blocks(
        self, place: BlobPlace, auth: Auth | None, path: Path, size: int, kind: dict[str, str]
    ) -> None:
        # Names of their own for each upload: two at once to one blob must not mix their blocks.
        upload = uuid.uuid4().hex
        spans = part_sizes(size)
        names = [base64.b64encode(f"{upload}-{number:06d}".encode()).decode() for number in range(len(spans))]
        steps = [
            partial(self._send, place, auth, FilePart(path, *span), f"comp=block&blockid={quote(name, safe='')}", {})
            for name, span in zip(names, spans, strict=True)
        ]
        await in_parallel(steps, _BLOCKS_AT_ONCE)
        blocks = "".join(f"<Latest>{name}</Latest>" for name in names)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{blocks}</BlockList>'.encode()
        commit = self._call("PUT", place, auth, "cw", query="comp=blocklist", headers=kind)
        await self._carrier.ask(commit, where=place.url, body=body, explain=_explain)
        await self._verify(place, auth, size)

    async def _verify(self, place: BlobPlace, auth: Auth | None, size: int) -> None:
        try:
            answer = await self._carrier.ask(self._call("HEAD", place, auth, "r"), where=place.url, explain=_explain)
        except Fault as exc:
            if exc.status == 403:
                return  # a signature that allows writing only
            raise
        if answer.headers.get("Content-Length", "") != str(size):
            raise Fault("the blob has another size than the file; try again later", passing=True)


def _explain(answer: Answer) -> Fault:
    fault = status_fault(answer.status, answer.headers)
    code = answer.headers.get("x-ms-error-code", "")[:64]
    if not code.isalnum():
        return fault
    cure = _CURES.get(code, "correct the request, or look into the account's log")
    passing = fault.passing or code in _PASSING
    return Fault(
        f"Azure answers {code}: {cure}", passing=passing, retry_after_s=fault.retry_after_s, status=fault.status
    )
