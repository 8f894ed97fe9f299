"""The bridge's queue on a real server: what is stored once, who owns what, what is made again when it is deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest

from brokers.base import BrokerRefused
from brokers.nats import NatsConfig
from brokers.nats.webhooks import NatsWebhookBus
from brokers.nats.webhooks.layout import SHARES, share_of
from brokers.webhooks import Feed
from tests.integration.bridge.bridges import run_scene
from tests.integration.bridge.holding import LANE, Holder, new
from tests.integration.bridge.receivers import run_receivers
from tests.support.broker_harness import eventually
from tests.support.stack import NatsServer, Stack, run_stack
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def working(url: str, lease_s: float = 1.0) -> AsyncIterator[Holder[NatsWebhookBus]]:
    worker = Holder(NatsWebhookBus(NatsConfig(servers=(url,)), lease_s=lease_s))
    async with worker.open():
        yield worker


async def test_a_delivery_is_stored_once(tmp_path: Path) -> None:
    """The same delivery again changes nothing, neither while it waits nor shortly after it was settled."""
    async with run_stack(tmp_path) as stack, working(stack.broker.url) as worker:
        await eventually(lambda: len(worker.shares) == SHARES)
        share = worker.shares[share_of(LANE)]
        await worker.bus.enqueue(new("a", b"first"))
        await worker.bus.enqueue(new("a", b"second"))
        found = await share.find(LANE, "a")
        assert found is not None
        assert await share.body("a") == b"first"
        changed = await share.defer(found, b'{"id":"a","attempts":1}')
        assert changed is not None
        # Whoever knows only the former state changes nothing any more.
        assert await share.defer(found, b'{"id":"a","attempts":9}') is None
        await share.settle(changed)
        assert await share.find(LANE, "a") is None
        assert await share.body("a") is None
        await worker.bus.enqueue(new("a", b"third"))
        assert await share.find(LANE, "a") is None
        # To settle again, after a confirmation that was lost, is harmless.
        await share.settle(changed)


async def test_reading_begins_with_all_that_waits(tmp_path: Path) -> None:
    """A share hands out what lies there, says where that ends, and goes on with what is stored and changed."""
    async with run_stack(tmp_path) as stack, working(stack.broker.url) as worker:
        await eventually(lambda: len(worker.shares) == SHARES)
        share = worker.shares[share_of(LANE)]
        for name in "abc":
            await worker.bus.enqueue(new(name))
        records = share.read()
        assert [getattr(await anext(records), "id", None) for _ in range(4)] == ["a", "b", "c", None]
        await worker.bus.enqueue(new("d"))
        with anyio.fail_after(2):
            four = await anext(records)
        assert four is not None
        assert four.id == "d"
        await share.defer(four, b"changed")
        with anyio.fail_after(2):
            again = await anext(records)
        assert again is not None
        assert (again.id, again.record) == ("d", b"changed")
        assert [one.id async for one in share.read_lane(LANE, four.token - 1)] == ["d"]
        await records.aclose()


async def test_a_bridge_that_is_cut_off_loses_its_shares(tmp_path: Path) -> None:
    """Behind a frozen connection it begins nothing new, others take over, and on its return its work is cancelled."""
    async with run_stack(tmp_path) as stack, TcpProxy(stack.broker.port).run() as wire:
        url = f"nats://127.0.0.1:{wire.port}"
        async with working(url) as cut:
            await eventually(lambda: len(cut.shares) == SHARES)
            held = list(cut.shares.values())
            wire.freeze()
            await eventually(lambda: not any(share.is_ours for share in held))
            async with working(stack.broker.url) as other:
                await eventually(lambda: len(other.shares) == SHARES)
                wire.resume()
                await eventually(lambda: len(cut.lost) == SHARES)
                # Together again: each its part, no share twice.
                await eventually(lambda: (len(cut.shares), len(other.shares)) == (SHARES // 2, SHARES // 2))
                assert not set(cut.shares) & set(other.shares)


async def test_what_an_operator_deletes_is_made_again(tmp_path: Path) -> None:
    """Without its stream or its consumer the bridge says so, makes them anew and goes on; probes tell of it."""
    async with run_receivers() as receivers, run_scene(tmp_path, receivers) as scene:
        bridge = scene.bridge()
        await bridge.start()
        js = scene.stack.outside.js
        await js.delete_stream("comfyui-webhook")
        await js.delete_consumer("comfyui-result", "bridge")
        await scene.complete("after", webhook_v2=receivers.url("hook"))
        await receivers.until("hook", 1, 30)
        await scene.until_kept("due", 0)
        await scene.stack.broker.kill()
        assert await status(f"{bridge.url}/health") == 200
        with anyio.fail_after(20):
            while await status(f"{bridge.url}/ready") != 503:
                await anyio.sleep(0.05)
        await scene.stack.broker.start()
        with anyio.fail_after(20):
            while await status(f"{bridge.url}/ready") != 200:
                await anyio.sleep(0.05)


async def status(url: str) -> int:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status


async def make(stack: Stack, **config: object) -> None:
    from nats.js import api

    await stack.outside.js.add_stream(api.StreamConfig(name="comfyui-webhook", **config))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"subjects": ["comfyui.webhook.due.>"]}, "lacks the subject comfyui.webhook.>"),
        ({"subjects": ["comfyui.webhook.>"]}, "one message per subject"),
    ],
)
async def test_an_unfit_stream_stops_the_start(tmp_path: Path, config: dict[str, object], words: str) -> None:
    """What exists is never changed; one line says what is wrong with it."""
    async with run_stack(tmp_path) as stack:
        await make(stack, **config)
        with pytest.raises(BrokerRefused, match=words):
            async with working(stack.broker.url):
                pass


async def test_a_bridge_without_such_wishes_reads_no_side_channels(tmp_path: Path) -> None:
    """A consumer is made only for what is read."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    try:
        bus = NatsWebhookBus(NatsConfig(servers=(server.url,)), feeds=frozenset({Feed.RESULTS}))
        async with bus.open():
            names = [info.name for info in await bus.link.js.consumers_info("comfyui-result")]
            assert names == ["bridge"]
            assert await bus.link.js.consumers_info("comfyui-event") == []
    finally:
        await server.kill()
