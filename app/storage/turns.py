"""One at a time for each name, in the order of asking.

Used by huggingface, stores; may import nothing of ours.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

__all__ = ["Turns"]


class Turns:
    """Lets those who ask for the same name go one after the other; names nobody asks for are forgotten."""

    def __init__(self) -> None:
        self._queues: dict[str, tuple[anyio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait for one's turn and have it until the block ends."""
        lock, askers = self._queues.get(name, (anyio.Lock(), 0))
        self._queues[name] = lock, askers + 1
        try:
            async with lock:
                yield
        finally:
            lock, askers = self._queues.pop(name)
            if askers > 1:
                self._queues[name] = lock, askers - 1
