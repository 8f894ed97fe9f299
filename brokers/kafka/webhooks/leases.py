"""Which bridge has which share, by a small log that every bridge reads to its end.

Used by bus; may import brokers, brokers.kafka.

A share is taken by starting its producer, which ends everybody else's, and by saying so in the log: the lease with the
highest epoch of that producer counts. A lease lives as long as its bridge gives signs of life. Nobody's clock is
compared with anybody else's: a bridge is silent when its sign has not changed for the length of a lease by the clock of
whoever watches it; a bridge that cannot give its sign stops a little earlier by its own clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import anyio

from brokers.base import BrokerError
from brokers.kafka.clients import abandon_producer, make_producer
from brokers.kafka.errors import doing
from brokers.kafka.library import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from brokers.kafka.link import Link
from brokers.kafka.reading import small_reader
from brokers.kafka.webhooks.layout import WebhookTopics
from brokers.kafka.webhooks.lease_log import Epoch, LeaseLog
from brokers.webhook_shares import Changes

__all__ = ["KafkaLeases"]

DOING = "hold shares of the webhooks"
# Of a lease: after this part of it without a sign of life nothing new is begun.
SAFE_PART = 0.6
ANSWER_WITHIN_S = 5.0
START_WITHIN_S = 15.0
POLL_MS = 100

# Ends what others write for a share, and tells the epoch of that.
TakeOver = Callable[[int], Awaitable[Epoch]]


class KafkaLeases:
    """See ``brokers.webhook_shares.Leases``; ``look`` is to be called several times in the length of a lease."""

    def __init__(self, link: Link, own: WebhookTopics, bridge: str, lease_s: float, take_over: TakeOver) -> None:
        """Prepare.

        Args:
            link: The open connection.
            own: Names.
            bridge: Unique per process.
            lease_s: How long a share stays with a bridge that says nothing.
            take_over: Called for a share that is to become ours.
        """
        self._link = link
        self._topic = TopicPartition(own.leases, 0)
        self._bridge = bridge
        self._lease_s = lease_s
        self._take_over = take_over
        self._log = LeaseLog(lease_s)
        self._held: dict[int, Epoch] = {}
        self._renewed_at = -math.inf
        self._retired = False
        self._lock = anyio.Lock()
        self._clients: AsyncExitStack | None = None
        self._producer: AIOKafkaProducer
        self._consumer: AIOKafkaConsumer
        self.shares = 0
        self.renewed = anyio.Event()

    def is_safe(self, share: int) -> bool:
        """Whether nobody else can have the share by now."""
        return share in self._held and anyio.current_time() - self._renewed_at < self._lease_s * SAFE_PART

    def forget(self, share: int) -> None:
        """Somebody else writes for it."""
        self._held.pop(share, None)

    @asynccontextmanager
    async def open(self, shares: int) -> AsyncIterator[None]:
        """Until the block ends.

        Args:
            shares: How many there are.
        """
        self.shares = shares
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self._disconnect()

    async def _connect(self) -> None:
        async with AsyncExitStack() as stack:
            consumer = await stack.enter_async_context(small_reader(self._link, DOING))
            with doing(DOING), anyio.fail_after(START_WITHIN_S):
                producer = make_producer(**self._link.options, acks="all")
                stack.push_async_callback(abandon_producer, producer)
                await producer.start()
                consumer._client.add_topic(self._topic.topic)  # noqa: SLF001 - else it learns of it by a failed question
                consumer.assign([self._topic])
                position = self._log.position or (await consumer.beginning_offsets([self._topic]))[self._topic]
                consumer.seek(self._topic, position)
            self._producer, self._consumer = producer, consumer
            self._clients = stack.pop_all()

    async def _disconnect(self) -> None:
        clients, self._clients = self._clients, None
        if clients is not None:
            await clients.aclose()

    # --- what the keeper asks for

    async def look(self) -> Changes:
        """Give a sign of life, read what the others said, take what is free up to our part; see the protocol."""
        async with self._lock:
            try:
                return await self._look()
            except BrokerError:
                # Clients that failed once are not trusted again.
                with anyio.CancelScope(shield=True):
                    await self._disconnect()
                raise

    async def _look(self) -> Changes:
        if self._clients is None:
            await self._connect()
        # Before the request: the lease counts from when it is seen, at the earliest now.
        began = anyio.current_time()
        sign = json.dumps({"retired": True} if self._retired else {}).encode()
        offset = await self._say(f"bridge/{self._bridge}", sign)
        if offset < self._log.position:
            # The topic was deleted and made anew: nobody's lease is known any more.
            self._log = LeaseLog(self._lease_s)
            self._consumer.seek(self._topic, 0)
        await self._read_to(offset)
        lost = [share for share, epoch in list(self._held.items()) if not self._is_mine(share, epoch)]
        for share in lost:
            self.forget(share)
        self._renewed_at = began
        self.renewed.set()
        self.renewed = anyio.Event()
        await self._say_again()
        for bridge in self._log.long_silent(began):
            await self._say(f"bridge/{bridge}", None)
        mine = set(self._held)
        living = self._log.living(began) | ({self._bridge} if not self._retired else set())
        part = math.ceil(self.shares / max(1, len(living)))
        won = list[int]()
        if not self._retired:
            won = await self._take(self._log.plan(began, living, self._bridge, mine, self.shares, part))
        return Changes(tuple(won), tuple(lost), tuple(sorted(mine)[part:]))

    def _is_mine(self, share: int, epoch: Epoch) -> bool:
        lease = self._log.leases.get(share)
        return lease is not None and lease.bridge == self._bridge and lease.epoch == epoch

    async def _say_again(self) -> None:
        """The log keeps the last word on each share: it must not be that of somebody who was too late."""
        for share, epoch in self._held.items():
            if self._log.last_epoch.get(share, epoch) != epoch:
                await self._say_lease(share, epoch, self._bridge)

    async def _take(self, wanted: list[int]) -> list[int]:
        epochs = dict[int, Epoch]()
        failures = list[BrokerError]()

        async def take(share: int) -> None:
            try:
                epochs[share] = await self._take_over(share)
            except BrokerError as exc:
                failures.append(exc)

        async with anyio.create_task_group() as tasks:
            for share in wanted:
                tasks.start_soon(take, share)
        end = 0
        for share, epoch in sorted(epochs.items()):
            end = await self._say_lease(share, epoch, self._bridge)
        if epochs:
            await self._read_to(end)
        won = [share for share, epoch in sorted(epochs.items()) if self._is_mine(share, epoch)]
        self._held |= {share: epochs[share] for share in won}
        if failures and not won:
            raise failures[0]
        return won

    async def give_back(self, share: int) -> None:
        """Let another bridge have it at once; see the protocol."""
        async with self._lock:
            epoch = self._held.pop(share, None)
            if epoch is not None and self._clients is not None:
                await self._say_lease(share, epoch, None)

    async def retire(self) -> None:
        """Count no longer as a bridge that wants its part; see the protocol."""
        async with self._lock:
            self._retired = True
            if self._clients is not None:
                await self._say(f"bridge/{self._bridge}", b'{"retired": true}')

    async def say_farewell(self) -> None:
        """Give back what is left; see the protocol."""
        for share in list(self._held):
            await self.give_back(share)
        if self._clients is not None:
            with suppress(BrokerError):
                await self._say(f"bridge/{self._bridge}", None)

    # --- the log

    async def _say_lease(self, share: int, epoch: Epoch, bridge: str | None) -> int:
        value = json.dumps({"bridge": bridge, "epoch": epoch}).encode()
        return await self._say(f"lease/{share}", value)

    async def _say(self, key: str, value: bytes | None) -> int:
        with doing(DOING), anyio.fail_after(ANSWER_WITHIN_S):
            sent = await self._producer.send_and_wait(
                self._topic.topic, value, key=key.encode(), partition=self._topic.partition
            )
        return int(sent.offset)

    async def _read_to(self, offset: int) -> None:
        """Read the log up to this record."""
        with doing(DOING), anyio.fail_after(ANSWER_WITHIN_S):
            while self._log.position <= offset:
                found = await self._consumer.getmany(timeout_ms=POLL_MS)
                for record in found.get(self._topic, ()):
                    self._log.read(record, anyio.current_time())
