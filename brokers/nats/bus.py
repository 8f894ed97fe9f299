"""The worker's side of NATS: take requests, keep their leases, publish answers and side channels."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import nats.errors
import structlog
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import BadRequestError, FetchTimeoutError, NotFoundError

from brokers.base import (
    BrokerError,
    BrokerUnavailable,
    CommandMessage,
    Health,
    Letter,
    Message,
    MessageTooLarge,
    RequestKey,
)
from brokers.channels import Channel
from brokers.nats import headers, layout, letters
from brokers.nats.commands import Commands
from brokers.nats.connection import NatsConfig, connect, foreign_errors, make_broker
from brokers.nats.delivery import NatsDelivery
from brokers.nats.ledger import EXPECTED, WRONG_LAST_SEQUENCE, Ledger

__all__ = ["NatsBus"]

T = TypeVar("T")

EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
FIRST_CONNECTION_S = 15.0
CONFIRM_TIMEOUT_S = 10.0
# An idle server says it lives this often, so that silence and emptiness are told apart.
IDLE_HEARTBEAT_S = 0.5
# Trouble while something has to be published: tried again at this pace, for as long as it takes.
PAUSE_FIRST_S = 0.2
PAUSE_LONGEST_S = 5.0
SWEEP_EVERY_S = 600.0

log = structlog.get_logger("comfybus.nats")


class NatsBus:
    """See ``brokers.base.Bus``."""

    def __init__(self, config: NatsConfig, source: str) -> None:
        """Prepare; nothing is connected before ``open``.

        Args:
            config: Where NATS is and what the channels are called.
            source: CloudEvents source of this worker, by which its own stored answers are known.
        """
        self._config = config
        self._names = config.names
        self._source = source
        self._in_hand: dict[int, NatsDelivery] = {}
        self._reconnected = anyio.Event()
        self._trouble: dict[str, str] = {}
        self._client: Client
        self._js: JetStreamContext
        self._pull: JetStreamContext.PullSubscription
        self._commands: Commands
        self._lease_s = config.ack_wait_s
        self.ledger: Ledger
        self.max_message_bytes = 0
        self.dropped_messages = 0

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream context, for the object store."""
        return self._js

    @asynccontextmanager
    async def open(self) -> AsyncIterator[NatsBus]:
        """Connect and stay connected until the block ends; see the protocol."""
        broker = make_broker(self._config, on_lost=self._on_disconnected, on_restored=self._on_reconnected)
        try:
            await self._start(broker)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_leases)
                tasks.start_soon(self._keep_layout)
                tasks.start_soon(self._keep_ledger)
                try:
                    yield self
                finally:
                    with anyio.move_on_after(5, shield=True):
                        await self._hand_back_late()
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.move_on_after(5, shield=True):
                await self._stop(broker)

    async def _start(self, broker: NatsBroker) -> None:
        broker.subscriber(self._names.subject(Channel.CONTROL))(self._on_command)
        self._client = await connect(broker, self._config, FIRST_CONNECTION_S)
        self._js = self._client.jetstream(timeout=CONFIRM_TIMEOUT_S)
        self.ledger = Ledger(self._js, self._names, CONFIRM_TIMEOUT_S)
        self._commands = Commands(self._js, self._names)
        await self._declare()
        with foreign_errors("subscribe to the requests"):
            self._pull = await self._js.pull_subscribe_bind(layout.DURABLE, self._names.request_stream)
            await broker.start()

    async def _stop(self, broker: NatsBroker) -> None:
        try:
            await broker.stop()
        except (nats.errors.Error, TimeoutError) as exc:
            log.info("connection closed without a farewell", reason=type(exc).__name__)
            await self._client.close()

    async def _declare(self) -> None:
        consumer = await layout.declare(self._js, self._config)
        self._lease_s = consumer.config.ack_wait or self._config.ack_wait_s
        with foreign_errors("look at the result stream"):
            stream = (await self._js.stream_info(self._names.result_stream)).config
        own = stream.max_msg_size or -1
        self.max_message_bytes = min(self._client.max_payload, own) if own > 0 else self._client.max_payload

    # --- requests

    async def take(self, wait_s: float) -> NatsDelivery | None:
        """The next request; see the protocol."""
        try:
            message = (await self._pull.fetch(1, timeout=wait_s, heartbeat=IDLE_HEARTBEAT_S))[0]
        except FetchTimeoutError:
            self._cleared("take requests")
            return None
        except (nats.errors.Error, TimeoutError, OSError) as exc:
            self._troubled("take requests", f"NATS hands out no requests ({type(exc).__name__})")
            await anyio.sleep(min(wait_s, 0.5))
            return None
        self._cleared("take requests")
        return self._received(message)

    def _received(self, message: Msg) -> NatsDelivery | None:
        held = self._in_hand.get(message.metadata.sequence.stream)
        if held is not None:
            # Its lease ran out in an outage and it came back to us: the run goes on under the new delivery.
            held.message = message
            return None
        delivery = NatsDelivery(self, message)
        self._in_hand[delivery.sequence] = delivery
        return delivery

    def let_go(self, delivery: NatsDelivery) -> None:
        """The delivery is settled or handed back: its lease is kept no longer."""
        if self._in_hand.get(delivery.sequence) is delivery:
            del self._in_hand[delivery.sequence]

    async def _hand_back_late(self) -> None:
        """Hand back what a pull request brought that nobody waits for any more."""
        try:
            await self._pull.unsubscribe()
        except nats.errors.Error as exc:
            log.debug("pull subscription already gone", reason=type(exc).__name__)
        while self._pull.pending_msgs:
            try:
                message = await self._pull._sub.next_msg(timeout=0.1)  # noqa: SLF001 - no public way to read the rest
            except (nats.errors.Error, TimeoutError):
                return
            if message.reply:
                await message.nak()

    # --- answers

    def size_bytes(self, message: Message) -> int:
        """Body and encoded headers; see the protocol."""
        room_for_ours = 160 + len(self._names.of_prompt(message.key))
        return len(message.body) + headers.encoded_size(headers.for_message(message)) + room_for_ours

    def check_size(self, message: Message) -> None:
        """Raise before the server would close the connection over a message that is too large.

        Raises:
            MessageTooLarge: Body and headers do not fit.
        """
        if (size := self.size_bytes(message)) > self.max_message_bytes:
            raise MessageTooLarge(size, self.max_message_bytes)

    async def answer(self, key: RequestKey, event: Message) -> bool:
        """Store a terminal event unless one of this or a later replay is stored; True when it is ours.

        Both outcomes of an id are one compare-and-set: the expected sequence is that of the last terminal event of the
        id, whichever subject it has.
        """
        expected = 0
        if key.replay and (stored := await self.ledger.answer(key)):
            expected = stored.sequence
        while True:
            wanted = {
                **headers.for_message(event),
                EXPECTED: str(expected),
                EXPECTED_SUBJECT: self._names.of_prompt(key.id),
            }
            with foreign_errors("publish a terminal event"):
                try:
                    await self._js.publish(
                        self._names.subject(event.channel, *event.parts),
                        event.body,
                        timeout=CONFIRM_TIMEOUT_S,
                        stream=self._names.result_stream,
                        headers=wanted,
                    )
                except BadRequestError as exc:
                    if exc.err_code != WRONG_LAST_SEQUENCE:
                        raise
                else:
                    return True
            stored = await self.ledger.answer(key)
            if stored is not None and stored.replay >= key.replay:
                return stored.writer == self._source
            expected = stored.sequence if stored else 0

    async def post_letter(self, delivery: NatsDelivery, letter: Letter) -> None:
        """Publish a dead letter, confirmed; large bodies go to the object bucket first."""
        found = letters.letter_headers(delivery.headers, delivery.origin, letter)
        body = delivery.body
        if len(body) + headers.encoded_size(found) > self._client.max_payload:
            found[letters.DATAREF] = await self._keep_body(delivery)
            found, body = letters.fit(found, self._client.max_payload), b""
        with foreign_errors("publish a dead letter"):
            await self._js.publish(
                self._names.subject(Channel.DEAD_LETTER),
                body,
                timeout=CONFIRM_TIMEOUT_S,
                stream=self._names.dead_letter_stream,
                headers=found,
            )

    async def _keep_body(self, delivery: NatsDelivery) -> str:
        bucket = self._names.dead_letter_bucket
        key = f"{delivery.sequence}-{hashlib.sha256(delivery.body).hexdigest()[:12]}"
        with foreign_errors("keep the body of a dead letter"):
            try:
                store = await self._js.object_store(bucket)
            except NotFoundError:
                config = api.ObjectStoreConfig(bucket=bucket, ttl=30 * layout.DAY_S)
                store = await self._js.create_object_store(bucket, config)
            await store.put(key, delivery.body)
        return f"nats://{bucket}/{key}"

    async def insist(self, doing: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do it until it is done, through outages, full streams and missing permissions."""
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                result = await attempt()
            except MessageTooLarge:
                raise
            except BrokerError as exc:
                self._troubled(doing, str(exc))
                await anyio.sleep(pause_s)
                pause_s = min(pause_s * 2, PAUSE_LONGEST_S)
            else:
                self._cleared(doing)
                return result

    # --- side channels

    async def publish(self, message: Message) -> None:
        """Publish at most once; see the protocol."""
        if not self._client.is_connected or self.size_bytes(message) > self.max_message_bytes:
            self.dropped_messages += 1
            return
        try:
            await self._client.publish(
                self._names.subject(message.channel, *message.parts),
                message.body,
                headers=headers.for_message(message),
            )
        except nats.errors.Error as exc:
            self.dropped_messages += 1
            log.debug("side message dropped", channel=message.channel, reason=type(exc).__name__)

    async def flush(self) -> None:
        """Wait until the server has what was sent."""
        await self._client.flush(timeout=2)

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

    def health(self) -> Health:
        """See the protocol."""
        if not self._client.is_connected:
            return Health(ok=False, reason="the connection to NATS is lost; it is being restored")
        reason = next(iter(self._trouble.values()), "")
        return Health(ok=not reason, reason=reason)

    def _troubled(self, doing: str, reason: str) -> None:
        if doing not in self._trouble:
            log.error("trouble with the broker", doing=doing, reason=reason)
        self._trouble[doing] = reason
        self._reconnected.set()

    def _cleared(self, doing: str) -> None:
        if self._trouble.pop(doing, None):
            log.info("trouble with the broker is over", doing=doing)

    async def _on_disconnected(self) -> None:
        log.warning("connection to NATS lost")

    async def _on_reconnected(self) -> None:
        log.info("connection to NATS restored")
        self._commands.wake()
        self._reconnected.set()

    # --- upkeep

    async def _keep_leases(self) -> None:
        while True:
            await anyio.sleep(self._lease_s / 3)
            for delivery in list(self._in_hand.values()):
                await delivery.renew()

    async def _keep_layout(self) -> None:
        """Declare streams and consumer again after every reconnect and whenever something is in trouble."""
        pause_s = PAUSE_FIRST_S
        while True:
            await self._reconnected.wait()
            self._reconnected = anyio.Event()
            try:
                await self._declare()
            except BrokerError as exc:
                self._troubled("declare the streams", str(exc))
            else:
                self._cleared("declare the streams")
                pause_s = PAUSE_FIRST_S
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_LONGEST_S)

    async def _keep_ledger(self) -> None:
        while True:
            try:
                if removed := await self.ledger.sweep():
                    log.info("claims of settled requests removed", count=removed)
            except BrokerUnavailable as exc:
                log.debug("claims not swept", reason=str(exc))
            except BrokerError as exc:
                log.warning("claims cannot be swept", reason=str(exc))
            await anyio.sleep(SWEEP_EVERY_S)
