"""Locks on entries of the cache that hold between processes and end with them, however those end.

Used by cache, cache_entries, cache_eviction, stores, app.setup.record; may import its folder alone.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from app.storage.base import Progress

__all__ = ["Hold", "remove_lock", "try_lock"]


def try_lock(path: Path, *, shared: bool) -> int | None:
    """Lock a file without waiting; returns what to close for its end, None while somebody else holds it.

    A lock file may be removed by whoever holds it alone; a lock on a removed file is worth nothing, hence the check.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _is_at(handle, path):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def remove_lock(path: Path, handle: int) -> None:
    """End a lock that is held alone, and remove its file."""
    path.unlink(missing_ok=True)
    os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


class Hold:
    """What one prompt in hand needs from the cache: it is not evicted before ``release``, by no process.

    Args:
        request_id: Whose prompt it is, for the events of transfers made for it; None outside a prompt.
        progress: Told of the bytes of downloads that it waits for.
    """

    def __init__(self, request_id: str | None = None, progress: Progress | None = None) -> None:
        self.request_id = request_id
        self.progress = progress
        self._locks: dict[str, int] = {}

    def telling(self, progress: Progress) -> Hold:
        """The same hold, released with this one, whose downloads are told to somebody else."""
        other = Hold(self.request_id, progress)
        other._locks = self._locks
        return other

    def __contains__(self, key: str) -> bool:
        return key in self._locks

    def add(self, key: str, handle: int) -> None:
        """Take over a shared lock on an entry."""
        if key in self._locks:
            os.close(handle)
        else:
            self._locks[key] = handle

    def drop(self, key: str) -> None:
        """Let go of one entry."""
        if (handle := self._locks.pop(key, None)) is not None:
            os.close(handle)

    def release(self) -> None:
        """Let go of everything; may be called more than once."""
        for key in list(self._locks):
            self.drop(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
