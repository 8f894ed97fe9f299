"""The worker's HTTP side: probes, metrics, documents and models; it lives until the drain has ended."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

import anyio.to_thread
import structlog
from aiohttp import web

from app.documents.asyncapi import asyncapi_yaml
from app.errors import ComfyUnavailable, ConfigurationError
from app.metrics import Metrics
from app.prepare.workflows import WorkflowInfo
from brokers.base import Health
from schemas.base import dump_json

__all__ = ["Probes", "serve_http"]

log = structlog.get_logger("comfybus.http")


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


@asynccontextmanager
async def serve_http(host: str, port: int, probes: Probes) -> AsyncIterator[int]:
    """Serve until the block ends; yields the port (of interest when 0 was asked for).

    Raises:
        ConfigurationError: HOST:PORT cannot be listened on.
    """
    app = web.Application()
    routes = _Routes(probes)
    app.router.add_get("/health", routes.health)
    app.router.add_get("/ready", routes.ready)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get("/docs", routes.docs)
    app.router.add_get("/models", routes.models)
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
    """A listening socket; ``::`` takes IPv4 too, and where there is no IPv6 it means all of IPv4."""
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


class _Routes:
    def __init__(self, probes: Probes) -> None:
        self._probes = probes

    async def health(self, _: web.Request) -> web.Response:
        """200 once it was warm, 500 before."""
        warm = self._probes.was_warm()
        return _json(
            {"version": version("comfybus"), "status": "healthy" if warm else "not healthy"}, 200 if warm else 500
        )

    async def ready(self, _: web.Request) -> web.Response:
        """200 while requests can be taken and answered, else 503 with the reason."""
        health = self._probes.ready()
        body = {"version": version("comfybus"), "status": "ready" if health.ok else "not ready"}
        if not health.ok:
            body["reason"] = health.reason
        return _json(body, 200 if health.ok else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """OpenMetrics, or Prometheus' older text for who asks for that alone."""
        body, content_type = self._probes.metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def docs(self, _: web.Request) -> web.Response:
        """The AsyncAPI document with this worker's channel names and workflows."""
        prefix, workflows = self._probes.topic_prefix, self._probes.workflows()
        text = await anyio.to_thread.run_sync(asyncapi_yaml, prefix, workflows)
        return web.Response(text=text, content_type="application/yaml")

    async def models(self, _: web.Request) -> web.Response:
        """Model type to names, as ComfyUI has them now."""
        try:
            return _json(await self._probes.models(), 200)
        except ComfyUnavailable as exc:
            return _json({"error": str(exc), "code": exc.code}, 503)


def _json(value: object, status: int) -> web.Response:
    return web.Response(body=dump_json(value), status=status, content_type="application/json")
