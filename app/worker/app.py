"""The worker as a process: connections opened in order, signals, and the way out.

Used by app.cli.commands; may import app.logs, app.settings, app.setup, app.signals, app.tracing.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import structlog

from app.logs import hide_in_logs
from app.settings import Settings
from app.settings.parts import storage_config
from app.settings.setup import setup_config, warm_up_prompt
from app.settings.tracing import tracing_config
from app.setup.installation import installation
from app.signals import stop_on_signal
from app.tracing.sdk import open_tracer
from app.worker.broker import keep_letters, make_bus
from app.worker.http import serve_http
from app.worker.worker import Worker

__all__ = ["run_worker"]

log = structlog.get_logger("comfybus.worker")


async def run_worker(settings: Settings) -> None:
    """Work until SIGTERM, SIGINT or a ``worker.drain``; returns when the drain has ended.

    Raises:
        ConfigurationError: A setting cannot be used.
        BrokerError: The broker cannot be reached or is unfit.
    """
    hide_in_logs(storage_config(settings).secrets())
    async with stop_on_signal(log) as stop, AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
        bus = await stack.enter_async_context(make_bus(settings).open())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfybus-")))
        worker = Worker(settings, bus, session, scratch, stop, await warm_up_prompt(settings))
        tracing = tracing_config(settings, "comfybus-worker")
        if (tracer := await stack.enter_async_context(open_tracer(tracing))) is not None and tracing is not None:
            from app.tracing.prompts import PromptTraces  # noqa: PLC0415 - needs the packages of an extra

            worker.trace = PromptTraces(tracer, tracing, settings.names).trace
        await stack.enter_async_context(worker.stores.open())
        keep_letters(settings, bus, worker.stores, scratch)
        if (setup := setup_config(settings)) is not None:
            worker.installation = await stack.enter_async_context(installation(setup, worker.transfers.take))
        port = await stack.enter_async_context(serve_http(settings.host, settings.port, worker.probes))
        log.info("worker starts", worker=settings.worker, comfyui=settings.comfy_url, port=port)
        await worker.run()
    log.info("worker ended")
