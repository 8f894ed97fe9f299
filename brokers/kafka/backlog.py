"""How long requests have been waiting in the partitions of this worker.

Used by bus; may import brokers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import anyio
import structlog

from brokers.base import BrokerError
from brokers.kafka.errors import doing
from brokers.kafka.library import TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.reading import bounds, reader

__all__ = ["oldest_waiting"]

LOOK = "look at the backlog"
POLL_MS = 200
LOOK_WITHIN_S = 3.0

log = structlog.get_logger("comfybus.kafka")


async def oldest_waiting(link: Link, positions: Mapping[TopicPartition, int]) -> datetime | None:
    """When the oldest request at or behind these offsets was published; None when there is none.

    Also None when the broker does not tell. Of each partition one batch is read, at most.

    Args:
        link: How to connect.
        positions: For each partition what would be read next.
    """
    if not positions:
        return None
    found: dict[TopicPartition, int] = {}
    try:
        async with reader(link, LOOK, max_partition_fetch_bytes=1) as consumer:
            with doing(LOOK), anyio.move_on_after(LOOK_WITHIN_S):
                begin, end = await bounds(consumer, positions)
                behind = [source for source, offset in positions.items() if offset < end[source]]
                for source in behind:
                    consumer.seek(source, max(positions[source], begin[source]))
                consumer.resume(*behind)
                # A partition that ends in marks of transactions has nothing to give.
                while len(found) < len(behind):
                    for source, records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=1)).items():
                        found.setdefault(source, records[0].timestamp)
                        consumer.pause(source)
    except BrokerError as exc:
        log.debug("backlog not read", reason=str(exc))
    return datetime.fromtimestamp(min(found.values()) / 1000, UTC) if found else None
