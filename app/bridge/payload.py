"""The body of one request as pieces: bytes, and files that are encoded as they are sent, so that memory stays small.

Used by deliver, post, results, app.cli.webhooks; may import nothing of ours.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from anyio.to_thread import run_sync

__all__ = ["Base64File", "Payload"]

# A multiple of three: every piece but the last is encoded without padding.
PIECE_BYTES: Final = 192 * 1024


@dataclass(frozen=True)
class Base64File:
    """A file that stands in the body as base64; it does not change meanwhile."""

    path: Path
    size_bytes: int

    @property
    def encoded_bytes(self) -> int:
        """Its length in the body."""
        return (self.size_bytes + 2) // 3 * 4


@dataclass(frozen=True)
class Payload:
    """What is sent, in order."""

    parts: tuple[bytes | Base64File, ...]

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return sum(len(part) if isinstance(part, bytes) else part.encoded_bytes for part in self.parts)

    @property
    def is_plain(self) -> bool:
        """Whether it lies in memory already."""
        return all(isinstance(part, bytes) for part in self.parts)

    def pieces(self) -> Generator[bytes, None, None]:
        """The bytes; blocks while files are read."""
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
                continue
            with part.path.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield base64.b64encode(piece)

    async def stream(self) -> AsyncIterator[bytes]:
        """The bytes, files read in a thread."""
        pieces = self.pieces()
        try:
            while (piece := await run_sync(next, pieces, None)) is not None:
                yield piece
        finally:
            pieces.close()
