"""The bridge's dead letter and its queue as an operator sees them; see ``brokers.webhooks.WebhookLetters``.

Used by its folder's ``__init__``; may import brokers, brokers.kafka.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from brokers.base import BrokerRefused
from brokers.kafka.clients import abandon_producer, make_producer
from brokers.kafka.config import KafkaConfig
from brokers.kafka.errors import doing
from brokers.kafka.library import ConsumerRecord, TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.reading import bounds, read_between, reader, small_reader
from brokers.kafka.webhooks.layout import DUE, LETTER, Place, WebhookTopics, share_of
from brokers.webhooks import Letter

__all__ = ["KafkaWebhookLetters"]

LIST = "list webhooks"
REPLAY = "replay a webhook"
WITHIN_S = 30.0


class KafkaWebhookLetters:
    """See ``brokers.webhooks.WebhookLetters``."""

    def __init__(self, config: KafkaConfig) -> None:
        """Prepare; nothing is connected before ``open``.

        Args:
            config: Where Kafka is and what the channels are called.
        """
        self.link = Link(config)
        self._own = WebhookTopics(config.names)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[KafkaWebhookLetters]:
        """Connect, and stay connected until the block ends; see the protocol."""
        async with self.link.open():
            yield self

    def letters(self) -> AsyncIterator[Letter]:
        """Deliveries given up; see the protocol."""
        return self._under(LETTER)

    def waiting(self) -> AsyncIterator[Letter]:
        """Deliveries that wait; see the protocol."""
        return self._under(DUE)

    async def _under(self, kind: str) -> AsyncIterator[Letter]:
        found = await self._records(kind)
        for record in sorted(found, key=lambda one: int(one.timestamp)):
            delivery = record.key.decode("utf-8", "replace").rpartition("/")[2]
            yield Letter(delivery, f"{record.topic}-{record.partition}@{record.offset}", record.value)

    async def _records(self, kind: str, sources: list[TopicPartition] | None = None) -> list[ConsumerRecord]:
        """The last record under each key of a kind that was not removed."""
        latest: dict[bytes, ConsumerRecord] = {}
        # Without a topic no bridge ever ran, and nothing was given up.
        partitions = (await self.link.topics()).get(self._own.queue, 0)
        wanted = sources or [TopicPartition(self._own.queue, number) for number in range(partitions)]
        if wanted:
            async with reader(self.link, LIST) as consumer:
                with doing(LIST):
                    async for record in read_between(consumer, *await bounds(consumer, wanted)):
                        key = record.key or b""
                        if key.startswith(f"{kind}/".encode()):
                            latest.pop(key, None)
                            if record.value is not None:
                                latest[key] = record
        return list(latest.values())

    async def replay(self, letter: Letter, lane: str, record: bytes, *, edition: int, endpoint: str) -> None:  # noqa: ARG002
        """Store the record, lift the mark, remove the letter, all or nothing; see the protocol.

        The producer's name is the same for everybody who replays: who starts it ends the transaction of who was before,
        and then sees whether that one had replayed the letter. So a letter is replayed once.
        """
        shares = (await self.link.topics()).get(self._own.queue, 0)
        topic, _, number = letter.place.partition("@")[0].rpartition("-")
        home = TopicPartition(topic, int(number))
        producer = make_producer(**self.link.options, acks="all", transactional_id=self._own.writer("replay"))
        try:
            with doing(REPLAY), anyio.fail_after(WITHIN_S):
                await producer.start()
                place = await self._place(letter, home)
                rows = [
                    (share_of(lane, shares), self._own.due(lane, letter.id), record, place.headers),
                    (share_of(lane, shares), self._own.gone(endpoint), None, None),
                    (home.partition, self._own.letter(letter.id), None, None),
                ]
                async with producer.transaction():
                    for partition, key, value, headers in rows:
                        await producer.send_and_wait(
                            home.topic, value, key=key.encode(), partition=partition, headers=headers
                        )
        finally:
            await abandon_producer(producer)

    async def _place(self, letter: Letter, home: TopicPartition) -> Place:
        """Where the letter's body lies."""
        key = self._own.letter(letter.id).encode()
        stored = next((one for one in await self._records(LETTER, [home]) if one.key == key), None)
        if stored is None:
            raise BrokerRefused(f"the letter of {letter.id} is no longer kept; it was replayed or is too old")
        place = Place.find(stored.headers)
        if place is None or not await self._is_kept(place, letter.id):
            raise BrokerRefused(f"the body of {letter.id} is no longer kept; it cannot be sent again")
        return place

    async def _is_kept(self, place: Place, delivery: str) -> bool:
        source = TopicPartition(self._own.bodies, place.partition)
        async with small_reader(self.link, REPLAY) as consumer:
            begin, end = await bounds(consumer, [source])
            if not begin[source] <= place.offset < end[source]:
                return False
            async for record in read_between(consumer, {source: place.offset}, {source: place.offset + 1}):
                if record.offset == place.offset and record.key == delivery.encode():
                    return True
        return False
