"""A bridge that is killed at any moment neither loses nor forgets: every webhook arrives, hardly one twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from tests.integration.bridge.bridges import Scene, on_each_broker, run_scene
from tests.integration.bridge.receivers import Behaviour, Receivers, run_receivers
from tests.support.stack import graph

pytestmark = pytest.mark.anyio

# The standard schedule without its patience.
SCHEDULE = "1s,1s,2s,2s,3s,3s,5s,5s,5s"


def takes_its_time(seconds: float) -> Behaviour:
    """200 a moment after the request was read: what it was sent counts as received from its first byte."""

    async def behave(_: web.Request, _number: int) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response()

    return behave


async def kill_and_return(scene: Scene, pause_s: float) -> None:
    """kill -9 of the bridge, and a new one in its place a moment later."""
    await scene.bridges[-1].kill()
    await anyio.sleep(pause_s)
    await scene.bridge(WEBHOOK_SCHEDULE=SCHEDULE).start()


def judge(receivers: Receivers, ids: list[str], kills: int) -> None:
    """Everything came, signed; what came twice has one webhook-id, and there is no more of it than kills."""
    calls = receivers.of("hook")
    for call in calls:
        assert call.verified()["type"] == "prompt.complete"
        assert call.webhook_id == f"{call.body['id']}/complete"
    came = Counter(call.body["id"] for call in calls)
    repeats = sum(count - 1 for count in came.values())
    print(f"{len(came)} of {len(ids)} delivered, {repeats} repeats for {kills} kills")
    assert sorted(came) == sorted(ids)
    assert repeats <= kills


async def kill_often(folder: Path, broker: str, prompts: int, kills: int, seed: int) -> None:
    """Receiver down while events come, the bridge killed while it is down and while it is back."""
    chance = random.Random(seed)
    async with (
        run_receivers(hook=takes_its_time(0.01)) as receivers,
        run_scene(folder, receivers, broker) as scene,
    ):
        await receivers.stop()
        await scene.bridge(WEBHOOK_SCHEDULE=SCHEDULE).start()
        ids = [f"k{seed}-{number}" for number in range(prompts)]
        down = kills // 2
        for number, request in enumerate(ids):
            await scene.complete(request, webhook_v2=receivers.url("hook"))
            if number % (prompts // (down + 1)) == prompts // (down + 1) - 1 and down:
                down -= 1
                await kill_and_return(scene, chance.uniform(0.0, 0.3))
        await receivers.start()
        for _ in range(kills - kills // 2):
            already = len(receivers.calls)
            # In the middle of the deliveries, at an unknown point of one.
            await receivers.until("hook", min(already + chance.randint(1, 5), prompts), 60)
            await anyio.sleep(chance.uniform(0.0, 0.02))
            await kill_and_return(scene, chance.uniform(0.0, 0.3))
        await scene.until_kept("due", 0, within_s=90)
        judge(receivers, ids, kills)
        assert await scene.kept("dlq") == []


@on_each_broker
@pytest.mark.timeout(240)
async def test_forty_webhooks_survive_five_kills(tmp_path: Path, broker: str) -> None:
    """40 events for a receiver that is down, 5 kills before and after its return: 40 of 40, one repeat per kill."""
    await kill_often(tmp_path, broker, 40, 5, seed=1)


@on_each_broker
@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [21, 22, 23])
async def test_two_hundred_webhooks_survive_five_kills(tmp_path: Path, broker: str, seed: int) -> None:
    """200 events for a receiver that is down, 5 kills before and after its return: 200 of 200."""
    await kill_often(tmp_path, broker, 200, 5, seed)


@on_each_broker
@pytest.mark.full
@pytest.mark.timeout(900)
async def test_two_hundred_prompts_of_a_real_worker_reach_their_receiver(tmp_path: Path, broker: str) -> None:
    """200 prompts run on a worker while receiver is down and the bridge is killed five times: 200 of 200 arrive."""
    async with run_receivers(hook=takes_its_time(0.01)) as receivers, run_scene(tmp_path, receivers, broker) as scene:
        await receivers.stop()
        await scene.stack.worker(await scene.stack.comfy()).start()
        await scene.bridge(WEBHOOK_SCHEDULE=SCHEDULE).start()
        ids = [f"p{number}" for number in range(200)]
        for request in ids:
            body = {"id": request, "prompt": graph(), "webhook_v2": receivers.url("hook")}
            await scene.stack.outside.send(body)
        for _ in range(5):
            await anyio.sleep(1)
            await kill_and_return(scene, 0.2)
        for request in ids:
            await scene.stack.outside.terminal(request, 120)
        await receivers.start()
        await receivers.until("hook", len(ids), 120)
        await scene.until_kept("due", 0, within_s=60)
        judge(receivers, ids, 5)
