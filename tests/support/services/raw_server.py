"""A TCP server whose every answer the test writes itself: for what no well-behaved server says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.services.fault_proxy import closing
from tests.support.services.in_thread import LoopThread

Answer = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextmanager
def run_raw(answer: Answer) -> Iterator[int]:
    """Serve until the block ends; ``answer`` gets the head of each request. Yields the port."""
    thread = LoopThread()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # The streams of Python 3.11 complain about a cancelled task, which is how a server here ends.
            with thread.keeping(), suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await answer(await reader.readuntil(b"\r\n\r\n"), reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            # What a client that does not read leaves in the buffer is nobody's any more.
            writer.transport.abort()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(client, "127.0.0.1", 0)

    server = thread.call(start())
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        thread.loop.call_soon_threadsafe(server.close)
        thread.end()


@contextmanager
def run_forward_proxy(seen: list[str]) -> Iterator[int]:
    """A forward proxy for http:// URLs; notes the head of every request it carries."""

    async def carry(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(head.decode("latin-1"))
        method, url, rest = head.split(b" ", 2)
        if not url.startswith(b"http://"):
            writer.write(b"HTTP/1.1 400 No Proxy Request\r\nContent-Length: 0\r\n\r\n")
            return
        place, _, path = url.removeprefix(b"http://").partition(b"/")
        host, _, port = place.decode().partition(":")
        answer, upstream = await asyncio.open_connection(host, int(port or 80))
        # One request for each connection, so that each passes here.
        upstream.write(closing(b"%s /%s %s" % (method, path, rest)))
        up = asyncio.ensure_future(_pump(reader, upstream))
        try:
            await _pump(answer, writer)
        finally:
            # At once, whatever is left in its buffer: nobody waits here for its end.
            upstream.transport.abort()
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)

    with run_raw(carry) as port:
        yield port


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
