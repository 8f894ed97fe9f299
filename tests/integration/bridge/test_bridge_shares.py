"""Several bridges, and what survives the end of a bridge or of the broker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import anyio
import pytest

from tests.integration.bridge.bridges import BridgeProcess, Scene, on_each_broker, run_scene
from tests.integration.bridge.receivers import run_receivers, slowly

# Generous: a machine that is busy with other things starts processes slowly.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


async def shares(bridge: BridgeProcess) -> int:
    """How many shares of the queue a bridge holds."""
    lines = (await bridge.metrics()).splitlines()
    return int(float(next(line for line in lines if line.startswith("comfybus_webhook_shares ")).split()[1]))


async def delivered(bridge: BridgeProcess) -> int:
    """How many webhooks a bridge has delivered."""
    lines = (await bridge.metrics()).splitlines()
    found = [line for line in lines if line.startswith("comfybus_webhook_delivered_total{")]
    return sum(int(float(line.split()[-1])) for line in found)


async def until_shared(scene: Scene, *wanted: int) -> None:
    """Wait until the bridges hold so many shares each, in any order."""
    living = [bridge for bridge in scene.bridges if bridge.process is not None and bridge.process.running]
    with anyio.fail_after(30):
        while sorted([await shares(bridge) for bridge in living]) != sorted(wanted):
            await anyio.sleep(0.05)


@on_each_broker
@pytest.mark.timeout(600)
async def test_several_bridges_share_the_work(tmp_path: Path, broker: str) -> None:
    """Two bridges divide the queue; one that is killed or stopped is replaced, and nothing comes twice."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        first = scene.bridge()
        await first.start()
        await until_shared(scene, 16)
        second = scene.bridge()
        await second.start()
        await until_shared(scene, 8, 8)
        paths = [f"e{number}" for number in range(24)]
        for path in paths:
            await scene.complete(f"x-{path}", webhook_v2=receivers.url(path))
        for path in paths:
            await receivers.until(path, 1)
        # Both had their part of it; what was delivered is counted once it is settled.
        with anyio.fail_after(10):
            while sum(counts := [await delivered(bridge) for bridge in (first, second)]) != 24:
                await anyio.sleep(0.05)
        print("delivered by each:", counts)
        assert min(counts) >= 1
        # A stop hands over at once, a kill after a lease.
        began = time.monotonic()
        assert await first.stop() == 0
        await until_shared(scene, 16)
        print(f"handed over in {time.monotonic() - began:.2f} s")
        third = scene.bridge()
        await third.start()
        await until_shared(scene, 8, 8)
        await second.kill()
        for path in paths:
            await scene.complete(f"y-{path}", webhook_v2=receivers.url(path))
        for path in paths:
            await receivers.until(path, 2, 30)
        await until_shared(scene, 16)
        await scene.until_kept("due", 0)
        assert len(receivers.calls) == 48


@on_each_broker
@pytest.mark.timeout(240)
async def test_a_bridge_that_was_frozen_changes_nothing(tmp_path: Path, broker: str) -> None:
    """Another one takes over what a frozen bridge had; when that goes on, it delivers nothing a second time."""
    async with run_receivers(hook=slowly(0.02)) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        frozen = scene.bridge()
        await frozen.start()
        for number in range(60):
            await scene.complete(f"f{number}", webhook_v2=receivers.url("hook"))
        await receivers.until("hook", 5, 60)
        assert frozen.process is not None
        os.kill(frozen.process.pid, signal.SIGSTOP)
        try:
            await scene.bridge().start()
            await receivers.until("hook", 60, 90)
            await scene.until_kept("due", 0, 60)
        finally:
            os.kill(frozen.process.pid, signal.SIGCONT)
        await until_shared(scene, 8, 8)
        ids = [call.webhook_id for call in receivers.of("hook")]
        print(f"{broker}: {len(set(ids))} of 60, {len(ids) - len(set(ids))} repeats")
        assert len(set(ids)) == 60
        # The one that was on its way when it froze.
        assert len(ids) <= 61
        await scene.complete("after", webhook_v2=receivers.url("hook"))
        await receivers.until("hook", len(ids) + 1)


@on_each_broker
@pytest.mark.timeout(600)
async def test_the_broker_may_die_at_any_moment(tmp_path: Path, broker: str) -> None:
    """While deliveries go out the broker is killed three times: every event that it confirmed arrives, once."""
    async with run_receivers(hook=slowly(0.03)) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        bridge = scene.bridge()
        await bridge.start()
        for number in range(60):
            await scene.complete(f"b{number}", webhook_v2=receivers.url("hook"))
        for count in (5, 20, 35):
            await receivers.until("hook", count, 120)
            await scene.stack.broker.kill()
            await scene.stack.broker.start()
        await receivers.until("hook", 60, 200)
        await scene.until_kept("due", 0, 120)
        ids = [call.webhook_id for call in receivers.of("hook")]
        print(f"{len(set(ids))} of 60, {len(ids) - len(set(ids))} repeats")
        assert len(set(ids)) == 60
        assert len(ids) == 60


@on_each_broker
async def test_a_stopping_bridge_ends_what_is_under_way(tmp_path: Path, broker: str) -> None:
    """SIGTERM waits for the answer of a receiver, settles, and only then ends."""
    async with run_receivers(hook=slowly(1.5)) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        bridge = scene.bridge()
        await bridge.start()
        await scene.complete("last", webhook_v2=receivers.url("hook"))
        await receivers.until("hook", 1)
        assert await bridge.stop() == 0
        assert await scene.kept("due") == []
        assert len(receivers.calls) == 1
        # A receiver that hangs does not keep it beyond DRAIN_TIMEOUT_S, and nothing is lost.
        bridge = scene.bridge(DRAIN_TIMEOUT_S=0.2)
        await bridge.start()
        await scene.complete("cut", webhook_v2=receivers.url("hook"))
        await receivers.until("hook", 2)
        began = time.monotonic()
        assert await bridge.stop() == 0
        assert time.monotonic() - began < 5
        assert len(await scene.kept("due")) == 1
