"""Files in an object store bucket, streamed from and to disk piece by piece.

Used by bus, client, dlq, letters, brokers.nats.webhooks.bus; may import brokers.

The format is that of every NATS client (``nats object get`` reads it). Each piece is written and read by a confirmed
request of its own, so that no consumer has to be kept alive and none can fall silent.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import anyio
import nats.js.errors
from anyio.to_thread import run_sync
from nats.js import api
from nats.js.errors import NotFoundError

from brokers.base import BrokerError, BrokerRefused
from brokers.nats.errors import NAME_IN_USE, StreamMissing
from brokers.nats.link import Link, api_subject

__all__ = ["NatsObjects", "parse_url"]

PIECE_BYTES = 128 * 1024
# What a piece weighs besides its bytes.
PIECE_OVERHEAD_BYTES = 1024
ROLLUP = {"Nats-Rollup": "sub"}


def parse_url(url: str) -> tuple[str, str]:
    """Bucket and key of ``nats://<bucket>/<key>``; the key is verbatim, not percent-encoded.

    Raises:
        BrokerRefused: The URL is of another form.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme != "nats" or not key or not _is_bucket(bucket):
        raise BrokerRefused(f"{url} is no object in NATS; it should be nats://<bucket>/<key>")
    return bucket, key


def _is_bucket(name: str) -> bool:
    """Whether NATS takes it as a bucket's name."""
    return name.replace("-", "").replace("_", "").isalnum() and name.isascii()


@asynccontextmanager
async def _opened(path: Path, mode: str) -> AsyncIterator[BinaryIO]:
    file = cast("BinaryIO", await run_sync(path.open, mode))
    try:
        yield file
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(file.close)


class NatsObjects:
    """One bucket. Memory use does not depend on the size of an object."""

    def __init__(self, link: Link, bucket: str, retention_s: float | None = None) -> None:
        """Prepare; nothing is created before the first ``put`` or ``probe``.

        Args:
            link: The open connection.
            bucket: Its name.
            retention_s: How long objects are kept, when the bucket is created here; None: for ever.
        """
        self._link = link
        self._retention_s = retention_s
        self._stream = f"OBJ_{bucket}"
        self._storing = f"store an object in {bucket}"
        self.bucket = bucket

    # --- writing

    async def put(self, key: str, path: Path) -> str:
        """Store a file, confirmed; an object of the same key is replaced. Returns its ``nats://`` URL.

        Raises:
            BrokerUnavailable: It is not stored; to try again is safe.
            BrokerRefused: The bucket is full or a permission is missing.
            OSError: The file cannot be read.
        """
        async with _opened(path, "rb") as source:
            return await self._put(key, source)

    async def put_bytes(self, key: str, body: bytes) -> str:
        """Like ``put``, for what is in memory anyway."""
        return await self._put(key, io.BytesIO(body))

    async def _put(self, key: str, source: BinaryIO) -> str:
        await self.probe()
        before = await self._info(key)
        nuid = secrets.token_hex(11)
        try:
            info = await self._put_pieces(nuid, source)
        except BaseException:
            with anyio.move_on_after(1, shield=True):
                await self._forget(nuid)
            raise
        # From here on the pieces stay, also when the confirmation is lost: the entry may be there and refer to them.
        body = json.dumps({"name": key, "bucket": self.bucket, **info}).encode()
        await self._link.store(self._storing, self._info_subject(key), body, ROLLUP)
        if before is not None:
            await self._forget(str(before.get("nuid")))
        return f"nats://{self.bucket}/{key}"

    async def _put_pieces(self, nuid: str, source: BinaryIO) -> dict[str, Any]:
        piece_bytes = min(PIECE_BYTES, self._link.max_message_bytes - PIECE_OVERHEAD_BYTES)
        digest, size, chunks = hashlib.sha256(), 0, 0
        while piece := await run_sync(source.read, piece_bytes):
            digest.update(piece)
            await self._link.store(self._storing, self._piece_subject(nuid), piece, {})
            size += len(piece)
            chunks += 1
        return {
            "nuid": nuid,
            "size": size,
            "chunks": chunks,
            "digest": f"SHA-256={base64.urlsafe_b64encode(digest.digest()).decode()}",
            "mtime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "options": {"max_chunk_size": piece_bytes},
        }

    def _piece_subject(self, nuid: str) -> str:
        return f"$O.{self.bucket}.C.{nuid}"

    def _info_subject(self, key: str) -> str:
        return f"$O.{self.bucket}.M.{base64.urlsafe_b64encode(key.encode()).decode()}"

    async def _forget(self, nuid: str) -> None:
        """Remove pieces that nothing refers to; what cannot be removed goes when the bucket's time is over."""
        try:
            with self._link.doing("remove pieces of an object", api_subject("STREAM.PURGE")):
                await self._link.js.purge_stream(self._stream, subject=self._piece_subject(nuid))
        except BrokerError:
            return

    async def probe(self) -> None:
        """Create the bucket when it is missing, and raise what keeps it from being there.

        Raises:
            BrokerUnavailable: No answer.
            BrokerRefused: It may not be created.
        """
        what = f"create the bucket {self.bucket}"
        with self._link.doing(
            what, api_subject(f"STREAM.INFO.{self._stream}"), api_subject(f"STREAM.CREATE.{self._stream}")
        ):
            try:
                await self._link.js.stream_info(self._stream)
            except NotFoundError:
                try:
                    config = api.ObjectStoreConfig(bucket=self.bucket, ttl=self._retention_s)
                    await self._link.js.create_object_store(self.bucket, config)
                except nats.js.errors.APIError as exc:
                    # Somebody else was faster, with settings that differ in time only.
                    if exc.err_code != NAME_IN_USE:
                        raise

    # --- reading

    async def get(self, key: str, path: Path, on_bytes: Callable[[int, int], None] = lambda *_: None) -> None:
        """Write an object to a file; the file appears under its name only when it is whole.

        Args:
            key: Of the object.
            path: Of the file.
            on_bytes: Told after each piece how many bytes are here, and of how many.

        Raises:
            BrokerUnavailable: No answer; to try again is safe.
            BrokerRefused: There is no such object, or its bytes are damaged.
            OSError: The file cannot be written.
        """
        info = await self._found(key)
        part = path.with_name(f".{path.name}.part")
        try:
            async with _opened(part, "wb") as target:
                await self._copy(info, target, on_bytes)
            await run_sync(part.replace, path)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await run_sync(partial(part.unlink, missing_ok=True))
            raise

    async def get_bytes(self, key: str) -> bytes:
        """Like ``get``, for an object that is known to be small."""
        target = io.BytesIO()
        await self._copy(await self._found(key), target, lambda *_: None)
        return target.getvalue()

    async def exists(self, key: str) -> bool:
        """Whether an object of this key is stored, whole."""
        return await self._info(key) is not None

    async def _found(self, key: str) -> Mapping[str, Any]:
        if (info := await self._info(key)) is None:
            raise BrokerRefused(f"there is no object {key} in {self.bucket}; it may be older than the bucket keeps it")
        return info

    async def _info(self, key: str) -> Mapping[str, Any] | None:
        what = f"look for an object in {self.bucket}"
        try:
            message = await self._link.read(what, self._stream, last_by_subj=self._info_subject(key))
        except StreamMissing:
            return None
        if message is None:
            return None
        with self._link.doing(what):
            info: dict[str, Any] = json.loads(message.data)
        return None if info.get("deleted") else info

    async def size(self, key: str) -> int | None:
        """How many bytes an object has; None if there is none of this key."""
        info = await self._info(key)
        return None if info is None else int(info.get("size", 0))

    async def _copy(self, info: Mapping[str, Any], target: BinaryIO, on_bytes: Callable[[int, int], None]) -> None:
        digest, size, sequence = hashlib.sha256(), 0, 1
        subject = self._piece_subject(str(info.get("nuid")))
        while size < int(info.get("size", 0)):
            piece = await self._link.read("read an object", self._stream, seq=sequence, next_by_subj=subject)
            if piece is None:
                break
            digest.update(piece.data)
            size += len(piece.data)
            sequence = piece.sequence + 1
            await run_sync(target.write, piece.data)
            on_bytes(size, int(info.get("size", 0)))
        wanted = str(info.get("digest")).partition("=")[2]
        if base64.urlsafe_b64encode(digest.digest()).decode() != wanted:
            raise BrokerRefused(
                f"the object {info.get('name')} in {self.bucket} is damaged: its {info.get('size')} bytes do not "
                "have the digest they were stored with"
            )
