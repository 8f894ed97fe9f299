"""The bridge's dead letter and its queue as an operator sees them; see ``brokers.webhooks.WebhookLetters``.

Used by its folder's ``__init__``; may import brokers, brokers.nats.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

from brokers.base import BrokerRefused
from brokers.nats.connection import NatsConfig
from brokers.nats.errors import StreamMissing
from brokers.nats.letters import MESSAGE_ID
from brokers.nats.link import Conflict, Link
from brokers.nats.tail import Tail
from brokers.nats.webhooks.layout import WebhookNames
from brokers.nats.webhooks.patience import delete
from brokers.nats.webhooks.share import EXPECTED
from brokers.webhooks import Letter

__all__ = ["NatsWebhookLetters"]

REPLAYING = "replay a webhook"


class NatsWebhookLetters:
    """See ``brokers.webhooks.WebhookLetters``."""

    def __init__(self, config: NatsConfig) -> None:
        """Prepare; nothing is connected before ``open``.

        Args:
            config: Where NATS is and what the channels are called.
        """
        self.link = Link(config)
        self._own = WebhookNames(config.names)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[NatsWebhookLetters]:
        """Connect, and stay connected until the block ends; see the protocol."""
        async with self.link.open():
            yield self

    def letters(self) -> AsyncIterator[Letter]:
        """Deliveries given up; see the protocol."""
        return self._under(self._own.subject("dlq", "*"))

    def waiting(self) -> AsyncIterator[Letter]:
        """Deliveries that wait; see the protocol."""
        return self._under(self._own.subject("due", "*", "*", "*"))

    async def _under(self, subject: str) -> AsyncIterator[Letter]:
        # Without a stream no bridge ever ran, and nothing was given up.
        with suppress(StreamMissing):
            async with aclosing(Tail(self.link, self._own.stream, subject).new()) as messages:
                async for message in messages:
                    delivery = message.subject.rpartition(".")[2]
                    yield Letter(delivery, f"{self._own.stream}#{message.sequence}", message.data)

    async def replay(self, letter: Letter, lane: str, record: bytes, *, edition: int, endpoint: str) -> None:
        """Store the record, lift the mark, delete the letter; see the protocol."""
        body = self._own.subject("body", letter.id)
        with self.link.doing(REPLAYING):
            info = await self.link.js.stream_info(self._own.stream, subjects_filter=body)
        if not info.state.subjects:
            raise BrokerRefused(f"the body of {letter.id} is no longer kept; it cannot be sent again")
        mark = await self.link.read(REPLAYING, self._own.stream, last_by_subj=self._own.subject("gone", endpoint))
        if mark is not None:
            await delete(self.link, REPLAYING, self._own.stream, mark.sequence)
        headers = {MESSAGE_ID: f"{letter.id}/replay/{edition}", EXPECTED: "0"}
        # A conflict means that it waits already: a crash came between an earlier replay and the letter's removal.
        with suppress(Conflict):
            await self.link.store(REPLAYING, self._own.due(lane, letter.id), record, headers)
        _, _, sequence = letter.place.rpartition("#")
        await delete(self.link, REPLAYING, self._own.stream, int(sequence))
