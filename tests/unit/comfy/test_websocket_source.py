"""The websocket: connected for ever, read at once, whatever comes over it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from aiohttp import WSMsgType, web
from small_server import Serve

from app.comfy import websocket
from app.comfy.frames import Frame
from app.comfy.websocket import FrameSource
from schemas.events import COMFY_EVENTS

pytestmark = pytest.mark.anyio


class _Sockets:
    """The server's side: every socket that was opened, in order."""

    def __init__(self) -> None:
        self.opened: list[web.WebSocketResponse] = []
        self.client_ids: list[str] = []
        self.headers: list[object] = []
        self.refuse = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refuse > 0:
            self.refuse -= 1
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.headers.append(request.headers)
        self.client_ids.append(request.query["clientId"])
        self.opened.append(socket)
        async for message in socket:
            if message.type == WSMsgType.ERROR:
                break
        return socket


class _Listener:
    """Our side: what the source told."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.changes = 0
        self._moved = anyio.Event()

    def frame(self, frame: Frame) -> None:
        self.frames.append(frame)
        self._moved.set()

    def change(self) -> None:
        self.changes += 1
        self._moved.set()

    async def until(self, met: Callable[[], bool]) -> None:
        with anyio.fail_after(10):
            while not met():
                self._moved = anyio.Event()
                await self._moved.wait()


@asynccontextmanager
async def _running(url: str, listener: _Listener) -> AsyncIterator[FrameSource]:
    source = FrameSource(
        url,
        wanted=frozenset(COMFY_EVENTS),
        on_frame=listener.frame,
        on_change=listener.change,
        longest_pause_s=lambda: 0.2,
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run)
        await listener.until(lambda: source.connected)
        yield source
        tasks.cancel_scope.cancel()


async def test_frames_come_in_order_whatever_lies_between(serve: Serve) -> None:
    """Previews, broken texts and unknown types are passed over without losing a frame or the connection."""
    sockets, listener = _Sockets(), _Listener()
    async with _running(await serve(web.get("/ws", sockets.handle)), listener) as source:
        (socket,) = sockets.opened
        await socket.send_bytes(b"\x00\x00\x00\x01\x00\x00\x00\x01\xff\xd8")
        await socket.send_str('{"type": "status", "data": {"n": 1}}')
        await socket.send_str("{broken")
        await socket.send_str('{"type": "crystools.monitor", "data": {}}')
        await socket.send_str('{"type": "status"}')
        await listener.until(lambda: len(listener.frames) == 2)
        assert [frame.data for frame in listener.frames] == [{"n": 1}, {}]
        assert sockets.client_ids == [source.client_id]
        assert "Origin" not in sockets.headers[0]  # type: ignore[operator]
    assert not source.connected


async def test_a_frame_of_any_size_is_taken(serve: Serve) -> None:
    """A graph of thousands of nodes makes messages of many megabytes."""
    sockets, listener = _Sockets(), _Listener()
    async with _running(await serve(web.get("/ws", sockets.handle)), listener):
        await sockets.opened[0].send_str(json.dumps({"type": "executed", "data": {"text": "x" * 20_000_000}}))
        await listener.until(lambda: len(listener.frames) == 1)
        assert len(listener.frames[0].data["text"]) == 20_000_000


async def test_a_message_without_end_costs_the_connection_and_no_more(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound a message is not held any longer; the next connection hears on."""
    monkeypatch.setattr(websocket, "_LARGEST_BYTES", 100_000)
    sockets, listener = _Sockets(), _Listener()
    async with _running(await serve(web.get("/ws", sockets.handle)), listener) as source:
        await sockets.opened[0].send_str("x" * 200_000)
        await listener.until(lambda: source.connections == 2 and source.connected)
        await sockets.opened[-1].send_str(json.dumps({"type": "status", "data": {}}))
        await listener.until(lambda: len(listener.frames) == 1)


async def test_every_connection_has_a_client_id_of_its_own(serve: Serve) -> None:
    """After a loss the next connection is another client; both the loss and the return are told."""
    sockets, listener = _Sockets(), _Listener()
    async with _running(await serve(web.get("/ws", sockets.handle)), listener) as source:
        for turn in range(1, 4):
            first = source.client_id
            await sockets.opened[-1].close()
            await listener.until(lambda: listener.changes == 2 * turn + 1)  # noqa: B023 - used at once
            assert source.client_id not in {None, first}
    assert len(set(sockets.client_ids)) == len(sockets.client_ids) == 4


async def test_refused_connections_are_tried_again(serve: Serve) -> None:
    """A ComfyUI that is not ready is asked until it is."""
    sockets, listener = _Sockets(), _Listener()
    sockets.refuse = 3
    async with _running(await serve(web.get("/ws", sockets.handle)), listener):
        assert sockets.refuse == 0


async def test_a_connection_can_be_replaced(serve: Serve) -> None:
    """A connection that went deaf is closed and another one opened."""
    sockets, listener = _Sockets(), _Listener()
    async with _running(await serve(web.get("/ws", sockets.handle)), listener) as source:
        source.replace()
        await listener.until(lambda: listener.changes == 3)
        await sockets.opened[1].send_str('{"type": "status"}')
        await listener.until(lambda: len(listener.frames) == 1)
        assert sockets.client_ids[1] == source.client_id
        assert sockets.opened[0].closed


async def test_a_flood_is_read_as_fast_as_it_comes(serve: Serve) -> None:
    """The server never waits for us: hundreds of megabytes of unwanted texts do not fill its buffers."""
    sockets, listener = _Sockets(), _Listener()
    text = json.dumps({"type": "crystools.flood", "data": {"text": "x" * 60_000}})
    async with _running(await serve(web.get("/ws", sockets.handle)), listener):
        with anyio.fail_after(20):
            for _ in range(1500):
                await sockets.opened[0].send_str(text)
            await sockets.opened[0].send_str('{"type": "status"}')
        await listener.until(lambda: len(listener.frames) == 1)
