"""The last message of each worker on the worker topic, as far as it was said since this one listens.

Used by bus; may import brokers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import anyio

from brokers.base import BrokerError, Message
from brokers.channels import Channel
from brokers.kafka import follow
from brokers.kafka.errors import doing
from brokers.kafka.headers import decode
from brokers.kafka.library import AIOKafkaConsumer
from brokers.kafka.link import Link
from brokers.kafka.reading import bounds, reader

__all__ = ["Heard"]

LISTEN = "listen to the other workers"
WITHIN_S = 3.0
POLL_MS = 300


class Heard:
    """Reads what was said since the last question; at the first there is nothing to tell."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._consumer: AIOKafkaConsumer | None = None
        self._last: dict[tuple[str, str], Mapping[str, str]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Heard]:
        """Listen until the block ends; without it where the broker does not let us."""
        async with reader(self._link, LISTEN) as consumer:
            with suppress(BrokerError), doing(LISTEN):
                sources = await follow.sources(self._link, Channel.WORKER)
                for source, end in (await bounds(consumer, sources))[1].items():
                    consumer.seek(source, end)
                consumer.resume(*sources)
                self._consumer = consumer
            yield self

    async def last_headers(self, message: Message) -> Mapping[str, str] | None:
        """Headers of the last message under this message's key and of its type; None when none was heard."""
        if self._consumer is not None:
            with anyio.move_on_after(WITHIN_S), suppress(BrokerError), doing(LISTEN):
                while found := await self._consumer.getmany(timeout_ms=POLL_MS):
                    for records in found.values():
                        for record in records:
                            headers = decode(record.headers)
                            key = (record.key or b"").decode("utf-8", "replace")
                            self._last[key, headers.get("ce_type", "")] = headers
        return self._last.get((message.key, message.attributes.get("type", "")))
