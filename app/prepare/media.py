"""Makes one media input ready: whatever its text stands for becomes a file that ComfyUI's node finds.

Used by models, prepare, repositories, app.worker.downloads; may import app.errors, app.storage, schemas.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread

from app.errors import InputRefused, InvalidRequest
from app.prepare.archives import Limits, extract_images, is_archive
from app.prepare.holds import Hold
from app.prepare.inputs import Inputs
from app.prepare.media_types import DIRECTORY_ENDINGS, HEAD_BYTES, Unfit, ending_for
from app.prepare.nodes import Kind, Media
from app.prepare.sources import Content, LocalFile, Named, NotASource, Places, Url, read_source
from app.storage.stores import Fetched
from app.storage.stores import Hold as CacheHold
from schemas.credentials import Credential

__all__ = ["Fetch", "MediaInputs"]

_LONGEST_GUESS: Final = 255


class Fetch(Protocol):
    """Brings the content of a URL through the cache: ``Stores.fetch``."""

    async def __call__(
        self,
        url: str,
        credentials: Sequence[Credential] | None = None,
        *,
        folder: Path | None = None,
        filename: str | None = None,
        in_use: CacheHold,
    ) -> Fetched:
        """Fetch into the cache, or link from there into a folder; raises ``InputUnavailable`` or ``InputRefused``."""


@dataclass(frozen=True)
class _Piece:
    """A file at hand with what its source says about it."""

    path: Path
    name: str = ""
    media_type: str = ""
    digest: str | None = None


class MediaInputs:
    """Media inputs of one worker.

    Args:
        inputs: Where prepared inputs go.
        fetch: For URLs.
        places: Where names are looked up.
        limits: For archives, and for the number of files in a directory.
        work_dir: For what is unpacked or decoded for a moment; everything in it is removed again at once.
    """

    def __init__(self, inputs: Inputs, fetch: Fetch, places: Places, *, limits: Limits, work_dir: Path | None) -> None:
        self._inputs = inputs
        self._fetch = fetch
        self._places = places
        self._limits = limits
        self._work_dir = work_dir

    async def prepare(self, text: str, row: Media, credentials: Sequence[Credential], hold: Hold) -> str:
        """One file; returns the new value of the input.

        Raises:
            InvalidRequest: The text is no source, or its content is not what the node reads.
            InputRefused: It will not be there on a second try either.
            InputUnavailable: It is not to be had now.
        """
        self._check_paths(row)
        source = await self._read(text)
        if isinstance(source, Named):
            return self._name(source, row)
        async with self._scratch() as scratch:
            piece = await self._bring(source, credentials, hold, scratch)
            try:
                ending = await anyio.to_thread.run_sync(_ending, piece, row.kind)
            except Unfit as exc:
                if self._may_be_a_name(source, text):
                    return text
                raise _unfit(source, exc) from exc
            return self._value(await self._inputs.put(piece.path, ending, hold, digest=piece.digest), row)

    async def prepare_directory(
        self, value: str | Sequence[str], row: Media, credentials: Sequence[Credential], name: str, hold: Hold
    ) -> str:
        """A directory of images from a list of media, or from one archive of images; raises as ``prepare`` does."""
        self._check_paths(row)
        if isinstance(value, str):
            source = await self._read(value, directory=True)
            if isinstance(source, Named):
                return self._name(source, row)
            texts: Sequence[str] = [value]
        else:
            texts = value
        if len(texts) > self._limits.files:
            raise InvalidRequest(f"The list has {len(texts)} media; at most {self._limits.files} are allowed.")
        async with self._scratch() as scratch:
            files: list[tuple[Path, str]] = []
            for index, text in enumerate(texts):
                place = scratch / str(index)
                await anyio.to_thread.run_sync(place.mkdir)
                files += await self._images(text, row, credentials, hold, place)
            if not files:
                raise InputRefused("There are no images in it.")
            return self._value(await self._inputs.put_directory(files, name, hold), row)

    async def _images(
        self, text: str, row: Media, credentials: Sequence[Credential], hold: Hold, scratch: Path
    ) -> list[tuple[Path, str]]:
        """The image that a text stands for, or all images of an archive, each with its ending."""
        source = await self._read(text)
        if isinstance(source, Named):
            if source.path is None:
                raise InputRefused(
                    f"The file {source.value!r} lies in ComfyUI's folder, which the worker does not share."
                )
            piece = await _copied(source.path, scratch)
        else:
            piece = await self._bring(source, credentials, hold, scratch)
        if await anyio.to_thread.run_sync(is_archive, piece.path):
            unpacked = scratch / "unpacked"
            return await anyio.to_thread.run_sync(extract_images, piece.path, unpacked, self._limits)
        try:
            ending = await anyio.to_thread.run_sync(_ending, piece, row.kind)
        except Unfit as exc:
            raise _unfit(source, exc) from exc
        if ending not in DIRECTORY_ENDINGS:
            raise InputRefused(f"Nodes do not find {ending} files in a directory; send JPEG, PNG, WebP, TIFF or BMP.")
        return [(piece.path, ending)]

    async def _read(self, text: str, *, directory: bool = False) -> Url | Content | Named | LocalFile:
        def read() -> Url | Content | Named | LocalFile:
            return read_source(text, self._places, directory=directory)

        try:
            return await anyio.to_thread.run_sync(read)
        except NotASource as exc:
            raise InvalidRequest(f"The input cannot be used: {exc}.") from exc

    async def _bring(
        self, source: Url | Content | LocalFile, credentials: Sequence[Credential], hold: Hold, scratch: Path
    ) -> _Piece:
        if isinstance(source, Url):
            fetched = await self._fetch(source.url, credentials, in_use=hold.cache)
            name = fetched.filename or unquote(urlsplit(source.url).path).rpartition("/")[2]
            return _Piece(fetched.path, name, fetched.media_type or "", fetched.sha256)
        if isinstance(source, LocalFile):
            return await _copied(source.path, scratch)
        path = scratch / "content"
        await anyio.to_thread.run_sync(path.write_bytes, source.data)
        return _Piece(path, media_type=source.media_type)

    @asynccontextmanager
    async def _scratch(self) -> AsyncIterator[Path]:
        """A folder of its own that is gone at the end, also after a cancellation."""
        path = Path(await anyio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="comfybus-", dir=self._work_dir)))
        try:
            yield path
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(path, ignore_errors=True))

    def _check_paths(self, row: Media) -> None:
        """Refuse before anything is fetched what could not be named afterwards."""
        if row.by_path and self._places.input_dir is None:
            raise InputRefused(_NEEDS_PATH)

    def _name(self, source: Named, row: Media) -> str:
        if not row.by_path:
            return source.value
        if source.path is None:
            raise InputRefused(_NEEDS_PATH)
        return str(source.path.absolute())

    def _value(self, value: str, row: Media) -> str:
        if not row.by_path:
            return value
        path = self._inputs.local_path(value)
        if path is None:
            raise InputRefused(_NEEDS_PATH)
        return str(path)

    def _may_be_a_name(self, source: Url | Content | LocalFile, text: str) -> bool:
        """Whether what could be base64 is rather a name in a folder that is not seen from here."""
        unsure = isinstance(source, Content) and not source.certain
        return unsure and self._places.input_dir is None and len(text) <= _LONGEST_GUESS


_NEEDS_PATH: Final = (
    "This node opens a path, and the worker does not share ComfyUI's folders; set COMFY_HOME or INPUT_DIR, or use the "
    "node's upload variant."
)


async def _copied(path: Path, scratch: Path) -> _Piece:
    """A copy that stays as it is when somebody writes to the file, since prepared inputs may be links."""
    copy = scratch / "copy"
    await anyio.to_thread.run_sync(shutil.copyfile, path, copy)
    return _Piece(copy, path.name)


def _ending(piece: _Piece, kind: Kind) -> str:
    with piece.path.open("rb") as file:
        return ending_for(file.read(HEAD_BYTES), kind, piece.name, piece.media_type)


def _unfit(source: Url | Content | Named | LocalFile, reason: Unfit) -> InvalidRequest | InputRefused:
    """What content that the node cannot read means: the request's fault, or that of the place it came from."""
    if isinstance(source, Content):
        hint = "" if source.certain else ", and there is no file of that name"
        return InvalidRequest(f"The content of the input cannot be used: {reason}{hint}.")
    return InputRefused(f"What the input points to cannot be used: {reason}.")
