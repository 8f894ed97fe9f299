"""One request of a partition: its claim, its record, and how it is settled in one transaction with its answer.

Used by bus, commands, holdings, letters, partition; may import brokers, schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio

from brokers.base import Claim, Letter, Message, RequestKey, RequestOrigin, Tries
from brokers.kafka import headers
from brokers.kafka.claims import Answered, fingerprint_of
from brokers.kafka.headers import Headers
from brokers.kafka.library import ConsumerRecord
from brokers.kafka.partition import Partition, Work
from brokers.lost import Lost
from brokers.tracker import Finished, Noted
from schemas.events import RequestSource

if TYPE_CHECKING:
    from brokers.kafka.bus import KafkaBus

__all__ = ["KafkaDelivery", "published_at"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class KafkaDelivery:
    """See ``brokers.base.Delivery``. It is held as long as the partition is ours; then ``lost`` is set.

    Everything is committed by the partition's one writer. Whoever waits for that may be cancelled: the commit goes on,
    and asking for the same again waits for the same.
    """

    def __init__(self, bus: KafkaBus, partition: Partition, record: ConsumerRecord, *, redelivered: bool) -> None:
        self._bus = bus
        self._partition = partition
        self._offset: int = record.offset
        self._key: RequestKey | None = None
        self._settlement: Work | None = None
        self.lost = Lost()
        self.nearly_done = False
        """A rebalance may wait a little for it; the worker sets this when only its outputs have to be stored."""
        self.redelivered = redelivered
        self.body: bytes = record.value or b""
        self.record_key: bytes = record.key or b""
        self.raw_headers: Headers = list(record.headers)
        self.headers: Mapping[str, str] = headers.decode(record.headers)
        self.origin = RequestOrigin(
            RequestSource(topic=record.topic, partition=record.partition, offset=record.offset),
            published_at=published_at(record),
        )

    @property
    def is_settling(self) -> bool:
        """Its answer is on its way to the broker."""
        return self._settlement is not None

    async def claim(self, key: RequestKey) -> tuple[Claim, Tries]:
        """Claim the key for this request; see the protocol. Decided in memory, without the broker."""
        self._key = key
        if not self._partition.claims.claim(key, self._offset):
            return Claim.ANSWERED, Tries()
        return Claim.OWNED, self._partition.tracker.unfinished.get(self._offset, Tries())

    async def store(self, tries: Tries) -> None:
        """Write the record with the partition's next commit; see the protocol."""
        self._claimed()
        await self._commit(Work(Noted(self._offset, tries)))

    def _claimed(self) -> RequestKey:
        if self._key is None:
            raise RuntimeError("a delivery must be claimed before anything is written for it")
        return self._key

    async def settle(self, event: Message, letter: Letter | None = None) -> bool:
        """Letter, event and offset in one transaction; see the protocol.

        False also when the partition is another's by now: then ``lost`` is set, and whoever has it answers.
        """
        key = self._claimed()
        self._bus.check_size(event)
        if self._settlement is None:
            records = [await self._bus.letters.compose(self, letter)] if letter is not None else []
            records.append(self._bus.answer_record(event, self._partition.source.partition))
            answer = Answered(key.replay, fingerprint_of(event.attributes))
            self._settlement = Work(Finished(self._offset), records, key, answer)
            self._submit(self._settlement)
        await self._settlement.done.wait()
        return self._settlement.committed

    async def drop(self) -> None:
        """Settle without an event; see the protocol."""
        await self._commit(Work(Finished(self._offset)))

    async def retry(self, delay_s: float, tries: Tries) -> None:
        """Store the record and keep the request here until its time; see the protocol.

        The time is not committed: another worker, or this one after a restart, takes it up at once.
        """
        await self.store(tries)
        self._partition.give_back(self._offset, anyio.current_time() + delay_s)

    async def release(self) -> None:
        """Hand back at once; see the protocol. Others get it when this worker leaves the group."""
        self._partition.give_back(self._offset)

    async def _commit(self, work: Work) -> None:
        self._submit(work)
        await work.done.wait()

    def _submit(self, work: Work) -> None:
        if self.lost.is_set():
            work.end(committed=False)
        else:
            self._partition.submit(work)


def published_at(record: ConsumerRecord) -> datetime:
    """The record's time, by the broker's clock or the producer's as the topic has it."""
    return EPOCH + timedelta(milliseconds=max(record.timestamp, 0))
