"""The bridge's HTTP side: probes and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version

import structlog
from aiohttp import web

from app.bridge.metrics import BridgeMetrics
from app.http import _listen
from brokers.base import Health
from schemas.base import dump_json

__all__ = ["serve_probes"]

log = structlog.get_logger("comfybus.http")


@asynccontextmanager
async def serve_probes(host: str, port: int, ready: Callable[[], Health], metrics: BridgeMetrics) -> AsyncIterator[int]:
    """Serve ``/health``, ``/ready`` and ``/metrics`` until the block ends; yields the port.

    Raises:
        ConfigurationError: HOST:PORT cannot be listened on.
    """

    async def health(_: web.Request) -> web.Response:
        return _json({"version": version("comfybus"), "status": "healthy"}, 200)

    async def readiness(_: web.Request) -> web.Response:
        state = ready()
        body = {"version": version("comfybus"), "status": "ready" if state.ok else "not ready"}
        return _json(body if state.ok else {**body, "reason": state.reason}, 200 if state.ok else 503)

    async def exposition(request: web.Request) -> web.Response:
        body, content_type = metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    app = web.Application()
    app.router.add_get("/health", health)
    app.router.add_get("/ready", readiness)
    app.router.add_get("/metrics", exposition)
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


def _json(value: object, status: int) -> web.Response:
    return web.Response(body=dump_json(value), status=status, content_type="application/json")
