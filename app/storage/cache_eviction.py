"""Keeps the cache within its bounds: what was longest unused goes, never what a prompt needs. Every function blocks.

Used by cache, transfers; may import its folder alone.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.storage.cache_entries import KEY_LENGTH, CacheFolder, Record, tree_size
from app.storage.cache_links import unlink_all
from app.storage.cache_locks import remove_lock, try_lock

__all__ = ["Evicted", "evict", "tidy", "trim_partials"]

# Nobody continues a download that old; and all that may lie around where the cache itself has no limit.
_PARTIAL_KEPT_S: Final = 24 * 3600.0
_PARTIAL_LIMIT_BYTES: Final = 50 * 1024**3


@dataclass(frozen=True)
class Evicted:
    """A file that was removed from the cache."""

    record: Record
    path: Path


def evict(cache: CacheFolder, limit_bytes: int, *, keep: str | None = None) -> list[Evicted]:
    """Remove the longest unused files until the rest fits; what is locked by a prompt of any process stays.

    Args:
        cache: The cache.
        limit_bytes: Bound on whole files; 0 for none.
        keep: A key that is not removed: its asker has not locked it yet.
    """
    if not limit_bytes:
        return []
    entries = []
    for path in _files(cache.records):
        record = cache.find(path.name)
        if record is not None:
            entries.append((_mtime(path), path.name, record))
    total = sum(record.size_bytes for _, _, record in entries)
    gone = []
    for _, key, record in sorted(entries, key=lambda entry: entry[0]):
        if total <= limit_bytes:
            break
        if key != keep and _evict_one(cache, key, record):
            total -= record.size_bytes
            gone.append(Evicted(record, cache.root / record.file))
    return gone


def _evict_one(cache: CacheFolder, key: str, record: Record) -> bool:
    used = cache.use_lock(key)
    handle = try_lock(used, shared=False)
    if handle is None:
        return False
    # The record first: without it the file is not served, wherever a crash falls.
    (cache.records / key).unlink(missing_ok=True)
    unlink_all(cache, key, record)
    (cache.root / record.file).unlink(missing_ok=True)
    remove_lock(used, handle)
    return True


def tidy(cache: CacheFolder, limit_bytes: int) -> None:
    """Remove what processes that died left: files without a record, old or too many partial files, idle locks."""
    for path in _files(cache.root):
        key = path.name[:KEY_LENGTH]
        if len(path.stem) == KEY_LENGTH and not (cache.records / key).exists():
            _while_nobody_downloads(cache, key, [path])
    for path in _files(cache.records):
        if path.name.endswith(".part") and _mtime(path) < time.time() - _PARTIAL_KEPT_S:
            path.unlink(missing_ok=True)
    for path in _files(cache.readings):
        if _mtime(path) < time.time() - _PARTIAL_KEPT_S:
            path.unlink(missing_ok=True)
    trim_partials(cache, limit_bytes)
    for path in _files(cache.locks):
        key = path.stem
        if not (cache.records / key).exists() and not cache.partial(key).exists():
            handle = try_lock(path, shared=False)
            if handle is not None:
                remove_lock(path, handle)


def trim_partials(cache: CacheFolder, limit_bytes: int) -> None:
    """Remove incomplete files that nobody downloads now and that are old, or too large together, the oldest first.

    Args:
        cache: The cache.
        limit_bytes: The cache's limit; incomplete files may take a quarter of it, 50 GiB where it has none.
    """
    budget = limit_bytes // 4 if limit_bytes else _PARTIAL_LIMIT_BYTES
    by_key: dict[str, list[Path]] = {}
    for path in list(cache.partials.iterdir()):
        by_key.setdefault(path.name[:KEY_LENGTH], []).append(path)
    found = [(max(map(_mtime, paths)), sum(map(tree_size, paths)), key) for key, paths in by_key.items()]
    total = sum(size for _, size, _ in found)
    oldest = time.time() - _PARTIAL_KEPT_S
    for used_at, size, key in sorted(found):
        if (total > budget or used_at < oldest) and _while_nobody_downloads(cache, key, []):
            total -= size


def _while_nobody_downloads(cache: CacheFolder, key: str, paths: list[Path]) -> bool:
    """Remove the paths and the partial file of a key, unless it is being downloaded."""
    lock = cache.get_lock(key)
    handle = try_lock(lock, shared=False)
    if handle is None:
        return False
    try:
        if not (cache.records / key).exists():
            for path in paths:
                path.unlink(missing_ok=True)
        cache.discard_partial(key)
    finally:
        remove_lock(lock, handle)
    return True


def _files(folder: Path) -> list[Path]:
    with os.scandir(folder) as found:
        return [Path(entry.path) for entry in found if entry.is_file(follow_symlinks=False)]


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
