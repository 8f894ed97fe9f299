"""A lean client of each broker: sends requests and notes when the terminal event of each arrived."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import nats
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.support.stack import Stack

__all__ = ["Mailbox", "open_mailbox"]


class Mailbox(Protocol):
    """What a measurement needs of a broker."""

    arrived: dict[str, float]

    async def send(self, request_id: str, document: dict[str, Any]) -> None:
        """Publish a request."""

    async def flush(self) -> None:
        """Return when the broker has everything that was sent."""

    async def answer(self, request_id: str) -> float:
        """When its terminal event arrived, on the clock of ``time.perf_counter``."""


class _Arrivals:
    def __init__(self) -> None:
        self.arrived: dict[str, float] = {}
        self._awaited: dict[str, anyio.Event] = {}

    def note(self, request_id: str) -> None:
        self.arrived[request_id] = time.perf_counter()
        if event := self._awaited.pop(request_id, None):
            event.set()

    async def answer(self, request_id: str) -> float:
        if request_id not in self.arrived:
            await self._awaited.setdefault(request_id, anyio.Event()).wait()
        return self.arrived[request_id]


class _NatsMailbox(_Arrivals):
    def __init__(self, client: nats.NATS, prefix: str) -> None:
        super().__init__()
        self._client = client
        self._subject = f"{prefix}.prompt.request"

    async def hear(self, message: Any) -> None:
        self.note(message.subject.rpartition(".")[2])

    async def send(self, request_id: str, document: dict[str, Any]) -> None:
        await self._client.publish(self._subject, json.dumps({"id": request_id, **document}).encode())

    async def flush(self) -> None:
        await self._client.flush(timeout=60)


class _KafkaMailbox(_Arrivals):
    def __init__(self, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer, prefix: str) -> None:
        super().__init__()
        self._producer = producer
        self._consumer = consumer
        self._topic = f"{prefix}.prompt.request"

    async def read(self) -> None:
        while True:
            for records in (await self._consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    self.note(record.key.decode())

    async def send(self, request_id: str, document: dict[str, Any]) -> None:
        body = json.dumps({"id": request_id, **document}).encode()
        await self._producer.send(self._topic, body, key=request_id.encode())

    async def flush(self) -> None:
        await self._producer.flush()


@asynccontextmanager
async def open_mailbox(stack: Stack) -> AsyncIterator[Mailbox]:
    """Connect to the stack's broker."""
    prefix = stack.env.get("TOPIC_PREFIX", "comfyui")
    if stack.broker.url.startswith("kafka://"):
        async with _kafka(stack.broker.url.removeprefix("kafka://"), prefix) as on_kafka:
            yield on_kafka
        return
    client = await nats.connect(stack.broker.url)
    mailbox = _NatsMailbox(client, prefix)
    try:
        for outcome in ("complete", "failed"):
            await client.subscribe(f"{prefix}.prompt.{outcome}.*", cb=mailbox.hear)
        await client.flush()
        yield mailbox
    finally:
        await client.close()


@asynccontextmanager
async def _kafka(servers: str, prefix: str) -> AsyncIterator[_KafkaMailbox]:
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks=1)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed", fetch_max_wait_ms=100)
    await producer.start()
    await consumer.start()
    try:
        sources = []
        for outcome in ("complete", "failed"):
            topic = f"{prefix}.prompt.{outcome}"
            await consumer._client._wait_on_metadata(topic)  # noqa: SLF001 - else its partitions are not known yet
            sources += [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(sources)
        await consumer.seek_to_end()
        mailbox = _KafkaMailbox(producer, consumer, prefix)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mailbox.read)
            yield mailbox
            tasks.cancel_scope.cancel()
    finally:
        await consumer.stop()
        await producer.stop()
