"""All backends as one: picks by URL, applies credentials, checks what is allowed, caches, tells of every transfer.

Used by app.cli, app.prepare, app.setup, app.worker; may import app.errors, schemas.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import anyio

from app.errors import ConfigurationError, InvalidRequest, PromptError, UploadFailed
from app.storage.backends import Backends, make_backends
from app.storage.base import Downloaded, Progress, Storage, UploadRefused
from app.storage.cache import Cache, Wanted
from app.storage.cache_entries import discard
from app.storage.cache_links import LinkWish, link
from app.storage.cache_locks import Hold
from app.storage.choice import Choice
from app.storage.config import StorageConfig
from app.storage.faults import Fault, as_input, as_upload
from app.storage.media_types import media_type_for
from app.storage.nats_object import Objects
from app.storage.secrets import Scrubber, public_url
from app.storage.targets import store_url, target_url
from app.storage.threads import disk
from app.storage.transfers import Fetched, Report, StorageTransfer
from app.storage.turns import Turns
from schemas.credentials import Auth, Credential
from schemas.prompt import PromptOptions, PromptRequest

__all__ = ["Fetched", "Hold", "StorageTransfer", "Stores"]


class Stores:
    """Everything that moves files in and out; used within ``open``, from tasks of one event loop.

    Args:
        config: All settings.
        objects: The object bucket of OUTPUT_STORE, where that is ``nats://``.
        on_transfer: Told of every transfer on the event loop; must not block or raise.

    Raises:
        ConfigurationError: A setting is wrong; the sentence names the variable.
    """

    def __init__(
        self,
        config: StorageConfig,
        *,
        objects: Objects | None = None,
        on_transfer: Callable[[StorageTransfer], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._report = Report(on_transfer)
        self._backends: Backends = make_backends(config, objects)
        self._choice = Choice(self._backends.all, config)
        self._uploads = Turns()
        self._cache: Cache

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Open connections and cache until the block ends; downloads that still run are ended then.

        Raises:
            ConfigurationError: CACHE_DIR cannot be used.
        """
        problem: Exception | None = None
        async with self._backends.outgoing, anyio.create_task_group() as tasks:
            self._cache = Cache(self._config.cache_dir, self._config.cache_limit_bytes, tasks, self._report.evicted)
            try:
                await self._cache.open()
                yield self
            except Exception as exc:  # noqa: BLE001 - raised below, outside the group that would wrap it
                problem = exc
            finally:
                tasks.cancel_scope.cancel()
        if isinstance(problem, Fault):
            raise ConfigurationError(
                f"CACHE_DIR={self._config.cache_dir} cannot be used: {problem.reason}"
            ) from problem
        if problem is not None:
            raise problem

    async def fetch(
        self,
        url: str,
        credentials: Sequence[Credential] | None = None,
        *,
        folder: Path | None = None,
        filename: str | None = None,
        in_use: Hold,
        progress: Progress | None = None,
        overwrite: bool = False,
    ) -> Fetched:
        """Bring a file here through the cache.

        Args:
            url: Of an input or a model; the cache knows it by its exact text.
            credentials: The request's own; the first whose pattern fits the URL is used.
            folder: Where the file is wanted, made when missing; None leaves it in the cache.
            filename: Its name there, one path segment; None for the name in the cache, which no other URL has.
            in_use: Keeps the file in the cache until it is released.
            progress: Told of the bytes of a download as they come, also of one that another asker began; None to tell
                whom the hold names.
            overwrite: Take the place of another file of this name in the folder.

        Raises:
            InputUnavailable: It cannot be had now.
            InputRefused: It cannot be had at all, not by this request, or the name in the folder is another file's.
        """
        with as_input(url):
            storage, auth = self._choice.choose(url, credentials)
            wanted = Wanted(
                url,
                auth,
                partial(self._download, storage, url, auth, in_use.request_id),
                partial(storage.check_access, url, auth=auth),
                partial(self._report.downloaded, storage.name, in_use.request_id),
            )
            key, record, hit = await self._cache.get(wanted, in_use, progress or in_use.progress)
            path = self._cache.folder.root / record.file
            if folder is not None:
                wish = LinkWish(folder, filename, symlinks=self._config.symlinks, replace=overwrite)
                path = await disk(link, self._cache.folder, key, record, wish)
        if hit:
            self._report.hit(storage.name, in_use.request_id, record, path)
        return Fetched(path, record.size_bytes, record.sha256, record.filename, record.media_type)

    async def read(self, url: str, credentials: Sequence[Credential] | None = None, *, limit_bytes: int) -> bytes:
        """A small file's bytes, past the cache: for requests that come as a reference.

        Raises:
            InputUnavailable: It cannot be had now.
            InputRefused: It cannot be had, or is larger than ``limit_bytes``.
        """
        with as_input(url):
            storage, auth = self._choice.choose(url, credentials)
            part = self._cache.folder.readings / uuid.uuid4().hex
            try:
                with anyio.CancelScope() as scope:

                    def watch(size_bytes: int, total: int | None) -> None:
                        if max(size_bytes, total or 0) > limit_bytes:
                            scope.cancel()

                    downloaded = await storage.download(url, part, auth=auth, progress=watch)
                    if downloaded.size_bytes <= limit_bytes:
                        return await disk(part.read_bytes)
                raise Fault(f"it is larger than the {limit_bytes} bytes allowed here; send less", passing=False)
            finally:
                with anyio.CancelScope(shield=True):
                    await disk(discard, part)

    async def save(self, url: str, path: Path, credentials: Sequence[Credential] | None = None) -> Downloaded:
        """Bring a file to a path, past the cache; it appears there whole or not at all.

        Raises:
            InputUnavailable: It cannot be had now.
            InputRefused: It cannot be had.
        """
        with as_input(url):
            storage, auth = self._choice.choose(url, credentials)
            part = path.with_name(f".{uuid.uuid4().hex}.part")
            try:
                downloaded = await self._download(storage, url, auth, None, part)
                await disk(part.replace, path)
            finally:
                with anyio.CancelScope(shield=True):
                    await disk(discard, part)
        return replace(downloaded, path=path)

    async def put(
        self,
        path: Path,
        target_url: str,
        *,
        media_type: str | None = None,
        credentials: Sequence[Credential] | None = None,
        request_id: str | None = None,
    ) -> str:
        """Store a file and return its URL without secrets. Of several uploads to one URL the last that began wins.

        Args:
            path: A file that does not change meanwhile.
            target_url: What ``target_url`` or ``output_url`` gave.
            media_type: None to go by the file name of the URL.
            credentials: The request's own; OUTPUT_STORE never gets them.
            request_id: For the events.

        Raises:
            UploadFailed: It was not taken; another try of the request may help.
            UploadRefused: It will not be taken: the request's target is wrong or forbidden.
        """
        began = time.monotonic()
        ours = self._choice.in_output_store(target_url)
        backend = "unknown"
        try:
            with as_upload(target_url):
                storage, auth = self._choice.choose(target_url, None if ours else credentials)
                backend = storage.name
                media_type = media_type or media_type_for(public_url(target_url))
                async with self._uploads.turn(target_url):
                    uploaded = await storage.upload(path, target_url, media_type=media_type, auth=auth)
        except UploadFailed as exc:
            self._report.failed("upload_failed", backend, target_url, request_id, exc, time.monotonic() - began)
            if ours and isinstance(exc, UploadRefused):
                # The request is not at fault: an operator's correction lets another try succeed.
                raise UploadFailed(str(exc)) from exc
            raise
        self._report.uploaded(backend, request_id, uploaded, path, time.monotonic() - began)
        return uploaded.url

    def target_url(self, options: PromptOptions, filename: str) -> str | None:
        """The URL under which a request wants a file of this name; None if it names no target.

        It may hold secrets of the request's own ``url_prefix``: for ``put`` only. Any name will do to check a target
        before a prompt runs.

        Raises:
            InvalidRequest: The target makes no URL, leads upwards, or needs what is not configured; with location.
        """
        azure, hub = self._backends.azure_account, self._config.hugging_face.endpoint
        return target_url(options, filename, azure_account=azure, hub=hub)

    def check_target(self, request: PromptRequest) -> None:
        """Refuse, before a prompt runs, a target of which it is known now that it will take nothing.

        Raises:
            InvalidRequest: See ``target_url``; or the credentials do not fit it, or ALLOWED_URLS forbids it.
        """
        url = self.target_url(request, "output.png")
        if url is None:
            return
        try:
            self._choice.choose(url, request.credentials)
        except Fault as exc:
            raise InvalidRequest(f"{public_url(url)} cannot be the upload target: {exc.reason}.") from exc

    def output_url(self, request_id: str, sha256: str, filename: str) -> str:
        """The URL of an output in OUTPUT_STORE, the same for the same bytes.

        Raises:
            UploadFailed: There is no OUTPUT_STORE, or the file name is no plain path segment.
        """
        if not self._config.output_store:
            raise UploadFailed("The outputs do not fit inline and there is no OUTPUT_STORE; set it.")
        with as_upload(self._config.output_store):
            return store_url(self._config.output_store, request_id, sha256, filename)

    def scrubber(self, credentials: Sequence[Credential] | None) -> Scrubber:
        """A scrubber for one request that knows the operator's storage secrets too."""
        return Scrubber(credentials, extra=self._config.secrets())

    async def probe(self, within_s: float = 60) -> AsyncIterator[tuple[str, bool, str]]:
        """Every backend, one after the other: name, whether what is configured works, and a sentence; for ``doctor``.

        Args:
            within_s: For each.
        """
        for storage in self._backends.all:
            works, said = False, f"no answer within {within_s:g} s; see whether the server runs"
            with anyio.move_on_after(within_s):
                try:
                    works, said = True, await storage.probe()
                except PromptError as exc:
                    said = str(exc)
            yield storage.name, works, said

    # --- inside

    async def _download(
        self,
        storage: Storage,
        url: str,
        auth: Auth | None,
        request_id: str | None,
        into: Path,
        progress: Progress | None = None,
    ) -> Downloaded:
        began = time.monotonic()
        try:
            return await storage.download(url, into, auth=auth, progress=progress)
        except PromptError as exc:
            self._report.failed("download_failed", storage.name, url, request_id, exc, time.monotonic() - began)
            raise
