"""A small HTTP server for each test that needs one, and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from small_server import Connect, Serve

from app.comfy.client import ComfyClient


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server with the given routes and returns its URL."""
    runners = []

    async def start(*routes: web.RouteDef) -> str:
        app = web.Application(client_max_size=2**28)
        app.add_routes(routes)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes a client for a URL."""
    async with aiohttp.ClientSession() as session:
        yield lambda url: ComfyClient(url, session)
