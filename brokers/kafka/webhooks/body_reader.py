"""Reads bodies one by one by their place, and tells where partitions end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from brokers.base import BrokerError
from brokers.kafka.errors import doing
from brokers.kafka.library import AIOKafkaConsumer, TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.reading import read_between
from brokers.kafka.webhooks.consumer import small_reader
from brokers.kafka.webhooks.layout import Place, WebhookTopics

__all__ = ["BodyReader"]

READING = "read the body of a webhook"
ANSWER_WITHIN_S = 5.0
PAUSE_S = 0.2

T = TypeVar("T")


class BodyReader:
    """One question at a time, by a client of its own that is replaced when it fails."""

    def __init__(self, link: Link, own: WebhookTopics, tell: Callable[[BrokerError | None], None]) -> None:
        self._link = link
        self._own = own
        self._tell = tell
        self._lock = anyio.Lock()
        self._consumer: AIOKafkaConsumer | None = None
        self._ready = anyio.Event()
        self._broken = anyio.Event()

    async def run(self, partitions: int) -> None:
        """Keep a client until cancelled.

        Args:
            partitions: Of the topic of bodies.
        """
        sources = [TopicPartition(self._own.bodies, number) for number in range(partitions)]
        while True:
            try:
                async with small_reader(self._link, READING) as consumer:
                    for topic in (self._own.bodies, self._own.queue):
                        consumer._client.add_topic(topic)  # noqa: SLF001 - else it learns of it by a failed question
                    consumer.assign(sources)
                    consumer.pause(*sources)
                    for source in sources:
                        consumer.seek(source, 0)
                    self._broken, self._consumer = anyio.Event(), consumer
                    self._ready.set()
                    await self._broken.wait()
            except BrokerError as exc:
                self._tell(exc)
            finally:
                self._consumer, self._ready = None, anyio.Event()
            await anyio.sleep(PAUSE_S)

    async def read(self, place: Place, key: str) -> bytes | None:
        """The record at this place, if it has this key; waits through outages."""
        source = TopicPartition(self._own.bodies, place.partition)

        async def attempt(consumer: AIOKafkaConsumer) -> bytes | None:
            end = (await consumer.end_offsets([source]))[source]
            if place.offset >= end:
                return None
            async for record in read_between(consumer, {source: place.offset}, {source: place.offset + 1}):
                if record.offset == place.offset and record.key == key.encode():
                    value: bytes | None = record.value
                    return value
            return None

        return await self._insist(attempt)

    async def end(self, source: TopicPartition) -> int:
        """The offset behind the last record, transactions in progress included; waits through outages."""

        async def attempt(consumer: AIOKafkaConsumer) -> int:
            return int((await consumer.end_offsets([source]))[source])

        return await self._insist(attempt)

    async def _insist(self, attempt: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        while True:
            await self._ready.wait()
            async with self._lock:
                if (consumer := self._consumer) is None:
                    continue
                try:
                    with doing(READING), anyio.fail_after(ANSWER_WITHIN_S):
                        found = await attempt(consumer)
                except BrokerError as exc:
                    self._tell(exc)
                    self._ready = anyio.Event()
                    self._broken.set()
                else:
                    self._tell(None)
                    return found
            await anyio.sleep(PAUSE_S)
