"""Reading topics without a group: what is stored, forwards or from the end backwards, and what comes.

Used by most of its folder, brokers.kafka.webhooks; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal

import anyio

from brokers.kafka.clients import make_consumer, stop_consumer
from brokers.kafka.errors import doing
from brokers.kafka.library import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from brokers.kafka.link import Link

__all__ = ["Bounds", "Offsets", "backwards", "bounds", "read_between", "reader", "small_reader"]

START_WITHIN_S = 15.0
ANSWER_WITHIN_S = 15.0
POLL_MS = 200
# A waiting fetch holds up the questions behind it on its connection for as long.
FETCH_WAIT_MS = 100
# Of each partition at once, for a reader that holds little in memory; a record that is larger comes alone.
SMALL_FETCH_BYTES = 128 * 1024

Offsets = Mapping[TopicPartition, int]
Bounds = tuple[Offsets, Offsets]


@asynccontextmanager
async def reader(link: Link, what: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that belongs to no group and, unless an option says otherwise, sees committed records only.

    Args:
        link: How to connect.
        what: What it is for, as an infinitive, for messages.
        options: Further ones of the consumer.
    """
    usual = {"isolation_level": "read_committed", "auto_offset_reset": "earliest", "fetch_max_wait_ms": FETCH_WAIT_MS}
    consumer = make_consumer(**link.options, group_id=None, **(usual | options))
    try:
        with doing(what), anyio.fail_after(START_WITHIN_S):
            await consumer.start()
        yield consumer
    finally:
        with anyio.CancelScope(shield=True):
            await stop_consumer(consumer)


def small_reader(
    link: Link, what: str, isolation: Literal["read_committed", "read_uncommitted"] = "read_uncommitted"
) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """A ``reader`` that holds little in memory, and sees what transactions in progress write unless told otherwise."""
    return reader(link, what, isolation_level=isolation, max_partition_fetch_bytes=SMALL_FETCH_BYTES)


async def bounds(consumer: AIOKafkaConsumer, sources: Iterable[TopicPartition]) -> Bounds:
    """The first offset that is kept of each source, and the one behind the last; the sources are assigned for it."""
    wanted = list(sources)
    for topic in {source.topic for source in wanted}:
        consumer._client.add_topic(topic)  # noqa: SLF001 - else it learns of the topic by a failed question
    consumer.assign(wanted)
    consumer.pause(*wanted)
    with anyio.fail_after(ANSWER_WITHIN_S):
        return await consumer.beginning_offsets(wanted), await consumer.end_offsets(wanted)


async def read_between(consumer: AIOKafkaConsumer, lower: Offsets, upper: Offsets) -> AsyncIterator[ConsumerRecord]:
    """The records between two offsets of each source, in order within a source; all of them were assigned before."""
    left = [source for source in lower if lower[source] < upper[source]]
    consumer.pause(*lower)
    for source in left:
        consumer.seek(source, lower[source])
    consumer.resume(*left)
    while left:
        for source, records in (await consumer.getmany(*left, timeout_ms=POLL_MS)).items():
            for record in records:
                if record.offset < upper[source]:
                    yield record
        for source in list(left):
            if await consumer.position(source) >= upper[source]:
                consumer.pause(source)
                left.remove(source)


async def backwards(
    consumer: AIOKafkaConsumer, source: TopicPartition, begin: int, end: int, step: int
) -> AsyncIterator[list[ConsumerRecord]]:
    """The records of one source in pieces of so many offsets, the latest piece first."""
    while end > begin:
        lower = max(begin, end - step)
        yield [record async for record in read_between(consumer, {source: lower}, {source: end})]
        end = lower
