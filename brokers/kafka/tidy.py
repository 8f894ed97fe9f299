"""Settled requests go: the request topic is a queue, kept only until each of its requests is answered.

Used by bus; may import brokers.

Were they kept, a group whose offsets Kafka has forgotten (seven days after its last member left, by default) would
begin at the first of them and answer all of them again.
"""

from __future__ import annotations

from collections.abc import Mapping

import anyio
import structlog

from brokers.base import BrokerRefused, BrokerUnavailable
from brokers.kafka.errors import doing
from brokers.kafka.holdings import Holdings
from brokers.kafka.library import RecordsToDelete, TopicPartition
from brokers.kafka.link import Link

__all__ = ["Tidying"]

EVERY_S = 30.0
WITHIN_S = 15.0

log = structlog.get_logger("comfybus.kafka")


class Tidying:
    """Deletes what lies below the committed offsets of the partitions in hand; gives up where that is not allowed."""

    def __init__(self, link: Link, holdings: Holdings) -> None:
        self._link = link
        self._holdings = holdings
        self._deleted: dict[TopicPartition, int] = {}

    async def run(self) -> None:
        """Tidy up now and then until it is refused."""
        while True:
            await anyio.sleep(EVERY_S)
            try:
                await self.tidy()
            except BrokerRefused as exc:
                log.info("settled requests stay until the topic's retention ends", reason=str(exc))
                return
            except BrokerUnavailable as exc:
                log.debug("settled requests not deleted", reason=str(exc))

    async def tidy(self) -> None:
        """Delete what is settled by now.

        Raises:
            BrokerUnavailable: No answer; next time.
            BrokerRefused: A permission is missing.
        """
        settled = self._settled()
        if not settled:
            return
        wanted = {source: RecordsToDelete(before_offset=offset) for source, offset in settled.items()}
        with doing("delete settled requests"), anyio.fail_after(WITHIN_S):
            await self._link.admin.delete_records(wanted)
        self._deleted |= settled

    def _settled(self) -> Mapping[TopicPartition, int]:
        """Where it is worth the trouble: partitions whose committed offset has moved."""
        return {
            source: partition.committed.offset
            for source, partition in self._holdings.partitions.items()
            if partition.is_open
            and partition.committed is not None
            and partition.committed.offset > self._deleted.get(source, 0)
        }
