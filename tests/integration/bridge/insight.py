"""What a test does with the broker beside the bridge: publish events like a worker, look at what the bridge keeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import anyio
from aiokafka import AIOKafkaConsumer, TopicPartition
from nats.js.errors import NotFoundError

from tests.support.kafka_outsider import KafkaOutsider
from tests.support.outsider import NatsOutsider

Kept = dict[str, bytes]


class Insight(Protocol):
    """One broker."""

    async def publish(self, subject: str, body: bytes, attributes: dict[str, str]) -> None:
        """Publish an event: the NATS subject without the prefix says where."""

    async def kept(self, kind: str) -> Kept:
        """What the bridge keeps of one kind (due, body, dlq, gone), by name."""


class NatsInsight:
    """On NATS."""

    def __init__(self, outside: NatsOutsider) -> None:
        self.outside = outside
        self.stream = f"{outside.prefix.replace('.', '_')}-webhook"

    async def publish(self, subject: str, body: bytes, attributes: dict[str, str]) -> None:
        headers = {f"ce-{name}": value for name, value in attributes.items()}
        await self.outside.js.publish(f"{self.outside.prefix}.{subject}", body, headers=headers or None)

    async def kept(self, kind: str) -> Kept:
        js, found = self.outside.js, {}
        try:
            info = await js.stream_info(self.stream, subjects_filter=f"{self.outside.prefix}.webhook.{kind}.>")
            for subject in sorted(info.state.subjects or {}):
                found[subject] = b""
        except NotFoundError:
            return {}
        return found

    async def records(self, kind: str) -> list[dict[str, Any]]:
        found = []
        for subject in await self.kept(kind):
            try:
                message = await self.outside.js.get_last_msg(self.stream, subject)
            except NotFoundError:
                continue
            found.append(json.loads(message.data or b"{}"))
        return found


class KafkaInsight:
    """On Kafka; reads the bridge's topics for as long as it lives."""

    def __init__(self, outside: KafkaOutsider, consumer: AIOKafkaConsumer) -> None:
        self.outside = outside
        self._consumer = consumer
        self._state: dict[str, Kept] = {"queue": {}, "body": {}}
        self._lock = anyio.Lock()

    async def publish(self, subject: str, body: bytes, attributes: dict[str, str]) -> None:
        parts = subject.split(".")
        topic, key = (".".join(parts[:2]), parts[2]) if parts[0] == "prompt" else (parts[0], parts[-1])
        headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
        with anyio.fail_after(60):
            await self.outside.producer.send_and_wait(
                self.outside.topic(topic), body, key=key.encode(), headers=headers
            )

    async def kept(self, kind: str) -> Kept:
        async with self._lock:
            await self._read_up()
        if kind == "body":
            return dict(self._state["body"])
        return {key: value for key, value in sorted(self._state["queue"].items()) if key.startswith(f"{kind}/")}

    async def records(self, kind: str) -> list[dict[str, Any]]:
        return [json.loads(value) for value in (await self.kept(kind)).values()]

    async def _read_up(self) -> None:
        prefix = self.outside.prefix
        topics = {f"{prefix}-webhook": "queue", f"{prefix}-webhook-body": "body"}
        if not self._consumer.assignment():
            there = await self.outside.admin.describe_topics(list(topics))
            sources = [
                TopicPartition(one["topic"], part["partition"])
                for one in there
                if not one["error_code"]
                for part in one["partitions"]
            ]
            if {source.topic for source in sources} != set(topics):
                return
            self._consumer.assign(sources)
            await self._consumer.seek_to_beginning(*sources)
        sources = list(self._consumer.assignment())
        with anyio.fail_after(60):
            ends = await self._consumer.end_offsets(sources)
            while True:
                for source, records in (await self._consumer.getmany(timeout_ms=50)).items():
                    for record in records:
                        state = self._state[topics[source.topic]]
                        state.pop(record.key.decode(), None)
                        if record.value is not None:
                            state[record.key.decode()] = record.value
                if all([await self._consumer.position(source) >= end for source, end in ends.items()]):
                    return


@asynccontextmanager
async def open_insight(outside: Any) -> AsyncIterator[NatsInsight | KafkaInsight]:
    """For whichever broker this client is of."""
    if isinstance(outside, NatsOutsider):
        yield NatsInsight(outside)
        return
    consumer = AIOKafkaConsumer(
        bootstrap_servers=outside.bootstrap, isolation_level="read_committed", fetch_max_wait_ms=50
    )
    try:
        await consumer.start()
        yield KafkaInsight(outside, consumer)
    finally:
        # Closing raises the cancellation of aiokafka's own tasks, and would hide what the test failed of.
        with anyio.CancelScope(shield=True), suppress(asyncio.CancelledError):
            await consumer.stop()
