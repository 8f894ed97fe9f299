"""The cache before all downloads: one download for many askers, whole files only, use noted, bounds kept.

Used by stores; may import app.errors, schemas.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import structlog

from app.errors import InputRefused, InputUnavailable, PromptError
from app.storage.base import Downloaded, Progress
from app.storage.cache_entries import CacheFolder, Record, cache_key
from app.storage.cache_eviction import Evicted, evict, tidy, trim_partials
from app.storage.cache_locks import Hold, remove_lock, try_lock
from app.storage.faults import Fault
from app.storage.secrets import public_url
from app.storage.threads import disk
from schemas.credentials import Auth

__all__ = ["Cache", "Wanted"]

# How often an entry may vanish between its download and its use before the cache is called too small.
_MOST_ROUNDS: Final = 20
_LOCK_PAUSE_S: Final = 0.1
_LONGEST_LOCK_PAUSE_S: Final = 1.0
# Longer than any wait within a download that moves, its last sync and digest included.
_LOCK_SILENCE_S: Final = 900.0

log = structlog.get_logger("comfybus.storage")


@dataclass(frozen=True)
class Wanted:
    """How a URL is fetched, and how its access is checked, for one asker.

    Attributes:
        url: Exactly as the request has it.
        auth: The request's own credentials for it.
        download: Fetches it to a path.
        check_access: Raises unless this asker may have it.
        stored: Told when the file is in the cache: where, and after how many seconds.
    """

    url: str
    auth: Auth | None
    download: Callable[[Path, Progress], Awaitable[Downloaded]]
    check_access: Callable[[], Awaitable[None]]
    stored: Callable[[Record, Path, float], None]


@dataclass(eq=False)
class _Running:
    """A download that runs, and who waits for it."""

    auth: Auth | None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    askers: int = 0
    listeners: list[Progress] = field(default_factory=list)
    error: Exception | None = None
    done: anyio.Event = field(default_factory=anyio.Event)

    def tell(self, size_bytes: int, total: int | None) -> None:
        for listener in self.listeners:
            listener(size_bytes, total)


class Cache:
    """Files by URL, shared by all prompts of this process and by all processes with the same CACHE_DIR.

    Args:
        root: CACHE_DIR.
        limit_bytes: LRU_CACHE_SIZE_GB; 0 for no limit.
        tasks: Where downloads run: they outlive the asker that began them as long as another waits.
        on_evicted: Told of every file that was removed for room.
    """

    def __init__(
        self,
        root: Path,
        limit_bytes: int,
        tasks: anyio.abc.TaskGroup,
        on_evicted: Callable[[Evicted], None],
    ) -> None:
        self.folder = CacheFolder(root)
        self._limit_bytes = limit_bytes
        self._tasks = tasks
        self._on_evicted = on_evicted
        self._running: dict[str, _Running] = {}

    async def open(self) -> None:
        """Make the folders, and tidy up what earlier processes left.

        Raises:
            Fault: CACHE_DIR cannot be used.
        """
        await disk(self.folder.create)
        await disk(tidy, self.folder, self._limit_bytes)
        await self._keep_bound(None)

    async def get(self, wanted: Wanted, hold: Hold, progress: Progress | None = None) -> tuple[str, Record, bool]:
        """The entry of a URL: key, record, and whether it was there already. It stays until the hold is released.

        Raises:
            InputUnavailable: It cannot be fetched now.
            InputRefused: It cannot be had, or not by this asker.
            Fault: The disk does not do it.
        """
        key = cache_key(wanted.url)
        hit, proven = True, False
        for _ in range(_MOST_ROUNDS):
            found = await disk(self.folder.use, key, held=key in hold)
            if found is not None:
                record, handle = found
                if handle is not None:
                    hold.add(key, handle)
                if record.private and not proven:
                    await self._check(wanted, key, hold)
                return key, record, hit
            hit, proven = False, await self._downloaded(key, wanted, progress)
        raise InputUnavailable(
            f"{public_url(wanted.url)} was evicted before it could be used; raise LRU_CACHE_SIZE_GB."
        )

    async def _check(self, wanted: Wanted, key: str, hold: Hold) -> None:
        try:
            await wanted.check_access()
        except PromptError:
            hold.drop(key)
            raise

    async def _downloaded(self, key: str, wanted: Wanted, progress: Progress | None) -> bool:
        """Wait for the download of a URL, started if none runs; True if it was made with this asker's credentials.

        Raises:
            InputUnavailable, InputRefused: The download failed; a failure with other credentials is not passed on.
        """
        running = self._running.get(key)
        if running is not None and running.scope.cancel_called:
            await running.done.wait()
            return False
        if running is None:
            running = self._running[key] = _Running(wanted.auth)
            self._tasks.start_soon(self._run, key, wanted, running)
        mine = running.auth == wanted.auth
        running.askers += 1
        if progress is not None:
            running.listeners.append(progress)
        try:
            await running.done.wait()
        finally:
            running.askers -= 1
            if progress is not None:
                running.listeners.remove(progress)
            if not running.askers:
                running.scope.cancel()
        if running.error is not None and mine:
            raise _again(running.error)
        return mine and running.error is None

    async def _run(self, key: str, wanted: Wanted, running: _Running) -> None:
        try:
            with running.scope:
                await self._fetch(key, wanted, running)
        except (PromptError, Fault) as exc:
            running.error = exc
        except Exception as exc:
            log.exception("download failed by a fault of ours", url=public_url(wanted.url))
            running.error = exc
        finally:
            del self._running[key]
            running.done.set()
        await self._keep_bound(key)

    async def _fetch(self, key: str, wanted: Wanted, running: _Running) -> None:
        lock = self.folder.get_lock(key)
        handle = await self._turn(key, lock)
        try:
            if await disk(self.folder.find, key) is not None:
                return
            began = time.monotonic()
            try:
                downloaded = await wanted.download(self.folder.partial(key), running.tell)
            except InputRefused:
                await disk(self.folder.discard_partial, key)
                raise
            record = await disk(self.folder.publish, key, wanted.url, downloaded, private=wanted.auth is not None)
            wanted.stored(record, self.folder.root / record.file, time.monotonic() - began)
        finally:
            with anyio.CancelScope(shield=True):
                await disk(remove_lock, lock, handle)

    async def _turn(self, key: str, lock: Path) -> int:
        """Wait while another process downloads the file; its end, however it ends, gives the lock.

        Raises:
            InputUnavailable: The other process hangs: nothing arrives any more.
        """
        pause_s, size, since = _LOCK_PAUSE_S, -1, time.monotonic()
        while (handle := await disk(try_lock, lock, shared=False)) is None:
            if (found := await disk(self.folder.partial_size, key)) != size:
                size, since = found, time.monotonic()
            if time.monotonic() - since > _LOCK_SILENCE_S:
                raise InputUnavailable("Another worker downloads the same file and hangs; end that worker.")
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_LOCK_PAUSE_S)
        return handle

    async def _keep_bound(self, keep: str | None) -> None:
        try:
            gone = await disk(evict, self.folder, self._limit_bytes, keep=keep)
            await disk(trim_partials, self.folder, self._limit_bytes)
        except Fault as exc:
            log.warning("cache not brought within its limit", reason=exc.reason)
            return
        except Exception:
            log.exception("cache not brought within its limit by a fault of ours")
            return
        for evicted in gone:
            self._on_evicted(evicted)


def _again(error: Exception) -> Exception:
    """A failure for one more asker, who may add to it."""
    if not isinstance(error, PromptError | Fault):
        return InputUnavailable("the download failed by a fault of ours; the worker's log has it")
    if isinstance(error, Fault):
        return Fault(error.reason, passing=error.passing)
    copied = type(error)(str(error), location=error.location)
    copied.__cause__ = error.__cause__
    return copied
