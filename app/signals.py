"""The signals that end a process in order.

Used by app.bridge.app, app.worker.app; may import nothing of ours.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import structlog

__all__ = ["stop_on_signal"]


@asynccontextmanager
async def stop_on_signal(log: structlog.stdlib.BoundLogger) -> AsyncIterator[anyio.Event]:
    """An event that SIGTERM and SIGINT set; a second signal ends the process at once, as the first would have.

    Args:
        log: Where the signal is told.
    """
    stop = anyio.Event()
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

        async def listen() -> None:
            async for received in signals:
                if stop.is_set():
                    signal.signal(received, signal.SIG_DFL)
                    signal.raise_signal(received)
                log.info("asked to end", signal=signal.Signals(received).name)
                stop.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            yield stop
            tasks.cancel_scope.cancel()
