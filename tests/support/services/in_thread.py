"""An aiohttp application on loopback, in a thread with an event loop of its own, for tests of any loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")

START_WITHIN_S = 10.0


class LoopThread:
    """An event loop in a thread; what runs there is asked for from outside."""

    def __init__(self) -> None:
        self._kept: set[asyncio.Task[Any] | None] = set()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T], within_s: float = START_WITHIN_S) -> T:
        """Run a coroutine there and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(within_s)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Keep the running task: one that waits for a peer is known to nobody else, and may be collected as garbage."""
        task = asyncio.current_task()
        self._kept.add(task)
        try:
            yield
        finally:
            self._kept.discard(task)

    def end(self) -> None:
        """End what still runs there, and the loop."""
        self.call(_cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(START_WITHIN_S)
        self.loop.close()


async def _cancel_all() -> None:
    """Until none is left: a connection that came in a moment ago becomes a task only now."""
    while others := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
        for task in others:
            task.cancel()
        await asyncio.wait(others)
    # Sockets are closed some rounds after their transports.
    for _ in range(10):
        await asyncio.sleep(0)


@contextmanager
def serve(application: web.Application) -> Iterator[int]:
    """Serve until the block ends; yields the port."""
    thread = LoopThread()
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    try:
        yield thread.call(start())
    finally:
        thread.call(runner.cleanup())
        thread.end()
