"""A proxy before any HTTP server that breaks what passes: refuses, cuts, stalls, lies about the length.

Signatures stay valid, since the Host header passes unchanged. Every connection carries one exchange.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.services.in_thread import LoopThread

BUFFER = 64 * 1024


@dataclass
class Break:
    """What is to happen to one exchange.

    Attributes:
        status: Answer with this status instead of asking the server.
        headers: To go with it.
        cut_after: Close the connection after so many bytes of the answer's body.
        stall_after: Say nothing more after so many bytes of the answer's body, for ever.
        cut_upload_after: Reset the connection after so many bytes of the request's body.
        lie: Add so much to the Content-Length of the answer.
        head: Send these bytes instead of the answer's head.
        method: Only exchanges with this method.
        path: Only exchanges whose path holds this.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    stall_after: int | None = None
    cut_upload_after: int | None = None
    lie: int = 0
    head: bytes | None = None
    method: str | None = None
    path: str = ""


@dataclass
class Exchange:
    """One exchange that began."""

    method: str
    path: str
    head: str
    broken: Break | None


class FaultProxy:
    """The proxy: ``breaks`` are used up in order by the exchanges they fit; the others pass.

    While it is ``silent`` it takes every request and answers none.
    """

    def __init__(self, target: int, thread: LoopThread) -> None:
        self.target = target
        self._thread = thread
        self.port = 0
        self.breaks: list[Break] = []
        self.seen: list[Exchange] = []
        self.silent = False
        self._never: asyncio.Event
        self._server: asyncio.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._never = asyncio.Event()
        self._server = await asyncio.start_server(self._keep, "127.0.0.1", 0, limit=BUFFER)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        self._server.close()

    async def _keep(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._thread.keeping():
            await self._client(reader, writer)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            broken = self._meet(head)
            if self.silent:
                await self._never.wait()
            if broken is not None and broken.status is not None:
                lines = "".join(f"{name}: {value}\r\n" for name, value in broken.headers.items())
                writer.write(
                    f"HTTP/1.1 {broken.status} Broken\r\n{lines}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
                )
                await writer.drain()
                await _swallow(reader, head)
                return
            answer, upstream = await asyncio.open_connection("127.0.0.1", self.target, limit=BUFFER)
            upstream.write(closing(head))
            up = asyncio.ensure_future(self._up(reader, upstream, writer, broken))
            try:
                await self._down(answer, writer, broken)
            finally:
                up.cancel()
                await asyncio.gather(up, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError):
            return
        except asyncio.CancelledError:
            # How the proxy ends. The streams of Python 3.11 complain about a cancelled task; and what is still in a
            # buffer would keep its socket open beyond the loop.
            for one in (writer, upstream):
                if one is not None:
                    one.transport.abort()
        finally:
            writer.close()
            if upstream is not None:
                upstream.close()

    def _meet(self, head: bytes) -> Break | None:
        method, path, _ = head.decode("latin-1").split(" ", 2)
        fits = (one for one in self.breaks if one.method in (None, method) and one.path in path)
        broken = next(fits, None)
        if broken is not None:
            self.breaks.remove(broken)
        self.seen.append(Exchange(method, path, head.decode("latin-1"), broken))
        return broken

    async def _up(
        self,
        reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
        client: asyncio.StreamWriter,
        broken: Break | None,
    ) -> None:
        sent = 0
        while data := await reader.read(BUFFER):
            if (
                broken is not None
                and broken.cut_upload_after is not None
                and sent + len(data) > broken.cut_upload_after
            ):
                reset(client)
                upstream.transport.abort()
                return
            sent += len(data)
            upstream.write(data)
            await upstream.drain()

    async def _down(self, answer: asyncio.StreamReader, writer: asyncio.StreamWriter, broken: Break | None) -> None:
        head = await answer.readuntil(b"\r\n\r\n")
        while re.match(rb"HTTP/1\.\d 1\d\d", head):
            writer.write(head)
            head = await answer.readuntil(b"\r\n\r\n")
        broken = broken or Break()
        if broken.lie:
            head = re.sub(
                rb"(?i)(content-length: *)(\d+)",
                lambda found: found.group(1) + str(int(found.group(2)) + broken.lie).encode(),
                head,
            )
        writer.write(broken.head if broken.head is not None else closing(head))
        sent = 0
        while data := await answer.read(BUFFER):
            limit = broken.cut_after if broken.stall_after is None else broken.stall_after
            if limit is not None and sent + len(data) > limit:
                writer.write(data[: limit - sent])
                await writer.drain()
                if broken.stall_after is not None:
                    await self._never.wait()
                return
            sent += len(data)
            writer.write(data)
            await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """RST, not FIN: what a killed process or a lost route looks like."""
    found = writer.get_extra_info("socket")
    if found is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def closing(head: bytes) -> bytes:
    """A head that says that its connection ends with this exchange."""
    bare = re.sub(rb"(?i)\r\n(connection|keep-alive):[^\r\n]*", b"", head)
    return bare[:-4] + b"\r\nConnection: close\r\n\r\n"


async def _swallow(reader: asyncio.StreamReader, head: bytes) -> None:
    """Take the rest of a request that was answered early, so that the answer is not lost in a reset."""
    if b"expect: 100-continue" not in head.lower():
        while await asyncio.wait_for(reader.read(BUFFER), 5):
            pass


@contextmanager
def run_fault_proxy(target: int) -> Iterator[FaultProxy]:
    """A proxy before a port of loopback until the block ends."""
    thread = LoopThread()
    proxy = FaultProxy(target, thread)
    try:
        thread.call(proxy.start())
        yield proxy
    finally:
        thread.call(proxy.stop())
        thread.end()
