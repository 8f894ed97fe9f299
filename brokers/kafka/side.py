"""Side channels: progress, storage, system and worker events, at most once and never waited for.

Used by bus; may import brokers.
"""

from __future__ import annotations

from asyncio import Future
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import structlog

from brokers.base import Message
from brokers.channels import Channel
from brokers.kafka import headers
from brokers.kafka.clients import abandon_producer, make_producer
from brokers.kafka.errors import FOREIGN
from brokers.kafka.library import AIOKafkaProducer, KafkaError, kafka_errors
from brokers.kafka.link import Link
from brokers.kafka.writer import REQUEST_ROOM_BYTES

__all__ = ["SideChannels"]

# What may wait for a slow broker; beyond that the oldest go. Older than this nobody wants them any more.
LONGEST = 10_000
OLDEST_S = 15.0
START_WITHIN_S = 3.0
SEND_WITHIN_S = 5.0
LAST_WORDS_S = 2.0
PAUSE_S = 1.0

log = structlog.get_logger("comfybus.kafka")


class SideChannels:
    """One idempotent producer that is replaced when it fails; what it held then is lost, never doubled."""

    def __init__(self, link: Link, limit_bytes: Callable[[Channel], int]) -> None:
        """Prepare.

        Args:
            link: How to connect.
            limit_bytes: The largest message of a channel.
        """
        self._link = link
        self._limit_bytes = limit_bytes
        self._queue: deque[tuple[float, Message]] = deque()
        self._wake = anyio.Event()
        self._failure: BaseException | None = None
        self._producer: AIOKafkaProducer | None = None
        self.dropped_messages = 0

    def offer(self, message: Message) -> None:
        """Publish soon, or drop."""
        size = headers.record_size(message.key, message.body, headers.for_message(message))
        if size > self._limit_bytes(message.channel):
            self.dropped_messages += 1
            log.warning("side message dropped, it is too large", channel=message.channel, size_bytes=size)
            return
        if len(self._queue) >= LONGEST:
            self._queue.popleft()
            self.dropped_messages += 1
        self._queue.append((anyio.current_time(), message))
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled; then what still waits gets a moment, such as the word that the worker ends."""
        while True:
            producer = self._producer = make_producer(
                **self._link.options,
                acks="all",
                enable_idempotence=True,
                linger_ms=2,
                max_request_size=self._limit_bytes(Channel.WORKER) + REQUEST_ROOM_BYTES,
            )
            self._failure = None
            try:
                # Shielded: what was offered before the end gets its moment, whenever the end comes.
                with anyio.fail_after(START_WITHIN_S, shield=True):
                    await producer.start()
                await self._publish_with(producer)
            except FOREIGN as exc:
                log.info("producer of side messages replaced", reason=f"{type(exc).__name__}: {exc}")
            finally:
                with anyio.CancelScope(shield=True):
                    await abandon_producer(producer)
            await anyio.sleep(PAUSE_S)

    async def _publish_with(self, producer: AIOKafkaProducer) -> None:
        try:
            while True:
                self._wake = anyio.Event()
                await self._publish_all(producer)
                if self._failure is not None:
                    raise self._failure
                await self._wake.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(LAST_WORDS_S, shield=True):
                await self._publish_all(producer)
                await producer.flush()
            raise

    async def _publish_all(self, producer: AIOKafkaProducer) -> None:
        while self._queue:
            since, message = self._queue[0]
            if anyio.current_time() - since > OLDEST_S:
                self._queue.popleft()
                self.dropped_messages += 1
                continue
            with anyio.move_on_after(SEND_WITHIN_S) as patience:
                sent = await producer.send(
                    self._link.names.topic(message.channel),
                    message.body,
                    key=message.key.encode(),
                    headers=headers.encode(headers.for_message(message)),
                )
                sent.add_done_callback(self._on_sent)
            # Only now: who is cancelled while he waits for room leaves the message to his last words.
            self._queue.popleft()
            if patience.cancelled_caught:
                self.dropped_messages += 1

    def _on_sent(self, sent: Future[Any]) -> None:
        """Nobody waits for a confirmation; after a failed one the producer may be of no more use."""
        if sent.cancelled() or (failure := sent.exception()) is None:
            return
        self.dropped_messages += 1
        if isinstance(failure, KafkaError) and not isinstance(failure, kafka_errors.ProducerClosed):
            self._failure = failure
            self._wake.set()
