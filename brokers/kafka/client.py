"""The side of producers and consumers on Kafka: send requests and commands, follow events, look after dead letters.

Used by its folder's ``__init__``; may import brokers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio

from brokers.base import BrokerRefused, MessageTooLarge
from brokers.channels import Channel
from brokers.client import Check, DeadLetter, EventMessage, check_request_id, newest_letter
from brokers.kafka import checks, dlq, follow, headers
from brokers.kafka.clients import abandon_producer, make_producer
from brokers.kafka.config import KafkaConfig
from brokers.kafka.declare import topic_limits
from brokers.kafka.errors import doing
from brokers.kafka.layout import DEFAULT_LIMIT_BYTES
from brokers.kafka.link import Link
from brokers.kafka.reading import bounds, read_between, reader
from brokers.kafka.writer import REQUEST_ROOM_BYTES

__all__ = ["KafkaClient"]

LIFE_SIGNS = ("worker.started", "worker.heartbeat", "worker.stopped")
SEND_WITHIN_S = 20.0


class KafkaClient:
    """See ``brokers.client.Client``."""

    def __init__(self, config: KafkaConfig) -> None:
        """Prepare; nothing is connected before ``open``.

        Args:
            config: Where Kafka is and what the channels are called.
        """
        self._config = config
        self._names = config.names
        self.link = Link(config)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[KafkaClient]:
        """Connect, and stay connected until the block ends; see the protocol."""
        async with self.link.open():
            yield self

    # --- sending

    async def submit(
        self,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        request_id: str,
        message_id: str | None = None,  # noqa: ARG002 - only NATS drops what is sent twice
    ) -> None:
        """Send a request, keyed by its id; see the protocol."""
        check_request_id(request_id)
        await self._send("send the request", Channel.REQUEST, body, headers or {}, request_id)

    async def command(self, body: bytes) -> None:
        """Send a command; see the protocol."""
        await self._send("send the command", Channel.CONTROL, body, {})

    async def _send(
        self, what: str, channel: Channel, body: bytes, own: Mapping[str, str], key: str | None = None
    ) -> None:
        topic = self._names.topic(channel)
        if topic not in await self.link.topics():
            raise BrokerRefused(f"the topic {topic} is missing; start a worker once")
        limit = (await topic_limits(self.link, [topic])).get(topic, DEFAULT_LIMIT_BYTES)
        if (size := headers.record_size(key or "", body, own)) > limit:
            raise MessageTooLarge(size, limit)
        producer = make_producer(
            **self.link.options, acks="all", enable_idempotence=True, max_request_size=limit + REQUEST_ROOM_BYTES
        )
        try:
            with doing(what), anyio.fail_after(SEND_WITHIN_S):
                await producer.start()
                await producer.send_and_wait(
                    topic, body, key=key.encode() if key is not None else None, headers=headers.encode(own)
                )
        finally:
            await abandon_producer(producer)

    # --- events

    def follow(self, request_id: str, *, replay: int = 0) -> AbstractAsyncContextManager[AsyncIterator[EventMessage]]:
        """Progress of one prompt, then its terminal event; see the protocol."""
        check_request_id(request_id)
        return follow.prompt(self.link, request_id, replay)

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[EventMessage]]:
        """All events from now on; see the protocol."""
        return follow.everything(self.link)

    def signs(self) -> AbstractAsyncContextManager[AsyncIterator[EventMessage]]:
        """Worker and progress events from now on; see the protocol."""
        return follow.signs(self.link)

    async def last_terminal(self, request_id: str) -> EventMessage | None:
        """The stored terminal event of an id; see the protocol."""
        check_request_id(request_id)
        return await follow.last_terminal(self.link, request_id)

    async def workers(self) -> list[EventMessage]:
        """The last sign of life of each worker; see the protocol."""
        return await self._last_of_each(LIFE_SIGNS)

    async def inventories(self) -> list[EventMessage]:
        """The last list of models of each worker; see the protocol."""
        return await self._last_of_each(("worker.models",))

    async def _last_of_each(self, types: Collection[str]) -> list[EventMessage]:
        latest: dict[bytes, EventMessage] = {}
        async with reader(self.link, "look for workers") as consumer:
            with doing("look for workers"):
                sources = await follow.sources(self.link, Channel.WORKER)
                async for record in read_between(consumer, *await bounds(consumer, sources)):
                    event = follow.event(Channel.WORKER, record)
                    if event.headers.get("ce_type") in types:
                        latest[record.key or b""] = event
        return [event for _, event in sorted(latest.items())]

    # --- dead letters

    def dead_letters(self) -> AsyncIterator[DeadLetter]:
        """Every letter that is kept and was not replayed; see the protocol."""
        return dlq.letters(self.link)

    async def letter(self, request_id: str) -> DeadLetter | None:
        """The newest letter of an id; see the protocol."""
        return await newest_letter(dlq.letters(self.link), request_id)

    async def replay(self, letter: DeadLetter) -> int:
        """Run a letter again, and hide it, in one transaction; see the protocol."""
        return await dlq.replay(self.link, letter)

    # --- the rest

    async def fetch_object(self, url: str, path: Path) -> None:  # noqa: ARG002 - there is nothing to fetch
        """Kafka keeps no objects.

        Raises:
            BrokerRefused: Always.
        """
        raise BrokerRefused(f"{url} lies in a NATS object store and BROKER_URL names a Kafka; set it to that NATS")

    async def check(self) -> list[Check]:
        """Look at the cluster; see the protocol."""
        return await checks.check(self.link, self._config)
