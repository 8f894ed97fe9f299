"""The one websocket to ComfyUI: connected for ever, read without ever making ComfyUI wait.

Used by watch; may import its folder alone.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from typing import Final

import anyio
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from app.comfy.frames import Frame, parse_frame
from app.comfy.transport import public_url

__all__ = ["FrameSource"]

# As much as answers over HTTP may have: previews and node outputs are far below, only a mad server is above.
_LARGEST_BYTES: Final = 256 * 1024 * 1024
_FIRST_PAUSE_S: Final = 0.1
_STEADY_S: Final = 5.0
_OPEN_S: Final = 10.0
_CLOSE_S: Final = 1.0
# ComfyUI answers pings from its one loop, which loading a model or collecting garbage may hold up for long; whether it
# lives is told by looks, so this is for connections that died without a word.
_PING_EVERY_S: Final = 30.0
_PING_PATIENCE_S: Final = 120.0

_log = structlog.stdlib.get_logger(__name__)


class FrameSource:
    """Frames of ComfyUI, whichever connection they come over.

    Every connection has a client id of its own: with one id on two sockets ComfyUI talks to the newer, and falls
    silent altogether when the older closes. So a prompt is heard of only over the connection it was submitted with.

    ComfyUI sends to all its clients from one loop, which waits for the slowest. Therefore messages may be of any
    size up to 256 MiB, are taken off the socket as they come, and ``on_frame`` must return at once.

    Args:
        base_url: ComfyUI's HTTP address.
        wanted: Types of frames to read; others are dropped unparsed.
        on_frame: Called for each of them, in order. Must not block and must not raise.
        on_change: Called after a connection is made and after it is lost. The same rules.
        longest_pause_s: Asked for the longest wait between two attempts to connect.

    Attributes:
        connections: How many were made.
    """

    def __init__(
        self,
        base_url: str,
        *,
        wanted: frozenset[str],
        on_frame: Callable[[Frame], None],
        on_change: Callable[[], None],
        longest_pause_s: Callable[[], float],
    ) -> None:
        scheme, _, rest = base_url.rstrip("/").partition("://")
        self._url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}/ws"
        self._wanted = wanted
        self._on_frame = on_frame
        self._on_change = on_change
        self._longest_pause_s = longest_pause_s
        self.connections = 0
        self._client_id: str | None = None
        self._reading = anyio.CancelScope()

    @property
    def client_id(self) -> str | None:
        """The client id of the open connection; None while there is none."""
        return self._client_id

    @property
    def connected(self) -> bool:
        """Whether a connection is open."""
        return self._client_id is not None

    def replace(self) -> None:
        """Give up the open connection, which has gone deaf, for a new one. Does nothing while there is none."""
        if self._client_id is not None:
            self._reading.cancel()

    async def run(self) -> None:
        """Connect, read, connect again, until cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            since = time.monotonic()
            await self._one_connection(first_failure=pause_s == _FIRST_PAUSE_S)
            if time.monotonic() - since > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            await anyio.sleep(min(pause_s, self._longest_pause_s()) * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, 30.0)

    async def _one_connection(self, *, first_failure: bool) -> None:
        client_id = uuid.uuid4().hex
        try:
            connection = await connect(
                f"{self._url}?clientId={client_id}",
                max_size=_LARGEST_BYTES,
                max_queue=None,
                compression=None,
                proxy=None,
                open_timeout=_OPEN_S,
                close_timeout=_CLOSE_S,
                ping_interval=_PING_EVERY_S,
                ping_timeout=_PING_PATIENCE_S,
            )
        except (WebSocketException, OSError, TimeoutError, EOFError) as exc:
            if first_failure:
                _log.warning("comfyui_websocket_refused", url=public_url(self._url), reason=type(exc).__name__)
            return
        try:
            await self._read(connection, client_id)
        finally:
            self._client_id = None
            await _close(connection)
            self._on_change()

    async def _read(self, connection: ClientConnection, client_id: str) -> None:
        self._client_id = client_id
        self.connections += 1
        _log.info("comfyui_websocket_connected", url=public_url(self._url))
        self._on_change()
        with anyio.CancelScope() as self._reading:
            try:
                while True:
                    # Bytes for texts too: most are dropped by their first bytes and need no decoding.
                    frame = parse_frame(await connection.recv(decode=False), self._wanted)
                    if frame is not None:
                        self._on_frame(frame)
            except ConnectionClosed as exc:
                _log.warning("comfyui_websocket_lost", url=public_url(self._url), reason=str(exc))
                return
        if self._reading.cancelled_caught:
            _log.warning("comfyui_websocket_replaced", url=public_url(self._url))


async def _close(connection: ClientConnection) -> None:
    """Close in a second at most, also while being cancelled; a deaf peer never answers."""
    with anyio.move_on_after(_CLOSE_S, shield=True):
        await connection.close()
    connection.transport.abort()
