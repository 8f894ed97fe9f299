"""Unpacks images from zip and tar files that nobody vouches for: bounded, flat, plain files only.

Used by media, prepare; may import app.errors.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final

from app.errors import InputRefused
from app.prepare.media_types import DIRECTORY_ENDINGS

__all__ = ["Limits", "extract_images", "is_archive"]

_PIECE_BYTES: Final = 1024 * 1024
# What an archive's own tables may take in memory at once: the directory of a zip with some 100,000 names, all headers
# that stand before one member of a tar.
_ZIP_TABLE_BYTES: Final = 8 * 1024 * 1024
_TAR_TABLE_BYTES: Final = 2 * _PIECE_BYTES
_LOOK_BYTES: Final = 600
_TAR_MAGIC_AT: Final = 257


@dataclass(frozen=True)
class Limits:
    """Bounds on a directory input.

    Attributes:
        files: Images in a directory, and entries in an archive.
        total_bytes: All that is unpacked from one archive, and how far into it is read.
    """

    files: int = 10_000
    total_bytes: int = 4 * 1024**3


class _Damaged(Exception):
    """The archive cannot be read or is not to be trusted; the text says why."""


def is_archive(path: Path) -> bool:
    """Whether the file is a zip or a tar, the latter also compressed by gzip, bzip2 or xz."""
    with path.open("rb") as file:
        if file.read(4) in (b"PK\x03\x04", b"PK\x05\x06"):
            return True
    try:
        with _unpacked(path) as stream:
            return stream.read(_LOOK_BYTES)[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar"
    except _ERRORS:
        return False
    except OSError as exc:
        if exc.errno is not None:
            raise
        return False


def extract_images(path: Path, into: Path, limits: Limits) -> list[tuple[Path, str]]:
    """Unpack the images of an archive, sorted by their names in it; everything else in it is passed over.

    Names from the archive never become names on disk. Blocks; call it in a thread.

    Args:
        path: The archive.
        into: Folder to make for the images.
        limits: How much is too much; counted on the bytes that really come out.

    Returns:
        Paths and their endings.

    Raises:
        InputRefused: It is damaged or encrypted, passes a limit, has links or devices, or names that lead elsewhere.
    """
    into.mkdir(parents=True)
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        found = list(_from_zip(path, into, limits) if zipped else _from_tar(path, into, limits))
    except _Damaged as exc:
        raise InputRefused(f"The archive cannot be used: {exc}.") from exc
    except _ERRORS as exc:
        raise InputRefused(f"The archive is damaged ({type(exc).__name__}).") from exc
    except OSError as exc:
        # Decompressors report bad content by an OSError without a number; the others are the disk's.
        if exc.errno is not None:
            raise
        raise InputRefused("The archive is damaged.") from exc
    return [(image, image.suffix) for _, image in sorted(found)]


_ERRORS: Final = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    struct.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    IndexError,
)


def _from_zip(path: Path, into: Path, limits: Limits) -> Iterator[tuple[str, Path]]:
    with path.open("rb") as file:
        guard = _Guarded(file, path.stat().st_size, _ZIP_TABLE_BYTES)
        budget = _Budget(limits.total_bytes, guard)
        with zipfile.ZipFile(guard) as archive:
            members = archive.infolist()
            if len(members) > limits.files:
                raise _Damaged(f"it has {len(members)} entries, more than {limits.files}")
            for number, member in enumerate(members):
                # The upper half holds the file type of Unix: only plain files, folders, or none said.
                if (member.external_attr >> 16) & 0o170000 not in (0, 0o100000, 0o040000):
                    raise _Damaged("it has links or devices")
                if member.flag_bits & 1:
                    raise _Damaged("it is encrypted")
                ending = _checked(member.filename)
                if ending and not member.is_dir():
                    budget.grant()
                    with archive.open(member) as content:
                        yield member.filename, budget.copy(content, into / f"{number}{ending}")


def _from_tar(path: Path, into: Path, limits: Limits) -> Iterator[tuple[str, Path]]:
    with _unpacked(path) as stream:
        guard = _Guarded(stream, limits.total_bytes, _TAR_TABLE_BYTES)
        budget = _Budget(limits.total_bytes, guard)
        with tarfile.open(fileobj=guard, mode="r:") as archive:
            for number, member in enumerate(archive):
                if number >= limits.files:
                    raise _Damaged(f"it has more than {limits.files} entries")
                if not member.isfile() and not member.isdir():
                    raise _Damaged("it has links or devices")
                ending = _checked(member.name)
                content = archive.extractfile(member) if ending and member.isfile() else None
                if content is not None:
                    yield member.name, budget.copy(content, into / f"{number}{ending}")
                # The list of all members, with all their headers, would grow with the archive.
                archive.members = []  # type: ignore[attr-defined]
                budget.grant()


def _checked(name: str) -> str:
    """The ending of an image's name, or an empty text for what is passed over."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name[:2]:
        raise _Damaged("it has names that lead out of it")
    hidden = any(part.startswith(".") for part in parts.parts) or "__MACOSX" in parts.parts
    ending = parts.suffix.lower()
    return ending if ending in DIRECTORY_ENDINGS and not hidden else ""


class _Guarded(io.RawIOBase):
    """A stream that an archive's headers cannot make read without bound, into memory or beyond an end."""

    def __init__(self, stream: IO[bytes], end: int, allowance_bytes: int) -> None:
        super().__init__()
        self._stream = stream
        self._end = end
        self._allowance_bytes = allowance_bytes
        self._left = allowance_bytes

    def grant(self) -> None:
        """What was read is used up; as much again may be read."""
        self._left = self._allowance_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_END and offset + (self.tell() if whence == io.SEEK_CUR else 0) > self._end:
            raise _Damaged("it is larger than allowed when it is unpacked")
        return self._stream.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        if self._stream.tell() > self._end:
            raise _Damaged("it is larger than allowed when it is unpacked")
        # One byte more than allowed tells a table that ends there from one that goes on.
        content = self._stream.read(self._left + 1 if size is None or size < 0 else min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise _Damaged("its tables are larger than allowed")
        return content


class _Budget:
    """Bytes that may still come out of an archive."""

    def __init__(self, left: int, guard: _Guarded) -> None:
        self._left = left
        self.grant = guard.grant

    def copy(self, content: IO[bytes], target: Path) -> Path:
        with target.open("xb") as file:
            while True:
                self.grant()
                if not (piece := content.read(_PIECE_BYTES)):
                    return target
                self._left -= len(piece)
                if self._left < 0:
                    raise _Damaged("it is larger than allowed when it is unpacked")
                file.write(piece)


_COMPRESSIONS: Final = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a tar, whichever way it is compressed."""
    with path.open("rb") as file:
        head = file.read(2)
    with _COMPRESSIONS.get(head, Path.open)(path, "rb") as stream:  # type: ignore[operator]
        yield stream
