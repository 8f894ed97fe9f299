"""Reads bodies one by one by their place, and tells where partitions end.

Used by bus; may import brokers, brokers.kafka.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from brokers.base import BrokerError
from brokers.kafka.errors import doing
from brokers.kafka.library import AIOKafkaConsumer, KafkaError, TopicPartition, kafka_errors
from brokers.kafka.link import Link
from brokers.kafka.reading import small_reader
from brokers.kafka.webhooks.layout import Place, WebhookTopics

__all__ = ["BodyReader"]

READING = "read the body of a webhook"
ANSWER_WITHIN_S = 5.0
PAUSE_S = 0.2
LOOK_S = 0.05
NOT_YET_S = 30.0
FETCH_BYTES = 64 * 1024
OUT_OF_RANGE = 1

T = TypeVar("T")


class BodyReader:
    """Many questions at once, by a client of its own that is replaced when it fails."""

    def __init__(self, link: Link, own: WebhookTopics, tell: Callable[[BrokerError | None], None]) -> None:
        self._link = link
        self._own = own
        self._tell = tell
        self._consumer: AIOKafkaConsumer | None = None
        self._broken = anyio.Event()

    async def run(self) -> None:
        """Keep a client until cancelled."""
        while True:
            try:
                async with small_reader(self._link, READING) as consumer:
                    client = consumer._client  # noqa: SLF001 - else it learns of the topics by failed questions
                    for topic in (self._own.bodies, self._own.queue):
                        client.add_topic(topic)
                    with doing(READING), anyio.fail_after(ANSWER_WITHIN_S):
                        await client.force_metadata_update()
                    self._broken, self._consumer = anyio.Event(), consumer
                    try:
                        await self._broken.wait()
                    finally:
                        self._consumer = None
            except BrokerError as exc:
                self._tell(exc)
            await anyio.sleep(PAUSE_S)

    async def read(self, place: Place, key: str) -> bytes | None:
        """The record at this place, if it has this key; waits through outages."""
        source = TopicPartition(self._own.bodies, place.partition)

        async def attempt(consumer: AIOKafkaConsumer) -> tuple[bool, bytes | None]:
            return await _fetch(consumer, source, place.offset, key.encode())

        # After a change of leaders the end may lie before what was confirmed, for a moment.
        until = anyio.current_time() + NOT_YET_S
        while True:
            is_there, found = await self._insist(attempt)
            if is_there or anyio.current_time() > until:
                return found
            await anyio.sleep(PAUSE_S)

    async def end(self, source: TopicPartition) -> int:
        """The offset behind the last record, transactions in progress included; waits through outages."""

        async def attempt(consumer: AIOKafkaConsumer) -> int:
            return int((await consumer.end_offsets([source]))[source])

        return await self._insist(attempt)

    async def _insist(self, attempt: Callable[[AIOKafkaConsumer], Awaitable[T]]) -> T:
        while True:
            if (consumer := self._consumer) is None:
                await anyio.sleep(LOOK_S)
                continue
            try:
                with doing(READING), anyio.fail_after(ANSWER_WITHIN_S):
                    found = await attempt(consumer)
            except BrokerError as exc:
                self._tell(exc)
                if self._consumer is consumer:
                    self._broken.set()
            else:
                self._tell(None)
                return found
            await anyio.sleep(PAUSE_S)


async def _fetch(
    consumer: AIOKafkaConsumer, source: TopicPartition, offset: int, key: bytes
) -> tuple[bool, bytes | None]:
    """Whether the partition reaches beyond this offset, and the value of the record there.

    A request of our own: aiokafka's fetcher has one question under way for each broker and waits for its answer before
    the next, which takes a tenth of a second each time.
    """
    client = consumer._client  # noqa: SLF001 - aiokafka's consumer has no door for single reads
    leader = client.cluster.leader_for_partition(source)
    if leader is None or leader < 0:
        await client.force_metadata_update()
        raise kafka_errors.LeaderNotAvailableError(str(source))
    request = FetchRequest(0, 1, FETCH_BYTES, 0, [(source.topic, [(source.partition, offset, FETCH_BYTES)])])
    response = await client.send(leader, request)
    for _, partitions in response.topics:
        for _, code, high_water, *rest in partitions:
            if code == OUT_OF_RANGE:
                return True, None
            if code:
                await client.force_metadata_update()
                error: KafkaError = kafka_errors.for_code(code)(str(source))
                raise error
            batches = MemoryRecords(rest[-1] or b"")
            while batches.has_next():
                for record in batches.next_batch():
                    if record.offset == offset and record.key == key:
                        value: bytes | None = record.value
                        return True, value
            return offset < high_water, None
    raise kafka_errors.UnknownTopicOrPartitionError(str(source))
