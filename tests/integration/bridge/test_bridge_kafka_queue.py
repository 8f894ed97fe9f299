"""The bridge's queue on a real Kafka: what an event becomes, who owns what, and what a bridge shut out can still do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from aiokafka.admin import NewTopic

from brokers.base import BrokerRefused
from brokers.channels import Names
from brokers.kafka.config import KafkaConfig
from brokers.kafka.webhooks import KafkaWebhookBus
from brokers.kafka.webhooks.layout import SHARES, share_of
from brokers.webhooks import Feed, NewDelivery, Share
from tests.integration.bridge.holding import LANE, Holder, new
from tests.support.broker_harness import eventually
from tests.support.kafka_stack import run_kafka_stack
from tests.support.stack import Stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

WITHIN_S = 40


class Worker(Holder[KafkaWebhookBus]):
    """It takes events too, and says when what it stored is in its share."""

    async def until(self, count: int) -> None:
        await eventually(lambda: len(self.shares) == count, WITHIN_S)

    async def store(self, *news: NewDelivery) -> None:
        """As what the next event asks for."""
        event = await self.bus.take(Feed.RESULTS, WITHIN_S)
        assert event is not None
        with anyio.fail_after(WITHIN_S):
            await event.done(news)

    async def stored(self, name: str) -> Share:
        """Wait until a delivery is in its share."""
        share = self.shares[share_of(LANE, SHARES)]
        with anyio.fail_after(WITHIN_S):
            while await share.find(LANE, name) is None:
                await anyio.sleep(0.01)
        return share


def config(stack: Stack) -> KafkaConfig:
    return KafkaConfig(
        servers=(stack.broker.url.removeprefix("kafka://"),), names=Names(str(stack.env["TOPIC_PREFIX"]))
    )


@asynccontextmanager
async def working(stack: Stack, lease_s: float = 2.0) -> AsyncIterator[Worker]:
    worker = Worker(KafkaWebhookBus(config(stack), feeds=frozenset({Feed.RESULTS}), lease_s=lease_s))
    async with worker.open():
        yield worker


async def publish(stack: Stack, *ids: str) -> None:
    """Terminal events that ask for nothing themselves."""
    outside = stack.outside
    for one in ids:
        await outside.producer.send_and_wait(outside.topic("prompt.complete"), b"{}", key=one.encode())


async def test_a_delivery_is_changed_and_settled(tmp_path: Path) -> None:
    """Only who knows the latest state changes it; what is settled is gone, its body too."""
    async with run_kafka_stack(tmp_path) as stack, working(stack) as worker:
        await worker.until(SHARES)
        await publish(stack, "one")
        await worker.store(new("a", b"first"))
        share = await worker.stored("a")
        found = await share.find(LANE, "a")
        assert found is not None
        assert await share.body("a") == b"first"
        changed = await share.defer(found, b'{"id":"a","attempts":1}')
        assert changed is not None
        assert changed.token > found.token
        assert await share.defer(found, b'{"id":"a","attempts":9}') is None
        assert await share.body("a") == b"first"
        await share.settle(found)
        assert await share.find(LANE, "a") == changed
        await share.settle(changed)
        assert await share.find(LANE, "a") is None
        assert await share.body("a") is None
        # To settle again is harmless.
        await share.settle(changed)


async def test_reading_begins_with_all_that_waits(tmp_path: Path) -> None:
    """A share hands out what lies there, says where that ends, and goes on with what is stored."""
    async with run_kafka_stack(tmp_path) as stack, working(stack) as worker:
        await worker.until(SHARES)
        await publish(stack, "one", "two")
        await worker.store(new("a"), new("b"), new("c"))
        share = await worker.stored("c")
        records = share.read()
        assert [getattr(await anext(records), "id", None) for _ in range(4)] == ["a", "b", "c", None]
        await worker.store(new("d"))
        with anyio.fail_after(WITHIN_S):
            four = await anext(records)
        assert four is not None
        assert four.id == "d"
        assert [one.id async for one in share.read_lane(LANE, four.token - 1)] == ["d"]
        await records.aclose()


async def test_a_successor_begins_where_its_predecessor_ended(tmp_path: Path) -> None:
    """After a stop another bridge has what waited, in its latest state, and reads on behind the stored events."""
    async with run_kafka_stack(tmp_path) as stack:
        async with working(stack) as first:
            await first.until(SHARES)
            await publish(stack, "one", "two", "three")
            await first.store(new("a"), new("b"))
            share = await first.stored("b")
            waiting = await share.find(LANE, "a")
            assert waiting is not None
            assert await share.defer(waiting, b"later") is not None
            # Taken and not stored: the next one gets it.
            assert await first.bus.take(Feed.RESULTS, WITHIN_S) is not None
        async with working(stack) as second:
            await second.until(SHARES)
            share = await second.stored("a")
            records = share.read()
            assert [getattr(await anext(records), "id", None) for _ in range(3)] == ["b", "a", None]
            found = await share.find(LANE, "a")
            assert found is not None
            assert found.record == b"later"
            await records.aclose()
            for _ in range(2):
                await second.store()
            assert await second.bus.take(Feed.RESULTS, 1) is None


async def test_who_was_shut_out_changes_nothing_any_more(tmp_path: Path) -> None:
    """A bridge whose share another one has taken loses it at its next word, and what it said does not count."""
    async with run_kafka_stack(tmp_path) as stack, working(stack, lease_s=30) as first:
        await first.until(SHARES)
        await publish(stack, "one")
        await first.store(new("a"))
        share = await first.stored("a")
        waiting = await share.find(LANE, "a")
        assert waiting is not None
        other = KafkaWebhookBus(config(stack), feeds=frozenset({Feed.RESULTS}), lease_s=30)
        async with other.open():
            await other._take_over(share.number)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(share.defer, waiting, b"too late")
                await eventually(lambda: share.number in first.lost, WITHIN_S)
                tasks.cancel_scope.cancel()
        # By the log it is still its own, so it takes it again: nothing was changed.
        await first.until(SHARES)
        again = await first.stored("a")
        assert (found := await again.find(LANE, "a")) is not None
        assert found.record == waiting.record
        assert await again.body("a") == b"body"


async def test_two_bridges_divide_the_shares(tmp_path: Path) -> None:
    """Together each has its part, no share twice; what one gives back the other has at once."""
    async with run_kafka_stack(tmp_path) as stack, working(stack) as first:
        await first.until(SHARES)
        async with working(stack) as second:
            await eventually(lambda: (len(first.shares), len(second.shares)) == (SHARES // 2, SHARES // 2), WITHIN_S)
            assert not set(first.shares) & set(second.shares)
        await first.until(SHARES)
        assert first.lost == []


async def test_a_body_that_is_too_large_leaves_its_record(tmp_path: Path) -> None:
    """What the topic does not take is not lost in silence: the record is there, and ends in the dead letter."""
    async with run_kafka_stack(tmp_path) as stack, working(stack) as worker:
        await worker.until(SHARES)
        await publish(stack, "one")
        await worker.store(new("huge", b"x" * 3 * 1024**2), new("small"))
        share = await worker.stored("small")
        assert await share.find(LANE, "huge") is not None
        assert await share.body("huge") is None
        assert await share.body("small") == b"body"


async def test_an_unfit_topic_stops_the_start(tmp_path: Path) -> None:
    """What exists is never changed; one line says what is wrong with it."""
    async with run_kafka_stack(tmp_path) as stack:
        outside = stack.outside
        await outside.admin.create_topics([NewTopic(f"{outside.prefix}-webhook", 4, 1)])
        with pytest.raises(BrokerRefused, match=r"-webhook must be compacted"):
            async with working(stack):
                pass
