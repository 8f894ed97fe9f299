"""A folder of this machine, or of a disk it shares: only where the operator said so by OUTPUT_STORE.

Used by backends, cache_entries; may import schemas.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote, unquote, urlsplit

import anyio
from typing_extensions import override

from app.storage.base import ANY_AUTH, Downloaded, Progress, Storage, Uploaded
from app.storage.faults import Fault, as_input, as_upload
from app.storage.media_types import media_type_for, safe_filename
from app.storage.threads import disk
from app.storage.urls import check_path, check_text
from schemas.credentials import Auth

__all__ = ["FileStorage", "file_path", "file_url"]

_CHUNK_BYTES: Final = 1024 * 1024


def file_url(path: Path) -> str:
    """``file:///…`` of an absolute path, percent-encoded."""
    return f"file://{quote(str(path))}"


def file_path(url: str) -> Path:
    """The path of a ``file:`` URL.

    Raises:
        Fault: It is no absolute path of this machine, or leads upwards.
    """
    check_text(url)
    parts = urlsplit(url)
    path = unquote(parts.path)
    check_path(path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or parts.query or parts.fragment:
        raise Fault("it is no file:///absolute/path; correct it", passing=False)
    return Path(path)


class FileStorage(Storage):
    """See ``Storage``. Files appear under their name whole and synced, or not at all.

    Args:
        root: The folder of OUTPUT_STORE; nothing outside it is read or written, also not by a symbolic link in it.
            None: no file URL is allowed.
        limit_bytes: The largest file that may come in.
    """

    name = "file"
    auth_types = ANY_AUTH

    def __init__(self, root: Path | None, limit_bytes: int) -> None:
        self._root = root
        self._limit_bytes = limit_bytes

    @override
    def accepts(self, url: str) -> bool:
        """Every file URL; which of them are allowed is decided when one is used."""
        return url[:7].lower() == "file://"

    @override
    def uses_operator_credentials(self, url: str) -> bool:
        """Never: the folder itself is the permission."""
        return False

    @override
    async def download(
        self, url: str, into: Path, *, auth: Auth | None = None, progress: Progress | None = None
    ) -> Downloaded:
        """Copy; see ``Storage``."""
        with as_input(url):
            source = await disk(self._inside, file_path(url))
            reading = await disk(_open, source)
            try:
                total = await disk(lambda: os.fstat(reading.fileno()).st_size)
                if total > self._limit_bytes:
                    raise Fault("it is larger than MAX_DOWNLOAD_GB allows; raise that", passing=False)
                size, sha256 = await _copy(reading, into, total, progress)
            finally:
                reading.close()
        return Downloaded(into, size, sha256, safe_filename(source.name), media_type_for(source.name))

    @override
    async def upload(self, path: Path, url: str, *, media_type: str | None, auth: Auth | None = None) -> Uploaded:
        """Copy under another name, sync, rename; see ``Storage``."""
        with as_upload(url):
            target = await disk(self._inside, file_path(url), make_parents=True)
            part = target.with_name(f".{uuid.uuid4().hex}.part")
            reading = await disk(path.open, "rb")
            try:
                size, _ = await _copy(reading, part, None, None)
                await disk(_publish, part, target)
            finally:
                reading.close()
                with anyio.CancelScope(shield=True):
                    await disk(part.unlink, missing_ok=True)
        return Uploaded(file_url(target), size)

    @override
    async def check_access(self, url: str, *, auth: Auth | None = None) -> None:
        """Look whether the file is there; see ``Storage``."""
        with as_input(url):
            source = await disk(self._inside, file_path(url))
            (await disk(_open, source)).close()

    @override
    async def probe(self) -> str:
        """Write a file and remove it; see ``Storage``."""
        if self._root is None:
            return "file URLs are not allowed: OUTPUT_STORE is no file:///dir"
        with as_upload(file_url(self._root)):
            await disk(_try_to_write, self._root)
        return f"{self._root} can be written"

    def _inside(self, path: Path, *, make_parents: bool = False) -> Path:
        """The real path, if it lies in the folder."""
        if self._root is None:
            raise Fault("file URLs are allowed below OUTPUT_STORE only; send the file another way", passing=False)
        if make_parents:
            self._root.mkdir(parents=True, exist_ok=True)
        root = self._root.resolve()
        forbidden = Fault("it lies outside OUTPUT_STORE; only files below that can be used", passing=False)
        # Judged before folders are made, and again where links may have led.
        if not _below(path, root) and not _below(path, self._root):
            raise forbidden
        if make_parents:
            nearest = next(parent for parent in path.parents if parent.exists())
            if not _below(nearest.resolve() / "x", root):
                raise forbidden
            path.parent.mkdir(parents=True, exist_ok=True)
        real = path.parent.resolve() / path.name if make_parents else path.resolve()
        if not _below(real, root):
            raise forbidden
        return real


def _below(path: Path, root: Path) -> bool:
    return path.is_relative_to(root) and path != root


def _open(path: Path) -> BinaryIO:
    if not path.is_file():
        raise Fault("there is no such file; correct the URL", passing=False)
    return path.open("rb")


async def _copy(reading: BinaryIO, into: Path, total: int | None, progress: Progress | None) -> tuple[int, str]:
    """Copy to a synced file; returns its size and digest."""
    writing = await disk(into.open, "wb")
    digest, size = hashlib.sha256(), 0
    try:
        while copied := await disk(_copy_chunk, reading, writing, digest):
            size += copied
            if progress is not None:
                progress(size, total)
        await disk(_sync, writing)
    finally:
        writing.close()
    return size, digest.hexdigest()


def _copy_chunk(reading: BinaryIO, writing: BinaryIO, digest: hashlib._Hash) -> int:
    chunk = reading.read(_CHUNK_BYTES)
    writing.write(chunk)
    digest.update(chunk)
    return len(chunk)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _publish(part: Path, target: Path) -> None:
    if target.is_dir():
        raise Fault("there is a folder of this name; choose another one", passing=False)
    part.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _try_to_write(root: Path) -> None:
    if not root.is_dir():
        # An upload would make it, also where a disk was to be mounted: worth a word.
        raise Fault("there is no such folder; make it, or mount its disk", passing=False)
    part = root / f".{uuid.uuid4().hex}.part"
    try:
        part.write_bytes(b"")
    finally:
        part.unlink(missing_ok=True)
