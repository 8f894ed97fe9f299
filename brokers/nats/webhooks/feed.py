"""Events for the bridge, one at a time from a durable consumer that all bridges share.

Used by bus; may import brokers, brokers.nats.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import structlog
from nats.aio.msg import Msg

from brokers.base import BrokerError
from brokers.channels import Channel
from brokers.nats.link import Link
from brokers.nats.pull import pull_one
from brokers.nats.trouble import Troubles
from brokers.nats.webhooks.layout import DURABLE, feed_stream, subject_channel
from brokers.webhooks import Feed, NewDelivery

__all__ = ["FeedReader", "NatsFedEvent"]

ACK = b"+ACK"
ACK_TIMEOUT_S = 2.0
TAKE_PAUSE_S = 0.5

log = structlog.get_logger("comfybus.nats")

Enqueue = Callable[[NewDelivery], Awaitable[None]]


class NatsFedEvent:
    """See ``brokers.webhooks.FedEvent``."""

    def __init__(self, link: Link, message: Msg, channel: Channel, enqueue: Enqueue) -> None:
        self._link = link
        self._enqueue = enqueue
        self._reply: str = message.reply
        self.channel = channel
        self.body: bytes = message.data
        self.headers: Mapping[str, str] = message.headers or {}
        self.origin = f"{message.metadata.stream}#{message.metadata.sequence.stream}"

    async def done(self, deliveries: Sequence[NewDelivery]) -> None:
        """Store, then acknowledge, confirmed if possible; see the protocol."""
        for new in deliveries:
            await self._enqueue(new)
        try:
            with self._link.doing("acknowledge an event", self._reply):
                await self._link.client.request(self._reply, ACK, timeout=ACK_TIMEOUT_S)
        except BrokerError as exc:
            log.info("event comes again when its lease ends", origin=self.origin, reason=str(exc))


class FeedReader:
    """Takes events of one feed."""

    def __init__(self, link: Link, feed: Feed, troubles: Troubles, enqueue: Enqueue) -> None:
        self._link = link
        self._enqueue = enqueue
        self._troubles = troubles
        self._doing = f"take {feed.value}"
        self._stream = feed_stream(link.names, feed)

    async def take(self, wait_s: float) -> NatsFedEvent | None:
        """The next event; see ``WebhookBus.take``."""
        try:
            message = await pull_one(
                self._link, (self._stream, DURABLE), wait_s, lambda: self._troubles.over(self._doing)
            )
        except BrokerError as exc:
            self._troubles.report(self._doing, exc)
            await anyio.sleep(min(wait_s, TAKE_PAUSE_S))
            return None
        if message is None:
            return None
        channel = subject_channel(self._link.names, message.subject)
        event = NatsFedEvent(self._link, message, channel or Channel.WORKER, self._enqueue)
        if channel is None:
            # Somebody widened the stream's subjects.
            await event.done(())
            return None
        return event
