"""The bridge put together: every part is made here, started here and ended here.

Used by app.cli.bridge, app.cli.webhooks; may import app.errors, app.settings, app.signals, app.storage, app.tracing,
brokers.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import structlog

from app.bridge.broker import webhook_bus
from app.bridge.config import BridgeConfig
from app.bridge.deliver import Deliverer, Trace
from app.bridge.dispatch import Dispatcher
from app.bridge.endpoints import Endpoint, Endpoints
from app.bridge.feeding import Feeding
from app.bridge.http import serve_probes
from app.bridge.lanes import Lane
from app.bridge.metrics import BridgeMetrics
from app.bridge.post import Poster
from app.bridge.record import Record
from app.bridge.results import Results
from app.bridge.slots import Slots
from app.errors import ConfigurationError
from app.settings import Settings
from app.settings.bridge import bridge_config
from app.settings.tracing import tracing_config
from app.signals import stop_on_signal
from app.storage.guard import Guard
from app.storage.proxies import Proxies
from app.tracing.sdk import open_tracer
from brokers.base import Health
from brokers.webhooks import Share, WebhookBus

__all__ = ["make_posters", "run_bridge"]

# Names are resolved in threads; one host whose name server is silent holds a thread for many seconds.
RESOLVING_THREADS: Final = 128

log = structlog.get_logger("comfybus.bridge")


async def run_bridge(settings: Settings) -> None:
    """Deliver until SIGTERM or SIGINT; returns when what was under way has ended, or after DRAIN_TIMEOUT_S.

    Raises:
        ConfigurationError: A setting cannot be used.
        BrokerError: The broker cannot be reached or is unfit.
    """
    config = bridge_config(settings)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(RESOLVING_THREADS, "resolve"))
    async with stop_on_signal(log) as stop, AsyncExitStack() as stack:
        bus, objects = webhook_bus(settings, config)
        results = Results(
            config.storage,
            objects,
            inline_limit_bytes=config.inline_limit_bytes,
            signed_links=config.signed_links,
        )
        await stack.enter_async_context(bus.open())
        await stack.enter_async_context(results.open())
        posters = await stack.enter_async_context(make_posters(config, Endpoints(config)))
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="comfybus-bridge-")))
        tracing = tracing_config(settings, "comfybus-bridge")
        trace = None
        if (tracer := await stack.enter_async_context(open_tracer(tracing))) is not None and tracing is not None:
            from app.tracing.webhooks import WebhookTraces  # noqa: PLC0415 - needs the packages of an extra

            trace = WebhookTraces(tracer, tracing, settings.names).begin
        bridge = Bridge(config, bus, results, posters, scratch, stop, trace)
        port = await stack.enter_async_context(serve_probes(settings.host, settings.port, bridge.ready, bridge.metrics))
        log.info("bridge starts", port=port, subscriptions=len(config.subscriptions))
        _warn(config)
        await bridge.run(settings.drain_timeout_s)
    log.info("bridge ended")


def _warn(config: BridgeConfig) -> None:
    if config.signer is None:
        log.warning("WEBHOOK_SECRET is not set: webhooks go out without a signature")
    elif config.signer.bare:
        log.warning("WEBHOOK_SECRET has the bare form of comfyui-api, which is decoded unchecked; use whsec_<base64>")


@asynccontextmanager
async def make_posters(config: BridgeConfig, endpoints: Endpoints) -> AsyncIterator[dict[bool, Poster]]:
    """Who sends to URLs that the operator wrote (True) and to those of requests (False).

    The operator's own may lie anywhere; that opens no way for requests, which have other connections.

    Raises:
        ConfigurationError: ALLOWED_PRIVATE_HOSTS is wrong.
    """
    allowed, proxies = config.storage.allowed_private_hosts, Proxies(config.storage.proxies)
    try:
        guards = {False: Guard(allowed), True: Guard(allowed, endpoints.configured_urls)}
    except ValueError as exc:
        raise ConfigurationError(f"ALLOWED_PRIVATE_HOSTS is wrong: {exc}") from exc
    posters = {configured: Poster(guard, proxies, config.timeout_s) for configured, guard in guards.items()}
    async with posters[False], posters[True]:
        yield posters


class Bridge:
    """All parts of one bridge."""

    def __init__(
        self,
        config: BridgeConfig,
        bus: WebhookBus,
        results: Results,
        posters: dict[bool, Poster],
        scratch: Path,
        stop: anyio.Event,
        trace: Callable[[Record, dict[str, str]], Trace] | None = None,
    ) -> None:
        self._config = config
        self._bus = bus
        self._stop = stop
        self._slots = Slots()
        self._dispatchers: dict[int, Dispatcher] = {}
        self._endpoints = Endpoints(config)
        self.metrics = BridgeMetrics()
        self.metrics.watch_lanes(self._lanes)
        self.metrics.watch("webhook_shares", "Shares of the queue that are ours.", lambda: len(self._dispatchers))
        self.metrics.watch("broker_ok", "1 while the broker serves us.", lambda: float(bus.health().ok))
        self._feeding = Feeding(bus, config, self.metrics)

        def poster(endpoint: Endpoint) -> Poster:
            return posters[endpoint.configured]

        self._deliverer = Deliverer(
            self._endpoints, results, poster, config.schedule, self.metrics, scratch, trace=trace
        )

    async def run(self, drain_timeout_s: float) -> None:
        """Read events and deliver until asked to stop, then finish what is under way."""
        async with anyio.create_task_group() as tasks:
            for feed in self._config.feeds:
                tasks.start_soon(self._feeding.run, feed, self._stop)
            tasks.start_soon(self._bus.serve, self._work, self._stop)
            await self._stop.wait()
            # What is cut off by this is delivered again by the next bridge.
            tasks.cancel_scope.deadline = anyio.current_time() + drain_timeout_s

    async def _work(self, share: Share) -> None:
        dispatcher = Dispatcher(share, self._deliverer, self._slots, concurrency=self._endpoints.concurrency)
        self._dispatchers[share.number] = dispatcher
        try:
            await dispatcher.run()
        finally:
            del self._dispatchers[share.number]

    def _lanes(self) -> Iterator[Lane]:
        for dispatcher in list(self._dispatchers.values()):
            yield from dispatcher.lanes()

    def ready(self) -> Health:
        """Whether events are read and deliveries made."""
        if self._stop.is_set():
            return Health(ok=False, reason="the bridge is ending")
        return self._bus.health()
