"""One share of the queue: what waits in it as its partition says, kept in memory, and changed by its one writer.

Used by bus, feed, queue_reader; may import brokers, brokers.kafka.

Memory grows with what waits in the shares of this bridge, by about a kilobyte for each delivery; bodies stay on Kafka.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import anyio
import structlog

from brokers.base import BrokerError
from brokers.kafka.library import ConsumerRecord, TopicPartition
from brokers.kafka.webhooks.layout import DUE, FEED, GONE, Place, WebhookTopics
from brokers.kafka.webhooks.writer import Row, ShareWriter
from brokers.kafka.writer import Fenced
from brokers.webhook_shares import HeldShare
from brokers.webhooks import Waiting

__all__ = ["KafkaShare", "Surroundings"]

FLUSH_WITHIN_S = 3.0

log = structlog.get_logger("comfybus.kafka")


class Surroundings(Protocol):
    """What a share needs of its bus."""

    own: WebhookTopics

    def is_safe(self, share: int) -> bool:
        """Whether nobody else can have it by now."""

    async def until_safe(self, share: int) -> None:
        """Wait until that is so."""

    async def read_body(self, place: Place, delivery: str) -> bytes | None:
        """What is to be sent; None when it is no longer kept. Waits through outages."""

    async def remove(self, rows: Sequence[Row]) -> list[int]:
        """Write rows without a value, outside of the share's writer; waits through outages."""

    async def read_up(self, share: KafkaShare) -> None:
        """Wait until the share has received everything that was written by now. Waits through outages."""

    def attach(self, share: KafkaShare) -> None:
        """From now on it receives the records of its partition."""

    def begin_feeding(self, share: KafkaShare) -> None:
        """It is read up: from now on its part of the events is read."""

    def detach(self, share: KafkaShare) -> None:
        """It is over for both."""

    def tell(self, trouble: BrokerError | None) -> None:
        """Trouble with writing, or its end."""

    def was_fenced(self, share: int) -> None:
        """Somebody else writes for it."""


@dataclass(frozen=True, slots=True)
class _Kept:
    waiting: Waiting
    place: Place | None


class KafkaShare(HeldShare):
    """See ``brokers.webhooks.Share``."""

    def __init__(self, number: int, writer: ShareWriter, around: Surroundings) -> None:
        """Prepare.

        Args:
            number: Of the share, which is that of its partition.
            writer: Started.
            around: What else there is.
        """
        super().__init__(number)
        self.writer = writer
        self.source = TopicPartition(around.own.queue, number)
        self.position = -1
        """The next offset to be read; -1 before the beginning is known."""
        self.feeds: dict[str, int] = {}
        """By key: up to where events were read."""
        self._around = around
        self._own = around.own
        # In the order of their tokens, since what is changed goes to the end.
        self._due: dict[str, _Kept] = {}
        self._gone: dict[str, bytes] = {}
        # What we wrote and have not read back yet.
        self._ahead: dict[str, int] = {}
        self._news: deque[Waiting] = deque()
        self._woken = anyio.Event()
        self._loaded = anyio.Event()

    # --- the time of our lease

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Read what is there, then write and feed until the block ends."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write)
            try:
                self._around.attach(self)
                tasks.start_soon(self._load)
                yield
                self._around.detach(self)
                with anyio.move_on_after(FLUSH_WITHIN_S):
                    await self.writer.flush()
            finally:
                self._around.detach(self)
                with anyio.CancelScope(shield=True):
                    await self.writer.close()
            tasks.cancel_scope.cancel()

    async def _load(self) -> None:
        await self._around.read_up(self)
        self._loaded.set()
        self._around.begin_feeding(self)

    async def _write(self) -> None:
        try:
            await self.writer.run(
                lambda: self._around.until_safe(self.number), lambda: self._around.read_up(self), self._around.tell
            )
        except Fenced as exc:
            log.warning("share of the webhooks lost", share=self.number, reason=str(exc))
            self._around.was_fenced(self.number)
            self.scope.cancel()

    @property
    def is_ours(self) -> bool:
        """Whether our sign of life is young enough; see the protocol."""
        return self._around.is_safe(self.number)

    # --- what lies in the partition

    def receive(self, record: ConsumerRecord) -> None:
        """Take in the next record of the partition."""
        self.position = record.offset + 1
        key = (record.key or b"").decode("utf-8", "replace")
        ours = self._ahead.get(key)
        if ours is not None:
            if record.offset >= ours:
                del self._ahead[key]
            if record.offset <= ours:
                return
        self._apply(key, record.offset, record.value, Place.find(record.headers))

    def _wrote(self, row: Row, offset: int, place: Place | None) -> None:
        """We changed something: it counts from now on, not only when it is read back."""
        if row.topic != self.source.topic or row.partition != self.number or offset < self.position:
            return
        self._ahead[row.key] = offset
        self._apply(row.key, offset, row.value, place)

    def _apply(self, key: str, offset: int, value: bytes | None, place: Place | None) -> None:
        kind, _, name = key.partition("/")
        if kind == DUE:
            lane, _, delivery = name.partition("/")
            # Out first: what is changed goes to the end.
            self._due.pop(delivery, None)
            if value is not None:
                waiting = Waiting(delivery, lane, offset, value)
                self._due[delivery] = _Kept(waiting, place)
                if self._loaded.is_set():
                    self._news.append(waiting)
                    self._woken.set()
        elif kind == GONE:
            self._gone.pop(name, None)
            if value is not None:
                self._gone[name] = value
        elif kind == FEED and value is not None and value.isdigit():
            self.feeds[key] = int(value)

    async def read(self) -> AsyncGenerator[Waiting | None, None]:
        """Every record, then every change; see the protocol."""
        await self._loaded.wait()
        self._news.clear()
        for kept in list(self._due.values()):
            yield kept.waiting
        yield None
        while True:
            while self._news:
                waiting = self._news.popleft()
                if self._is_current(waiting):
                    yield waiting
            self._woken = anyio.Event()
            await self._woken.wait()

    def _is_current(self, waiting: Waiting) -> bool:
        kept = self._due.get(waiting.id)
        return kept is not None and kept.waiting.token == waiting.token

    async def read_lane(self, lane: str, after: int) -> AsyncIterator[Waiting]:
        """The records of one lane; see the protocol."""
        for kept in list(self._due.values()):
            if kept.waiting.lane == lane and kept.waiting.token > after and self._is_current(kept.waiting):
                yield kept.waiting

    async def find(self, lane: str, delivery_id: str) -> Waiting | None:
        """The record as it is; see the protocol."""
        kept = self._due.get(delivery_id)
        return kept.waiting if kept is not None and kept.waiting.lane == lane else None

    async def body(self, delivery_id: str) -> bytes | None:
        """What is to be sent; see the protocol."""
        kept = self._due.get(delivery_id)
        return await self._around.read_body(kept.place, delivery_id) if kept and kept.place else None

    async def stopped(self, endpoint: str) -> bytes | None:
        """The mark of an endpoint; see the protocol."""
        return self._gone.get(endpoint)

    # --- changing

    async def defer(self, waiting: Waiting, record: bytes) -> Waiting | None:
        """Write the record anew; see the protocol."""
        if not self._is_current(waiting):
            return None
        await self._write_rows(self._row(self._own.due(waiting.lane, waiting.id), record, self._place(waiting)))
        return await self.find(waiting.lane, waiting.id)

    async def settle(self, waiting: Waiting) -> None:
        """Remove record and body; see the protocol."""
        if not self._is_current(waiting):
            return
        place = self._place(waiting)
        rows = [self._row(self._own.due(waiting.lane, waiting.id), None)]
        if place is not None:
            rows.append(Row(self._own.bodies, place.partition, waiting.id, None))
        offsets = await self._around.remove(rows)
        self._wrote(rows[0], offsets[0], None)

    async def give_up(self, waiting: Waiting, letter: bytes) -> None:
        """The record becomes a letter, at once or not at all; see the protocol."""
        if not self._is_current(waiting):
            return
        await self._write_rows(
            self._row(self._own.letter(waiting.id), letter, self._place(waiting)),
            self._row(self._own.due(waiting.lane, waiting.id), None),
        )

    async def stop(self, endpoint: str, note: bytes) -> None:
        """Store the mark; see the protocol."""
        await self._write_rows(self._row(self._own.gone(endpoint), note))

    def _place(self, waiting: Waiting) -> Place | None:
        kept = self._due.get(waiting.id)
        return kept.place if kept is not None else None

    def _row(self, key: str, value: bytes | None, place: Place | None = None) -> Row:
        return Row(self.source.topic, self.number, key, value, place)

    async def _write_rows(self, *rows: Row) -> None:
        change = await self.writer.write(*rows)
        if not change.was_written:
            # Only the end of the share comes before that: whoever has it next does what is left.
            await anyio.sleep_forever()
        for row, offset, place in zip(rows, change.offsets, change.places, strict=True):
            self._wrote(row, offset, place)
