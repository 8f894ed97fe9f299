"""A plain web server with a folder of files: ranges, entity tags, PUT, four kinds of authentication, redirects."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from aiohttp import web

from tests.support.services.in_thread import serve

SECRET = "web-secret-0123456789"
USER = "ada"


@dataclass
class Seen:
    """One request that came in."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class WebFiles:
    """The server: files below ``/open/`` are for everybody, those below ``/closed/`` want a secret.

    Of files below ``/gated/`` and ``/closed-gated/`` the first half is sent and ``halves_sent`` released; the rest
    comes when the ``gate`` is open. ``left`` is released when a client goes before that.
    """

    folder: Path
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    redirects: dict[str, tuple[int, str]] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)
    halves_sent: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gets(self, name: str) -> int:
        """How often a file was asked for."""
        return sum(one.method == "GET" and unquote(one.path).endswith(f"/{name}") for one in self.seen)

    def application(self) -> web.Application:
        application = web.Application(client_max_size=1 << 40)
        application.router.add_route("*", "/{path:.*}", self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(Seen(request.method, request.raw_path, dict(request.headers)))
        if request.path in self.redirects:
            status, location = self.redirects[request.path]
            return web.Response(status=status, headers={"Location": location})
        area, _, name = request.path.lstrip("/").partition("/")
        if area.startswith("closed") and not _knows(request):
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        path = self.folder / name.replace("/", "~")
        if area in ("open", "closed", "gated", "closed-gated"):
            if request.method == "PUT":
                return await _store(request, path)
            if path.is_file():
                return await self._gated(request, path) if area.endswith("gated") else web.FileResponse(path)
        return web.Response(status=404)

    async def _gated(self, request: web.Request, path: Path) -> web.StreamResponse:
        data = path.read_bytes()
        start = request.http_range.start or 0
        response = web.StreamResponse(status=206 if start else 200, headers={"ETag": f'"{len(data)}"'})
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        response.content_length = len(data) - start
        await response.prepare(request)
        half = max(len(data) // 2, start)
        try:
            await response.write(data[start:half])
            self.halves_sent.release()
            # A client that leaves cancels this.
            while not self.gate.is_set():
                await asyncio.sleep(0.01)
            await response.write(data[half:])
            await response.write_eof()
        except (ConnectionResetError, asyncio.CancelledError):
            self.left.release()
            raise
        return response


def _knows(request: web.Request) -> bool:
    basic = base64.b64encode(f"{USER}:{SECRET}".encode()).decode()
    return (
        request.headers.get("Authorization") in (f"Bearer {SECRET}", f"Basic {basic}")
        or request.headers.get("X-Api-Key") == SECRET
        or request.query.get("key") == SECRET
    )


async def _store(request: web.Request, path: Path) -> web.Response:
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        async for chunk in request.content.iter_chunked(1 << 20):
            file.write(chunk)
    part.replace(path)
    return web.Response(status=201)


@contextmanager
def run_web_files(folder: Path) -> Iterator[WebFiles]:
    """Serve a folder until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    files = WebFiles(folder)
    with serve(files.application()) as port:
        files.port = port
        yield files
