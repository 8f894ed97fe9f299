"""Waiting: the schedule over days, order, limits, and receivers that return."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from pathlib import Path

import anyio
import pytest
import yaml
from aiohttp import web

from app.bridge.schedule import JITTER, STANDARD_S
from tests.integration.bridge.bridges import Scene, on_each_broker, run_scene
from tests.integration.bridge.receivers import SECRET, answers, run_receivers

# Generous: a machine that is busy with other things starts processes slowly.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


async def until_attempts(scene: Scene, *wanted: int) -> None:
    """Wait until the records of what waits say that so many attempts were made."""
    with anyio.fail_after(120):
        while [record.get("attempts") for record in await scene.records("due")] != list(wanted):
            await anyio.sleep(0.02)


async def three_days(folder: Path, broker: str, faster: float) -> None:
    """The standard schedule, sped up, until the last attempt is taken; bridge and broker are killed meanwhile."""
    delays = [delay / faster for delay in STANDARD_S]
    async with run_receivers(hook=answers(*[500] * 9, 200)) as receivers, run_scene(folder, receivers, broker) as scene:
        env = {"WEBHOOK_SCHEDULE": ",".join(f"{delay:.6f}" for delay in delays)}
        await scene.bridge(**env).start()
        await scene.complete("patient", webhook_v2=receivers.url("hook"))
        # In the middle of the wait of 10 hours the bridge dies, in that of 20 hours the broker.
        await until_attempts(scene, 6)
        await scene.bridges[-1].kill()
        await scene.bridge(**env).start()
        await until_attempts(scene, 8)
        await scene.stack.broker.kill()
        await scene.stack.broker.start()
        calls = await receivers.until("hook", 10, 300)
        await scene.until_kept("due", 0)
        assert len(receivers.of("hook")) == 10
        assert {call.webhook_id for call in calls} == {"patient/complete"}
        # Every attempt is signed anew, and by now.
        calls[-1].verified()
        gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(calls)]
        print("gaps:", " ".join(f"{gap:.2f}/{delay:.2f}" for gap, delay in zip(gaps, delays, strict=True)))
        for gap, delay in zip(gaps, delays, strict=True):
            assert gap >= delay * (1 - JITTER) - 0.01
            # A takeover takes a lease and a bit, a broker's return seconds; a machine that is busy takes longer.
            assert gap <= delay * (1 + JITTER) + 120


@on_each_broker
@pytest.mark.timeout(600)
async def test_the_schedule_of_three_days_sped_up(tmp_path: Path, broker: str) -> None:
    """75 hours in 14 seconds: ten attempts, each at its time, over a killed bridge and a killed broker."""
    await three_days(tmp_path, broker, 20_000)


@on_each_broker
@pytest.mark.full
@pytest.mark.timeout(600)
async def test_the_schedule_of_three_days_sped_up_less(tmp_path: Path, broker: str) -> None:
    """75 hours in two and a quarter minutes, with the same kills."""
    await three_days(tmp_path, broker, 2_000)


@on_each_broker
async def test_deliveries_of_one_prompt_stay_in_order_and_within_the_limit(tmp_path: Path, broker: str) -> None:
    """With several at once, those of one prompt go one after the other; one that fails holds up its prompt alone."""
    under_way, most = 0, 0
    failed_once = set[str]()

    async def slow(request: web.Request, _: int) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.05)
        under_way -= 1
        body = await request.json()
        if body["id"] == "p0" and body["data"]["size"] == 0 and not failed_once:
            failed_once.add("p0")
            return web.Response(status=500)
        return web.Response()

    async with run_receivers(slow=slow) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        path = tmp_path / "subscriptions.yaml"
        entry = {"name": "all", "url": receivers.url("slow"), "events": ["storage.*"], "secrets": [SECRET]}
        path.write_text(yaml.safe_dump({"subscriptions": [{**entry, "concurrency": 3}]}))
        await scene.bridge(WEBHOOK_SUBSCRIPTIONS=path, WEBHOOK_SCHEDULE="2s").start()
        for size in range(5):
            for prompt in range(4):
                data = {"url": "s3://b/k", "size": size}
                await scene.side_event("storage.file_uploaded", "storage.file_uploaded", id=f"p{prompt}", data=data)
        calls = await receivers.until("slow", 21)
        order = defaultdict[str, list[int]](list)
        for call in calls:
            order[call.body["id"]].append(call.body["data"]["size"])
        assert order["p0"] == [0, 0, 1, 2, 3, 4]
        assert all(order[f"p{prompt}"] == [0, 1, 2, 3, 4] for prompt in (1, 2, 3))
        assert 2 <= most <= 3
        # The others did not wait for the one that failed.
        others = max(call.at for call in calls if call.body["id"] != "p0")
        assert others < [call.at for call in calls if call.body["id"] == "p0"][1]


@on_each_broker
async def test_by_default_one_at_a_time_for_each_endpoint(tmp_path: Path, broker: str) -> None:
    """Two endpoints of one server: one delivery at a time each, and both at the same time."""
    now, most = defaultdict[str, int](int), defaultdict[str, int](int)

    async def counts(request: web.Request, _: int) -> web.StreamResponse:
        for key in (request.path, "all"):
            now[key] += 1
            most[key] = max(most[key], now[key])
        await asyncio.sleep(0.1)
        for key in (request.path, "all"):
            now[key] -= 1
        return web.Response()

    async with run_receivers(a=counts, b=counts) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await scene.bridge().start()
        for number in range(8):
            # The query plays no part in what an endpoint is.
            await scene.complete(f"a{number}", webhook_v2=f"{receivers.url('a')}?n={number}")
            await scene.complete(f"b{number}", webhook_v2=receivers.url("b"))
        await receivers.until("a", 8)
        await receivers.until("b", 8)
        assert most["/a"] == most["/b"] == 1
        assert most["all"] == 2


@on_each_broker
async def test_when_a_receiver_returns_nothing_waits_for_its_hour(tmp_path: Path, broker: str) -> None:
    """Deliveries that failed while the receiver was down go out with the first success, after a kill too."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await receivers.stop()
        bridge = scene.bridge(WEBHOOK_SCHEDULE="0.1s,1h")
        await bridge.start()
        for number in range(10):
            await scene.complete(f"w{number}", webhook_v2=receivers.url("hook"))
        await until_attempts(scene, *[2] * 10)
        assert f'comfybus_webhook_waiting{{host="127.0.0.1:{receivers.port}"}} 10.0' in await bridge.metrics()
        await bridge.kill()
        await scene.bridge(WEBHOOK_SCHEDULE="0.1s,1h").start()
        await receivers.start()
        began = time.monotonic()
        await scene.complete("fresh", webhook_v2=receivers.url("hook"))
        await receivers.until("hook", 11)
        print(f"all delivered {time.monotonic() - began:.2f} s after the return")
        await scene.until_kept("due", 0)
        assert len(receivers.of("hook")) == 11


@on_each_broker
@pytest.mark.full
@pytest.mark.timeout(600)
async def test_a_row_of_thousands_is_delivered_whole(tmp_path: Path, broker: str) -> None:
    """More webhooks wait for one endpoint than are held in memory: all come, once, after its return and a restart."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await receivers.stop()
        env = {"WEBHOOK_SCHEDULE": "2s,2s,5s,5s,5s,5s,5s,5s,5s,5s,5s,5s", "WEBHOOK_CONCURRENCY": 4}
        bridge = scene.bridge(**env)
        await bridge.start()
        for number in range(2500):
            await scene.complete(f"m{number}", webhook_v2=receivers.url("many"))
        await scene.until_kept("due", 2500, 240)
        await bridge.stop()
        await receivers.start()
        bridge = scene.bridge(**env)
        await bridge.start()
        await receivers.until("many", 2500, 400)
        await scene.until_kept("due", 0, 120)
        ids = [call.webhook_id for call in receivers.of("many")]
        assert (len(ids), len(set(ids))) == (2500, 2500)
        assert await scene.kept("dlq") == []
