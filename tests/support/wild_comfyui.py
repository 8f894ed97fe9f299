"""A ComfyUI that lost its mind: a proxy before a stand-in that answers as it is told to, request by request."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

Spoil = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]
"""Answers a request; gets what the stand-in would have answered."""


@dataclass
class WildComfy:
    """Passes everything on, but for paths that are spoilt and frames that are added.

    Attributes:
        url: Its address.
        spoilt: Beginning of a path to what happens there instead, ``METHOD /path``.
        asked: How often a spoilt answer was given.
        frames: Sent to each websocket that connects, before anything else.
        hang_up: Whether websockets are closed as soon as they are open.
    """

    target: str
    url: str = ""
    spoilt: dict[str, Spoil] = field(default_factory=dict)
    asked: int = 0
    frames: list[str | bytes] = field(default_factory=list)
    hang_up: bool = False
    sockets: list[web.WebSocketResponse] = field(default_factory=list)

    async def drop_sockets(self) -> None:
        """Close every websocket; the other side connects anew."""
        for socket in self.sockets:
            await socket.close()
        self.sockets.clear()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        if request.path == "/ws":
            return await self._socket(request)
        body = await request.read()
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            passed = {name: value for name, value in request.headers.items() if name not in ("Host", "Content-Length")}
            url = f"{self.target}{request.path_qs}"
            async with session.request(request.method, url, data=body or None, headers=passed) as answer:
                content = await answer.read()
                status, kind = answer.status, answer.headers.get("Content-Type", "application/json")
        for begins, spoil in self.spoilt.items():
            if f"{request.method} {request.path}".startswith(begins):
                self.asked += 1
                return await spoil(request, content)
        return web.Response(body=content, status=status, headers={"Content-Type": kind})

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        ours = web.WebSocketResponse()
        await ours.prepare(request)
        if self.hang_up:
            await ours.close()
            return ours
        self.sockets.append(ours)
        with suppress(ConnectionError):
            for frame in self.frames:
                await (ours.send_str(frame) if isinstance(frame, str) else ours.send_bytes(frame))
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{self.target}{request.path_qs}") as theirs:
            reading = asyncio.ensure_future(_drain(ours, theirs))
            with suppress(ConnectionError):
                async for message in theirs:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        await ours.send_str(message.data)
                    elif message.type is aiohttp.WSMsgType.BINARY:
                        await ours.send_bytes(message.data)
            reading.cancel()
        return ours


async def _drain(ours: web.WebSocketResponse, theirs: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in ours:
        pass
    await theirs.close()


@asynccontextmanager
async def run_wild_comfyui(target: str) -> AsyncIterator[WildComfy]:
    """Listen on a random port of loopback until the block ends."""
    wild = WildComfy(target)
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{tail:.*}", wild.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    wild.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield wild
    finally:
        await runner.cleanup()


def says(body: bytes, status: int = 200, **headers: str) -> Spoil:
    """These bytes, whatever was asked."""

    async def spoil(_: web.Request, __: bytes) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers={"Content-Type": "application/json", **headers})

    return spoil


def swaps(old: bytes, new: bytes) -> Spoil:
    """The right answer with something put in the place of something else."""

    async def spoil(_: web.Request, body: bytes) -> web.StreamResponse:
        return web.Response(body=body.replace(old, new), content_type="application/json")

    return spoil


def bomb(megabytes: int) -> Spoil:
    """A small answer that unpacks to a large one."""
    packer = zlib.compressobj(9, wbits=31)
    pieces = [packer.compress(bytes(1024 * 1024)) for _ in range(megabytes)]
    return says(b"".join([*pieces, packer.flush()]), **{"Content-Encoding": "gzip"})


async def half(request: web.Request, body: bytes) -> web.StreamResponse:
    """The first half, then the end of the connection."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % max(len(body), 2)
    return await _raw(request, head + body[: len(body) // 2])


async def closes(request: web.Request, _: bytes) -> web.StreamResponse:
    """Nothing but the end of the connection."""
    return await _raw(request, b"")


async def no_http(request: web.Request, _: bytes) -> web.StreamResponse:
    """Something that is no HTTP."""
    return await _raw(request, b"\x16\x03\x01\x00\xff garbage\r\n\r\n")


async def endless_headers(request: web.Request, _: bytes) -> web.StreamResponse:
    """Header after header, as fast as they are taken."""
    return await _raw(request, b"HTTP/1.1 200 OK\r\n", b"X-Header: %s\r\n" % (b"y" * 1000))


async def endless_body(request: web.Request, _: bytes) -> web.StreamResponse:
    """A list that never ends."""
    return await _raw(request, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[", b'"x",' * 4096)


async def _raw(request: web.Request, once: bytes, again: bytes = b"") -> web.StreamResponse:
    """Bytes past the HTTP server: once, and others until the other side hangs up or has had 300 MB."""
    transport = request.transport
    assert transport is not None
    transport.write(once)
    given = 0
    while again and not transport.is_closing() and given < 300_000_000:
        transport.write(again)
        given += len(again)
        size = transport.get_write_buffer_size() if isinstance(transport, asyncio.WriteTransport) else 0
        await asyncio.sleep(0.01 if size > 2**20 else 0)
    transport.close()
    await asyncio.sleep(0.05)
    return web.Response()
