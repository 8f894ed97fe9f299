"""Whether a delivery was taken away from its holder: set by the broker side, heeded by whoever works on it.

Used by base, app.worker.pipeline, brokers.kafka.delivery, brokers.nats.delivery; may import nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

__all__ = ["Lost"]


class Lost:
    """An event, set once, that can also call: a task that only waits for it would cost every delivery its start."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._call: Callable[[], None] | None = None

    def set(self) -> None:
        """The delivery was taken away; whoever asked to be called is called now, the first time only."""
        if not self._event.is_set():
            self._event.set()
            if self._call is not None:
                self._call()

    def is_set(self) -> bool:
        """Whether it was taken away."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Wait until it is taken away, which it may never be."""
        await self._event.wait()

    def when_set(self, call: Callable[[], None] | None) -> None:
        """Have this called as soon as it is set, at once if it is; one call at a time, None for no more."""
        self._call = call
        if call is not None and self._event.is_set():
            call()
