"""Removes what was delivered: one small record for each, confirmed, without a transaction.

Used by bus; may import brokers, brokers.kafka.

The next webhook of an endpoint waits for it, and a transaction takes several times as long. Nobody has to be shut out
here: what a bridge has delivered is delivered, also if its share is somebody else's by now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from brokers.base import BrokerError
from brokers.kafka.clients import abandon_producer, make_producer
from brokers.kafka.errors import doing
from brokers.kafka.library import AIOKafkaProducer
from brokers.kafka.link import Link
from brokers.kafka.webhooks.writer import Row

__all__ = ["Remover"]

REMOVING = "settle a webhook delivery"
START_WITHIN_S = 15.0
ANSWER_WITHIN_S = 10.0
PAUSE_S = 0.2
LOOK_S = 0.05


class Remover:
    """One producer for all shares of a bridge, replaced when it fails."""

    def __init__(self, link: Link, tell: Callable[[BrokerError | None], None]) -> None:
        self._link = link
        self._tell = tell
        self._producer: AIOKafkaProducer | None = None
        self._broken = anyio.Event()

    async def run(self) -> None:
        """Keep a producer until cancelled."""
        while True:
            producer = make_producer(**self._link.options, acks="all")
            try:
                with doing(REMOVING), anyio.fail_after(START_WITHIN_S):
                    await producer.start()
                self._producer, self._broken = producer, anyio.Event()
                await self._broken.wait()
            except BrokerError as exc:
                self._tell(exc)
            finally:
                self._producer = None
                with anyio.CancelScope(shield=True):
                    await abandon_producer(producer)
            await anyio.sleep(PAUSE_S)

    async def remove(self, rows: Sequence[Row]) -> list[int]:
        """Write rows without a value; returns their offsets. Waits through outages; to do it twice is harmless."""
        while True:
            if (producer := self._producer) is None:
                await anyio.sleep(LOOK_S)
                continue
            try:
                with doing(REMOVING), anyio.fail_after(ANSWER_WITHIN_S):
                    sent = [
                        await producer.send(row.topic, None, key=row.key.encode(), partition=row.partition)
                        for row in rows
                    ]
                    offsets = [int((await confirmed).offset) for confirmed in sent]
            except BrokerError as exc:
                self._tell(exc)
                if self._producer is producer:
                    self._broken.set()
                await anyio.sleep(PAUSE_S)
            else:
                self._tell(None)
                return offsets
