"""Gives a file of the cache a name in another folder. Every function blocks.

Used by cache_eviction, stores, targets; may import its folder alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.storage.cache_entries import CacheFolder, Record
from app.storage.faults import Fault
from app.storage.threads import check_cancelled

__all__ = ["LinkWish", "check_filename", "link", "unlink_all"]

_LONGEST_NAME_BYTES: Final = 255
_CHUNK_BYTES: Final = 4 * 1024 * 1024
# Separators of any system, control characters, and halves of characters that no disk takes.
_NOT_IN_A_NAME: Final = re.compile("[/\\\\\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class LinkWish:
    """Where a file of the cache is wanted.

    Attributes:
        folder: Made when missing.
        filename: One path segment; None for the name in the cache, which no other URL has.
        symlinks: A symbolic link will do where a hard link cannot be made; else the file is copied.
        replace: Take the place of another file of this name. Else such a file is an error.
    """

    folder: Path
    filename: str | None
    symlinks: bool
    replace: bool


def check_filename(name: str) -> None:
    """Refuse a name that is no plain path segment.

    Raises:
        Fault: It is none.
    """
    plain = name not in ("", ".", "..") and _NOT_IN_A_NAME.search(name) is None
    if not plain or len(name.encode()) > _LONGEST_NAME_BYTES:
        raise Fault("the file name must be one path segment of at most 255 bytes; correct it", passing=False)


def link(cache: CacheFolder, key: str, record: Record, wish: LinkWish) -> Path:
    """Give the file the wished name; a name that it has already is left as it is.

    Raises:
        Fault: Another file has the name.
    """
    if wish.filename is not None:
        check_filename(wish.filename)
    source = cache.root / record.file
    wish.folder.mkdir(parents=True, exist_ok=True)
    target = wish.folder.resolve() / (wish.filename or record.file)
    note = cache.links / f"{key}.{_path_digest(target)}"
    if _is_it(source, target, note, record):
        return target
    if not wish.replace and os.path.lexists(target):
        raise Fault(f"{target} exists and is another file; remove it or choose another file name", passing=False)
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        kind = _make(source, part, symlinks=wish.symlinks)
        # Noted before it appears: a link that nobody knows of would outlive its eviction.
        note.write_text(json.dumps({"path": str(target), "kind": kind, "mtime_ns": part.lstat().st_mtime_ns}))
        _name(part, target, replace=wish.replace)
    finally:
        part.unlink(missing_ok=True)
    return target


def unlink_all(cache: CacheFolder, key: str, record: Record) -> None:
    """Remove the names that were given to a file, unless another file has taken them since."""
    source = cache.root / record.file
    for note in cache.links.glob(f"{key}.*"):
        try:
            target = Path(json.loads(note.read_text())["path"])
        except (OSError, ValueError, KeyError, TypeError):
            target = None
        if target is not None and _is_it(source, target, note, record, by_content=False):
            target.unlink(missing_ok=True)
        note.unlink(missing_ok=True)


def _is_it(source: Path, target: Path, note: Path, record: Record, *, by_content: bool = True) -> bool:
    try:
        found = target.lstat()
        if target.is_symlink():
            return target.readlink() == source
        if os.path.samestat(found, source.stat()):
            return True
        if found.st_size != record.size_bytes or not target.is_file():
            return False
        if note.exists() and json.loads(note.read_text())["mtime_ns"] == found.st_mtime_ns:
            return True
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return by_content and _sha256(target) == record.sha256


def _make(source: Path, part: Path, *, symlinks: bool) -> str:
    try:
        os.link(source, part)
    except OSError:
        if symlinks:
            part.symlink_to(source)
            return "symbolic"
        _copy(source, part)
        return "copy"
    return "hard"


def _name(part: Path, target: Path, *, replace: bool) -> None:
    if replace:
        part.replace(target)
        return
    try:
        # Unlike a rename this never takes the place of a file that came meanwhile.
        os.link(part, target, follow_symlinks=False)
    except FileExistsError as exc:
        raise Fault(f"{target} exists and is another file; choose another file name", passing=False) from exc
    except OSError:
        part.replace(target)


def _path_digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:32]


def _copy(source: Path, part: Path) -> None:
    with source.open("rb") as reading, part.open("wb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            check_cancelled()
            writing.write(chunk)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            check_cancelled()
            digest.update(chunk)
    return digest.hexdigest()
