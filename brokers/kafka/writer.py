"""The one producer that may commit for an input partition: what it writes, it writes in transactions, one at a time.

Used by most of its folder, brokers.kafka.webhooks; may import brokers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from brokers.kafka.clients import abandon_producer, make_producer
from brokers.kafka.errors import FOREIGN, doing
from brokers.kafka.headers import Headers
from brokers.kafka.library import OffsetAndMetadata, TopicPartition, kafka_errors
from brokers.tracker import Mark

__all__ = ["Fenced", "Outgoing", "Writer", "WriterBroken"]

# Kafka itself ends a transaction after this time, so that readers wait no longer for one whose worker is dead.
TRANSACTION_TIMEOUT_MS = 60_000
# A transaction may have to wait until the markers of the one before are written, which takes milliseconds.
RETRY_PAUSE_MS = 20
# Beyond this something is wrong with the producer and not with the broker: it is replaced.
COMMIT_WITHIN_S = 45.0
START_WITHIN_S = 30.0
# Requests carry more than the record: the room aiokafka needs around it.
REQUEST_ROOM_BYTES = 65_536

_FENCED = (
    kafka_errors.ProducerFenced,
    kafka_errors.InvalidProducerEpoch,
    kafka_errors.InvalidProducerIdMapping,
)


class WriterBroken(Exception):
    """The producer cannot go on; whether its last transaction was committed is not known."""


class Fenced(WriterBroken):
    """Another producer took over, or Kafka ended the transaction: this one may never write again."""


@dataclass(frozen=True)
class Outgoing:
    """One record to write; without a partition the key decides."""

    topic: str
    key: bytes
    value: bytes | None
    headers: Headers
    partition: int | None = None


class Writer:
    """Transactions of one partition of one group, under one epoch.

    aiokafka's requests for committing offsets carry no generation of the group, so a member that was thrown out could
    commit for a partition that is another's. Hence one transactional id per group and partition: who starts its
    producer ends the transactions of the one before, whose further ones are refused.
    """

    def __init__(self, options: dict[str, Any], group: str, source: TopicPartition, limit_bytes: int) -> None:
        """Prepare.

        Args:
            options: How to connect.
            group: For which group offsets are committed.
            source: The input partition.
            limit_bytes: Largest message that any topic takes.
        """
        self._group = group
        self._source = source
        self._producer = make_producer(
            **{**options, "retry_backoff_ms": RETRY_PAUSE_MS},
            acks="all",
            transactional_id=f"{group}-{source.topic}-{source.partition}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_request_size=limit_bytes + REQUEST_ROOM_BYTES,
        )

    async def start(self) -> None:
        """Take over: from here on nobody else's transaction for this partition can be committed.

        Raises:
            BrokerUnavailable: No answer in time.
            BrokerRefused: A permission is missing.
        """
        with doing("begin to write for a partition"), anyio.fail_after(START_WITHIN_S):
            await self._producer.start()

    async def commit(self, records: Sequence[Outgoing], mark: Mark) -> None:
        """Write the records and commit the mark, all or nothing.

        Raises:
            Fenced: Nothing of it was or will be written, unless exactly this transaction was ended just before.
            WriterBroken: It may or may not be written; the producer is of no more use.
        """
        producer = self._producer
        try:
            with anyio.fail_after(COMMIT_WITHIN_S):
                await producer.begin_transaction()
                sent = [
                    await producer.send(
                        record.topic, record.value, key=record.key, partition=record.partition, headers=record.headers
                    )
                    for record in records
                ]
                await producer.send_offsets_to_transaction(
                    {self._source: OffsetAndMetadata(mark.offset, mark.metadata)}, self._group
                )
                for confirmed in sent:
                    await confirmed
                await producer.commit_transaction()
        except FOREIGN as exc:
            # aiokafka's producer cannot be trusted after any failure: a batch it gave up leaves a gap in the sequence
            # numbers, which Kafka never forgives (aiokafka#1017).
            kind = Fenced if isinstance(exc, _FENCED) else WriterBroken
            raise kind(f"{type(exc).__name__}: {exc}".rstrip(": ")) from exc

    async def close(self) -> None:
        """End the producer at once; an open transaction is ended by whoever starts the next one, or by Kafka."""
        await abandon_producer(self._producer)
