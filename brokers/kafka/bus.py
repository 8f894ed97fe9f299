"""The worker's side of Kafka: take requests, publish answers and side channels, follow the commands.

Used by delivery, app.worker.broker; may import brokers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime

import anyio
from anyio.abc import TaskGroup

from brokers.base import BrokerError, CommandMessage, Health, Message, MessageTooLarge
from brokers.channels import Channel
from brokers.counts import BusCounts
from brokers.kafka import headers
from brokers.kafka.answered import AnswerReader
from brokers.kafka.backlog import oldest_waiting
from brokers.kafka.by_reference import read_letter_body
from brokers.kafka.commands import Commands
from brokers.kafka.config import KafkaConfig
from brokers.kafka.declare import Declaration
from brokers.kafka.delivery import KafkaDelivery
from brokers.kafka.heard import Heard
from brokers.kafka.holdings import Holdings
from brokers.kafka.letters import Letters
from brokers.kafka.link import Link
from brokers.kafka.membership import Membership
from brokers.kafka.partition import Partition, Received
from brokers.kafka.session import Session
from brokers.kafka.side import SideChannels
from brokers.kafka.tidy import Tidying
from brokers.kafka.trouble import Troubles
from brokers.kafka.writer import Outgoing, Writer

__all__ = ["KafkaBus"]

DECLARE = "look at the topics"
# A topic may be deleted, or given another limit, while the worker runs.
DECLARE_EVERY_S = 60.0


class KafkaBus:
    """See ``brokers.base.Bus``. It joins the group at the first ``take`` and leaves it a minute after the last."""

    def __init__(self, config: KafkaConfig) -> None:
        """Prepare; nothing is connected before ``open``.

        Args:
            config: Where Kafka is and what the channels are called.
        """
        self._config = config
        self._names = config.names
        self.link = Link(config)
        self._declaration = Declaration(self.link)
        self._troubles = Troubles(self.link)
        self._answers = AnswerReader(self.link, self._declaration)
        self._commands = Commands(self.link, self._troubles)
        self._side = SideChannels(self.link, self._declaration.limit_bytes)
        self.letters = Letters(self.link, self._declaration)
        self._heard = Heard(self.link)
        self._holdings = Holdings(self._make_session, self._make_delivery)
        self._membership = Membership(self.link, self._holdings, self._troubles)
        self._tidying = Tidying(self.link, self._holdings)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[KafkaBus]:
        """Connect and stay connected until the block ends; see the protocol."""
        failure: Exception | None = None
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.link.open())
            await self._declaration.make()
            await stack.enter_async_context(self._answers.open())
            await stack.enter_async_context(self._heard.open())
            async with anyio.create_task_group() as sessions, anyio.create_task_group() as tasks:
                # Leaving the group ends the sessions, so theirs is the outer group.
                self._holdings.tasks = sessions
                self._start(tasks)
                try:
                    yield self
                except Exception as exc:  # noqa: BLE001 - raised again below, outside the group that would wrap it
                    failure = exc
                tasks.cancel_scope.cancel()
            self._holdings.lose_all()
        if failure is not None:
            raise failure

    def _start(self, tasks: TaskGroup) -> None:
        for part in (self._membership.run, self._side.run, self._tidying.run, self._keep_layout):
            tasks.start_soon(part)

    async def _keep_layout(self) -> None:
        while True:
            await anyio.sleep(DECLARE_EVERY_S)
            try:
                await self._declaration.make()
            except BrokerError as exc:
                self._troubles.report(DECLARE, exc)
            else:
                self._troubles.over(DECLARE)

    # --- requests

    async def take(self, wait_s: float) -> KafkaDelivery | None:
        """The next request; see the protocol."""
        with self._membership.asking(), anyio.move_on_after(wait_s):
            return await self._holdings.next()
        return None

    def _make_delivery(self, partition: Partition, received: Received) -> KafkaDelivery:
        return KafkaDelivery(self, partition, received.record, redelivered=received.handed_out)

    def _make_session(self, partition: Partition, on_open: Callable[[Partition], None]) -> Session:
        return Session(
            partition,
            self.link,
            make_writer=lambda: Writer(
                self.link.options,
                self._names.worker_group,
                partition.source,
                max(self._declaration.limits.values(), default=0),
            ),
            read_back=self._answers.read,
            troubles=self._troubles,
            on_open=on_open,
            on_broken=self._membership.rejoin,
        )

    # --- answers

    @property
    def max_message_bytes(self) -> int:
        """Largest terminal event, with its key and headers; see the protocol."""
        return self._declaration.max_answer_bytes

    def size_bytes(self, message: Message) -> int:
        """Key, body, headers and the frame around them; see the protocol."""
        return headers.record_size(message.key, message.body, headers.for_message(message))

    def check_size(self, message: Message) -> None:
        """Raise rather than send what the broker would refuse: a refused record breaks its producer.

        Raises:
            MessageTooLarge: It does not fit.
        """
        if (size := self.size_bytes(message)) > self.max_message_bytes:
            raise MessageTooLarge(size, self.max_message_bytes)

    def answer_record(self, event: Message, request_partition: int) -> Outgoing:
        """A terminal event as a record: in the partition of its request's number, so that it is found again there."""
        counts = self._declaration.partitions
        return Outgoing(
            self._names.topic(event.channel),
            event.key.encode(),
            event.body,
            headers.encode(headers.for_message(event)),
            request_partition if counts[event.channel] == counts[Channel.REQUEST] else None,
        )

    async def read_letter(self, url: str) -> bytes | None:
        """The request in the dead letter that a replay refers to; None when the URL is of something else.

        Raises:
            BrokerRefused: The letter is no longer kept.
            BrokerUnavailable: No answer.
        """
        return await read_letter_body(self.link, url)

    # --- side channels

    async def publish(self, message: Message) -> None:
        """Publish at most once; see the protocol."""
        self._side.offer(message)

    @property
    def dropped_messages(self) -> int:
        """Side messages that were not published."""
        return self._side.dropped_messages

    async def last_headers(self, message: Message) -> Mapping[str, str] | None:
        """Headers of the last message of this key and type; see the protocol. What was said before we came is missing.

        Only the worker topic is listened to.
        """
        return await self._heard.last_headers(message)

    # --- commands

    def commands(self) -> AsyncIterator[CommandMessage]:
        """See the protocol."""
        return self._commands.follow()

    @property
    def commands_read(self) -> anyio.Event:
        """See the protocol."""
        return self._commands.read_back

    # --- health

    @property
    def counts(self) -> BusCounts:
        """See the protocol."""
        return self.link.counts

    async def oldest_waiting(self) -> datetime | None:
        """See the protocol."""
        read = self._holdings.oldest_read
        left = await oldest_waiting(self.link, self._holdings.positions)
        return min(read, left) if read and left else read or left

    @property
    def stands_by(self) -> bool:
        """In the group without a partition: there are more workers than partitions."""
        return self._membership.stands_by

    def health(self) -> Health:
        """See the protocol."""
        if not self.link.is_connected:
            return Health(ok=False, reason="the connection to Kafka is lost; it is being restored")
        if self._troubles.reason:
            return Health(ok=False, reason=self._troubles.reason)
        return self._membership.health()
