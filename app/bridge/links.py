"""Links that are good for an hour, for files in S3 and Azure that the receiver could not read otherwise.

Used by results; may import app.storage.
"""

from __future__ import annotations

from typing import Final

import structlog
from anyio.to_thread import run_sync

from app.storage.azure_access import AzureAccount, BlobAccess, azure_account, blob_place
from app.storage.config import StorageConfig
from app.storage.credentials import Glob
from app.storage.faults import Fault
from app.storage.s3 import s3_location
from app.storage.s3_signing import S3Account, S3Signer
from app.storage.secrets import public_url

__all__ = ["Links"]

S3: Final = "s3://"

log = structlog.get_logger("comfybus.bridge")


class Links:
    """Signs with the operator's keys, and only what they may be used for: OUTPUT_STORE and ALLOWED_URLS."""

    def __init__(self, config: StorageConfig) -> None:
        self._store = config.output_store.rstrip("/")
        self._allowed = [Glob(pattern) for pattern in config.allowed_urls]
        self._s3 = S3Signer(config.s3)
        account = azure_account(config.azure)
        # A SAS of the operator's own would hand out everything that it allows.
        self._azure: AzureAccount | None = account if account is not None and account.key else None
        self._blobs = BlobAccess(self._azure)

    async def link(self, url: str) -> str:
        """A signed link for reading, or the URL itself where none can be made."""
        try:
            if not self._is_allowed(url):
                return url
            if url.startswith(S3):
                bucket, key = s3_location(url)
                params = {"Bucket": bucket, "Key": key}
                return await run_sync(self._s3.sign, S3Account(), "get_object", params)
            if self._azure is not None and (place := blob_place(url, self._azure)) is not None:
                if place.base != self._azure.url:
                    return url
                query, _ = await run_sync(self._blobs.grant, place, None, "r")
                return f"{place.url}?{query}" if query else url
        except Fault as exc:
            log.warning("no link can be made; the URL is sent as it is", url=public_url(url), reason=exc.reason)
        return url

    def _is_allowed(self, url: str) -> bool:
        in_store = bool(self._store) and url.startswith(f"{self._store}/")
        return in_store or not self._allowed or any(one.matches(url) for one in self._allowed)
