"""What a bus tells the metrics: how long requests wait, and what it lived through."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
import pytest

from tests.support.broker_harness import BrokerHarness, answer, take_claimed

pytestmark = pytest.mark.anyio


async def test_the_oldest_request_that_waits_is_known(broker: BrokerHarness) -> None:
    """Those in hand do not count, nor does what is settled."""
    async with broker.bus() as bus:
        assert await bus.oldest_waiting() is None
        await broker.outside.send({"id": "a"})
        first = await take_claimed(bus, "a")
        assert await bus.oldest_waiting() is None
        before = datetime.now(UTC)
        await broker.outside.send({"id": "b"})
        await broker.outside.send({"id": "c"})
        with anyio.fail_after(30):
            while (oldest := await bus.oldest_waiting()) is None:
                await anyio.sleep(0.05)
        assert abs((oldest - before).total_seconds()) < 30
        second = await take_claimed(bus, "b")
        if broker.shares_requests:
            assert abs((second.origin.published_at - oldest).total_seconds()) < 0.001
        assert await first.settle(answer("a"))
        third = await take_claimed(bus, "c")
        assert await bus.oldest_waiting() is None
        assert await second.settle(answer("b"))
        assert await third.settle(answer("c"))


async def test_reconnects_are_counted(broker: BrokerHarness) -> None:
    """Each connection that was lost and restored."""
    async with broker.bus() as bus:
        assert bus.counts.reconnects == 0
        assert await bus.oldest_waiting() is None
        await broker.kill()
        with anyio.fail_after(60):
            while bus.health().ok:
                await anyio.sleep(0.05)
        # While nobody answers nothing can be told.
        with anyio.fail_after(30):
            assert await bus.oldest_waiting() is None
        await broker.restart()
        with anyio.fail_after(90):
            while bus.counts.reconnects == 0:
                await anyio.sleep(0.05)
        assert bus.counts.reconnects == 1


async def test_leases_that_were_kept_are_counted(broker: BrokerHarness) -> None:
    """Where a lease has to be renewed at all."""
    async with broker.bus() as bus:
        await broker.outside.send({"id": "a"})
        delivery = await take_claimed(bus, "a")
        if broker.shares_requests:
            with anyio.fail_after(30):
                while bus.counts.lease_extensions < 2:
                    await anyio.sleep(0.05)
        assert await delivery.settle(answer("a"))
        assert bus.counts.lease_extensions >= 0
