"""The worker's HTTP side: probes, metrics, documents and models; it lives until the drain has ended.

Used by app.worker.app, worker; may import app.documents, app.errors, app.http, app.metrics, app.prepare, brokers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import version

import anyio.to_thread
from aiohttp import web

from app.documents.asyncapi import asyncapi_yaml
from app.errors import ComfyUnavailable
from app.http import json_answer, metrics_route, readiness_answer, serve
from app.metrics import Metrics
from app.prepare.workflows import WorkflowInfo
from brokers.base import Health

__all__ = ["Probes", "serve_http"]


@dataclass(frozen=True)
class Probes:
    """What the routes ask the worker.

    Attributes:
        was_warm: It was ready at least once.
        ready: Whether it takes and answers requests now.
        models: ComfyUI's models by type.
        metrics: What is counted.
        topic_prefix: For the channel names in the document.
        workflows: Those it has, for the document; none before they are loaded.
    """

    was_warm: Callable[[], bool]
    ready: Callable[[], Health]
    models: Callable[[], Awaitable[dict[str, list[str]]]]
    metrics: Metrics
    topic_prefix: str
    workflows: Callable[[], Sequence[WorkflowInfo]]


def serve_http(host: str, port: int, probes: Probes) -> AbstractAsyncContextManager[int]:
    """Serve until the block ends; yields the port (of interest when 0 was asked for).

    Raises:
        ConfigurationError: HOST:PORT cannot be listened on.
    """
    routes = _Routes(probes)
    return serve(
        host,
        port,
        {
            "/health": routes.health,
            "/ready": routes.ready,
            "/metrics": metrics_route(probes.metrics),
            "/docs": routes.docs,
            "/models": routes.models,
        },
    )


class _Routes:
    def __init__(self, probes: Probes) -> None:
        self._probes = probes

    async def health(self, _: web.Request) -> web.Response:
        """200 once it was warm, 500 before."""
        warm = self._probes.was_warm()
        return json_answer(
            {"version": version("comfybus"), "status": "healthy" if warm else "not healthy"}, 200 if warm else 500
        )

    async def ready(self, _: web.Request) -> web.Response:
        """200 while requests can be taken and answered, else 503 with the reason."""
        return readiness_answer(self._probes.ready())

    async def docs(self, _: web.Request) -> web.Response:
        """The AsyncAPI document with this worker's channel names and workflows."""
        prefix, workflows = self._probes.topic_prefix, self._probes.workflows()
        text = await anyio.to_thread.run_sync(asyncapi_yaml, prefix, workflows)
        return web.Response(text=text, content_type="application/yaml")

    async def models(self, _: web.Request) -> web.Response:
        """Model type to names, as ComfyUI has them now."""
        try:
            return json_answer(await self._probes.models())
        except ComfyUnavailable as exc:
            return json_answer({"error": str(exc), "code": exc.code}, 503)
