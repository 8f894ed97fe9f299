"""A file while it arrives: what is needed to continue it after a crash, and the proof that it is whole.

Used by carrier, versions; may import its folder alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from app.storage.faults import Fault

__all__ = ["STATE", "PartialFile", "Source", "expected_digests"]

STATE: Final = ".state"
_CHUNK_BYTES: Final = 1024 * 1024
# Of one call, so that a cancelled download does not wait for the digest of gigabytes.
_CATCH_UP_BYTES: Final = 64 * 1024 * 1024
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
# How often the free room is looked at where nobody says how much will come.
_LOOK_EVERY_BYTES: Final = 16 * 1024 * 1024
# Left free on the disk of a download, for everything else that lives there.
_ROOM_LEFT_BYTES: Final = 64 * 1024 * 1024
_DIGEST: Final = re.compile(r"(?:^|,)\s*sha-256=:?([A-Za-z0-9+/=]+):?", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """Which file the bytes belong to, as its server tells.

    Attributes:
        validator: A strong ETag, else Last-Modified: changes when the file does.
        total: The file's size.
    """

    validator: str
    total: int


class PartialFile:
    """The bytes of one download on disk; every method blocks and is called in a thread, one at a time.

    ``look`` finds what an earlier call left, and ``catch_up`` reads it for the digest. After ``start`` or ``resume``
    bytes are written in order; ``finish`` proves and syncs them. A file left by a process that died is continued only
    within the same boot of the machine: a power cut may leave holes in what was not synced.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.path = path
        self.size = 0
        self.source: Source | None = None
        self._state = path.with_name(path.name + STATE)
        self._limit_bytes = limit_bytes
        self._file: BinaryIO | None = None
        self._hashes: dict[str, hashlib._Hash] = {}
        self._hashed = 0
        self._expected: Mapping[str, bytes] = {}
        self._decoder: zlib._Decompress | None = None

    def look(self) -> None:
        """Take up what an earlier call left, if it can be continued."""
        try:
            state = json.loads(self._state.read_text())
            source = Source(str(state["validator"]), int(state["total"]))
            size = self.path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return
        if state.get("boot") == _boot() and 0 < size <= source.total:
            self.source = source
            # The last byte is asked for again where all are here, since nobody serves an empty range.
            self.size = min(size, source.total - 1)
            self._expect({})

    def catch_up(self) -> bool:
        """Take the digest of some more of what is here already; False when all of it is taken."""
        if self._hashed >= self.size:
            return False
        with self.path.open("rb") as file:
            file.seek(self._hashed)
            most = min(self.size, self._hashed + _CATCH_UP_BYTES)
            while self._hashed < most and (chunk := file.read(min(most - self._hashed, _CHUNK_BYTES))):
                self._hash(chunk)
        if self._hashed < most:
            self.forget()  # somebody took bytes away
        return self._hashed < self.size

    def start(self, source: Source | None, digests: Mapping[str, bytes], *, encoded: bool = False) -> None:
        """Begin at the first byte.

        Args:
            source: What a later call may continue; None if it cannot.
            digests: What the source says the content's digests are, by algorithm.
            encoded: The bytes come in gzip or zlib and are stored without.

        Raises:
            Fault: The file is larger than allowed or than the disk's free room.
        """
        self.close()
        self._state.unlink(missing_ok=True)
        total = source.total if source else None
        self.check_size(total)
        self._file = self.path.open("wb", buffering=0)
        self.size = 0
        self.source = source
        self._expect(digests)
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoded else None
        if source and not encoded:
            self._state.write_text(json.dumps({**asdict(source), "boot": _boot()}))

    def resume(self, digests: Mapping[str, bytes]) -> None:
        """Go on behind the bytes that are here, whose digest is taken."""
        self.close()
        self._decoder = None
        self._expected = {**self._expected, **{name: one for name, one in digests.items() if name in self._hashes}}
        self._file = self.path.open("r+b", buffering=0)
        self._file.truncate(self.size)
        self._file.seek(self.size)

    def forget(self) -> None:
        """Give up what is here: the next try begins at the first byte."""
        self.close()
        self._state.unlink(missing_ok=True)
        self.source = None
        self.size = self._hashed = 0

    def check_size(self, total: int | None) -> None:
        """Refuse a file that cannot be stored, before its bytes come.

        Raises:
            Fault: It is larger than allowed, or than the disk's free room.
        """
        if total is None:
            return
        if total > self._limit_bytes:
            raise self._too_large()
        self._need(total - self.size)

    def write(self, chunk: bytes) -> None:
        """Append bytes as they came.

        Raises:
            Fault: They are more than allowed, or the encoding is broken.
        """
        for plain in self._decoded(chunk):
            if self.size + len(plain) > self._limit_bytes:
                raise self._too_large()
            self._check_room(len(plain))
            self._hash(plain)
            view = memoryview(plain)
            while view:
                written = self._open_file.write(view)
                self.size += written
                view = view[written:]

    def _check_room(self, size_bytes: int) -> None:
        """A source that does not say how much will come must not fill the disk to its end."""
        if self.source is None and self.size // _LOOK_EVERY_BYTES != (self.size + size_bytes) // _LOOK_EVERY_BYTES:
            self._need(_LOOK_EVERY_BYTES)

    def _need(self, size_bytes: int) -> None:
        if size_bytes > shutil.disk_usage(self.path.parent).free - _ROOM_LEFT_BYTES:
            raise Fault("the disk has no room for it; make room, or set LRU_CACHE_SIZE_GB below its size", passing=True)

    def discard_if_useless(self) -> None:
        """Remove what no later call can continue; it would only take room."""
        self.close()
        if self.source is None or self._decoder is not None:
            self.path.unlink(missing_ok=True)
            self._state.unlink(missing_ok=True)

    def finish(self) -> str:
        """Sync the file and return its SHA-256 in lower-case hex.

        Raises:
            Fault: It is not what the source said it is.
        """
        if self._decoder is not None and not self._decoder.eof:
            raise Fault("the server ended the transfer before its end; try again later", passing=True)
        if any(self._hashes[name].digest() != digest for name, digest in self._expected.items()):
            self.forget()
            raise Fault("its content does not fit the digest that the server gives; look at the server", passing=True)
        os.fsync(self._open_file.fileno())
        self.close()
        self._state.unlink(missing_ok=True)
        return self._hashes["sha256"].hexdigest()

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("bytes came before start or resume")
        return self._file

    def _expect(self, digests: Mapping[str, bytes]) -> None:
        self._expected = digests
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in {"sha256", *digests}}
        self._hashed = 0

    def _hash(self, chunk: bytes) -> None:
        for one in self._hashes.values():
            one.update(chunk)
        self._hashed += len(chunk)

    def _decoded(self, chunk: bytes) -> Iterable[bytes]:
        if self._decoder is None:
            yield chunk
            return
        try:
            while chunk:
                # In steps of 1 MiB: a small chunk may stand for gigabytes.
                yield self._decoder.decompress(chunk, _CHUNK_BYTES)
                chunk = self._decoder.unconsumed_tail
        except zlib.error as exc:
            raise Fault("its content encoding is broken; look at the server", passing=True) from exc

    def _too_large(self) -> Fault:
        return Fault(
            f"it is larger than {self._limit_bytes / 1024**3:.3g} GiB; raise MAX_DOWNLOAD_GB to allow it", passing=False
        )


def expected_digests(headers: Mapping[str, str], *, whole: bool) -> dict[str, bytes]:
    """Digests of the file that an answer's headers give.

    Args:
        headers: ``Repr-Digest`` (RFC 9530) and ``Digest`` (RFC 3230) are of the whole file, ``Content-MD5`` of the
            answer's body.
        whole: The body is the whole file.
    """
    found: dict[str, str] = {}
    if match := _DIGEST.search(headers.get("Repr-Digest", "") or headers.get("Digest", "")):
        found["sha256"] = match.group(1)
    if whole and (md5 := headers.get("Content-MD5")):
        found["md5"] = md5.strip()
    digests = {}
    for name, text in found.items():
        try:
            digest = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if len(digest) == hashlib.new(name, usedforsecurity=False).digest_size:
            digests[name] = digest
    return digests


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
