"""Consumers without a group that hold little in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import anyio

from brokers.kafka.clients import make_consumer, stop_consumer
from brokers.kafka.errors import doing
from brokers.kafka.library import AIOKafkaConsumer
from brokers.kafka.link import Link
from brokers.kafka.reading import FETCH_WAIT_MS, START_WITHIN_S

__all__ = ["small_reader"]

# Of each partition at once; a record that is larger comes alone.
FETCH_BYTES = 128 * 1024


@asynccontextmanager
async def small_reader(
    link: Link, what: str, isolation: Literal["read_committed", "read_uncommitted"] = "read_uncommitted"
) -> AsyncIterator[AIOKafkaConsumer]:
    """Open until the block ends.

    Args:
        link: How to connect.
        what: What it is for, as an infinitive, for messages.
        isolation: Whether transactions in progress are seen.
    """
    consumer = make_consumer(
        **link.options,
        group_id=None,
        isolation_level=isolation,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    try:
        with doing(what), anyio.fail_after(START_WITHIN_S):
            await consumer.start()
        yield consumer
    finally:
        with anyio.CancelScope(shield=True):
            await stop_consumer(consumer)
