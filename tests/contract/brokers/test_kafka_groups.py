"""Groups on Kafka: several in hand in one partition, kills, zombies, rebalances, standing by, leaving, coming back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiokafka.errors import ProducerFenced
from structlog.testing import capture_logs

from brokers.base import Claim, RequestKey, Tries
from brokers.kafka import KafkaBus
from brokers.kafka.library import TopicPartition
from brokers.kafka.writer import Fenced, Outgoing, Writer
from brokers.tracker import Mark
from tests.support.broker_harness import answer, take, take_claimed
from tests.support.kafka_harness import KafkaHarness, run_kafka

pytestmark = pytest.mark.anyio


@pytest.fixture
async def kafka(tmp_path: Path) -> AsyncIterator[KafkaHarness]:
    """One partition, and sessions of a second."""
    async with run_kafka(tmp_path, lease_s=1) as harness:
        yield harness


def request_id(delivery: Any) -> str:
    """The id in the body."""
    return str(json.loads(delivery.body)["id"])


def generation(bus: KafkaBus) -> int:
    """Of the group, as this member knows it; it rises with every rebalance."""
    consumer = bus._membership._consumer
    assert consumer is not None
    return int(consumer._coordinator.generation)


async def test_after_a_kill_exactly_the_unfinished_come_again(kafka: KafkaHarness) -> None:
    """Eight in flight in one partition, settled out of order, kill -9: the three unfinished return, with records."""
    ids = [f"j{number}" for number in range(8)]
    for one in ids:
        await kafka.outside.send({"id": one})
    settled = ["j6", "j1", "j3", "j7", "j4"]
    process = await kafka.juggler(8, settled=settled, noted=["j2"])
    await process.kill()
    async with kafka.bus() as bus:
        back = {}
        for _ in range(3):
            delivery = await take(bus)
            assert delivery.redelivered
            claim, tries = await delivery.claim(RequestKey(request_id(delivery)))
            assert claim is Claim.OWNED
            back[request_id(delivery)] = (delivery, tries)
        assert {name: tries for name, (_, tries) in back.items()} == {
            "j0": Tries(),
            "j2": Tries(attempt=2, begun=True),
            "j5": Tries(),
        }
        assert await bus.take(1) is None
        for name, (delivery, _) in back.items():
            assert await delivery.settle(answer(name, by="second"))
    terminals = await kafka.outside.terminals()
    assert {name: len(events) for name, events in terminals.items()} == dict.fromkeys(ids, 1)
    assert await kafka.outside.unsettled() == 0


async def test_four_in_flight_in_one_partition_settle_in_any_order(kafka: KafkaHarness) -> None:
    """One partition keeps four slots busy; what is settled first is settled, whatever lies before it."""
    async with kafka.bus() as bus:
        for number in range(5):
            await kafka.outside.send({"id": f"f{number}"})
        held = [await take_claimed(bus, f"f{number}") for number in range(4)]
        for index, left in ((3, 4), (1, 3), (2, 2)):
            assert await held[index].settle(answer(f"f{index}"))
            assert await kafka.outside.unsettled() == left
        assert request_id(await take(bus)) == "f4"
        assert await held[0].settle(answer("f0"))
        assert await kafka.outside.unsettled() == 1


async def test_a_fenced_writer_writes_nothing_more(kafka: KafkaHarness) -> None:
    """Who begins later ends the transaction of who was before; a committed reader sees one event of both."""
    await kafka.outside.send({"id": "a"})
    source = TopicPartition(kafka.topic("prompt.request"), 0)
    record = Outgoing(kafka.topic("prompt.complete"), b"a", b'{"id":"a"}', [], 0)
    options, group = kafka.config.client_options(), kafka.names.worker_group
    zombie, heir = Writer(options, group, source, 2**20), Writer(options, group, source, 2**20)
    try:
        await zombie.start()
        # Half way through its transaction, with the event written, the partition becomes another's.
        await zombie._producer.begin_transaction()
        await zombie._producer.send_and_wait(record.topic, record.value, key=record.key, partition=0)
        await heir.start()
        with pytest.raises(ProducerFenced):
            await zombie._producer.commit_transaction()
        await heir.commit([record], Mark(1))
        late = Writer(options, group, source, 2**20)
        await late.start()
        with pytest.raises(Fenced):
            await heir.commit([record], Mark(1))
    finally:
        for writer in (zombie, heir, late):
            await writer.close()
    assert len((await kafka.outside.terminals())["a"]) == 1
    assert await kafka.outside.unsettled() == 0


async def test_a_fenced_worker_leaves_the_group_and_joins_anew(kafka: KafkaHarness) -> None:
    """Its writer is never started again in place: the group gives it the partition first; then its answer counts."""
    async with kafka.bus() as bus:
        await kafka.outside.send({"id": "a"})
        delivery = await take_claimed(bus, "a")
        before = consumer_of(bus)
        usurper = Writer(
            kafka.config.client_options(),
            kafka.names.worker_group,
            TopicPartition(kafka.topic("prompt.request"), 0),
            2**20,
        )
        await usurper.start()
        await usurper.close()
        with capture_logs() as logs, anyio.fail_after(15):
            assert await delivery.settle(answer("a"))
        assert consumer_of(bus) is not before
        assert [line["doing"] for line in logs if line["event"] == "trouble with the broker"] == [
            "write for a partition"
        ]
        assert bus.health().ok
        await kafka.outside.send({"id": "b"})
        assert await (await take_claimed(bus, "b")).settle(answer("b"))
    assert {name: len(events) for name, events in (await kafka.outside.terminals()).items()} == {"a": 1, "b": 1}


async def test_a_prompt_longer_than_the_poll_interval_moves_nothing(kafka: KafkaHarness) -> None:
    """With an interval of two seconds a prompt of seven stays where it is: no rebalance, delivered once, one answer."""
    async with kafka.bus(max_poll_interval_ms=2000) as bus:
        await kafka.outside.send({"id": "long"})
        delivery = await take_claimed(bus, "long")
        before = generation(bus)
        await anyio.sleep(7)
        assert generation(bus) == before
        assert not delivery.lost.is_set()
        assert await bus.take(0.5) is None
        assert await delivery.settle(answer("long"))
    assert len((await kafka.outside.terminals())["long"]) == 1


async def test_a_worker_too_many_stands_by_and_takes_over(kafka: KafkaHarness) -> None:
    """With more workers than partitions one waits, healthy and saying so, and has requests within ten seconds."""
    async with kafka.bus(session_timeout_ms=45_000) as standby:
        async with kafka.bus(session_timeout_ms=45_000) as first:
            await kafka.outside.send({"id": "a"})
            delivery = await take_claimed(first, "a")
            with capture_logs() as logs:
                assert await standby.take(3) is None
            assert "standing by" in " ".join(line["event"] for line in logs)
            assert standby.health().ok
            assert standby.stands_by
            assert not first.stands_by
            assert await delivery.settle(answer("a"))
        await kafka.outside.send({"id": "b"})
        began = anyio.current_time()
        await take_claimed(standby, "b", within_s=10)
        print(f"taken over {anyio.current_time() - began:.1f} s after the other one left")


async def test_a_rebalance_moves_some_and_leaves_the_others_alone(tmp_path: Path) -> None:
    """A second worker gets half of the partitions: their requests run there, the others go on where they are."""
    async with run_kafka(tmp_path, lease_s=2, partitions=4) as kafka, kafka.bus() as one, kafka.bus() as other:
        ids = [f"m{number}" for number in range(16)]
        for name in ids:
            await kafka.outside.send({"id": name})
        first = {request_id(one_): one_ for one_ in [await take(one) for _ in ids]}
        for name, delivery in first.items():
            assert (await delivery.claim(RequestKey(name)))[0] is Claim.OWNED
            await delivery.store(Tries(begun=True))
        moved = {}
        while (delivery := await other.take(3)) is not None:
            moved[request_id(delivery)] = delivery
        assert 0 < len(moved) < len(ids)
        assert {name for name, delivery in first.items() if delivery.lost.is_set()} == set(moved)
        for name, delivery in moved.items():
            assert await delivery.claim(RequestKey(name)) == (Claim.OWNED, Tries(begun=True))
            assert delivery.redelivered
            assert not await first[name].settle(answer(name, "failed"))
            assert await delivery.settle(answer(name, by="w2"))
        for name in set(ids) - set(moved):
            assert await first[name].settle(answer(name))
        assert await one.take(0.5) is None
        assert await other.take(0.5) is None
        stored = await kafka.outside.terminals()
        assert {name: len(events) for name, events in stored.items()} == dict.fromkeys(ids, 1)
        assert all((stored[name][0].headers["ce-source"] == "/comfybus/w2") == (name in moved) for name in ids)
        assert await kafka.outside.unsettled() == 0


async def test_a_rebalance_waits_for_what_is_nearly_done(tmp_path: Path) -> None:
    """Deliveries whose outputs are being stored are settled before their partition moves."""
    async with run_kafka(tmp_path, lease_s=2, partitions=2) as kafka, kafka.bus() as one, kafka.bus() as other:
        held = []
        for number in range(12):
            await kafka.outside.send({"id": f"n{number}"})
            held.append(await take_claimed(one, f"n{number}"))
        for delivery in held:
            delivery.nearly_done = True  # type: ignore[attr-defined]

        async def finish() -> None:
            await anyio.sleep(2.5)
            for number, delivery in enumerate(held):
                assert await delivery.settle(answer(f"n{number}"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(finish)
            assert await other.take(6) is None
        assert not any(delivery.lost.is_set() for delivery in held)
        assert not other.stands_by
        assert await kafka.outside.unsettled() == 0


async def test_who_asks_for_nothing_leaves_its_partitions_to_others(
    kafka: KafkaHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While ComfyUI is down nobody asks: after a minute the group is left, and joined again at the next question."""
    monkeypatch.setattr("brokers.kafka.membership.IDLE_LEAVE_S", 0.5)
    async with kafka.bus() as one, kafka.bus() as other:
        assert await one.take(1) is None
        await kafka.outside.send({"id": "a"})
        delivery = await take_claimed(other, "a")
        assert one.health().ok
        assert await one.take(1) is None
        # With a request in hand a worker stays, whether it asks or not.
        await anyio.sleep(1.5)
        assert not delivery.lost.is_set()
        assert await delivery.settle(answer("a"))


async def test_waiting_retries_do_not_keep_a_drained_worker_in_the_group(kafka: KafkaHarness) -> None:
    """What is handed back while retries wait goes to another worker, and so do the retries, at once, with records."""
    async with kafka.bus() as one, kafka.bus() as other:
        for name in ("a", "b"):
            await kafka.outside.send({"id": name})
        waits, back = await take_claimed(one, "a"), await take_claimed(one, "b")
        await waits.retry(300, Tries(attempt=2))
        await back.release()
        found = {request_id(delivery): delivery for delivery in [await take(other, within_s=5) for _ in range(2)]}
        assert await found["a"].claim(RequestKey("a")) == (Claim.OWNED, Tries(attempt=2))
        assert found["b"].redelivered


async def test_a_static_member_comes_back_to_its_partitions(tmp_path: Path) -> None:
    """Within its session a restarted worker has them at once, nobody else gets them, and nothing is divided anew."""
    async with run_kafka(tmp_path, lease_s=20) as kafka, kafka.bus() as other:
        await kafka.outside.send({"id": "a"})
        async with kafka.bus(static_member="w-1") as bus:
            await take_claimed(bus, "a")
            assert await other.take(2) is None
            assert other.stands_by
            before = generation(other)
        async with kafka.bus(static_member="w-1") as bus:
            delivery = await take_claimed(bus, "a", within_s=5)
            assert delivery.redelivered
            assert await delivery.settle(answer("a"))
            assert generation(other) == generation(bus) == before


async def test_forgotten_offsets_bring_nothing_settled_back(kafka: KafkaHarness) -> None:
    """Settled requests are deleted: a group that Kafka has forgotten begins at the first unsettled one."""
    async with kafka.bus() as bus:
        for number in range(6):
            await kafka.outside.send({"id": f"t{number}"})
            delivery = await take_claimed(bus, f"t{number}")
            if number != 4:
                assert await delivery.settle(answer(f"t{number}"))
        await bus._tidying.tidy()
        await delivery.release()
    source = TopicPartition(kafka.topic("prompt.request"), 0)
    assert (await kafka.outside.ends.beginning_offsets([source]))[source] == 4
    await kafka.forget_group()
    async with kafka.bus() as bus:
        assert request_id(await take(bus)) == "t4"
        again = await take(bus)
        assert request_id(again) == "t5"
        assert (await again.claim(RequestKey("t5")))[0] is Claim.ANSWERED


async def test_answers_of_before_are_known_after_a_start(kafka: KafkaHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new worker reads back which ids are answered, within bounds: what was answered before those runs again."""
    async with kafka.bus() as bus:
        for number in range(12):
            await kafka.outside.send({"id": f"o{number}"})
            assert await (await take_claimed(bus, f"o{number}")).settle(answer(f"o{number}"))
    monkeypatch.setattr("brokers.kafka.answered.STEPS", (4, 10))
    async with kafka.bus() as bus:
        found = {}
        for number in (0, 6, 7, 11):
            await kafka.outside.send({"id": f"o{number}"})
            delivery = await take(bus)
            found[number] = (await delivery.claim(RequestKey(f"o{number}")))[0]
        # Each answer takes two offsets, its own and its transaction's marker: ten of them hold five answers.
        assert found == {0: Claim.OWNED, 6: Claim.OWNED, 7: Claim.ANSWERED, 11: Claim.ANSWERED}


async def test_a_worker_closed_in_the_middle_of_joining_leaves_nothing_behind(kafka: KafkaHarness) -> None:
    """Closed at any moment of its first take, the next worker has the request soon."""
    for number in range(6):
        async with kafka.bus() as bus:
            with anyio.move_on_after(0.05 * number):
                await bus.take(10)
    async with kafka.bus() as bus:
        await kafka.outside.send({"id": "a"})
        await take_claimed(bus, "a", within_s=5)


def consumer_of(bus: KafkaBus) -> Any:
    """The member's consumer."""
    return bus._membership._consumer
