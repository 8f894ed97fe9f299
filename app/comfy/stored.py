"""A file that arrives in pieces: written and hashed off the event loop, whole or not at all.

Used by client; may import nothing of ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import anyio
import anyio.to_thread

__all__ = ["Stored", "store"]


@dataclass(frozen=True)
class Stored:
    """A file that arrived: its size and the lower-case hex SHA-256 of its bytes."""

    size_bytes: int
    sha256: str


async def store(chunks: AsyncIterator[bytes], into: Path) -> Stored:
    """Write the pieces to a file, which is overwritten; after any failure nothing is left of it.

    Raises:
        OSError: The disk took no more. What the pieces raise passes unchanged.
    """
    digest, size = hashlib.sha256(), 0
    file = await anyio.to_thread.run_sync(into.open, "wb")

    def append(chunk: bytes) -> None:
        file.write(chunk)
        digest.update(chunk)

    try:
        async for chunk in chunks:
            await anyio.to_thread.run_sync(append, chunk)
            size += len(chunk)
        await anyio.to_thread.run_sync(file.close)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_discard, file, into)
        raise
    return Stored(size, digest.hexdigest())


def _discard(file: IO[bytes], path: Path) -> None:
    with suppress(OSError):
        file.close()
    path.unlink(missing_ok=True)
