"""Reads the partitions of the shares that are ours.

Used by bus; may import brokers, brokers.kafka.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from brokers.base import BrokerError
from brokers.kafka.clients import check_consumer
from brokers.kafka.errors import doing
from brokers.kafka.library import AIOKafkaConsumer, TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.reading import bounds, reader
from brokers.kafka.webhooks.share import KafkaShare

__all__ = ["QueueReader"]

READING = "read webhook deliveries"
POLL_MS = 200
PAUSE_S = 0.5
LOOK_S = 0.02

Tell = Callable[[BrokerError | None], None]


class QueueReader:
    """One consumer for all shares of this bridge; each gets the records of its partition in order, for ever."""

    def __init__(self, link: Link, tell: Tell) -> None:
        self._link = link
        self._tell = tell
        self._shares: dict[TopicPartition, KafkaShare] = {}
        self._is_stale = False

    def attach(self, share: KafkaShare) -> None:
        """Read its partition from the beginning."""
        self._shares[share.source] = share
        self._is_stale = True

    def detach(self, share: KafkaShare) -> None:
        """Read it no longer."""
        if self._shares.get(share.source) is share:
            del self._shares[share.source]
            self._is_stale = True

    async def run(self) -> None:
        """Read until cancelled, through outages."""
        while True:
            try:
                async with reader(self._link, READING) as consumer:
                    self._is_stale = True
                    await self._read(consumer)
            except BrokerError as exc:
                self._tell(exc)
            await anyio.sleep(PAUSE_S)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            if self._is_stale:
                await self._assign(consumer)
            if not self._shares:
                await anyio.sleep(LOOK_S)
                continue
            with doing(READING):
                check_consumer(consumer)
                found = await consumer.getmany(timeout_ms=POLL_MS)
                self._tell(None)
                for source, records in found.items():
                    if (share := self._shares.get(source)) is not None:
                        for record in records:
                            share.receive(record)
                for source, share in self._shares.items():
                    if source in consumer.assignment():
                        share.position = max(share.position, await consumer.position(source))

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        self._is_stale = False
        shares = dict(self._shares)
        with doing(READING):
            begin, _ = await bounds(consumer, shares)
            for source, share in shares.items():
                consumer.seek(source, max(share.position, begin[source]))
            consumer.resume(*shares)
