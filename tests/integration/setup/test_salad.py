"""On Salad: who the instance is, and what its deletion would cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from aiohttp import web

from app.settings import load_settings
from app.setup.salad import DELETION_COST_URL, DeletionCost

pytestmark = pytest.mark.anyio


class Node:
    """The metadata service of a node."""

    def __init__(self) -> None:
        self.status = 200
        self.heard: list[Any] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.heard.append((request.headers.get("Metadata"), await request.json()))
        return web.Response(status=self.status)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_put("/v1/deletion-cost", self.take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/deletion-cost"
        try:
            yield
        finally:
            await runner.cleanup()


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    async with node.open():
        yield node


@asynccontextmanager
async def reporting(cost: DeletionCost) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cost.run)
        yield
        tasks.cancel_scope.cancel()


async def until(met: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not met():
            await anyio.sleep(0.01)


async def test_every_change_of_the_queue_is_reported(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The header and the body that the node wants, once for each depth; never through a proxy."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    depths: list[int | None] = [None]
    cost = DeletionCost(lambda: depths[-1], url=node.url, look_s=0.01)
    async with reporting(cost):
        for number in (0, 3, 1):
            depths.append(number)
            await until(lambda: bool(node.heard) and node.heard[-1][1] == {"deletion_cost": depths[-1]})
    assert [body["deletion_cost"] for _, body in node.heard] == [0, 3, 1]
    assert {metadata for metadata, _ in node.heard} == {"true"}
    assert cost.failures == 0
    assert DELETION_COST_URL == "http://169.254.169.254/v1/deletion-cost"


async def test_failures_are_counted_and_nothing_else(node: Node) -> None:
    """A refusing or an absent node: the report is tried again and the worker goes on."""
    node.status = 500
    cost = DeletionCost(lambda: 2, url=node.url, look_s=0.01)
    async with reporting(cost):
        await until(lambda: cost.failures >= 2)
        node.status = 200
        await until(lambda: len(node.heard) > cost.failures)
    absent = DeletionCost(lambda: 2, url="http://127.0.0.1:1/v1/deletion-cost", look_s=0.01)
    async with reporting(absent):
        await until(lambda: absent.failures >= 2)


def test_who_the_instance_is_stands_in_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable that is set, beside SYSTEM_META_; none elsewhere."""
    monkeypatch.setenv("SYSTEM_META_Region", "eu")
    assert load_settings(_env_file=None).system_metadata == {"Region": "eu"}
    assert load_settings(_env_file=None).salad_metadata == {}
    monkeypatch.setenv("SALAD_MACHINE_ID", "m-1")
    monkeypatch.setenv("SALAD_ORGANIZATION_NAME", "org")
    settings = load_settings(_env_file=None)
    assert settings.system_metadata == {"Region": "eu", "salad_machine_id": "m-1", "salad_organization_name": "org"}
