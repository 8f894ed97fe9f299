"""Taking requests: what comes, when it comes again, and that nobody loses one."""

from __future__ import annotations

from contextlib import nullcontext

import anyio
import pytest

from brokers.base import Claim, Delivery, RequestKey, Tries
from tests.support.broker_harness import BrokerHarness, answer, eventually, take, take_claimed

pytestmark = pytest.mark.anyio


async def test_a_request_comes_as_it_was_sent(broker: BrokerHarness) -> None:
    """Body, headers, place and time of a request arrive untouched."""
    body = b'\xff\x00 no json \r\n {"a": 1}'
    async with broker.bus() as bus:
        await broker.outside.send(body, {"X-Own": "grün; a=b", "ce-id": "e1"})
        delivery = await take(bus)
        assert delivery.body == body
        assert delivery.headers["X-Own"] == "grün; a=b"
        assert delivery.headers["ce-id"] == "e1"
        assert delivery.redelivered is False
        assert delivery.origin.published_at.tzinfo is not None
        assert all(delivery.origin.parts)


async def test_an_empty_queue_gives_none_in_time(broker: BrokerHarness) -> None:
    """take returns None after its waiting time, short or long, and health stays well."""
    async with broker.bus() as bus:
        for wait_s in (0.1, 1.5):
            began = anyio.current_time()
            assert await bus.take(wait_s) is None
            assert wait_s - 0.05 <= anyio.current_time() - began < wait_s + 1
            assert bus.health().ok, bus.health().reason


async def test_a_waiting_take_gets_a_new_request_at_once(broker: BrokerHarness) -> None:
    """A request sent while take waits is handed out without delay."""
    async with broker.bus() as bus, anyio.create_task_group() as tasks:
        got: list[Delivery | None] = []

        async def wait() -> None:
            got.append(await bus.take(30))

        tasks.start_soon(wait)
        await anyio.sleep(0.3)
        await broker.outside.send({"id": "a"})
        await eventually(lambda: got, within_s=2)
        assert got[0] is not None


async def test_released_comes_back_at_once_and_spends_nothing(broker: BrokerHarness) -> None:
    """A released request goes to another bus at once, with its record as it was."""
    async with broker.bus() as one, broker.bus() as other:
        await broker.outside.send({"id": "a"})
        first = await take_claimed(one, "a")
        await first.store(Tries(attempt=2, begun=True, started_ms=7))
        await first.release()
        began = anyio.current_time()
        second = await take(other)
        assert anyio.current_time() - began < 1
        assert await second.claim(RequestKey("a")) == (Claim.OWNED, Tries(attempt=2, begun=True, started_ms=7))
        assert second.redelivered
        assert second.origin == first.origin


async def test_a_retry_comes_back_after_its_delay_with_its_record(broker: BrokerHarness) -> None:
    """retry stores the record and keeps the request away for the delay, not longer."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"})
        first = await take_claimed(bus, "a")
        began = anyio.current_time()
        await first.retry(1.0, Tries(attempt=2, fault="ComfyUI was down"))
        second = await take(bus)
        assert 0.9 < anyio.current_time() - began < 2.5
        assert await second.claim(RequestKey("a")) == (Claim.OWNED, Tries(attempt=2, fault="ComfyUI was down"))


async def test_waiting_retries_never_block_fresh_requests(broker: BrokerHarness) -> None:
    """Behind many retries that wait a fresh request is handed out at once."""
    async with broker.bus() as bus:
        for number in range(60):
            await broker.outside.send({"id": f"r{number}"})
            delivery = await take_claimed(bus, f"r{number}")
            await delivery.retry(60, Tries(attempt=2))
        await broker.outside.send({"id": "fresh"})
        began = anyio.current_time()
        delivery = await take(bus)
        assert b"fresh" in delivery.body
        assert anyio.current_time() - began < 1


async def test_cancelled_takes_lose_nothing(broker: BrokerHarness) -> None:
    """Takes cancelled at any moment leave no request behind that has to wait for its lease to end."""
    async with broker.bus() as bus:
        for number in range(40):
            await broker.outside.send({"id": f"c{number}"})
        found: set[bytes] = set()

        def keep(delivery: Delivery | None) -> None:
            if delivery is not None:
                found.add(delivery.body)

        for number in range(60):
            with anyio.move_on_after(0.0002 * number):
                keep(await bus.take(5))
        while len(found) < 40:
            keep(await take(bus))
        assert len(found) == 40


async def test_a_take_that_was_cancelled_hands_back_what_still_comes(broker: BrokerHarness) -> None:
    """After a waiting take is cancelled the next request goes at once to whoever asks and may have it."""
    async with broker.bus() as one, broker.bus() as other:
        asking = other if broker.shares_requests else one
        for number in range(80):
            with anyio.move_on_after(0.002 * (number % 10)):
                await one.take(10)
            await broker.outside.send({"id": f"a{number}"})
            await take(asking, within_s=2)


@pytest.mark.parametrize("failure", [None, ZeroDivisionError])
async def test_a_closed_bus_hands_back_what_it_held(
    broker: BrokerHarness, failure: type[ZeroDivisionError] | None
) -> None:
    """Requests nobody settled are free at once when their bus closes, also when it closes over a failure."""
    async with broker.bus() as other:
        await broker.outside.send({"id": "a"})
        with pytest.raises(failure) if failure else nullcontext():
            async with broker.bus() as bus:
                await take_claimed(bus, "a")
                if failure:
                    raise failure
        await take(other, within_s=1)


async def test_the_lease_is_kept_while_the_request_is_held(hasty_broker: BrokerHarness) -> None:
    """Held for several leases a request goes to nobody else, and is settled once."""
    async with hasty_broker.bus() as bus, hasty_broker.bus() as other:
        await hasty_broker.outside.send({"id": "a"})
        delivery = await take_claimed(bus, "a")
        assert await other.take(2.5) is None
        assert await delivery.settle(answer("a"))
        assert await hasty_broker.outside.unsettled() == 0


async def test_who_cannot_be_reached_loses_the_request(hasty_broker: BrokerHarness) -> None:
    """After the lease another bus gets the request, and only one of both answers is stored."""
    async with hasty_broker.bus_on_a_wire() as (one, wire), hasty_broker.bus() as other:
        await hasty_broker.outside.send({"id": "a"})
        first = await take_claimed(one, "a")
        await first.store(Tries(begun=True))
        wire.freeze()
        second = await take(other, within_s=5)
        assert await second.claim(RequestKey("a")) == (Claim.OWNED, Tries(begun=True))
        assert second.redelivered
        assert await second.settle(answer("a", "failed", by="w2"))
        wire.resume()
        with anyio.fail_after(20):
            assert not await first.settle(answer("a"))
        assert [one.channel for one in (await hasty_broker.outside.terminals())["a"]] == ["prompt.failed"]
        assert await hasty_broker.outside.unsettled() == 0


async def test_tries_survive_a_killed_process(hasty_broker: BrokerHarness) -> None:
    """What a worker stored is there for the next one when it was killed without a word."""
    async with hasty_broker.bus() as bus:
        await hasty_broker.outside.send({"id": "a"})
        tries = Tries(attempt=3, begun=True, started_ms=5, stopped="timeout", fault="it was slow")
        process = await hasty_broker.holder("a", tries)
        assert await bus.take(1.5) is None
        await process.kill()
        delivery = await take(bus, within_s=5)
        assert await delivery.claim(RequestKey("a")) == (Claim.OWNED, tries)
        assert delivery.redelivered
