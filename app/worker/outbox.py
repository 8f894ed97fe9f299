"""Side channels without waiting: progress and system events are offered synchronously and published in order.

Used by job, system, transfers, worker; may import brokers.

They may be lost and never delay a result: callbacks of the websocket reader put them here and go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import anyio
import structlog

from brokers.base import Bus, Message

__all__ = ["Outbox", "Waiting"]

log = structlog.get_logger("comfybus.outbox")

# Beyond this the broker takes too long; progress is worth nothing when it is old.
LONGEST = 10_000


class Waiting(Protocol):
    """Somebody whose next message the rate limit holds back."""

    def due(self) -> Message | None:
        """The message, if it may go out by now."""

    @property
    def waits(self) -> bool:
        """A message is still held back."""


class Outbox:
    """Publishes what it is offered, in order, from one task."""

    def __init__(self, bus: Bus, tick_s: float) -> None:
        """Publish to ``bus``; ask those who wait every ``tick_s``."""
        self._bus = bus
        self._tick_s = tick_s
        self._queue: deque[Callable[[], Message]] = deque(maxlen=LONGEST)
        self._waiting: dict[Waiting, None] = {}
        self._wake = anyio.Event()

    def offer(self, make: Callable[[], Message]) -> None:
        """Publish soon what ``make`` builds; it is built off the caller's path."""
        self._queue.append(make)
        self._wake.set()

    def await_due(self, waiting: Waiting) -> None:
        """Ask for the message when the rate limit may let it through."""
        self._waiting[waiting] = None
        self._wake.set()

    def forget(self, waiting: Waiting) -> None:
        """Ask no more."""
        self._waiting.pop(waiting, None)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            if self._waiting:
                with anyio.move_on_after(self._tick_s):
                    await self._wake.wait()
            else:
                await self._wake.wait()
            self._wake = anyio.Event()
            await self._publish_all()

    async def _publish_all(self) -> None:
        for waiting in list(self._waiting):
            if (message := waiting.due()) is not None:
                await self._bus.publish(message)
            if not waiting.waits:
                self._waiting.pop(waiting, None)
        while self._queue:
            make = self._queue.popleft()
            try:
                message = make()
            except (ValueError, TypeError):
                # What ComfyUI says may be shaped in ways nobody thought of; a side message is no reason to stop.
                log.exception("side message dropped, it could not be built")
                continue
            await self._bus.publish(message)
