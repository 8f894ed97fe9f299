"""The webhook bridge's connection to NATS; see ``brokers.webhooks.WebhookBus``.

Used by its folder's ``__init__``; may import brokers, brokers.nats.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
import nats.errors
import structlog
from nats.aio.msg import Msg

from brokers.base import BrokerError, Health, MessageTooLarge
from brokers.nats.connection import NatsConfig
from brokers.nats.letters import MESSAGE_ID
from brokers.nats.link import Conflict, Link
from brokers.nats.objects import NatsObjects
from brokers.nats.trouble import Troubles
from brokers.nats.webhooks.declare import declare
from brokers.nats.webhooks.feed import FeedReader, NatsFedEvent
from brokers.nats.webhooks.layout import WebhookNames, share_of
from brokers.nats.webhooks.leases import NatsLeases
from brokers.nats.webhooks.patience import Patience
from brokers.nats.webhooks.share import BRIDGE, EXPECTED, NatsShare
from brokers.webhook_shares import ShareKeeper
from brokers.webhooks import Feed, NewDelivery, Share

__all__ = ["NatsWebhookBus"]

STORING = "store a webhook delivery"
HOLDING = "hold shares of the webhooks"
DECLARING = "declare the streams"
DECLARE_EVERY_S = 15.0
DECLARE_PAUSE_S = 1.0
RESULT_READERS = 4

log = structlog.get_logger("comfybus.nats")


class NatsWebhookBus:
    """See ``brokers.webhooks.WebhookBus``."""

    def __init__(self, config: NatsConfig, *, feeds: frozenset[Feed] = frozenset(Feed), lease_s: float = 10) -> None:
        """Prepare; nothing is connected before ``open``.

        Args:
            config: Where NATS is and what the channels are called.
            feeds: Which of them are read.
            lease_s: How long the shares of a bridge that was killed stay with it.
        """
        self.link = Link(config)
        self._config = config
        self._feeds = feeds
        self._own = WebhookNames(config.names)
        self._look = anyio.Event()
        self._troubles = Troubles(self.link, self._look_soon)
        self._patience = Patience(self.link, self._troubles)
        self._readers = {feed: FeedReader(self.link, feed, self._troubles, self.enqueue) for feed in Feed}
        self.bridge = f"{_plain(socket.gethostname())[:48]}-{secrets.token_hex(4)}"
        self._leases = NatsLeases(self.link, self._own, self.bridge, lease_s)
        self._keeper = ShareKeeper(
            self._leases, lease_s, self._make_share, self.link.wait_connected, self._tell_of_leases
        )

    def _look_soon(self) -> None:
        self._look.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[NatsWebhookBus]:
        """Connect and stay connected until the block ends; see the protocol."""
        failure: Exception | None = None
        async with self.link.open():
            await declare(self.link, self._config, self._feeds)
            self.link.on_restored.append(self._look_soon)
            with self.link.doing("listen to webhook deliveries"):
                heard = await self.link.client.subscribe(self._own.subject("due", "*", "*", "*"), cb=self._heard)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_declared)
                try:
                    yield self
                except Exception as exc:  # noqa: BLE001 - raised again below, outside the group that would wrap it
                    failure = exc
                finally:
                    with anyio.CancelScope(shield=True), suppress(nats.errors.Error):
                        await heard.unsubscribe()
                    tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _keep_declared(self) -> None:
        """Make again what somebody deleted."""
        while True:
            with anyio.move_on_after(DECLARE_EVERY_S):
                await self._look.wait()
            self._look = anyio.Event()
            await self.link.wait_connected()
            try:
                await declare(self.link, self._config, self._feeds)
            except BrokerError as exc:
                self._troubles.report(DECLARING, exc)
            else:
                self._troubles.over(DECLARING)
            await anyio.sleep(DECLARE_PAUSE_S)

    def objects(self, bucket: str | None = None) -> NatsObjects:
        """An object store bucket, by default the one for outputs; it is read only."""
        return NatsObjects(self.link, bucket or self._config.names.output_bucket)

    # --- events

    def readers(self, feed: Feed) -> int:
        """Each prompt has one terminal event, so their order does not matter; other events are stored in order."""
        return RESULT_READERS if feed is Feed.RESULTS else 1

    async def take(self, feed: Feed, wait_s: float) -> NatsFedEvent | None:
        """The next event; see the protocol."""
        return await self._readers[feed].take(wait_s)

    # --- the queue

    async def enqueue(self, new: NewDelivery) -> None:
        """Store a delivery, confirmed: body first, then the record, so that a record always has its body.

        Waits through outages. Storing one again has no effect for half an hour, nor while it waits. Where the body is
        larger than the server takes, the record is stored alone, so that the delivery ends in the dead letter.
        """

        async def store_body() -> None:
            headers = {MESSAGE_ID: f"{new.id}/body"}
            await self.link.store(STORING, self._own.subject("body", new.id), new.body, headers)

        async def store_record() -> None:
            headers = {MESSAGE_ID: new.id, EXPECTED: "0", BRIDGE: self.bridge}
            # A conflict means that it waits already.
            with suppress(Conflict):
                await self.link.store(STORING, self._own.due(new.lane, new.id), new.record, headers)

        try:
            await self._patience.insist(STORING, store_body)
        except MessageTooLarge as exc:
            log.error("webhook is too large for the broker", delivery=new.id, reason=str(exc))
        await self._patience.insist(STORING, store_record)
        if share := self._keeper.shares.get(share_of(new.lane)):
            share.wake()

    async def _heard(self, message: Msg) -> None:
        """Somebody stored or changed a record."""
        by = (message.headers or {}).get(BRIDGE)
        if by != self.bridge and (share := self._keeper.shares.get(self._own.parse_due(message.subject)[0])):
            share.wake(heard=True)

    # --- shares

    async def serve(self, work: Callable[[Share], Awaitable[None]], stop: anyio.Event) -> None:
        """Hold our part and work on it; see the protocol."""
        await self._keeper.serve(work, stop)

    def _make_share(self, number: int) -> NatsShare:
        return NatsShare(self.link, self._own, self._troubles, number, self.bridge, self._leases.is_safe)

    def _tell_of_leases(self, trouble: BrokerError | None) -> None:
        if trouble is not None:
            self._troubles.report(HOLDING, trouble)
        else:
            self._troubles.over(HOLDING)

    # --- health

    def health(self) -> Health:
        """See the protocol."""
        if not self.link.is_connected:
            return Health(ok=False, reason="the connection to NATS is lost; it is being restored")
        return Health(ok=not self._troubles.reason, reason=self._troubles.reason)


def _plain(text: str) -> str:
    return "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in text)
