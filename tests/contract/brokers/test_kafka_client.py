"""The command line's side of Kafka: submit, follow, watch, dead letters and their replay, workers, doctor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from brokers.base import BrokerRefused, Claim, Letter, Message, RequestKey
from brokers.channels import Channel
from brokers.client import EventMessage
from brokers.kafka import KafkaBus, KafkaClient
from tests.support.broker_harness import answer, eventually, take, take_claimed
from tests.support.kafka_harness import KafkaHarness, run_kafka

pytestmark = pytest.mark.anyio

LETTER = Letter("it was tried 3 times", "attempts_exhausted", "w1", 3, "a", id_was_derived=False)


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[KafkaHarness]:
    """Four partitions."""
    async with run_kafka(tmp_path, partitions=4) as harness:
        yield harness


@pytest.fixture
async def client(kafka: KafkaHarness) -> AsyncIterator[KafkaClient]:
    """An open client."""
    async with KafkaClient(kafka.config).open() as client:
        yield client


@pytest.fixture
async def bus(kafka: KafkaHarness) -> AsyncIterator[KafkaBus]:
    """An open bus, as a worker has it."""
    async with kafka.bus() as bus:
        yield bus


def progress(request_id: str, number: int) -> Message:
    """One step of a prompt."""
    body = json.dumps({"type": "prompt.progress", "id": request_id, "sequence": number}).encode()
    return Message(Channel.PROGRESS, (request_id,), request_id, body, {"type": "prompt.progress"})


async def rest(events: AsyncIterator[EventMessage]) -> list[Any]:
    """The documents of all events to the end."""
    with anyio.fail_after(15):
        return [event.document async for event in events]


async def test_a_prompt_is_followed_from_its_submission_to_its_end(client: KafkaClient, bus: KafkaBus) -> None:
    """Progress of this prompt and no other, then its terminal event, then the end."""
    async with client.follow("a") as events:
        for name in ("a", "b"):
            await client.submit(json.dumps({"id": name}).encode(), {"ce_id": name}, request_id=name)
        for _ in range(2):
            delivery = await take(bus)
            name = json.loads(delivery.body)["id"]
            await delivery.claim(RequestKey(name))
            await bus.publish(progress(name, 1))
            await anyio.sleep(0.3)
            assert await delivery.settle(answer(name))
        found = await rest(events)
    assert {one["id"] for one in found} == {"a"}
    assert [one["type"] for one in found] == ["prompt.progress", "prompt.complete"]


async def test_an_answer_of_before_is_found_at_once(client: KafkaClient, bus: KafkaBus, kafka: KafkaHarness) -> None:
    """Following an id that is answered already ends with that answer; an unknown id has none."""
    for number in range(30):
        await client.submit(b'{"id": "s%d"}' % number, request_id=f"s{number}")
    for _ in range(30):
        delivery = await take(bus)
        name = json.loads(delivery.body)["id"]
        await delivery.claim(RequestKey(name))
        assert await delivery.settle(answer(name))
    await kafka.outside.terminals()
    async with client.follow("s7") as events:
        assert [one["id"] for one in await rest(events)] == ["s7"]
    found = await client.last_terminal("s9")
    assert found is not None
    assert found.headers["ce_id"] == "s9/complete"
    assert await client.last_terminal("nobody") is None


async def test_a_request_without_a_key_is_followed_too(client: KafkaClient, bus: KafkaBus, kafka: KafkaHarness) -> None:
    """Its answer lies in the partition its request happened to get, and is found there."""
    for number in range(8):
        body = b'{"id": "n%d"}' % number
        await kafka.outside.producer.send_and_wait(kafka.topic("prompt.request"), body, partition=number % 4)
        assert await (await take_claimed(bus, f"n{number}")).settle(answer(f"n{number}"))
    await kafka.outside.terminals()
    for number in range(8):
        found = await client.last_terminal(f"n{number}")
        assert found is not None
        async with client.follow(f"n{number}") as events:
            assert [one["id"] for one in await rest(events)] == [f"n{number}"]


async def test_everything_can_be_watched(client: KafkaClient, bus: KafkaBus) -> None:
    """Events of every prompt and worker from now on, each with its channel."""
    await bus.publish(progress("before", 1))
    await anyio.sleep(0.5)
    found: list[EventMessage] = []
    async with client.watch() as events, anyio.create_task_group() as tasks:

        async def read() -> None:
            async for event in events:
                found.append(event)  # noqa: PERF401 - it never ends

        tasks.start_soon(read)
        await bus.publish(progress("a", 1))
        await bus.publish(Message(Channel.WORKER, ("w", "heartbeat"), "w", b"{}", {"type": "worker.heartbeat"}))
        await client.submit(b'{"id": "a"}', request_id="a")
        assert await (await take_claimed(bus, "a")).settle(answer("a", "failed"))
        await eventually(lambda: len(found) == 3)
        tasks.cancel_scope.cancel()
    assert {event.channel for event in found} == {Channel.PROGRESS, Channel.WORKER, Channel.FAILED}


async def test_a_dead_letter_is_listed_and_replayed_once(
    client: KafkaClient, bus: KafkaBus, kafka: KafkaHarness
) -> None:
    """The request comes back as it was with the number of its replay; the letter is hidden, and replayed only once."""
    await client.submit(b'{"id": "a"}  ', {"x-own": "1", "comfybus-reason": "mine"}, request_id="a")
    assert await (await take_claimed(bus, "a")).settle(answer("a", "failed"), LETTER)
    (letter,) = [one async for one in client.dead_letters()]
    assert (letter.request_id, letter.code, letter.attempts, letter.worker) == ("a", "attempts_exhausted", 3, "w1")
    assert await client.letter("a") == letter
    assert await client.replay(letter) == 1
    assert [one async for one in client.dead_letters()] == []
    assert await client.letter("a") is None
    with pytest.raises(BrokerRefused, match="no longer kept"):
        await client.replay(letter)
    again = await take(bus)
    assert again.body == b'{"id": "a"}  '
    assert again.headers == {"x-own": "1", "comfybus-reason": "mine", "comfybus-replay": "1"}
    assert (await again.claim(RequestKey("a", 1)))[0] is Claim.OWNED
    letter_of_replay = Letter("again", "attempts_exhausted", "w1", 3, "a", id_was_derived=False, replay=1)
    assert await again.settle(answer("a", "failed", replay=1), letter_of_replay)
    (second,) = [one async for one in client.dead_letters()]
    assert await client.replay(second) == 2
    third = await take_claimed(bus, "a", replay=2)
    assert await third.settle(answer("a", replay=2))
    last = await client.last_terminal("a")
    assert last is not None
    assert last.headers["ce_id"] == "a/complete/2"
    assert await kafka.outside.unsettled() == 0


async def test_two_who_replay_the_same_letter_replay_it_once(client: KafkaClient, bus: KafkaBus) -> None:
    """At the same moment, from two clients: one request comes of it."""
    await client.submit(b'{"id": "a"}', request_id="a")
    assert await (await take_claimed(bus, "a")).settle(answer("a", "failed"), LETTER)
    letter = await client.letter("a")
    assert letter is not None
    said: list[object] = []

    async def replay() -> None:
        try:
            said.append(await client.replay(letter))
        except Exception as exc:  # noqa: BLE001 - looked at below
            said.append(exc)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(replay)
    assert said.count(1) <= 1, said
    again = await take_claimed(bus, "a", replay=1) if 1 in said else None
    if again is None:
        assert await client.replay(letter) == 1
        again = await take_claimed(bus, "a", replay=1)
    assert await again.settle(answer("a", replay=1))
    assert await bus.take(1) is None


async def test_workers_are_known_by_their_last_sign_of_life(client: KafkaClient, bus: KafkaBus) -> None:
    """One event for each worker, the latest of those that tell of its life."""
    for worker, event in (
        ("w1", "started"),
        ("w2", "heartbeat"),
        ("w1", "heartbeat"),
        ("w1", "models"),
        ("w2", "stopped"),
    ):
        body = json.dumps({"type": f"worker.{event}", "worker": worker}).encode()
        await bus.publish(Message(Channel.WORKER, (worker, event), worker, body, {"type": f"worker.{event}"}))

    async def both() -> list[EventMessage]:
        found = await client.workers()
        return found if [one.document["type"] for one in found] == ["worker.heartbeat", "worker.stopped"] else []

    found = await eventually(both)
    assert [event.document["worker"] for event in found] == ["w1", "w2"]
    listed = await eventually(client.inventories)
    assert [(event.document["type"], event.document["worker"]) for event in listed] == [("worker.models", "w1")]


async def test_another_process_of_the_same_worker_is_heard(kafka: KafkaHarness, bus: KafkaBus) -> None:
    """The last heartbeat under a worker's key can be looked at, whoever sent it."""

    def heartbeat(process: str) -> Message:
        attributes = {"type": "worker.heartbeat", "id": f"w1/{process}/1"}
        return Message(Channel.WORKER, ("w1", "heartbeat"), "w1", b"{}", attributes)

    assert await bus.last_headers(heartbeat("mine")) is None
    async with kafka.bus() as other:
        await other.publish(heartbeat("theirs"))

        async def heard() -> bool:
            headers = await bus.last_headers(heartbeat("mine"))
            return headers is not None and headers["ce_id"] == "w1/theirs/1"

        await eventually(heard)


async def test_doctor_says_what_is_there_and_what_is_missing(client: KafkaClient, bus: KafkaBus) -> None:
    """One line for the cluster, each topic and the group; a missing topic is named with its cure."""
    await client.submit(b'{"id": "a"}', request_id="a")
    delivery = await take_claimed(bus, "a")
    await client.submit(b'{"id": "b"}', request_id="b")
    checks = await client.check()
    assert all(check.ok for check in checks), checks
    assert checks[0].text.startswith("Kafka at 127.0.0.1")
    group = checks[-1].text
    assert "1 worker on 4 partitions" in group
    assert "requests waiting: about 1, in hand or retried later: 1" in group
    assert await delivery.settle(answer("a"))
    await client.link.admin.delete_topics([client.link.names.topic(Channel.STORAGE)])

    async def told() -> bool:
        return any("storage is missing" in check.text for check in await client.check() if not check.ok)

    await eventually(told)


async def test_ids_and_objects_that_cannot_be_are_refused(client: KafkaClient, tmp_path: Path) -> None:
    """An id that breaks the contract, and an object store that Kafka has not."""
    with pytest.raises(BrokerRefused, match="is no request id"):
        await client.submit(b"{}", request_id="a b")
    with pytest.raises(BrokerRefused, match="NATS object store"):
        await client.fetch_object("nats://bucket/key", tmp_path / "file")
