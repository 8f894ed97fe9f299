"""Settling: one terminal event for each id, confirmed before the request is gone, through every outage."""

from __future__ import annotations

import dataclasses

import anyio
import pytest

from brokers.base import Bus, Claim, MessageTooLarge, RequestKey
from tests.support.broker_harness import BrokerHarness, answer, eventually, take, take_claimed

pytestmark = pytest.mark.anyio


async def test_settling_stores_the_event_and_ends_the_request(broker: BrokerHarness) -> None:
    """A settled request is gone, and its event is stored with the CloudEvents headers of the contract."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"})
        delivery = await take_claimed(bus, "a")
        message = dataclasses.replace(answer("a", text="grün"), headers={"traceparent": "00-1-2-01"})
        assert await delivery.settle(message)
        assert await broker.outside.unsettled() == 0
        event = await broker.outside.terminal("a", 1)
        assert event.channel == "prompt.complete"
        assert event.body["text"] == "grün"
        assert event.headers["ce-id"] == "a/complete"
        assert event.headers["ce-source"] == "/comfybus/w1"
        assert event.headers["content-type"] == "application/json"
        assert event.headers["traceparent"] == "00-1-2-01"


async def test_a_header_cannot_forge_another(broker: BrokerHarness) -> None:
    """Line breaks in a value end neither the header nor the message."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"})
        delivery = await take_claimed(bus, "a")
        message = dataclasses.replace(answer("a"), headers={"x-own": "one\r\nx-forged: two\n\nthree"})
        assert await delivery.settle(message)
        headers = (await broker.outside.terminal("a", 1)).headers
        assert "x-forged" not in headers
        assert headers["x-own"].split() == ["one", "x-forged:", "two", "three"]


async def test_complete_and_failed_exclude_each_other(hasty_broker: BrokerHarness) -> None:
    """Where two workers hold the same request and answer at the same moment, one answer is stored, in every race."""
    races = 40
    async with hasty_broker.bus_on_a_wire() as (one, wire), hasty_broker.bus() as other:
        for number in range(races):
            await hasty_broker.outside.send({"id": f"r{number}"})
        ours = {number: await take_claimed(one, f"r{number}") for number in range(races)}
        wire.freeze()
        theirs = {}
        for _ in range(races):
            delivery = await take(other, within_s=5)
            number = next(n for n, held in ours.items() if held.origin == delivery.origin)
            assert (await delivery.claim(RequestKey(f"r{number}")))[0] is Claim.OWNED
            theirs[number] = delivery
        wire.resume()
        await eventually(lambda: one.health().ok)
        won: list[bool] = []

        async def settle(delivery: object, outcome: str, number: int, by: str) -> None:
            won.append(await delivery.settle(answer(f"r{number}", outcome, by=by)))  # type: ignore[attr-defined]

        async with anyio.create_task_group() as tasks:
            for number in range(races):
                tasks.start_soon(settle, ours[number], "complete", number, "w1")
                tasks.start_soon(settle, theirs[number], "failed", number, "w2")
        assert sorted(won) == [False] * races + [True] * races
        stored = await hasty_broker.outside.terminals()
        assert {number: len(events) for number, events in stored.items()} == {f"r{n}": 1 for n in range(races)}
        assert await hasty_broker.outside.unsettled() == 0


async def test_an_event_may_be_as_large_as_the_broker_takes(broker: BrokerHarness) -> None:
    """What size_bytes says fits is stored; one byte more is refused before it is sent, and the bus lives on."""
    async with broker.bus() as bus:
        for request_id, over in (("a", 0), ("b", 1)):
            await broker.outside.send({"id": request_id})
            delivery = await take_claimed(bus, request_id)
            empty = answer(request_id, text="")
            room = bus.max_message_bytes - bus.size_bytes(empty)
            message = answer(request_id, text="x" * (room + over))
            assert bus.size_bytes(message) == bus.max_message_bytes + over
            if over:
                with pytest.raises(MessageTooLarge) as refused:
                    await delivery.settle(message)
                assert refused.value.size_bytes == bus.max_message_bytes + 1
                assert refused.value.limit_bytes == bus.max_message_bytes
            assert await delivery.settle(empty if over else message)
        assert set(await broker.outside.terminals()) == {"a", "b"}
        assert bus.health().ok


async def _settle_all(bus: Bus, ids: list[str]) -> None:
    async with anyio.create_task_group() as tasks:
        for request_id in ids:
            delivery = await take_claimed(bus, request_id)
            tasks.start_soon(delivery.settle, answer(request_id))


async def test_a_result_finished_in_an_outage_is_published_after_it(broker: BrokerHarness) -> None:
    """settle waits for a killed server to come back, then stores exactly one event; health tells of the outage."""
    async with broker.bus() as bus, anyio.create_task_group() as tasks:
        await broker.outside.send({"id": "a"})
        delivery = await take_claimed(bus, "a")
        await broker.kill()
        await eventually(lambda: not bus.health().ok)
        assert "lost" in bus.health().reason
        tasks.start_soon(delivery.settle, answer("a"))
        with anyio.move_on_after(1):
            assert await bus.take(5) is None
        await broker.restart()
        await broker.outside.terminal("a")
        await eventually(lambda: bus.health().ok)
    assert len((await broker.outside.terminals())["a"]) == 1
    assert await broker.outside.unsettled() == 0


async def test_a_server_killed_in_the_middle_of_settling_loses_and_doubles_nothing(broker: BrokerHarness) -> None:
    """With the server killed again and again while many requests are settled, each has one event and none is left."""
    ids = [f"k{number}" for number in range(60)]
    async with broker.bus() as bus:
        for request_id in ids:
            await broker.outside.send({"id": request_id})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_settle_whatever_comes, bus, ids)
            for _ in range(3):
                await anyio.sleep(0.1)
                await broker.kill()
                await broker.restart()

            async def all_settled() -> bool:
                return await broker.outside.unsettled() == 0 and len(await broker.outside.terminals()) == len(ids)

            await eventually(all_settled, within_s=30)
            tasks.cancel_scope.cancel()
    stored = await broker.outside.terminals()
    assert {request_id: len(events) for request_id, events in stored.items()} == dict.fromkeys(ids, 1)


async def _settle_whatever_comes(bus: Bus, ids: list[str]) -> None:
    async with anyio.create_task_group() as tasks:
        while True:
            delivery = await bus.take(1)
            if delivery is not None:
                tasks.start_soon(_settle_one, delivery)


async def _settle_one(delivery: object) -> None:
    import json

    request_id = json.loads(delivery.body)["id"]  # type: ignore[attr-defined]
    claim, _ = await delivery.claim(RequestKey(request_id))  # type: ignore[attr-defined]
    if claim is Claim.OWNED:
        await delivery.settle(answer(request_id))  # type: ignore[attr-defined]
    else:
        await delivery.drop()  # type: ignore[attr-defined]


async def test_a_cancelled_settlement_can_be_repeated(broker: BrokerHarness) -> None:
    """Cancelled at any moment, settle can be called again by whoever gets the request; one event comes of it."""
    async with broker.bus() as bus:
        for number in range(15):
            await broker.outside.send({"id": f"x{number}"})
            delivery = await take_claimed(bus, f"x{number}")
            with anyio.move_on_after(0.0004 * number):
                await delivery.settle(answer(f"x{number}"))
            assert await delivery.settle(answer(f"x{number}"))
        stored = await broker.outside.terminals()
        assert {key: len(events) for key, events in stored.items()} == {f"x{n}": 1 for n in range(15)}
        assert await broker.outside.unsettled() == 0
