"""Side channels: at most once, without waiting, whatever the broker does."""

from __future__ import annotations

import json

import anyio
import pytest

from brokers.base import Message
from brokers.channels import Channel
from tests.support.broker_harness import BrokerHarness, eventually, take_claimed

pytestmark = pytest.mark.anyio


def progress(n: int, size: int = 0) -> Message:
    """A step of a prompt."""
    body = {"id": "a", "n": n, "x": "x" * size}
    return Message(Channel.PROGRESS, ("a",), "a", json.dumps(body).encode(), {"id": f"p{n}"})


async def test_side_messages_come_in_order(broker: BrokerHarness) -> None:
    """While all is well every one arrives, with its CloudEvents headers."""
    async with broker.bus() as bus:
        for n in range(100):
            await bus.publish(progress(n))
        await eventually(lambda: len(broker.outside.heard("a", "prompt.progress")) == 100)
        heard = broker.outside.heard("a", "prompt.progress")
        assert [event.body["n"] for event in heard] == list(range(100))
        assert heard[3].headers["ce-id"] == "p3"


async def test_side_messages_never_hold_anybody_up(broker: BrokerHarness) -> None:
    """Too large, with a frozen connection, or without a server: publish returns at once, and later ones go through."""
    async with broker.bus_on_a_wire() as (bus, wire):
        await bus.publish(progress(1, size=bus.max_message_bytes))
        wire.freeze()
        with anyio.fail_after(3):
            for n in range(500):
                await bus.publish(progress(n, size=10_000))
        wire.resume()
        await broker.kill()
        with anyio.fail_after(3):
            for n in range(500):
                await bus.publish(progress(n))
        await broker.restart()
        await eventually(lambda: bus.health().ok)

        async def arrives() -> bool:
            await bus.publish(progress(1000))
            return any(event.body["n"] == 1000 for event in broker.outside.heard("a", "prompt.progress"))

        await eventually(arrives)


async def test_a_bus_can_be_closed_in_an_outage(broker: BrokerHarness) -> None:
    """Closing takes seconds at most while the server is gone, also with requests in hand."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"})
        await take_claimed(bus, "a")
        await broker.kill()
        await eventually(lambda: not bus.health().ok)
        closing = anyio.current_time()
    assert anyio.current_time() - closing < 5


async def test_a_bus_can_be_closed_on_a_frozen_connection(broker: BrokerHarness) -> None:
    """Also when the server is there and says nothing any more."""
    async with broker.bus_on_a_wire() as (bus, wire):
        await broker.outside.send({"id": "a"})
        await take_claimed(bus, "a")
        wire.freeze()
        closing = anyio.current_time()
    assert anyio.current_time() - closing < 12


async def test_a_bus_that_closes_over_a_take_leaves_no_request_behind(broker: BrokerHarness) -> None:
    """A request sent in the moment in which a waiting worker ends goes to another one at once."""
    async with broker.bus() as other:
        found = 0
        for number in range(12):
            async with broker.bus() as bus, anyio.create_task_group() as tasks:
                tasks.start_soon(bus.take, 30)
                await anyio.sleep(0.01)
                tasks.start_soon(broker.outside.send, {"id": f"a{number}"})
                await anyio.sleep(0.001 * (number % 4))
                tasks.cancel_scope.cancel()
        while await other.take(1):
            found += 1
        assert found == await broker.outside.unsettled() >= 1
