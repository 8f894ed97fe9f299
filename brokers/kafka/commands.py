"""The control topic, read back for 24 hours and then followed, by every worker for itself and without a group.

Used by bus; may import brokers.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio

from brokers.base import BrokerError, CommandMessage
from brokers.channels import Channel
from brokers.kafka.clients import check_consumer, make_consumer, stop_consumer
from brokers.kafka.delivery import published_at
from brokers.kafka.errors import doing
from brokers.kafka.library import AIOKafkaConsumer, KafkaError, TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.trouble import Troubles

__all__ = ["Commands"]

READ = "read the commands"
READ_BACK_MS = 24 * 3_600_000
# A waiting fetch is answered when a command comes, or after this time.
WAIT_MS = 500
PAUSE_S = 1.0
START_WITHIN_S = 20.0


class Commands:
    """Hands out every command once and in order. For one reader."""

    def __init__(self, link: Link, troubles: Troubles) -> None:
        self._link = link
        self._troubles = troubles
        self._topic = link.names.topic(Channel.CONTROL)
        self._ends: dict[TopicPartition, int] | None = None
        self._positions: dict[TopicPartition, int] = {}
        self.read_back = anyio.Event()

    async def follow(self) -> AsyncIterator[CommandMessage]:
        """Yield every command; never ends and never raises on trouble with the broker."""
        while True:
            consumer = make_consumer(
                **self._link.options,
                group_id=None,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                fetch_max_wait_ms=WAIT_MS,
            )
            try:
                await self._begin(consumer)
                while True:
                    for command in await self._some(consumer):
                        yield command
            except BrokerError as exc:
                self._troubles.report(READ, exc)
            finally:
                with anyio.CancelScope(shield=True):
                    await stop_consumer(consumer)
            await anyio.sleep(PAUSE_S)

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        """Go to where reading stopped; at first to the commands of the last day."""
        with doing(READ), anyio.fail_after(START_WITHIN_S):
            await consumer.start()
            numbers = await consumer._client._wait_on_metadata(self._topic)  # noqa: SLF001 - `partitions_for_topic` may not know it yet
            sources = [TopicPartition(self._topic, number) for number in sorted(numbers)]
            consumer.assign(sources)
            if self._ends is None:
                ends = await consumer.end_offsets(sources)
                since = int(time.time() * 1000) - READ_BACK_MS
                found = await consumer.offsets_for_times(dict.fromkeys(sources, since))
                self._positions = {
                    source: found[source].offset if found[source] is not None else ends[source] for source in sources
                }
                self._ends = ends
            for source in sources:
                consumer.seek(source, self._positions.get(source, 0))

    async def _some(self, consumer: AIOKafkaConsumer) -> list[CommandMessage]:
        ends = self._ends or {}
        with doing(READ):
            check_consumer(consumer)
            found = await consumer.getmany(timeout_ms=WAIT_MS if self.read_back.is_set() else WAIT_MS // 10)
            for source in consumer.assignment():
                with suppress(KafkaError):
                    self._positions[source] = await consumer.position(source)
        commands = [
            CommandMessage(
                record.value or b"", published_at=published_at(record), fresh=record.offset >= ends.get(source, 0)
            )
            for source, records in found.items()
            for record in records
        ]
        if not commands and all(self._positions.get(source, 0) >= end for source, end in ends.items()):
            self.read_back.set()
        self._troubles.over(READ)
        return commands
