"""Prepared inputs below ``INPUT_DIR/comfybus``: named by their content, kept while needed and a small while after.

Used by media, prepare, uploads; may import app.errors.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import anyio
import anyio.to_thread
import structlog

from app.errors import InputUnavailable
from app.prepare.holds import Hold, Holds
from app.prepare.input_files import (
    PART,
    copy_all,
    file_digest,
    link_or_copy,
    list_digest,
    remove,
    rename,
    scan,
    size_of,
    touch,
)

__all__ = ["FOLDER", "Inputs", "SharedInputs"]

FOLDER: Final = "comfybus"
_log = structlog.get_logger(__name__)


class Inputs(Protocol):
    """Where prepared inputs go so that ComfyUI's nodes find them.

    ``put`` and ``put_directory`` return the value for a node's input. Equal content gets an equal name, so that
    ComfyUI's cache can reuse what it computed from it. Both raise ``InputUnavailable`` when the place takes no file.
    """

    def hold(self, hold: Hold) -> AbstractAsyncContextManager[None]:
        """A block within which everything put with the hold stays in place."""

    async def put(self, source: Path, ending: str, hold: Hold, *, digest: str | None = None) -> str:
        """Make one file available.

        Args:
            source: A file that does not change; it is not moved, and may be removed afterwards.
            ending: Ending of the new name, with its dot; may be empty.
            hold: Whose prompt needs it.
            digest: SHA-256 of the file in lower-case hex, where it is known.
        """

    async def put_directory(self, sources: Sequence[tuple[Path, str]], name: str, hold: Hold) -> str:
        """Make a directory of files available that sort by name in the order given.

        Args:
            sources: Files that do not change, each with the ending for its name.
            name: First part of the directory's name: one path segment.
            hold: Whose prompt needs it.
        """

    def forget(self) -> None:
        """ComfyUI has started anew; what it was sent may be gone."""

    def local_path(self, value: str) -> Path | None:
        """The absolute path of what ``put`` returned, or None where ComfyUI's folders are not shared."""


@dataclass
class _Entry:
    size_bytes: int
    used_at: float


class SharedInputs:
    """Prepared inputs in an input folder that ComfyUI and this process share.

    A name appears only when its file is whole. What no hold needs is removed when it was not used for ``keep_s``, and
    the longest unused first while all that is not needed is larger than ``limit_bytes``. What an earlier process left
    counts in. A worker does not see the holds of another: where several share one input folder, the bound has to be
    larger than the inputs of all their prompts in hand.

    Args:
        input_dir: ComfyUI's input folder.
        limit_bytes: Bound on inputs that are not needed; 0 removes each when the last hold on it ends.
        keep_s: Seconds that an input is kept at most when it is not needed.
        now: Seconds since 1970.
    """

    def __init__(
        self, input_dir: Path, *, limit_bytes: int, keep_s: float, now: Callable[[], float] = time.time
    ) -> None:
        self._root = input_dir / FOLDER
        self._limit_bytes = limit_bytes
        self._keep_s = keep_s
        self._now = now
        self._holds = Holds()
        self._entries: dict[str, _Entry] | None = None
        # Held for renames and removals, never while content is read or written.
        self._lock = anyio.Lock()

    @asynccontextmanager
    async def hold(self, hold: Hold) -> AsyncIterator[None]:
        """See ``Inputs.hold``; at its end what passes the bound is removed."""
        try:
            yield
        finally:
            self._holds.release(hold)
            await self.sweep()

    async def put(self, source: Path, ending: str, hold: Hold, *, digest: str | None = None) -> str:
        """See ``Inputs.put``."""
        with _translated():
            name = f"{digest or await anyio.to_thread.run_sync(file_digest, source)}{ending}"
            if not await self._reuse(name, hold):
                await self._publish(partial(link_or_copy, source), name, hold)
        return f"{FOLDER}/{name}"

    async def put_directory(self, sources: Sequence[tuple[Path, str]], name: str, hold: Hold) -> str:
        """See ``Inputs.put_directory``; the directory is ``<name>/<digest of its content>``."""
        with _translated():
            name = f"{name}/{(await anyio.to_thread.run_sync(list_digest, sources))[:16]}"
            if not await self._reuse(name, hold):
                await self._publish(partial(copy_all, sources), name, hold)
        return f"{FOLDER}/{name}"

    def forget(self) -> None:
        """See ``Inputs.forget``; files that are shared stay."""

    def local_path(self, value: str) -> Path | None:
        """See ``Inputs.local_path``."""
        return (self._root.parent / value).absolute()

    async def sweep(self) -> None:
        """Remove what no prompt in hand needs and what passes the bound; trouble with the disk is logged."""
        async with self._lock:
            try:
                entries = await self._known()
                victims = self._beyond_the_bound(entries)
                if not victims:
                    return
                await anyio.to_thread.run_sync(remove, [self._root / name for name in victims], self._root)
                # After it: a cancellation before would leave files that nobody counts.
                for name in victims:
                    del entries[name]
            except OSError as exc:
                _log.warning("prepared inputs could not be removed", folder=str(self._root), reason=str(exc))
                self._entries = None

    def _beyond_the_bound(self, entries: dict[str, _Entry]) -> list[str]:
        idle = sorted((entry.used_at, name) for name, entry in entries.items() if name not in self._holds)
        total = sum(entries[name].size_bytes for _, name in idle)
        too_old = self._now() - self._keep_s
        victims = []
        for used_at, name in idle:
            if total <= self._limit_bytes and used_at > too_old and self._limit_bytes:
                break
            victims.append(name)
            total -= entries[name].size_bytes
        return victims

    async def _known(self) -> dict[str, _Entry]:
        if self._entries is None:
            found = await anyio.to_thread.run_sync(scan, self._root, self._now())
            self._entries = {name: _Entry(size, used_at) for name, size, used_at in found}
        return self._entries

    async def _reuse(self, name: str, hold: Hold) -> bool:
        """Hold the name if it is there."""
        async with self._lock:
            entries = await self._known()
            path = self._root / name
            if not await anyio.to_thread.run_sync(touch, path, self._now()):
                return False
            self._holds.take(hold, name)
            entries[name] = _Entry(await anyio.to_thread.run_sync(size_of, path), self._now())
            return True

    async def _publish(self, write: Callable[[Path], None], name: str, hold: Hold) -> None:
        """Write a part and give it its name; who comes second with equal content takes what is there."""
        part = self._root / f".{uuid.uuid4().hex}{PART}"
        try:
            await anyio.to_thread.run_sync(lambda: self._root.mkdir(parents=True, exist_ok=True))
            await anyio.to_thread.run_sync(write, part)
            size_bytes = await anyio.to_thread.run_sync(size_of, part)
            async with self._lock:
                entries = await self._known()
                self._holds.take(hold, name)
                # Before it appears: a cancellation after that would leave a file that nobody counts.
                entries[name] = _Entry(size_bytes, self._now())
                await anyio.to_thread.run_sync(rename, part, self._root / name)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(remove, [part], self._root)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise InputUnavailable(
            f"A prepared input cannot be written below INPUT_DIR ({exc.strerror}); "
            "see that the disk has room and the folder may be written."
        ) from exc
