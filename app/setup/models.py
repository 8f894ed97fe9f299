"""Model files of the manifest: fetched through the cache, checked, and put where they are wanted.

Used by installation, warmup, app.cli.manifest; may import app.errors, app.storage.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import structlog

from app.errors import PromptError
from app.setup.manifest import Manifest, ModelFile
from app.setup.programs import SetupFailed, step
from app.setup.record import Record
from app.storage.cache_entries import CacheFolder, cache_key
from app.storage.config import StorageConfig
from app.storage.secrets import public_url
from app.storage.stores import Hold, Stores

__all__ = ["ModelFiles", "hold_in_cache", "operator_storage", "place_of"]

_PIECE_BYTES: Final = 16 * 1024 * 1024

log = structlog.get_logger("comfybus.setup")


def operator_storage(config: StorageConfig, *urls: str) -> StorageConfig:
    """Settings for URLs that the operator wrote: the hosts they name may be private, and no glob has to allow them.

    What they redirect to is still judged as for anybody.
    """
    hosts = []
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            hosts.append(f"{host}:{parts.port}" if parts.port else host)
    return replace(config, allowed_private_hosts=(*config.allowed_private_hosts, *hosts), allowed_urls=())


def place_of(local_path: str, home: Path | None, model_dir: Path | None) -> Path:
    """Where a model of the manifest goes: below COMFY_HOME or MODEL_DIR, and nowhere else.

    Symbolic links count as what they are called, for whoever made them decided where they lead.

    Raises:
        SetupFailed: The path leads elsewhere, or is relative and there is no COMFY_HOME.
    """
    if home is None and not os.path.isabs(local_path):  # noqa: PTH117 - of the text, before it is put together
        raise SetupFailed(f"the manifest's path {local_path!r} is relative to COMFY_HOME, which is not set; set it")
    # os.path, since Path keeps "..".
    path = Path(os.path.abspath(os.path.join(home or "/", local_path)))  # noqa: PTH100, PTH118
    roots = [Path(os.path.abspath(root)) for root in (home, model_dir) if root is not None]  # noqa: PTH100
    if not any(path.is_relative_to(root) and path != root for root in roots):
        named = " and ".join(str(root) for root in roots) or "COMFY_HOME and MODEL_DIR, which are not set"
        raise SetupFailed(f"the manifest's path {local_path!r} leads out of {named}; correct it or set MODEL_DIR")
    return path


@dataclass(frozen=True)
class _Wanted:
    item: ModelFile
    path: Path

    @property
    def key(self) -> str:
        return f"model:{self.path}"

    @property
    def source(self) -> str:
        """A digest of the URL, which may hold secrets."""
        return hashlib.sha256(self.item.url.encode()).hexdigest()[:16]


class ModelFiles:
    """Brings the models of one manifest.

    Args:
        stores: Open, with settings of ``operator_storage``.
        record: Of what is done.
        home: COMFY_HOME.
        model_dir: MODEL_DIR.
        hold: Keeps them in the cache, so that none is evicted while this worker lives.
    """

    def __init__(self, stores: Stores, record: Record, home: Path | None, model_dir: Path | None, hold: Hold) -> None:
        self._stores = stores
        self._record = record
        self._home = home
        self._model_dir = model_dir
        self._hold = hold

    def check(self, manifest: Manifest) -> None:
        """Refuse paths before anything is done.

        Raises:
            SetupFailed: One leads out of ComfyUI's folders.
        """
        for item in (*manifest.models.before_start, *manifest.models.after_start):
            place_of(item.local_path, self._home, self._model_dir)

    async def bring(self, item: ModelFile) -> None:
        """Have one file where it is wanted.

        One that the record has is not fetched again while it is there in its size. A file that somebody else put there
        is left as it is: with ``sha256`` it has to be the right one, without it is taken for it.

        Raises:
            SetupFailed: It cannot be had, is not what it should be, or another file is in its place.
        """
        wanted = _Wanted(item, place_of(item.local_path, self._home, self._model_dir))
        digest = item.sha256.lower() if item.sha256 else None
        done, begun = self._record.done(wanted.key), self._record.begun(wanted.key)
        size = await anyio.to_thread.run_sync(_size, wanted.path)
        if done is not None and _is_done(done, wanted, size, digest):
            return
        async with step("model", str(wanted.path), url=public_url(item.url)):
            ours = begun is not None or bool(done and done.get("ours"))
            theirs = size is not None and not ours
            if theirs:
                found = await self._found(wanted, digest)
            else:
                await self._record.begin(wanted.key, source=wanted.source)
                found = await self._fetched(wanted, digest)
            size = await anyio.to_thread.run_sync(_size, wanted.path)
            await self._record.finish(wanted.key, source=wanted.source, sha256=found, size=size, ours=not theirs)

    async def _found(self, wanted: _Wanted, digest: str | None) -> str | None:
        """Judge a file that somebody else put there; returns its digest if that had to be taken."""
        path = wanted.path
        if not await anyio.to_thread.run_sync(path.is_file):
            raise SetupFailed(f"{path} exists and is no file; remove it, or correct the manifest")
        if digest is None:
            log.warning("model is there already and left as it is; its sha256 would have it checked", path=str(path))
            return None
        if (found := await _sha256(path)) != digest:
            raise SetupFailed(f"{path} exists with SHA-256 {found}, not {digest}; remove it, or correct the manifest")
        return found

    async def _fetched(self, wanted: _Wanted, digest: str | None) -> str:
        url, path = wanted.item.url, wanted.path
        try:
            if digest is None or (await self._stores.fetch(url, in_use=self._hold)).sha256 == digest:
                fetched = await self._stores.fetch(
                    url, folder=path.parent, filename=path.name, in_use=self._hold, overwrite=True
                )
                return fetched.sha256
            # The cache knows a URL by its text and may have what was behind it earlier.
            return await self._past_the_cache(url, path, digest)
        except PromptError as exc:
            raise SetupFailed(str(exc)) from exc

    async def _past_the_cache(self, url: str, path: Path, digest: str) -> str:
        part = path.with_name(f".{path.name}.unchecked")
        try:
            await anyio.to_thread.run_sync(lambda: path.parent.mkdir(parents=True, exist_ok=True))
            found = (await self._stores.save(url, part)).sha256
            if found != digest:
                raise SetupFailed(f"{public_url(url)} gives a file with SHA-256 {found}, not {digest}; correct either")
            await anyio.to_thread.run_sync(part.replace, path)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: part.unlink(missing_ok=True))
        return digest


def hold_in_cache(root: Path, urls: Sequence[str], hold: Hold) -> None:
    """Keep what the cache has of these URLs from being evicted while the hold lasts; blocks for a moment."""
    cache = CacheFolder(root)
    for key in {cache_key(url) for url in urls}:
        found = cache.use(key, held=key in hold)
        if found is not None and found[1] is not None:
            hold.add(key, found[1])


def _is_done(facts: Mapping[str, Any], wanted: _Wanted, size: int | None, digest: str | None) -> bool:
    same = facts.get("source") == wanted.source and digest in (None, facts.get("sha256"))
    return same and size is not None and facts.get("size") == size


def _size(path: Path) -> int | None:
    """Size in bytes of what is there; None if nothing is."""
    try:
        return path.stat().st_size
    except OSError:
        return None


async def _sha256(path: Path) -> str:
    """Read piece by piece, so that a cancellation does not wait for gigabytes."""
    digest = hashlib.sha256()
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(_PIECE_BYTES):
            await anyio.to_thread.run_sync(digest.update, piece)
    return digest.hexdigest()
