"""Turns events into stored deliveries; an event is settled when all its deliveries are stored.

Used by app.bridge.app; may import brokers.
"""

from __future__ import annotations

import time
from typing import Final

import anyio

from app.bridge.config import BridgeConfig
from app.bridge.metrics import BridgeMetrics
from app.bridge.plan import plan
from app.bridge.record import lane_of
from brokers.webhooks import FedEvent, Feed, NewDelivery, WebhookBus

__all__ = ["Feeding"]

WAIT_S: Final = 5.0


class Feeding:
    """Reads one feed for ever.

    An event whose bridge is killed comes again, to this bridge or another one; its deliveries have the same ids, and
    the queue drops what it has.
    """

    def __init__(
        self,
        bus: WebhookBus,
        config: BridgeConfig,
        metrics: BridgeMetrics,
    ) -> None:
        self._bus = bus
        self._config = config
        self._metrics = metrics

    async def run(self, feed: Feed, stop: anyio.Event) -> None:
        """Read until asked to stop; an event in hand is finished."""
        async with anyio.create_task_group() as tasks:
            for _ in range(self._bus.readers(feed)):
                tasks.start_soon(self._read, feed, stop)

    async def _read(self, feed: Feed, stop: anyio.Event) -> None:
        while not stop.is_set():
            event = await self._take(feed, stop)
            if event is None:
                continue
            await event.done(self._deliveries(event))
            self._metrics.events.labels(feed=feed.value).inc()

    async def _take(self, feed: Feed, stop: anyio.Event) -> FedEvent | None:
        """The next event, unless asked to stop first."""
        found: FedEvent | None = None
        async with anyio.create_task_group() as tasks:

            async def wait_for_stop() -> None:
                await stop.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(wait_for_stop)
            found = await self._bus.take(feed, WAIT_S)
            tasks.cancel_scope.cancel()
        return found

    def _deliveries(self, event: FedEvent) -> list[NewDelivery]:
        planned = plan(event.body, event.headers, event.origin, self._config, int(time.time() * 1000))
        return [NewDelivery(one.record.id, lane_of(one.record.url), one.record.encode(), one.body) for one in planned]
