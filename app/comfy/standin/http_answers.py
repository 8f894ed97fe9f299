"""What every HTTP answer of the stand-in has in common: its name, the check of origins, and the fault switches.

Used by server; may import its folder alone.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlparse, urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from app.comfy.standin.faults import Faults

SERVER_NAME = "comfybus-standin"
"""The ``Server`` header of every answer, so that nobody takes the stand-in for the real thing."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def name_server(_: web.Request, answer: web.StreamResponse) -> None:
    """Put the stand-in's name on an answer."""
    answer.headers["Server"] = SERVER_NAME


@web.middleware
async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse with 403 what a foreign web page sends to a loopback address; answer OPTIONS with an empty 200."""
    host, origin = request.headers.get("Host"), request.headers.get("Origin")
    if host is not None and origin is not None and _is_foreign(host.lower(), origin):
        return web.Response(status=403)
    return web.Response() if request.method == "OPTIONS" else await handler(request)


def fault_middleware(faults: Faults) -> Middleware:
    """Return the middleware that lets the fault switches act on requests."""

    @web.middleware
    async def misbehave(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/standin/"):
            return await handler(request)
        if faults.latency_s:
            await asyncio.sleep(faults.latency_s)
        fault = faults.http_fault(request.path)
        while fault == "hang":
            await faults.wait_until_moved()
            fault = faults.http_fault(request.path)
        if fault == "refuse":
            return _broken_off(request)
        if fault == "error":
            return web.Response(status=500, text="500 Internal Server Error\n\nServer got itself in trouble")
        answer = await handler(request)
        return _broken_off(request) if fault == "lose_answer" else answer

    return misbehave


def _broken_off(request: web.Request) -> web.StreamResponse:
    """Break the connection off; the answer returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _is_foreign(host: str, origin: str) -> bool:
    """Compare the two headers as ComfyUI does: ports count only when both have one, and only loopback is guarded."""
    parsed_host, parsed_origin = urlsplit("//" + host), urlparse(origin)
    host_name: str | None = host
    origin_name: str | None = parsed_origin.netloc.lower()
    if parsed_origin.port is None:
        host_name = parsed_host.hostname
    if parsed_host.port is None:
        origin_name = parsed_origin.hostname
    return bool(_is_loopback(parsed_host.hostname) and host_name and origin_name and host_name != origin_name)


def _is_loopback(name: str | None) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False
