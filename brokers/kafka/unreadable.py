"""Records that aiokafka cannot take apart: found, stood in for, and passed, so that one of them stops no partition.

Used by membership, brokers.kafka.webhooks.feed; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import structlog

from brokers.kafka.library import AIOKafkaConsumer, ConsumerRecord, TopicPartition

__all__ = ["UNREADABLE", "find_unreadable", "stand_in"]

# The name of a header that is no UTF-8; aiokafka decodes names strictly and raises out of the poll, again and again.
UNREADABLE = UnicodeDecodeError
POLL_MS = 500

log = structlog.get_logger("comfybus.kafka")


async def find_unreadable(consumer: AIOKafkaConsumer) -> AsyncIterator[tuple[TopicPartition, ConsumerRecord]]:
    """After a poll that raised: the records that can be read meanwhile, and a stand-in for each that cannot."""
    for source in consumer.assignment() - consumer.paused():
        try:
            found = await consumer.getmany(source, timeout_ms=POLL_MS, max_records=1)
        except UNREADABLE:
            offset = await consumer.position(source)
            log.error("a request cannot be read, its headers are no UTF-8", source=str(source), offset=offset)
            consumer.seek(source, offset + 1)
            yield source, stand_in(source, offset)
        else:
            for record in found.get(source, ()):
                yield source, record


def stand_in(source: TopicPartition, offset: int) -> ConsumerRecord:
    """An empty request in the place of one that cannot be read; it is answered as undecodable."""
    return ConsumerRecord(
        topic=source.topic,
        partition=source.partition,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=None,
        value=b"",
        checksum=None,
        serialized_key_size=-1,
        serialized_value_size=0,
        headers=(),
    )
