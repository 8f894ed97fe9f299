"""The worker's side of NATS: take requests, keep their leases, publish answers and side channels.

Used by delivery, upkeep; may import brokers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeVar

import anyio
import nats.errors
import structlog

from brokers.base import BrokerError, BrokerUnavailable, CommandMessage, Health, Message, MessageTooLarge, RequestKey
from brokers.channels import Channel
from brokers.counts import BusCounts
from brokers.nats import headers
from brokers.nats.answers import Answers
from brokers.nats.backlog import oldest_waiting
from brokers.nats.commands import Commands
from brokers.nats.connection import NatsConfig
from brokers.nats.declare import Declaration
from brokers.nats.delivery import NatsDelivery
from brokers.nats.layout import DURABLE
from brokers.nats.ledger import Ledger
from brokers.nats.letters import Letters
from brokers.nats.link import Link
from brokers.nats.objects import NatsObjects
from brokers.nats.pull import pull_one
from brokers.nats.trouble import Troubles
from brokers.nats.upkeep import Upkeep

__all__ = ["NatsBus"]

T = TypeVar("T")

TAKE = "take requests"
PAUSE_S = 0.5
# Trouble while something has to be published: tried again at this pace, for as long as it takes.
PAUSE_FIRST_S = 0.1
PAUSE_LONGEST_S = 3.0
# What may wait in the client for a slow connection before side messages are dropped; nats-py blocks at 2 MiB.
BACKLOG_BYTES = 1024 * 1024
FAREWELL_S = 3.0

log = structlog.get_logger("comfybus.nats")


class NatsBus:
    """See ``brokers.base.Bus``."""

    def __init__(self, config: NatsConfig) -> None:
        """Prepare; nothing is connected before ``open``.

        Args:
            config: Where NATS is and what the channels are called.
        """
        self._names = config.names
        self.link = Link(config)
        self.answers = Answers(self.link)
        self.ledger = Ledger(self.link, self.answers)
        self.letters = Letters(self.link)
        self.in_hand: dict[int, NatsDelivery] = {}
        self.dropped_messages = 0
        self._config = config
        self._declaration = Declaration(self.link, config)
        self._upkeep = Upkeep(self, self._declaration)
        self._troubles = Troubles(self.link, self._upkeep.look)
        self._commands = Commands(self.link, self._troubles)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[NatsBus]:
        """Connect and stay connected until the block ends; see the protocol."""
        control = self._names.subject(Channel.CONTROL)
        failure: Exception | None = None
        async with self.link.open({control: self._on_command}):
            await self._declare_first()
            self.link.on_restored += [self.ledger.look_anew, self._commands.wake, self._upkeep.look]
            async with anyio.create_task_group() as tasks:
                self._upkeep.start(tasks, self._troubles)
                try:
                    yield self
                except Exception as exc:  # noqa: BLE001 - raised again below, outside the group that would wrap it
                    failure = exc
                finally:
                    with anyio.move_on_after(FAREWELL_S, shield=True):
                        await self._hand_back_all()
                    tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _declare_first(self) -> None:
        """A server that has just been started may need a moment before JetStream answers."""
        deadline = anyio.current_time() + self._config.first_connection_s
        while True:
            try:
                await self._declaration.make()
            except BrokerUnavailable:
                if anyio.current_time() > deadline:
                    raise
            else:
                return
            await anyio.sleep(PAUSE_S)

    async def _hand_back_all(self) -> None:
        """What nobody settled goes back at once instead of waiting for the end of its lease."""
        async with anyio.create_task_group() as tasks:
            for delivery in list(self.in_hand.values()):
                tasks.start_soon(delivery.release)

    def objects(self, bucket: str | None = None) -> NatsObjects:
        """An object store bucket; by default the one for outputs, kept as long as terminal events."""
        retention_s = self._config.result_retention_h * 3600
        return NatsObjects(self.link, bucket or self._names.output_bucket, retention_s)

    # --- requests

    async def take(self, wait_s: float) -> NatsDelivery | None:
        """The next request; see the protocol."""
        consumer = (self._names.request_stream, DURABLE)
        try:
            message = await pull_one(self.link, consumer, wait_s, lambda: self._troubles.over(TAKE))
        except BrokerError as exc:
            self._troubles.report(TAKE, exc)
            await anyio.sleep(min(wait_s, PAUSE_S))
            return None
        if message is None:
            return None
        delivery = NatsDelivery(self, message)
        held = self.in_hand.get(delivery.place.sequence)
        if held is not None and held.place == delivery.place:
            # Its lease ran out in an outage and it came back to us: the run goes on under the new delivery.
            held.delivered_again(message)
            return None
        self.in_hand[delivery.place.sequence] = delivery
        return delivery

    def let_go(self, delivery: NatsDelivery) -> None:
        """The delivery is settled or handed back: its lease is kept no longer."""
        if self.in_hand.get(delivery.place.sequence) is delivery:
            del self.in_hand[delivery.place.sequence]

    # --- answers

    @property
    def max_message_bytes(self) -> int:
        """Largest terminal event, body and headers; see the protocol."""
        return self._declaration.max_answer_bytes

    def size_bytes(self, message: Message) -> int:
        """Body and encoded headers; see the protocol."""
        return len(message.body) + headers.encoded_size(self.answers.headers(message))

    def check_size(self, message: Message) -> None:
        """Raise before the server would close the connection over a message that is too large.

        Raises:
            MessageTooLarge: Body and headers do not fit.
        """
        if (size := self.size_bytes(message)) > self.max_message_bytes:
            raise MessageTooLarge(size, self.max_message_bytes)

    async def answer(self, key: RequestKey, event: Message) -> bool:
        """Store a terminal event; see ``Answers.store``. The limit may have changed with the server."""
        self.check_size(event)
        return await self.answers.store(key, event)

    async def insist(self, doing: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do it until it is done, through outages, full streams and missing permissions.

        Raises:
            MessageTooLarge: No patience helps against that.
        """
        pause_s, who = PAUSE_FIRST_S, object()
        try:
            while True:
                await self.link.wait_connected()
                try:
                    return await attempt()
                except MessageTooLarge:
                    raise
                except BrokerError as exc:
                    self._troubles.report(doing, exc, who)
                await anyio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_LONGEST_S)
        finally:
            self._troubles.over(doing, who)

    # --- side channels

    async def publish(self, message: Message) -> None:
        """Publish at most once; see the protocol."""
        client = self.link.client
        if not client.is_connected or client.pending_data_size > BACKLOG_BYTES:
            self.dropped_messages += 1
            return
        found = headers.for_message(message)
        if len(message.body) + headers.encoded_size(found) > self.link.max_message_bytes:
            self.dropped_messages += 1
            log.warning("side message dropped, it is too large", channel=message.channel, size_bytes=len(message.body))
            return
        try:
            await client.publish(self._names.subject(message.channel, *message.parts), message.body, headers=found)
        except nats.errors.Error as exc:
            self.dropped_messages += 1
            log.debug("side message dropped", channel=message.channel, reason=type(exc).__name__)

    async def last_headers(self, message: Message) -> Mapping[str, str] | None:
        """Headers of the last message on this message's subject; see the protocol."""
        try:
            stored = await self.link.read(
                "look for a heartbeat",
                self._names.event_stream,
                last_by_subj=self._names.subject(message.channel, *message.parts),
            )
        except BrokerError as exc:
            log.debug("last message not read", channel=message.channel, reason=str(exc))
            return None
        return stored.headers if stored else None

    # --- commands

    def commands(self) -> AsyncIterator[CommandMessage]:
        """See the protocol."""
        return self._commands.follow()

    @property
    def commands_read(self) -> anyio.Event:
        """See the protocol."""
        return self._commands.read_back

    async def _on_command(self) -> None:
        self._commands.wake()

    # --- health

    @property
    def counts(self) -> BusCounts:
        """See the protocol."""
        return self.link.counts

    async def oldest_waiting(self) -> datetime | None:
        """See the protocol."""
        return await oldest_waiting(self.link)

    def health(self) -> Health:
        """See the protocol."""
        if not self.link.is_connected:
            return Health(ok=False, reason="the connection to NATS is lost; it is being restored")
        return Health(ok=not self._troubles.reason, reason=self._troubles.reason)
