"""Starts and stops one stand-in: the routes, the publishing of messages, the execution thread.

Used by __main__; may import its folder alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from app.comfy.standin import routes_about, routes_files, routes_jobs, routes_prompts, routes_standin
from app.comfy.standin.config import MAX_UPLOAD_BYTES, StandinConfig
from app.comfy.standin.engine import ENGINE, Engine
from app.comfy.standin.http_answers import check_origin, fault_middleware, name_server


@dataclass(frozen=True)
class Standin:
    """A stand-in that is serving: ``url`` without a slash at its end, and its folder ``home``."""

    url: str
    home: Path
    engine: Engine


@asynccontextmanager
async def serve(config: StandinConfig) -> AsyncIterator[Standin]:
    """Serve a stand-in in this process and event loop while the context lasts.

    At the end all sockets break off and whatever runs is interrupted without a word to anyone. The node HardCrash
    ends the WHOLE process: use the module's command line for that.
    """
    engine = Engine(config)
    runner = web.AppRunner(application(engine), access_log=None, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, config.host, config.port)
    await site.start()
    publisher = asyncio.create_task(engine.wire.publish(), name="standin-publish")
    engine.thread.start()
    try:
        host, port = runner.addresses[0][:2]
        yield Standin(f"http://{f'[{host}]' if ':' in host else host}:{port}", engine.folders.home, engine)
    finally:
        engine.wire.cut()
        await asyncio.to_thread(engine.thread.stop)
        publisher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await publisher
        await runner.cleanup()
        engine.log.close()


def application(engine: Engine) -> web.Application:
    """Return the aiohttp application of an engine: every route plain and below /api, 404 for any other GET."""
    app = web.Application(client_max_size=MAX_UPLOAD_BYTES, middlewares=[fault_middleware(engine.faults), check_origin])
    app[ENGINE] = engine
    app.on_response_prepare.append(name_server)
    tables = [routes_about.routes, routes_files.routes, routes_prompts.routes]
    for table in tables:
        app.add_routes(table)
        app.add_routes([web.route(route.method, "/api" + route.path, route.handler) for route in _plain(table)])
    if engine.config.version == "new":
        app.add_routes(routes_jobs.routes)
    app.add_routes(routes_standin.routes)
    app.router.add_get("/{path:.*}", routes_about.nothing_here)
    return app


def _plain(table: web.RouteTableDef) -> list[web.RouteDef]:
    return [route for route in table if isinstance(route, web.RouteDef)]
