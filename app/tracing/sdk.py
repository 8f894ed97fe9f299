"""OpenTelemetry's SDK: opened for the life of a process, and the only place that imports it.

Used by app.bridge.app, app.worker.app; may import app.errors.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import structlog

from app.errors import ConfigurationError
from app.tracing.config import TracingConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

__all__ = ["open_tracer"]

# The last spans at the end of the process; a collector that is away must not hold it up.
FAREWELL_S: Final = 5.0

log = structlog.get_logger("comfybus.tracing")


@asynccontextmanager
async def open_tracer(config: TracingConfig | None) -> AsyncIterator[Tracer | None]:
    """A tracer whose spans are exported in batches, by a thread, until the block ends; None without a config.

    A collector that does not answer costs nothing but spans: they are dropped when 2048 wait.

    Raises:
        ConfigurationError: The packages are missing, or a variable cannot be used.
    """
    if config is None:
        yield None
        return
    provider = _provider(config)
    log.info("traces are on", exporter=config.exporter)
    try:
        yield provider.get_tracer("comfybus", version("comfybus"))
    finally:
        with anyio.move_on_after(FAREWELL_S, shield=True):
            await anyio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)


def _provider(config: TracingConfig) -> TracerProvider:
    try:
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as exc:
        raise ConfigurationError(
            f"traces are asked for by OTEL_* variables, but {exc.name} is not installed; "
            "install it with: pip install 'comfybus[otel]', or set OTEL_SDK_DISABLED=true"
        ) from exc
    ours = {
        "service.name": config.service,
        "service.version": version("comfybus"),
        "service.instance.id": config.instance,
    }
    try:
        # What the operator says of himself goes before what we say.
        resource = Resource(ours).merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(_exporter(config)))
    except (ValueError, TypeError) as exc:
        raise ConfigurationError(f"the OTEL_* variables cannot be used: {exc}") from exc
    return provider


def _exporter(config: TracingConfig) -> SpanExporter:
    if config.exporter == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter  # noqa: PLC0415 - an extra

        return ConsoleSpanExporter(out=sys.stderr)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    except ImportError as exc:
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER=otlp needs {exc.name}; install it with: pip install 'comfybus[otel]'"
        ) from exc
    return OTLPSpanExporter(endpoint=config.endpoint, headers=config.headers)
