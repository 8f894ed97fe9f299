"""The websocket side: who listens under which client id, and one line of messages that is sent to them in order.

Used by engine, prompt_execution, routes_about; may import its folder alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from typing import Any

from aiohttp import WSMsgType, web

from app.comfy.standin.faults import Faults
from app.comfy.standin.node_types import JsonObject
from app.comfy.standin.previews import PreviewFrame

SERVER_FEATURES: JsonObject = {"supports_preview_metadata": True, "max_upload_size": 104857600}
"""What GET /features answers and what a client that sends its own feature flags first is told."""

_log = logging.getLogger(__name__)


class Wire:
    """All open sockets by client id, and the single line through which every message goes.

    Keeps ComfyUI's weaknesses on purpose: of two sockets with one client id only the newer hears, and the end of
    EITHER makes that id deaf; a socket that is not read holds up the messages to all others.

    ``client_id`` and ``last_node_id`` belong to the running prompt and are written by the execution thread. A
    client id of None addresses everybody.
    """

    def __init__(self, faults: Faults) -> None:
        self.client_id: str | None = None
        self.last_node_id: str | None = None
        self.frames_sent = 0
        self._faults = faults
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._open: dict[web.WebSocketResponse, asyncio.Transport | None] = {}
        self._features: dict[str, JsonObject] = {}
        self._line: asyncio.Queue[tuple[str | bytes, str | None]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    @property
    def sockets_open(self) -> int:
        """How many sockets are open, deaf ones included."""
        return len(self._open)

    def send(self, event: str, content: JsonObject, client_id: str | None) -> None:
        """Put a message in the line; callable from any thread. The content is written out now, not later."""
        self._put(json.dumps({"type": event, "data": content}), client_id)

    def send_preview(self, frame: PreviewFrame, client_id: str | None) -> None:
        """Put a binary frame in the line, in the form that the client asked for; callable from any thread."""
        self._put(frame.with_names() if self.wants_preview_names(client_id) else frame.plain(), client_id)

    def wants_preview_names(self, client_id: str | None) -> bool:
        """Tell whether a client's feature flags ask for previews that name their node."""
        flags = self._features.get(client_id or "", {})
        return flags.get("supports_preview_metadata") is True

    async def publish(self) -> None:
        """Send what is in the line, message by message and socket by socket, until cancelled."""
        while True:
            frame, client_id = await self._line.get()
            await self._deliver(frame, client_id)

    async def serve(self, request: web.Request, status: JsonObject) -> web.WebSocketResponse:
        """Serve one socket until it closes; ``status`` is the state of the queue that it is greeted with."""
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        client_id = request.rel_url.query.get("clientId", "") or uuid.uuid4().hex
        self._sockets.pop(client_id, None)
        self._sockets[client_id] = socket
        self._features[client_id] = {}
        self._open[socket] = request.transport
        try:
            await self._deliver(_text("status", {"status": status, "sid": client_id}), client_id)
            if self.client_id == client_id and self.last_node_id is not None:
                await self._deliver(_text("executing", {"node": self.last_node_id}), client_id)
            await self._listen(socket, client_id)
        finally:
            del self._open[socket]
            # Whichever socket of this client id ends, the id is forgotten: the surviving one goes deaf.
            self._sockets.pop(client_id, None)
            self._features.pop(client_id, None)
        return socket

    def deafen(self) -> None:
        """Forget all open sockets: they stay open and never hear anything again. New ones are not affected."""
        self._sockets.clear()

    def cut(self) -> None:
        """Break every open socket off without a closing handshake, which clients see as close code 1006."""
        for transport in list(self._open.values()):
            if transport is not None:
                transport.abort()

    async def _listen(self, socket: web.WebSocketResponse, client_id: str) -> None:
        first = True
        async for message in socket:
            if message.type is WSMsgType.PING:
                if self._faults.socket != "frozen":
                    await socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                await self._hear(message.data, client_id, first=first)
                first = False

    async def _hear(self, text: str, client_id: str, *, first: bool) -> None:
        """Take the feature flags of a client, which count only in its first message."""
        try:
            content: Any = json.loads(text)
        except json.JSONDecodeError:
            _log.warning("a client sent something that is not JSON: %.100s", text)
            return
        if first and isinstance(content, dict) and content.get("type") == "feature_flags":
            flags = content.get("data", {})
            self._features[client_id] = flags if isinstance(flags, dict) else {}
            await self._deliver(_text("feature_flags", SERVER_FEATURES), client_id)

    def _put(self, frame: str | bytes, client_id: str | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._line.put_nowait, (frame, client_id))

    async def _deliver(self, frame: str | bytes, client_id: str | None) -> None:
        if client_id is None:
            receivers = list(self._sockets.values())
        else:
            receiver = self._sockets.get(client_id)
            receivers = [] if receiver is None else [receiver]
        for socket in receivers:
            if self._faults.socket in ("silent", "frozen"):
                continue
            try:
                await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
            except (ConnectionError, RuntimeError) as failure:
                _log.info("a message could not be sent: %s", failure)
            else:
                self.frames_sent += 1


def _text(event: str, content: JsonObject) -> str:
    return json.dumps({"type": event, "data": content})
