"""A plain client on Kafka that knows only the contract: aiokafka, read_committed, records keyed by the request id."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import anyio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from brokers.kafka.offsets import StableOffsetsRequest
from tests.support.outsider import Event

OUT = (
    "prompt.complete",
    "prompt.failed",
    "prompt.progress",
    "storage",
    "system",
    "worker",
    "control",
    "prompt.request.dlq",
    "prompt.request",
)
TERMINAL = OUT[:2]
ANSWER_WITHIN_S = 60.0
READY_WITHIN_S = 120.0
ALREADY_EXISTS = 36
# How long a transaction that nobody ends may hide what was written after it.
HIDDEN_WITHIN_S = 10.0


@dataclass
class KafkaOutsider:
    """On Kafka. It creates the topics it needs, as an operator would, with as many partitions as the test wants."""

    bootstrap: str
    prefix: str = "comfyui"
    partitions: int = 4
    limit_bytes: int | None = None
    store: Path | None = None
    events: list[Event] = field(default_factory=list)
    _by_id: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    _terminals: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    _letters: list[Event] = field(default_factory=list)
    _requests: dict[TopicPartition, list[int]] = field(default_factory=lambda: defaultdict(list))
    _positions: dict[TopicPartition, int] = field(default_factory=dict)
    _next: dict[TopicPartition, int] = field(default_factory=lambda: defaultdict(int))

    def topic(self, channel: str) -> str:
        return f"{self.prefix}.{channel}"

    @property
    def group(self) -> str:
        return f"{self.prefix.replace('.', '_')}.workers"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[KafkaOutsider]:
        self.admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        self.producer = AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, enable_idempotence=True, max_request_size=2**24
        )
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, isolation_level="read_committed", fetch_max_wait_ms=100
        )
        self.ends = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
        clients = (self.admin, self.producer, self.consumer, self.ends)
        try:
            for client in clients:
                await client.start()
            self.sources = await self._create_topics()
            self.consumer.assign(self.sources)
            for source in self.sources:
                self.consumer.seek(source, 0)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read)
                yield self
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                for client in (self.consumer, self.ends, self.producer):
                    # With a dead broker aiokafka's stop ends by the cancellation of a task of its own.
                    await asyncio.wait([asyncio.ensure_future(client.stop())], timeout=5)
                await self.admin.close()

    async def _create_topics(self) -> list[TopicPartition]:
        many = {"prompt.request", *OUT[:3]}
        configs = {"message.timestamp.type": "LogAppendTime"}
        if self.limit_bytes is not None:
            configs["max.message.bytes"] = str(self.limit_bytes)
        wanted = [
            NewTopic(
                self.topic(channel),
                self.partitions if channel in many else 1,
                1,
                topic_configs=configs
                if channel != "prompt.request.dlq"
                else {"max.message.bytes": str((self.limit_bytes or 1_048_588) + 65_536)},
            )
            for channel in OUT
        ]
        await self._create(wanted)
        sources = []
        with anyio.fail_after(ANSWER_WITHIN_S):
            for channel in OUT:
                while not (numbers := await self.consumer._client._wait_on_metadata(self.topic(channel))):
                    await anyio.sleep(0.05)
                sources += [TopicPartition(self.topic(channel), number) for number in sorted(numbers)]
        for source in sources:
            self.ends._client.add_topic(source.topic)
        return sources

    async def _create(self, wanted: list[NewTopic]) -> None:
        """Create what is missing.

        A slow machine's Kafka answers requests before it counts itself as a broker of its cluster, or has lost that
        place for a moment: then it refuses a topic, or creates it after the answer's time limit.
        """
        refused: Any = None
        with anyio.move_on_after(READY_WITHIN_S):
            while True:
                try:
                    existing = await self.admin.list_topics()
                    missing = [topic for topic in wanted if topic.name not in existing]
                    if not missing:
                        return
                    response = await self.admin.create_topics(missing)
                    refused = [error for error in response.topic_errors if error[1] not in (0, ALREADY_EXISTS)]
                    if not refused:
                        return
                except KafkaError as exc:
                    refused = exc
                await anyio.sleep(0.2)
        raise AssertionError(f"the topics could not be created within {READY_WITHIN_S:.0f} s: {refused}")

    async def _read(self) -> None:
        while True:
            try:
                found = await self.consumer.getmany(timeout_ms=200)
            except KafkaError:
                await anyio.sleep(0.1)
                continue
            except UnicodeDecodeError:
                await self._pass_unreadable()
                continue
            for source, records in found.items():
                for record in records:
                    self._hear(source, record)
            for source in self.sources:
                self._positions[source] = await self.consumer.position(source)

    async def _pass_unreadable(self) -> None:
        """A header's name that is no UTF-8 would raise out of every poll: note that a record is there, and pass it.

        What the failed poll had read of other partitions is lost with it, so all are read again from where they were.
        """
        for source in self.sources:
            self.consumer.seek(source, self._next[source])
        for source in self.sources:
            try:
                for record in (await self.consumer.getmany(source, timeout_ms=300, max_records=1)).get(source, ()):
                    self._hear(source, record)
            except UnicodeDecodeError:
                offset = await self.consumer.position(source)
                self._requests[source].append(offset)
                self.consumer.seek(source, offset + 1)
                self._next[source] = offset + 1

    def _hear(self, source: TopicPartition, record: Any) -> None:
        self._next[source] = record.offset + 1
        channel = source.topic.removeprefix(f"{self.prefix}.")
        if channel == "prompt.request":
            self._requests[source].append(record.offset)
            return
        if channel == "prompt.request.dlq" and record.value is None:
            self._letters = [one for one in self._letters if one.headers.get("kafka-key") != record.key.decode()]
            return
        event = _event(channel, record)
        if channel == "prompt.request.dlq":
            self._letters.append(event)
        self.events.append(event)
        if "id" in event.body:
            self._by_id[str(event.body["id"])].append(event)
            if channel in TERMINAL:
                self._terminals[str(event.body["id"])].append(event)

    async def _up_to_date(self, *channels: str) -> None:
        """Wait until all is read that is written, transactions that are about to end included."""
        sources = [source for source in self.sources if source.topic in {self.topic(channel) for channel in channels}]
        with anyio.fail_after(ANSWER_WITHIN_S):
            ends = await self.ends.end_offsets(sources)
        with anyio.move_on_after(HIDDEN_WITHIN_S):
            while any(self._positions.get(source, 0) < end for source, end in ends.items()):
                await anyio.sleep(0.01)

    async def send(self, body: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        own = found.get("id") if isinstance(found, dict) else None
        key = own.encode() if isinstance(own, str) and own else None
        encoded = [(name, value.encode()) for name, value in (headers or {}).items()]
        with anyio.fail_after(60):
            await self.producer.send_and_wait(self.topic("prompt.request"), data, key=key, headers=encoded)

    async def command(self, body: dict[str, Any]) -> None:
        await self.command_bytes(json.dumps(body).encode())

    async def command_bytes(self, body: bytes, headers: dict[str, str] | None = None) -> None:
        encoded = [(name, value.encode()) for name, value in (headers or {}).items()]
        with anyio.fail_after(60):
            await self.producer.send_and_wait(self.topic("control"), body, headers=encoded)

    async def terminal(self, request_id: str, within_s: float = 30, *, replay: int = 0) -> Event:
        with anyio.move_on_after(within_s):
            while True:
                for event in self._terminals.get(request_id, []):
                    if event.body.get("replay", 0) == replay:
                        return event
                await anyio.sleep(0.01)
        raise AssertionError(f"no terminal event for {request_id} within {within_s} s")

    async def terminals(self) -> dict[str, list[Event]]:
        await self._up_to_date(*TERMINAL)
        return {request_id: list(events) for request_id, events in self._terminals.items()}

    async def letters(self) -> list[Event]:
        await self._up_to_date("prompt.request.dlq")
        return list(self._letters)

    async def unsettled(self) -> int:
        """Requests that are neither below the committed offset nor marked as finished in its metadata."""
        await self._up_to_date("prompt.request")
        sources = [source for source in self.sources if source.topic == self.topic("prompt.request")]
        marks = await self.committed(sources)
        left = 0
        for source in sources:
            _, position, unfinished = marks[source]
            left += sum(1 for offset in self._requests[source] if offset >= position or offset in unfinished)
        return left

    async def committed(self, sources: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int, set[int]]]:
        """By partition: the committed offset, how far it was handed out, and what is unfinished below that."""
        found = dict.fromkeys(sources, (0, 0, set[int]()))
        for source, (offset, metadata) in (await self._commits(sources)).items():
            found[source] = read_mark(offset, metadata)
        return found

    async def _commits(self, sources: list[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        """Offset and metadata of each partition that has a commit."""
        node = await self.admin.find_coordinator(self.group)
        with anyio.fail_after(ANSWER_WITHIN_S):
            while True:
                response = await self.admin._client.send(node, StableOffsetsRequest(self.group, sources))
                parts = [(topic, *one) for topic, some, _ in response.topics for one in some]
                if not any(code for *_, code, _ in parts):
                    break
                await anyio.sleep(0.02)
        return {
            TopicPartition(topic, number): (offset, unpacked(metadata))
            for topic, number, offset, _, metadata, _, _ in parts
            if offset >= 0
        }

    async def notes(self) -> dict[str, str]:
        """The metadata of its commits."""
        sources = [source for source in self.sources if source.topic == self.topic("prompt.request")]
        return {f"commit {source}": metadata for source, (_, metadata) in (await self._commits(sources)).items()}

    async def in_hand(self) -> int:
        """As the last commits tell."""
        sources = [source for source in self.sources if source.topic == self.topic("prompt.request")]
        return sum(len(unfinished) for _, _, unfinished in (await self.committed(sources)).values())

    async def put_output(self, key: str, body: bytes) -> str:
        """A file of the folder that OUTPUT_STORE names."""
        assert self.store is not None
        path = self.store / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return f"file://{quote(str(path))}"

    async def fetch_output(self, url: str) -> bytes:
        return Path(unquote(url.removeprefix("file://"))).read_bytes()

    async def request_limit_bytes(self) -> int:
        """The frame of a batch and of the one record in it counts too."""
        return (self.limit_bytes or 1_048_588) - 100

    def is_request_place(self, source: dict[str, Any]) -> bool:
        place = {"topic": self.topic("prompt.request"), "partition": source.get("partition")}
        return source == {**place, "offset": source.get("offset")}

    def heard(self, request_id: str | None = None, channel: str = "") -> list[Event]:
        events = self._by_id[request_id] if request_id is not None else self.events
        return [event for event in events if event.channel.startswith(channel)]


def unpacked(metadata: str) -> str:
    """What a commit's metadata says, which may be compressed."""
    return zlib.decompress(base64.b64decode(metadata[2:])).decode() if metadata.startswith("z:") else metadata


def read_mark(offset: int, metadata: str) -> tuple[int, int, set[int]]:
    """The worker's own notes in a commit: offset, position, unfinished offsets."""
    metadata = unpacked(metadata)
    if not metadata:
        return offset, offset, set()
    notes = json.loads(metadata)
    return offset, offset + notes["n"], {offset + (one if isinstance(one, int) else one[0]) for one in notes["u"]}


def _event(channel: str, record: Any) -> Event:
    try:
        body = json.loads(record.value)
    except (ValueError, RecursionError):
        body = {"raw": record.value}
    if not isinstance(body, dict):
        body = {"raw": record.value}
    headers = {name.lower(): value.decode("utf-8", "replace") for name, value in record.headers}
    # CloudEvents writes `ce_id` here and `ce-id` on NATS; the suites speak of one of them.
    found = {f"ce-{name[3:]}" if name.startswith("ce_") else name: value for name, value in headers.items()}
    if record.key is not None:
        found["kafka-key"] = record.key.decode("utf-8", "replace")
    return Event(channel, found, body, record.value or b"")
