"""An HTTP port for probes: listening, and the answers that the worker and the bridge have in common.

Used by app.bridge.http, app.worker.http; may import app.errors, app.exposition, brokers, schemas.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from aiohttp import web

from app.errors import ConfigurationError
from app.exposition import Exposition
from brokers.base import Health
from schemas.base import dump_json

__all__ = ["Route", "json_answer", "metrics_route", "readiness_answer", "serve"]

log = structlog.get_logger("comfybus.http")

Route = Callable[[web.Request], Awaitable[web.Response]]


@asynccontextmanager
async def serve(host: str, port: int, routes: Mapping[str, Route]) -> AsyncIterator[int]:
    """Answer GET until the block ends; yields the port (of interest when 0 was asked for).

    Args:
        host: ``::`` takes IPv4 too, and where there is no IPv6 it means all of IPv4.
        port: 0 for any.
        routes: What answers for each path.

    Raises:
        ConfigurationError: HOST:PORT cannot be listened on.
    """
    app = web.Application()
    for path, route in routes.items():
        app.router.add_get(path, route)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        site = web.SockSite(runner, _listen(host, port))
        await site.start()
        bound = int(runner.addresses[0][1])
        log.info("listening", host=host, port=bound)
        yield bound
    finally:
        await runner.cleanup()


def _listen(host: str, port: int) -> socket.socket:
    try:
        if host == "::":
            if socket.has_dualstack_ipv6():
                return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("0.0.0.0", port))  # noqa: S104 - what the contract says of HOST
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as exc:
        raise ConfigurationError(
            f"HOST={host} PORT={port} is wrong: it cannot be listened on ({exc.strerror})"
        ) from exc


def json_answer(value: object, status: int = 200) -> web.Response:
    """A JSON document."""
    return web.Response(body=dump_json(value), status=status, content_type="application/json")


def readiness_answer(health: Health) -> web.Response:
    """200, or 503 with the reason."""
    body = {"version": version("comfybus"), "status": "ready" if health.ok else "not ready"}
    return json_answer(body if health.ok else {**body, "reason": health.reason}, 200 if health.ok else 503)


def metrics_route(metrics: Exposition) -> Route:
    """OpenMetrics, or Prometheus' older text for who asks for that alone."""

    async def answer(request: web.Request) -> web.Response:
        body, content_type = metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    return answer
