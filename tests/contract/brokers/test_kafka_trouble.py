"""Kafka through cuts, stalls and refusals of its connection, broken producers, and requests nobody can read."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from structlog.testing import capture_logs

from brokers.base import Bus, Claim, Letter, Message, RequestKey, Tries
from brokers.channels import Channel
from brokers.kafka import KafkaBus
from brokers.kafka.library import TopicPartition
from tests.support.broker_harness import answer, eventually, take, take_claimed
from tests.support.kafka_harness import KafkaHarness, run_kafka
from tests.support.kafka_server import require_kafka

pytestmark = pytest.mark.anyio


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[KafkaHarness]:
    """One partition, and sessions long enough for a short stall."""
    require_kafka(own=True)
    async with run_kafka(tmp_path, lease_s=6) as harness:
        yield harness


def told(logs: list[Any]) -> list[str]:
    """What was being done when trouble was told."""
    return [line["doing"] for line in logs if line["event"] == "trouble with the broker"]


@asynccontextmanager
async def working(bus: Bus) -> AsyncIterator[None]:
    """A worker that settles what it takes, each after a moment."""

    async def settle(delivery: Any) -> None:
        name = json.loads(delivery.body)["id"]
        claim, tries = await delivery.claim(RequestKey(name))
        if claim is Claim.ANSWERED:
            await delivery.drop()
            return
        await delivery.store(tries.model_copy(update={"begun": True}))
        await anyio.sleep(0.05)
        await delivery.settle(answer(name))

    async with anyio.create_task_group() as tasks:

        async def serve() -> None:
            while True:
                if (delivery := await bus.take(0.5)) is not None:
                    tasks.start_soon(settle, delivery)

        tasks.start_soon(serve)
        yield
        tasks.cancel_scope.cancel()


async def all_answered_once(kafka: KafkaHarness, ids: list[str], within_s: float = 40) -> None:
    """Every id has one terminal event for a committed reader, and nothing is left unsettled."""

    async def so() -> bool:
        return set(await kafka.outside.terminals()) == set(ids) and await kafka.outside.unsettled() == 0

    await eventually(so, within_s=within_s)
    found = await kafka.outside.terminals()
    assert {name: len(events) for name, events in found.items()} == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("trouble", ["cut", "stall", "refuse", "long stall"])
async def test_a_connection_in_trouble_loses_and_doubles_nothing(kafka: KafkaHarness, trouble: str) -> None:
    """Cut again and again, stalled for two and for nine seconds (longer than a session), refused: one answer each."""
    ids = [f"w{number}" for number in range(40)]
    async with kafka.bus_on_a_wire() as (bus, wire), working(bus), anyio.create_task_group() as tasks:

        async def send() -> None:
            for name in ids:
                await kafka.outside.send({"id": name})
                await anyio.sleep(0.05)

        tasks.start_soon(send)
        for pause_s in (0.1, 0.4, 0.8):
            await anyio.sleep(pause_s)
            if trouble == "cut":
                wire.cut()
            elif trouble == "refuse":
                await wire.refuse()
                await anyio.sleep(1)
                await wire.listen()
            else:
                wire.freeze()
                await anyio.sleep(2 if trouble == "stall" else 9)
                wire.resume()
                if trouble == "long stall":
                    break
        await all_answered_once(kafka, ids)
        await eventually(lambda: bus.health().ok)


async def test_a_lost_connection_shows_in_the_health_and_heals(kafka: KafkaHarness) -> None:
    """While nobody is reached health says so, and is well soon after."""
    async with kafka.bus_on_a_wire() as (bus, wire):
        assert bus.health().ok
        with capture_logs() as logs:
            wire.freeze()
            await eventually(lambda: not bus.health().ok)
            assert "lost" in bus.health().reason
            wire.resume()
            await eventually(lambda: bus.health().ok)
        events = [line["event"] for line in logs]
        assert events.count("connection to Kafka lost") == events.count("connection to Kafka restored") == 1


async def test_a_transaction_that_kafka_ended_is_done_again(
    kafka: KafkaHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stalled for longer than Kafka keeps a transaction open, the worker is fenced, joins anew, and answers once."""
    monkeypatch.setattr("brokers.kafka.writer.TRANSACTION_TIMEOUT_MS", 1000)
    async with kafka.bus_on_a_wire() as (bus, wire):
        for name in ("a", "b"):
            await kafka.outside.send({"id": name})
        held = {name: await take_claimed(bus, name) for name in ("a", "b")}
        results: dict[str, bool] = {}

        async def settle(name: str) -> None:
            results[name] = await held[name].settle(answer(name))

        async with anyio.create_task_group() as tasks:
            transaction = producer_of(bus)._txn_manager
            tasks.start_soon(settle, "a")
            with anyio.fail_after(10):
                while not (transaction.is_in_transaction() and transaction.txn_partitions):
                    await anyio.lowlevel.checkpoint()
            wire.freeze()
            tasks.start_soon(settle, "b")
            await anyio.sleep(4)
            wire.resume()
        assert results == {"a": True, "b": True}
    await all_answered_once(kafka, ["a", "b"])


async def test_a_broken_producer_is_replaced(kafka: KafkaHarness) -> None:
    """A gap in its sequence numbers, which Kafka never forgives, costs a rejoin and no answer."""
    async with kafka.bus() as bus:
        for name in ("a", "b"):
            await kafka.outside.send({"id": name})
        first, second = await take_claimed(bus, "a"), await take_claimed(bus, "b")
        assert await first.settle(answer("a"))
        producer = producer_of(bus)
        producer._txn_manager.increment_sequence_number(TopicPartition(kafka.topic("prompt.complete"), 0), 7)
        with capture_logs() as logs, anyio.fail_after(20):
            assert await second.settle(answer("b"))
        assert told(logs) == ["write for a partition"]
        assert producer_of(bus) is not producer
        assert bus.health().ok
    await all_answered_once(kafka, ["a", "b"])


def producer_of(bus: KafkaBus) -> Any:
    """aiokafka's producer of the only partition."""
    (session,) = bus._holdings._sessions.values()
    return session.writer._producer


async def test_a_broken_side_producer_is_replaced(kafka: KafkaHarness) -> None:
    """Side messages go on after its sequence broke; what was under way may be lost."""

    def progress(number: int) -> Message:
        body = json.dumps({"id": "a", "n": number}).encode()
        return Message(Channel.PROGRESS, ("a",), "a", body, {"type": "prompt.progress"})

    async with kafka.bus() as bus:
        await bus.publish(progress(0))
        await eventually(lambda: kafka.outside.heard("a", "prompt.progress"))
        bus._side._producer._txn_manager.increment_sequence_number(TopicPartition(kafka.topic("prompt.progress"), 0), 7)
        numbers = iter(range(1, 10_000))

        async def heard_again() -> bool:
            await bus.publish(progress(next(numbers)))
            await anyio.sleep(0.05)
            return len(kafka.outside.heard("a", "prompt.progress")) >= 3

        await eventually(heard_again, within_s=20)
        assert bus.dropped_messages > 0
        assert bus.health().ok


async def test_side_messages_wait_for_nobody(kafka: KafkaHarness) -> None:
    """With a broker that does not answer, thousands of them are taken at once, and old ones are dropped."""
    async with kafka.bus_on_a_wire() as (bus, wire):
        wire.freeze()
        began = anyio.current_time()
        for number in range(12_000):
            await bus.publish(Message(Channel.PROGRESS, ("a",), "a", b"%d" % number, {"type": "prompt.progress"}))
        assert anyio.current_time() - began < 5
        assert bus.dropped_messages >= 2_000


async def test_a_side_message_that_is_too_large_is_dropped_alone(kafka: KafkaHarness) -> None:
    """It is told in one line and counted; the next one goes out."""
    async with kafka.bus() as bus:
        with capture_logs() as logs:
            await bus.publish(Message(Channel.WORKER, ("w", "models"), "w", b"x" * 1_100_000))
        await bus.publish(Message(Channel.WORKER, ("w", "heartbeat"), "w", b'{"type": "worker.heartbeat"}'))
        await eventually(lambda: kafka.outside.heard(channel="worker"))
    assert [line["event"] for line in logs] == ["side message dropped, it is too large"]


async def test_the_last_words_are_heard(kafka: KafkaHarness) -> None:
    """What is published just before the end still goes out: that the worker has stopped."""
    async with kafka.bus() as bus:
        await bus.publish(Message(Channel.WORKER, ("w", "stopped"), "w", b'{"type": "worker.stopped"}'))
    await eventually(lambda: kafka.outside.heard(channel="worker"))


async def test_requests_that_cannot_be_read_stop_nobody(kafka: KafkaHarness) -> None:
    """A header whose name is no UTF-8 makes a record unreadable: it is answered and put aside, the next one runs."""
    await kafka.outside.send({"id": "a"})
    for _ in range(2):
        await send_raw(kafka, b"\xff\xfe\xff\xfe")
    await kafka.outside.send({"id": "b"})
    async with kafka.bus() as bus:
        assert await (await take_claimed(bus, "a")).settle(answer("a"))
        for number in range(2):
            delivery = await take(bus)
            assert delivery.body == b""
            await delivery.claim(RequestKey(f"u{number}"))
            letter = Letter("unreadable", "invalid_request", "w1", 1, f"u{number}", id_was_derived=True)
            assert await delivery.settle(answer(f"u{number}", "failed"), letter)
        assert await (await take_claimed(bus, "b")).settle(answer("b"))

    async def both_letters() -> bool:
        return len(await kafka.outside.letters()) == 2

    # A plain client is slow to pass what it cannot read.
    await eventually(both_letters, within_s=60)


async def send_raw(kafka: KafkaHarness, name: bytes) -> None:
    """Write a record whose header has a name of these four bytes, past every client."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    builder.append(0, 1, None, b'{"id": "raw"}', [("NAME", b"value")])
    batch = bytearray(bytes(builder.build()).replace(b"NAME", name))
    struct.pack_into(">I", batch, 17, calc_crc32c(batch[21:]))
    client = kafka.outside.producer.client
    topic = kafka.topic("prompt.request")
    await client._wait_on_metadata(topic)
    node = client.cluster.leader_for_partition(TopicPartition(topic, 0))
    request = ProduceRequest(
        transactional_id=None, required_acks=-1, timeout=5000, topics=[(topic, [(0, bytes(batch))])]
    )
    response = await client.send(node, request)
    assert response.topics[0][1][0][1] == 0, response


async def test_headers_of_any_bytes_reach_the_letter(kafka: KafkaHarness) -> None:
    """Values that are no UTF-8, and a key that is not the id, are kept to the byte for a replay."""
    await kafka.outside.producer.send_and_wait(
        kafka.topic("prompt.request"),
        b"{}",
        key=b"other",
        headers=[("x-raw", b"\xff\x00"), ("x-raw", b"2")],
        partition=0,
    )
    async with kafka.bus() as bus:
        delivery = await take(bus)
        assert delivery.headers["x-raw"] == "2"
        await delivery.claim(RequestKey("a"))
        letter = Letter("no prompt", "invalid_request", "w1", 1, "a", id_was_derived=True)
        assert await delivery.settle(answer("a", "failed"), letter)
    (found,) = await kafka.outside.letters()
    assert found.headers["comfybus-key"] == "other"
    assert found.headers["kafka-key"] == "a"


async def test_a_killed_broker_in_the_middle_of_a_rebalance(kafka: KafkaHarness) -> None:
    """With two workers and the broker killed while they divide the partitions, each request is answered once."""
    ids = [f"z{number}" for number in range(30)]
    async with kafka.bus() as one, working(one), kafka.bus() as other:
        for name in ids[:20]:
            await kafka.outside.send({"id": name})
        async with working(other):
            await anyio.sleep(0.3)
            await kafka.kill()
            await kafka.restart()
            for name in ids[20:]:
                await kafka.outside.send({"id": name})
            await all_answered_once(kafka, ids)


async def test_records_of_tries_are_kept_through_a_restart_of_the_broker(kafka: KafkaHarness) -> None:
    """What was committed before the kill is there after it."""
    async with kafka.bus() as bus:
        await kafka.outside.send({"id": "a"})
        await (await take_claimed(bus, "a")).store(Tries(attempt=2, fault="ComfyUI was down"))
        await kafka.kill()
        await kafka.restart()
    async with kafka.bus() as bus:
        delivery = await take(bus)
        assert (await delivery.claim(RequestKey("a")))[1] == Tries(attempt=2, fault="ComfyUI was down")
