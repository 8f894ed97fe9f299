"""Which ids are answered, read back from the terminal topics when a partition is taken over.

Used by bus, follow, session; may import brokers, schemas.

Not all that is kept: the latest answers within the bounds below. What was answered before those, and is submitted
again after a start or a rebalance, runs again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import structlog

from brokers.channels import Channel
from brokers.kafka.claims import Answered, fingerprint_of
from brokers.kafka.declare import Declaration
from brokers.kafka.errors import doing
from brokers.kafka.headers import decode
from brokers.kafka.library import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.reading import bounds, read_between, reader
from schemas.envelope import attributes

__all__ = ["AnswerReader", "ReadBack", "replay_number"]

# How many offsets of each terminal topic are read back, in steps from the end: a transaction takes two for one answer.
STEPS = (200, 2_000, 20_000)
# Answers may hold pictures: a further step is left out when it would probably bring more than this.
STEP_LIMIT_BYTES = 16 * 1024 * 1024
READ_WITHIN_S = 10.0
READ = "read the answers of before"

Found = list[tuple[str, Answered]]
ReadBack = Callable[[int], Awaitable[Found]]

log = structlog.get_logger("comfybus.kafka")


class AnswerReader:
    """Reads terminal topics of one partition after the other, through one consumer without a group."""

    def __init__(self, link: Link, declaration: Declaration) -> None:
        self._link = link
        self._declaration = declaration
        self._consumer: AIOKafkaConsumer | None = None
        self._stack = AsyncExitStack()
        self._lock = anyio.Lock()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AnswerReader]:
        """Close what was opened when the block ends."""
        try:
            yield self
        finally:
            await self._close()

    async def _close(self) -> None:
        self._consumer = None
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()

    async def read(self, partition: int) -> Found:
        """The latest answers to requests of this partition, oldest first.

        Raises:
            BrokerUnavailable: No answer; nothing is known then.
            BrokerRefused: A permission is missing.
        """
        found: Found = []
        async with self._lock:
            try:
                with doing(READ):
                    consumer = await self._connected()
                    with anyio.move_on_after(READ_WITHIN_S) as patience:
                        await self._read_steps(consumer, self._sources(partition), found)
            except BaseException:
                await self._close()
                raise
        if patience.cancelled_caught:
            log.warning("not all answers of before were read in time", partition=partition, count=len(found))
        return found[::-1]

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            self._consumer = await self._stack.enter_async_context(reader(self._link, READ))
        return self._consumer

    def _sources(self, partition: int) -> list[TopicPartition]:
        """Where the answers lie: in the partitions of the same number, if there are as many; else anywhere."""
        counts = self._declaration.partitions
        found = []
        for channel in (Channel.COMPLETE, Channel.FAILED):
            same = counts[channel] == counts[Channel.REQUEST]
            numbers = [partition] if same else range(counts[channel])
            found += [TopicPartition(self._link.names.topic(channel), number) for number in numbers]
        return found

    async def _read_steps(self, consumer: AIOKafkaConsumer, sources: list[TopicPartition], found: Found) -> None:
        begin, end = await bounds(consumer, sources)
        upper, done = dict(end), 0
        for step in STEPS:
            lower = {source: max(begin[source], end[source] - step) for source in sources}
            records = [record async for record in read_between(consumer, lower, upper)]
            records.sort(key=lambda record: record.timestamp, reverse=True)
            found += [_answer(record) for record in records]
            size = sum(len(record.value or b"") for record in records)
            done, upper = step, lower
            following = next((longer for longer in STEPS if longer > done), 0)
            if lower == begin or size * following > STEP_LIMIT_BYTES * done:
                break


def _answer(record: ConsumerRecord) -> tuple[str, Answered]:
    found = attributes(decode(record.headers))
    request_id = found.get("subject") or (record.key or b"").decode("utf-8", "replace")
    return request_id, Answered(replay_number(found), fingerprint_of(found))


def replay_number(found: dict[str, Any]) -> int:
    """The replay that a terminal event answers, from its CloudEvents id; 0 for the first run."""
    number = str(found.get("id", "")).rpartition("/")[2]
    return int(number) if number.isdecimal() else 0
