"""The object store of the NATS server: where outputs go when nothing else is configured.

Used by backends, stores, app.bridge.broker, app.bridge.results, app.worker.broker; may import brokers, schemas.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import anyio.lowlevel
from typing_extensions import override

from app.storage.base import ANY_AUTH, Downloaded, Progress, Storage, Uploaded
from app.storage.config import Timings
from app.storage.faults import Fault, as_input, as_upload
from app.storage.media_types import media_type_for, safe_filename
from app.storage.retry import retrying
from app.storage.threads import check_cancelled, disk
from app.storage.urls import check_path, check_text
from brokers.base import BrokerError, BrokerUnavailable
from schemas.credentials import Auth

__all__ = ["NatsObjectStorage", "Objects", "object_key", "object_url"]


_CHUNK_BYTES: Final = 1024 * 1024


class Objects(Protocol):
    """One bucket, as ``brokers.nats.objects.NatsObjects`` gives it."""

    async def put(self, key: str, path: Path) -> str:
        """Store a file."""

    async def get(self, key: str, path: Path, on_bytes: Callable[[int, int], None] = ...) -> None:
        """Write an object to a file, its digest verified; tells the bytes that are here, and of how many."""

    async def size(self, key: str) -> int | None:
        """How many bytes an object has; None if there is none."""

    async def probe(self) -> None:
        """Raise what would keep a put from succeeding."""


def object_url(bucket: str, key: str) -> str:
    """``nats://<bucket>/<key>``; the key is verbatim, not percent-encoded, as the broker's own side writes it."""
    return f"nats://{bucket}/{key}"


def object_key(url: str) -> tuple[str, str]:
    """Bucket and key of an object's URL.

    Raises:
        Fault: It is no such URL.
    """
    check_text(url)
    bucket, _, key = url.partition("://")[2].partition("/")
    check_path(key)
    if not bucket or not key:
        raise Fault("it is no nats://bucket/key; correct it", passing=False)
    return bucket, key


class NatsObjectStorage(Storage):
    """See ``Storage``. A put replaces what was under the key at once; digests are checked by both sides.

    Args:
        bucket: The bucket of OUTPUT_STORE; no other one is read or written.
        objects: That bucket on the broker's connection; None where the broker is not NATS or the store is another.
        timings: Retries; the connection itself is restored by the broker's client.
        limit_bytes: The largest object that may come in.
    """

    name = "nats"
    auth_types = ANY_AUTH

    def __init__(self, bucket: str | None, objects: Objects | None, timings: Timings, limit_bytes: int) -> None:
        self._bucket = bucket
        self._limit_bytes = limit_bytes
        self._objects = objects
        self._timings = timings

    @override
    def accepts(self, url: str) -> bool:
        """Every nats URL; which of them are allowed is decided when one is used."""
        return url[:7].lower() == "nats://"

    @override
    def uses_operator_credentials(self, url: str) -> bool:
        """Never: the bucket itself is the permission."""
        return False

    @override
    async def download(
        self, url: str, into: Path, *, auth: Auth | None = None, progress: Progress | None = None
    ) -> Downloaded:
        """Get; see ``Storage``."""
        with as_input(url):
            objects, key = self._opened(url)

            async def step() -> None:
                with _broker_faults():
                    size = await objects.size(key)
                    if size is None:
                        raise Fault("there is no such object in the bucket; it may have expired", passing=False)
                    if progress is not None:
                        # A caller with a bound of its own gives up before anything is written.
                        progress(0, size)
                        await anyio.lowlevel.checkpoint()
                    if size > self._limit_bytes:
                        raise Fault("it is larger than MAX_DOWNLOAD_GB allows; raise that", passing=False)
                    await objects.get(key, into, progress or (lambda *_: None))

            await retrying(step, self._timings, where=url)
            size, sha256 = await disk(_measure, into)
        name = safe_filename(key)
        return Downloaded(into, size, sha256, name, media_type_for(key))

    @override
    async def upload(self, path: Path, url: str, *, media_type: str | None, auth: Auth | None = None) -> Uploaded:
        """Put; see ``Storage``."""
        with as_upload(url):
            objects, key = self._opened(url)
            size = (await disk(path.stat)).st_size

            async def step() -> None:
                with _broker_faults():
                    await objects.put(key, path)

            await retrying(step, self._timings, where=url)
        return Uploaded(object_url(str(self._bucket), key), size)

    @override
    async def check_access(self, url: str, *, auth: Auth | None = None) -> None:
        """Look whether the object is there; see ``Storage``."""
        with as_input(url):
            objects, key = self._opened(url)
            with _broker_faults():
                if await objects.size(key) is None:
                    raise Fault("there is no such object in the bucket; it may have expired", passing=False)

    @override
    async def probe(self) -> str:
        """Ask the server for the bucket; see ``Storage``."""
        if self._objects is None:
            return "nats URLs are not allowed: OUTPUT_STORE is no nats://bucket"
        with as_upload(f"nats://{self._bucket}"), _broker_faults():
            await self._objects.probe()
        return f"the object bucket {self._bucket} takes files"

    def _opened(self, url: str) -> tuple[Objects, str]:
        bucket, key = object_key(url)
        if self._objects is None or bucket != self._bucket:
            raise Fault("nats URLs are allowed below OUTPUT_STORE only; send the file another way", passing=False)
        return self._objects, key


@contextmanager
def _broker_faults() -> Iterator[None]:
    try:
        yield
    except BrokerError as exc:
        raise Fault(str(exc), passing=isinstance(exc, BrokerUnavailable)) from exc


def _measure(path: Path) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            check_cancelled()
            digest.update(chunk)
            size += len(chunk)
        os.fsync(file.fileno())
    return size, digest.hexdigest()
