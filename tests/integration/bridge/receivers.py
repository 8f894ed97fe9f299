"""Receivers of webhooks for tests: one web server whose paths behave as their names say, and what it was sent."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from aiohttp import web
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

Behaviour = Callable[[web.Request, int], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Call:
    """One request that came."""

    path: str
    at: float
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str = SECRET) -> Any:
        """The body, if the official library accepts the signature."""
        return Webhook(secret).verify(self.raw, self.headers)


@dataclass
class Receivers:
    """A web server; ``up`` says whether it takes connections."""

    port: int = 0
    calls: list[Call] = field(default_factory=list)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def of(self, path: str) -> list[Call]:
        return [call for call in self.calls if call.path == path]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.lstrip("/")
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.calls.append(Call(path, time.monotonic(), headers, raw))
        behaviour = self.behaviours.get(path.partition("/")[0])
        return await behaviour(request, len(self.of(path))) if behaviour else web.Response()

    async def start(self) -> None:
        app = web.Application(client_max_size=256 * 1024**2)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def until(self, path: str, count: int, within_s: float = 60) -> list[Call]:
        """Wait until so many calls came to a path."""
        with anyio.move_on_after(within_s):
            while len(self.of(path)) < count:
                await anyio.sleep(0.01)
        found = self.of(path)
        assert len(found) >= count, f"{len(found)} of {count} calls of {path} within {within_s} s"
        return found


@asynccontextmanager
async def run_receivers(**behaviours: Behaviour) -> AsyncIterator[Receivers]:
    """Listen on a random port of loopback until the block ends."""
    receivers = Receivers(behaviours=behaviours)
    await receivers.start()
    try:
        yield receivers
    finally:
        with anyio.CancelScope(shield=True):
            await receivers.stop()


def slowly(seconds: float) -> Behaviour:
    """200 after so many seconds."""

    async def behave(_: web.Request, __: int) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response()

    return behave


def answers(*statuses: int, headers: dict[str, str] | None = None) -> Behaviour:
    """These statuses one after the other, the last one for ever; the headers go with every one but 200."""

    async def behave(_: web.Request, number: int) -> web.StreamResponse:
        status = statuses[min(number, len(statuses)) - 1]
        return web.Response(status=status, headers=headers if status != 200 else None, text=f"this is {status}")

    return behave


async def hangs(_request: web.Request, _: int) -> web.StreamResponse:
    """No answer, ever."""
    await asyncio.sleep(3600)
    return web.Response()


async def endless(request: web.Request, _: int) -> web.StreamResponse:
    """200, and a body without end."""
    response = web.StreamResponse()
    await response.prepare(request)
    try:
        while True:
            await response.write(b"endless " * 1024)
    except ConnectionError:
        return response


async def resets(request: web.Request, _: int) -> web.StreamResponse:
    """The connection is reset instead of an answer."""
    assert request.transport is not None
    raw = request.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()
