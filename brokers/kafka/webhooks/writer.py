"""The one producer that may write for a share: several changes at once, each transaction all or nothing.

Used by bus, feed, remover, share; may import brokers, brokers.kafka.

Whoever starts the producer of a share ends the transactions of the one before and makes its further ones fail, so that
a bridge which lost its share without knowing it can change nothing any more.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import anyio
from aiokafka.structs import RecordMetadata

from brokers.base import BrokerError
from brokers.kafka.clients import abandon_producer, make_producer
from brokers.kafka.errors import FOREIGN, doing, translated
from brokers.kafka.library import AIOKafkaProducer, kafka_errors
from brokers.kafka.link import Link
from brokers.kafka.webhooks.layout import Place, WebhookTopics
from brokers.kafka.writer import REQUEST_ROOM_BYTES, Fenced

__all__ = ["Body", "Change", "Row", "ShareWriter"]

# Kafka ends a transaction after this time, so that readers wait no longer for one whose bridge is dead.
TRANSACTION_TIMEOUT_MS = 15_000
RETRY_PAUSE_MS = 20
COMMIT_WITHIN_S = 12.0
START_WITHIN_S = 20.0
# In one transaction.
MOST_CHANGES = 200
MOST_BYTES = 4 * 1024 * 1024
PAUSE_S = 0.5
STORING = "store webhook deliveries"

_FENCED = (
    kafka_errors.ProducerFenced,
    kafka_errors.InvalidProducerEpoch,
    kafka_errors.InvalidProducerIdMapping,
)


@dataclass(frozen=True)
class Body:
    """What is to be sent for a record."""

    topic: str
    partition: int
    key: str
    value: bytes


@dataclass(frozen=True)
class Row:
    """One record to write.

    Attributes:
        topic, partition, key: Where.
        value: None to remove what lies under the key.
        place: Of its body, if that lies there already.
        body: To be written before it.
    """

    topic: str
    partition: int
    key: str
    value: bytes | None
    place: Place | None = None
    body: Body | None = None

    @property
    def size_bytes(self) -> int:
        """About what it takes."""
        return len(self.key) + len(self.value or b"") + (len(self.body.value) if self.body else 0)


@dataclass(eq=False)
class Change:
    """Rows that are written together.

    Attributes:
        rows: What.
        is_stored: For a change that must not be written twice: whether it was, asked when that is unknown.
        offsets: Of the rows, when it is over and was written.
        over: Set when it was written, or never will be.
    """

    rows: Sequence[Row]
    is_stored: Callable[[], bool] | None = None
    offsets: list[int] = field(default_factory=list)
    places: list[Place | None] = field(default_factory=list)
    over: anyio.Event = field(default_factory=anyio.Event)
    was_written: bool = False


class ShareWriter:
    """Writes for one share until it is fenced or closed."""

    def __init__(self, link: Link, own: WebhookTopics, share: int, limit_bytes: int) -> None:
        """Prepare.

        Args:
            link: How to connect.
            own: Names.
            share: Which.
            limit_bytes: Largest message.
        """
        self._link = link
        self._own = own
        self._share = share
        self._limit_bytes = limit_bytes
        self._waiting: deque[Change] = deque()
        self._in_hand: list[Change] = []
        self._wake = anyio.Event()
        self._producer: AIOKafkaProducer | None = None
        self._is_closed = False

    async def start(self) -> tuple[int, int]:
        """Take over; returns what rises with every takeover.

        Raises:
            BrokerUnavailable: No answer in time.
            BrokerRefused: A permission is missing.
        """
        producer = make_producer(
            **{**self._link.options, "retry_backoff_ms": RETRY_PAUSE_MS},
            acks="all",
            transactional_id=self._own.writer(self._share),
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_request_size=self._limit_bytes + REQUEST_ROOM_BYTES,
        )
        started = False
        try:
            with doing("begin to write for a share of the webhooks"), anyio.fail_after(START_WITHIN_S):
                await producer.start()
            started = True
        finally:
            if not started:
                with anyio.CancelScope(shield=True):
                    await abandon_producer(producer)
        self._producer = producer
        transactions = producer._txn_manager  # noqa: SLF001 - no public door
        return transactions.producer_id, transactions.producer_epoch

    # --- what others ask for

    def submit(self, change: Change) -> None:
        """Write it soon, behind what was submitted before; ``change.over`` tells when."""
        if self._is_closed:
            change.over.set()
            return
        self._waiting.append(change)
        self._wake.set()

    async def write(self, *rows: Row, is_stored: Callable[[], bool] | None = None) -> Change:
        """Write rows and wait until they are confirmed, or never will be."""
        change = Change(rows, is_stored)
        self.submit(change)
        await change.over.wait()
        return change

    async def flush(self) -> None:
        """Wait until everything that was submitted is over."""
        for change in (*self._in_hand, *self._waiting):
            await change.over.wait()

    async def close(self) -> None:
        """End it at once; what was not written never will be."""
        self._is_closed = True
        producer, self._producer = self._producer, None
        if producer is not None:
            await abandon_producer(producer)
        for change in (*self._in_hand, *self._waiting):
            change.over.set()
        self._waiting.clear()

    # --- writing

    async def run(
        self,
        may_begin_again: Callable[[], Awaitable[None]],
        read_back: Callable[[], Awaitable[None]],
        tell: Callable[[BrokerError | None], None],
    ) -> None:
        """Write until cancelled.

        Args:
            may_begin_again: Returns when a producer that broke may be replaced: when the share is ours for sure.
            read_back: Returns when all that is stored is known.
            tell: Told of trouble, and by None of its end.

        Raises:
            Fenced: Somebody else has taken over, or Kafka has ended our transaction.
        """
        while True:
            while not self._waiting:
                self._wake = anyio.Event()
                await self._wake.wait()
            self._in_hand = self._next_changes()
            while self._in_hand:
                try:
                    if self._producer is None:
                        await may_begin_again()
                        await self.start()
                        await self._forget_stored(read_back)
                    await self._commit()
                    tell(None)
                except BrokerError as exc:
                    tell(exc)
                    await anyio.sleep(PAUSE_S)

    def _next_changes(self) -> list[Change]:
        found, size = list[Change](), 0
        while self._waiting and len(found) < MOST_CHANGES and size < MOST_BYTES:
            change = self._waiting.popleft()
            size += sum(row.size_bytes for row in change.rows)
            found.append(change)
        return found

    async def _forget_stored(self, read_back: Callable[[], Awaitable[None]]) -> None:
        """After a transaction of unknown outcome: what must not be written twice is looked for."""
        if not any(change.is_stored for change in self._in_hand):
            return
        await read_back()
        for change in list(self._in_hand):
            if change.is_stored is not None and change.is_stored():
                self._in_hand.remove(change)
                change.was_written = True
                change.over.set()

    async def _commit(self) -> None:
        producer, changes = self._producer, self._in_hand
        if producer is None or not changes:
            return
        try:
            with anyio.fail_after(COMMIT_WITHIN_S):
                await producer.begin_transaction()
                rows = [row for change in changes for row in change.rows]
                places = await self._send_bodies(producer, rows)
                sent = [await self._send(producer, row, place) for row, place in zip(rows, places, strict=True)]
                offsets = [int((await confirmed).offset) for confirmed in sent]
                await producer.commit_transaction()
        except (*FOREIGN, asyncio.CancelledError) as exc:
            # aiokafka's producer cannot be trusted after any failure.
            self._producer = None
            with anyio.CancelScope(shield=True):
                await abandon_producer(producer)
            if isinstance(exc, _FENCED):
                raise Fenced(f"{type(exc).__name__}: {exc}".rstrip(": ")) from exc
            if isinstance(exc, FOREIGN):
                raise translated(STORING, exc) from exc
            with doing(STORING):
                raise
        self._in_hand = []
        for change in changes:
            count = len(change.rows)
            change.offsets, offsets = offsets[:count], offsets[count:]
            change.places, places = places[:count], places[count:]
            change.was_written = True
            change.over.set()

    @staticmethod
    async def _send_bodies(producer: AIOKafkaProducer, rows: Sequence[Row]) -> list[Place | None]:
        """Where each row's body lies then."""
        sent: list[Future[RecordMetadata] | None] = [
            await producer.send(row.body.topic, row.body.value, key=row.body.key.encode(), partition=row.body.partition)
            if row.body is not None
            else None
            for row in rows
        ]
        found = list[Place | None]()
        for row, confirmed in zip(rows, sent, strict=True):
            if confirmed is not None and row.body is not None:
                found.append(Place(row.body.partition, int((await confirmed).offset)))
            else:
                found.append(row.place)
        return found

    @staticmethod
    async def _send(producer: AIOKafkaProducer, row: Row, place: Place | None) -> Future[RecordMetadata]:
        headers = place.headers if place is not None and row.value is not None else None
        sent: Future[RecordMetadata] = await producer.send(
            row.topic, row.value, key=row.key.encode(), partition=row.partition, headers=headers
        )
        return sent
