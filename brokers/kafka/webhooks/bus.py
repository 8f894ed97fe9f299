"""The webhook bridge's connection to Kafka; see ``brokers.webhooks.WebhookBus``.

Used by its folder's ``__init__``; may import brokers, brokers.kafka.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import anyio

from brokers.base import BrokerError, Health
from brokers.kafka.config import KafkaConfig
from brokers.kafka.link import Link
from brokers.kafka.trouble import Troubles
from brokers.kafka.webhooks.body_reader import BodyReader
from brokers.kafka.webhooks.declare import Facts, declare
from brokers.kafka.webhooks.feed import FeedReader, KafkaFedEvent
from brokers.kafka.webhooks.layout import Place, WebhookTopics
from brokers.kafka.webhooks.lease_log import Epoch
from brokers.kafka.webhooks.leases import KafkaLeases
from brokers.kafka.webhooks.queue_reader import QueueReader
from brokers.kafka.webhooks.remover import Remover
from brokers.kafka.webhooks.share import KafkaShare
from brokers.kafka.webhooks.writer import Row, ShareWriter
from brokers.webhook_shares import ShareKeeper
from brokers.webhooks import Feed, Share

__all__ = ["KafkaWebhookBus"]

STORING = "store webhook deliveries"
HOLDING = "hold shares of the webhooks"
READING = "read webhook deliveries"
DECLARING = "look at the topics"
DECLARE_EVERY_S = 15.0
LOOK_S = 0.02
# What is stored goes by the place of its event, whoever is quicker, and several go in one transaction.
READERS = 32


class KafkaWebhookBus:
    """See ``brokers.webhooks.WebhookBus``."""

    def __init__(self, config: KafkaConfig, *, feeds: frozenset[Feed] = frozenset(Feed), lease_s: float = 10) -> None:
        """Prepare; nothing is connected before ``open``.

        Args:
            config: Where Kafka is and what the channels are called.
            feeds: Which of them are read.
            lease_s: How long the shares of a bridge that was killed stay with it.
        """
        self.link = Link(config)
        self.own = WebhookTopics(config.names)
        self._config = config
        self._troubles = Troubles(self.link)
        self._facts = Facts({}, 0)
        self.bridge = f"{socket.gethostname()[:48]}-{secrets.token_hex(4)}"
        self._writers: dict[int, ShareWriter] = {}
        self._leases = KafkaLeases(self.link, self.own, self.bridge, lease_s, self._take_over)
        self._keeper = ShareKeeper(
            self._leases, lease_s, self._make_share, self._until_connected, self._teller(HOLDING)
        )
        self._bodies = BodyReader(self.link, self.own, self._teller("read the body of a webhook"))
        self._remover = Remover(self.link, self._teller("settle a webhook delivery"))
        self._queue = QueueReader(self.link, self._teller(READING))
        self._feeds = {
            feed: FeedReader(self.link, self.own, feed, self._teller(f"take {feed.value}")) for feed in feeds
        }

    def _teller(self, doing: str) -> Callable[[BrokerError | None], None]:
        def tell(trouble: BrokerError | None) -> None:
            if trouble is None:
                self._troubles.over(doing)
            else:
                self._troubles.report(doing, trouble)

        return tell

    @asynccontextmanager
    async def open(self) -> AsyncIterator[KafkaWebhookBus]:
        """Connect and stay connected until the block ends; see the protocol."""
        failure: Exception | None = None
        async with self.link.open():
            self._facts = await declare(self.link, self._config)
            for reader in self._feeds.values():
                await reader.prepare(self._facts)
            async with (
                self._leases.open(self._facts.partitions[self.own.queue]),
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(self._keep_declared)
                tasks.start_soon(self._bodies.run)
                tasks.start_soon(self._remover.run)
                tasks.start_soon(self._queue.run)
                for reader in self._feeds.values():
                    tasks.start_soon(reader.run)
                try:
                    yield self
                except Exception as exc:  # noqa: BLE001 - raised again below, outside the group that would wrap it
                    failure = exc
                tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                # Of shares that were begun and not won.
                for writer in self._writers.values():
                    await writer.close()
        if failure is not None:
            raise failure

    async def _keep_declared(self) -> None:
        """Make again what somebody deleted."""
        while True:
            await anyio.sleep(DECLARE_EVERY_S)
            try:
                await declare(self.link, self._config)
            except BrokerError as exc:
                self._troubles.report(DECLARING, exc)
            else:
                self._troubles.over(DECLARING)

    async def _until_connected(self) -> None:
        while not self.link.is_connected:  # noqa: ASYNC110 - the link tells nobody
            await anyio.sleep(LOOK_S)

    # --- events

    def readers(self, feed: Feed) -> int:  # noqa: ARG002 - the same for all
        """See the protocol."""
        return READERS

    async def take(self, feed: Feed, wait_s: float) -> KafkaFedEvent | None:
        """The next event; see the protocol."""
        return await self._feeds[feed].take(wait_s)

    # --- shares

    async def serve(self, work: Callable[[Share], Awaitable[None]], stop: anyio.Event) -> None:
        """Hold our part and work on it; see the protocol."""
        await self._keeper.serve(work, stop)

    async def _take_over(self, share: int) -> Epoch:
        """End whatever another bridge writes for a share."""
        writer = ShareWriter(self.link, self.own, share, self._facts.limit_bytes)
        epoch = await writer.start()
        former, self._writers[share] = self._writers.pop(share, None), writer
        if former is not None:
            # It was taken before and then given to somebody else by the log.
            await former.close()
        return epoch

    def _make_share(self, number: int) -> KafkaShare:
        return KafkaShare(number, self._writers.pop(number), self)

    # --- what a share needs; see ``brokers.kafka.webhooks.share.Surroundings``

    def is_safe(self, share: int) -> bool:
        """Whether nobody else can have it by now."""
        return self._leases.is_safe(share)

    async def until_safe(self, share: int) -> None:
        """Wait until that is so by a look that was taken after now."""
        while True:
            await self._leases.renewed.wait()
            if self._leases.is_safe(share):
                return

    async def read_body(self, place: Place, delivery: str) -> bytes | None:
        """What is to be sent."""
        return await self._bodies.read(place, delivery)

    async def remove(self, rows: Sequence[Row]) -> list[int]:
        """Write rows without a value."""
        return await self._remover.remove(rows)

    async def read_up(self, share: KafkaShare) -> None:
        """Wait until the share has received everything that was written by now."""
        end = await self._bodies.end(share.source)
        while share.position < end:  # noqa: ASYNC110 - a moment, once per share
            await anyio.sleep(LOOK_S)

    def attach(self, share: KafkaShare) -> None:
        """From now on it receives the records of its partition."""
        self._queue.attach(share)

    def begin_feeding(self, share: KafkaShare) -> None:
        """From now on its part of the events is read."""
        for reader in self._feeds.values():
            reader.begin(share)

    def detach(self, share: KafkaShare) -> None:
        """It is over for both."""
        self._queue.detach(share)
        for reader in self._feeds.values():
            reader.end(share)

    def tell(self, trouble: BrokerError | None) -> None:
        """Trouble with writing, or its end."""
        self._teller(STORING)(trouble)

    def was_fenced(self, share: int) -> None:
        """Somebody else writes for it."""
        self._leases.forget(share)

    # --- health

    def health(self) -> Health:
        """See the protocol."""
        if not self.link.is_connected:
            return Health(ok=False, reason="the connection to Kafka is lost; it is being restored")
        return Health(ok=not self._troubles.reason, reason=self._troubles.reason)
