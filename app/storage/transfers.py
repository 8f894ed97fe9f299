"""What the stores hand out: files that were fetched, and word of every transfer.

Used by stores, app.worker.transfers; may import app.errors.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.errors import PromptError
from app.storage.base import Uploaded
from app.storage.cache_entries import Record
from app.storage.cache_eviction import Evicted
from app.storage.secrets import public_url

__all__ = ["Fetched", "Report", "StorageTransfer"]


@dataclass(frozen=True)
class StorageTransfer:
    """Something that happened to a file, for events and metrics.

    Attributes:
        event: ``hit`` is a file that was in the cache already: a metric, no event.
        backend: ``s3``, ``azure``, ``hf``, ``http``, ``file`` or ``nats``; ``cache`` for deletions.
        url: Without secrets.
        request_id: Whose prompt it was for; None outside a prompt. A download for several counts for the first.
        local_path: The file on this machine.
        size_bytes: Its size, if it is known.
        duration_s: How long it took.
        error: A sentence, when it failed.
        code: Of the prompt's error, when it failed.
    """

    event: Literal["downloaded", "uploaded", "deleted", "hit", "download_failed", "upload_failed"]
    backend: str
    url: str
    request_id: str | None
    local_path: str | None = None
    size_bytes: int | None = None
    duration_s: float | None = None
    error: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Fetched(os.PathLike[str]):
    """A file that was fetched through the cache; passes wherever a path does.

    Attributes:
        path: In the folder that was asked for, else in the cache. Not to be changed: it may be the cache's own.
        size_bytes: Its size.
        sha256: Digest of its content in lower-case hex.
        filename: The name its source gave it, one harmless path segment; None if it gave none.
        media_type: The type its source gave it; None if it gave none.
    """

    path: Path
    size_bytes: int
    sha256: str
    filename: str | None
    media_type: str | None

    def __fspath__(self) -> str:
        return str(self.path)


class Report:
    """Makes word of a transfer out of what those who made it know."""

    def __init__(self, tell: Callable[[StorageTransfer], None]) -> None:
        self._tell = tell

    def downloaded(self, backend: str, request_id: str | None, record: Record, path: Path, duration_s: float) -> None:
        """A file came into the cache."""
        size, took = record.size_bytes, round(duration_s, 3)
        self._tell(StorageTransfer("downloaded", backend, record.url, request_id, str(path), size, took))

    def hit(self, backend: str, request_id: str | None, record: Record, path: Path) -> None:
        """A file was in the cache already."""
        self._tell(StorageTransfer("hit", backend, record.url, request_id, str(path), record.size_bytes))

    def uploaded(self, backend: str, request_id: str | None, done: Uploaded, path: Path, duration_s: float) -> None:
        """A file was stored."""
        size, took = done.size_bytes, round(duration_s, 3)
        self._tell(StorageTransfer("uploaded", backend, done.url, request_id, str(path), size, took))

    def evicted(self, gone: Evicted) -> None:
        """A file was removed from the cache."""
        self._tell(StorageTransfer("deleted", "cache", gone.record.url, None, str(gone.path), gone.record.size_bytes))

    def failed(
        self,
        event: Literal["download_failed", "upload_failed"],
        backend: str,
        url: str,
        request_id: str | None,
        exc: PromptError,
        duration_s: float,
    ) -> None:
        """A transfer did not work out."""
        took = round(duration_s, 3)
        self._tell(
            StorageTransfer(event, backend, public_url(url), request_id, duration_s=took, error=str(exc), code=exc.code)
        )
