"""The bridge's HTTP side: probes and metrics.

Used by app.bridge.app; may import app.http, brokers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version

from aiohttp import web

from app.bridge.metrics import BridgeMetrics
from app.http import json_answer, metrics_route, readiness_answer, serve
from brokers.base import Health

__all__ = ["serve_probes"]


def serve_probes(
    host: str, port: int, ready: Callable[[], Health], metrics: BridgeMetrics
) -> AbstractAsyncContextManager[int]:
    """Serve ``/health``, ``/ready`` and ``/metrics`` until the block ends; yields the port.

    Raises:
        ConfigurationError: HOST:PORT cannot be listened on.
    """

    async def health(_: web.Request) -> web.Response:
        return json_answer({"version": version("comfybus"), "status": "healthy"})

    async def readiness(_: web.Request) -> web.Response:
        return readiness_answer(ready())

    return serve(host, port, {"/health": health, "/ready": readiness, "/metrics": metrics_route(metrics)})
