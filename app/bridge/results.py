"""Files that are in an event as URLs: fetched and sent inline, sent as links, or left as they are.

Used by app.bridge.app, deliver; may import app.errors, app.storage, schemas.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import structlog

from app.bridge.links import Links
from app.bridge.payload import Base64File, Payload
from app.bridge.record import Record
from app.errors import InputRefused
from app.storage.backends import make_backends
from app.storage.config import StorageConfig
from app.storage.nats_object import Objects
from app.storage.secrets import public_url
from schemas.base import dump_json, load_json

__all__ = ["Results"]

log = structlog.get_logger("comfybus.bridge")

# Marks in a body where a file goes; no text of an event can hold it by chance.
_MARK_BYTES: Final = 16

Place = tuple[Any, Any]


class Results:
    """Makes the body of an attempt from the stored one. Used within ``open``."""

    def __init__(
        self, config: StorageConfig, objects: Objects | None, *, inline_limit_bytes: int, signed_links: bool
    ) -> None:
        """Prepare.

        Args:
            config: Where OUTPUT_STORE is.
            objects: Its bucket, where that is ``nats://``.
            inline_limit_bytes: Files of one event up to this size together are fetched from OUTPUT_STORE and sent
                inline; 0 for never. What lies in a request's own target stays a URL: there its sender wanted it.
            signed_links: Send S3 and Azure URLs as links.

        Raises:
            ConfigurationError: A setting of the storage is wrong.
        """
        self._store = config.output_store.rstrip("/")
        self._backends = make_backends(config, objects)
        self._limit = inline_limit_bytes
        self._links = Links(config) if signed_links else None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Open connections until the block ends."""
        async with self._backends.outgoing:
            yield self

    async def payload(self, record: Record, body: bytes, scratch: Path) -> Payload:
        """The body to send.

        Args:
            record: Of the delivery.
            body: As it is stored.
            scratch: A folder for this attempt.

        Raises:
            InputUnavailable: A file cannot be fetched now.
        """
        if not record.claims:
            return Payload((body,))
        document = load_json(body)
        places = list(_file_places(document))
        fetched: dict[str, Base64File] = {}
        if self._is_inlined(record, places):
            try:
                for holder, key in places:
                    await self._fetch(holder[key], scratch, fetched)
            except InputRefused as exc:
                log.warning("results are sent as URLs", delivery=record.id, reason=str(exc))
                fetched = {}
        if self._links is not None and not fetched:
            await self._set_links(document, self._links)
        return _spliced(document, places, fetched) if fetched else Payload((dump_json(document),))

    def _is_inlined(self, record: Record, places: list[Place]) -> bool:
        size = record.claim_bytes
        in_store = all(_in_store(self._store, holder[key]) for holder, key in places)
        return in_store and size is not None and 0 < size <= self._limit

    async def _fetch(self, url: str, scratch: Path, fetched: dict[str, Base64File]) -> None:
        if url in fetched:
            return
        storage = next((one for one in self._backends.all if one.accepts(url)), None)
        if storage is None:
            raise InputRefused(f"{public_url(url)} cannot be fetched: no backend takes it.")
        found = await storage.download(url, scratch / f"{len(fetched)}.part")
        fetched[url] = Base64File(found.path, found.size_bytes)

    async def _set_links(self, document: Any, links: Links) -> None:
        made: dict[str, str] = {}
        for holder, key in (*_file_places(document), *_output_places(document)):
            url = holder[key]
            made[url] = made.get(url) or await links.link(url)
            holder[key] = made[url]


def _in_store(store: str, url: str) -> bool:
    return bool(store) and url.startswith(f"{store}/")


def _file_places(document: Any) -> list[Place]:
    """Where files stand in a body as URLs: ``images`` of an event, ``image`` of a legacy webhook."""
    if not isinstance(document, dict):
        return []
    if isinstance(images := document.get("images"), list):
        return [(images, index) for index, image in enumerate(images) if _is_url(image)]
    return [(document, "image")] if _is_url(document.get("image")) else []


def _output_places(document: Any) -> list[Place]:
    outputs = document.get("outputs") if isinstance(document, dict) else None
    found = outputs if isinstance(outputs, list) else []
    return [(output, "url") for output in found if isinstance(output, dict) and _is_url(output.get("url"))]


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and "://" in value


def _spliced(document: Any, places: list[Place], fetched: dict[str, Base64File]) -> Payload:
    """The document with files in the place of their URLs."""
    mark = secrets.token_hex(_MARK_BYTES)
    files = [fetched[holder[key]] for holder, key in places]
    for number, (holder, key) in enumerate(places):
        holder[key] = f"{mark}{number:08d}"
    rest = dump_json(document)
    parts = list[bytes | Base64File]()
    for number, file in enumerate(files):
        before, _, rest = rest.partition(f"{mark}{number:08d}".encode())
        parts += [before, file]
    return Payload((*parts, rest))
