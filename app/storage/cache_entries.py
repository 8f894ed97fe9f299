"""The cache on disk: whole files, a record of each, what is still incomplete. Every function blocks.

Used by cache, cache_eviction, cache_links, stores, transfers, app.setup; may import its folder alone.

::

    CACHE_DIR/<key><ending>     a whole file; key: 32 characters of base64url(SHA-256(URL))
    CACHE_DIR/records/<key>     what is known of it; its time of modification is the time of its last use
    CACHE_DIR/links/<key>.<p>   a name that was given to it elsewhere; p: digest of that path
    CACHE_DIR/partial/<key>     a file that is not whole
    CACHE_DIR/reading/<random>  a file that is read once and not kept
    CACHE_DIR/locks/<key>.get   held by who downloads it
    CACHE_DIR/locks/<key>.use   held, shared, by prompts that need it
"""

from __future__ import annotations

import base64
import glob
import hashlib
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from app.storage.base import Downloaded
from app.storage.cache_locks import try_lock
from app.storage.file import sync_folder
from app.storage.media_types import ending_for, ending_of_name, ending_of_url
from app.storage.secrets import public_url

__all__ = ["KEY_LENGTH", "CacheFolder", "Record", "cache_key", "discard", "tree_size"]

KEY_LENGTH: Final = 32


def cache_key(url: str) -> str:
    """The first 32 characters of base64url(SHA-256) of the URL exactly as it is given."""
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest).decode()[:KEY_LENGTH]


@dataclass(frozen=True)
class Record:
    """What is known of a whole file in the cache.

    Attributes:
        file: Its name in CACHE_DIR.
        size_bytes: Its size; a file of another size is not served.
        sha256: Its digest in lower-case hex.
        url: Where it is from, without secrets.
        filename: The name its source gave it.
        media_type: The type its source gave it.
        private: It was fetched with a request's own credentials; others have to show theirs.
    """

    file: str
    size_bytes: int
    sha256: str
    url: str
    filename: str | None
    media_type: str | None
    private: bool


class CacheFolder:
    """CACHE_DIR and what lies where in it."""

    def __init__(self, root: Path) -> None:
        # Symbolic links in other folders have to lead here from anywhere.
        self.root = root = root.absolute()
        self.records = root / "records"
        self.links = root / "links"
        self.partials = root / "partial"
        self.locks = root / "locks"
        self.readings = root / "reading"

    def create(self) -> None:
        """Make the folders that are missing."""
        for folder in (self.root, self.records, self.links, self.partials, self.locks, self.readings):
            folder.mkdir(parents=True, exist_ok=True)

    def partial(self, key: str) -> Path:
        """Where a file is while it is incomplete."""
        return self.partials / key

    def get_lock(self, key: str) -> Path:
        """The lock of who downloads it."""
        return self.locks / f"{key}.get"

    def use_lock(self, key: str) -> Path:
        """The lock of those who need it."""
        return self.locks / f"{key}.use"

    def find(self, key: str) -> Record | None:
        """The record of a whole file, if there is one and the file is what it says; no folder is listed."""
        try:
            record = Record(**json.loads((self.records / key).read_bytes()))
            return record if (self.root / record.file).stat().st_size == record.size_bytes else None
        except (OSError, ValueError, TypeError):
            return None

    def use(self, key: str, *, held: bool) -> tuple[Record, int | None] | None:
        """Find a whole file, lock it for a prompt and note the use; None if there is none.

        Args:
            key: Of the URL.
            held: The prompt has the lock already.
        """
        if not (self.records / key).exists():
            return None
        handle = None if held else try_lock(self.use_lock(key), shared=True)
        if handle is None and not held:
            return None  # it is being evicted
        record = self.find(key)
        if record is None:
            if handle is not None:
                os.close(handle)
            return None
        os.utime(self.records / key)
        return record, handle

    def publish(self, key: str, url: str, downloaded: Downloaded, *, private: bool) -> Record:
        """Make a whole, synced partial file an entry; a crash between the steps leaves no entry."""
        ending = ending_of_url(url) or ending_of_name(downloaded.filename) or ending_for(downloaded.media_type)
        record = Record(
            file=f"{key}{ending}",
            size_bytes=downloaded.size_bytes,
            sha256=downloaded.sha256,
            url=public_url(url),
            filename=downloaded.filename,
            media_type=downloaded.media_type,
            private=private,
        )
        (self.records / key).unlink(missing_ok=True)
        downloaded.path.replace(self.root / record.file)
        sync_folder(self.root)
        part = self.records / f".{uuid.uuid4().hex}.part"
        with part.open("w") as file:
            file.write(json.dumps(asdict(record)))
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.records / key)
        sync_folder(self.records)
        return record

    def partial_size(self, key: str) -> int:
        """Bytes of an incomplete file so far."""
        return sum(map(tree_size, self.partials.glob(f"{key}*")))

    def discard_partial(self, key: str) -> None:
        """Remove what there is of an incomplete file."""
        discard(self.partial(key))


def discard(path: Path) -> None:
    """Remove an incomplete file, and what its download keeps beside it under names that begin with its own."""
    for one in (path, *path.parent.glob(f"{glob.escape(path.name)}.*")):
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one, ignore_errors=True)
        else:
            one.unlink(missing_ok=True)


def tree_size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; what vanishes meanwhile counts nothing."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    return sum(tree_size(child) for child in path.iterdir())
