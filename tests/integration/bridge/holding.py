"""Who holds shares of the bridge's queue and does nothing with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio

from brokers.kafka.webhooks import KafkaWebhookBus
from brokers.nats.webhooks import NatsWebhookBus
from brokers.webhooks import NewDelivery, Share

LANE = "00000000000000a5"

Bus = TypeVar("Bus", NatsWebhookBus, KafkaWebhookBus)


@dataclass
class Holder(Generic[Bus]):
    """A bus, the shares that are its, and those that were taken from it."""

    bus: Bus
    shares: dict[int, Share] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)
    stop: anyio.Event = field(default_factory=anyio.Event)

    async def work(self, share: Share) -> None:
        """Have it until it is to be left."""
        self.shares[share.number] = share
        try:
            await share.leave.wait()
        except anyio.get_cancelled_exc_class():
            self.lost.append(share.number)
            raise
        finally:
            del self.shares[share.number]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Take and hold shares until the block ends."""
        async with self.bus.open(), anyio.create_task_group() as tasks:
            tasks.start_soon(self.bus.serve, self.work, self.stop)
            yield
            self.stop.set()


def new(name: str, body: bytes = b"body") -> NewDelivery:
    """A delivery of the one lane."""
    return NewDelivery(name, LANE, f'{{"id":"{name}"}}'.encode(), body)
