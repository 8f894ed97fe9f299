"""What tracing is told of the settings.

Used by app.bridge.app, app.worker.app; may import app.errors, app.tracing, brokers.nats.
"""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import unquote

from app.errors import ConfigurationError
from app.settings.broker import reveal
from app.settings.tree import Settings
from app.tracing.config import TracingConfig
from brokers.nats.layout import DURABLE

__all__ = ["tracing_config"]

PROTOCOL: Final = "http/protobuf"


def tracing_config(settings: Settings, service: Literal["comfybus-worker", "comfybus-bridge"]) -> TracingConfig | None:
    """Where traces go; None when nothing asks for them: neither an exporter nor an endpoint is named.

    Raises:
        ConfigurationError: Another protocol than OTLP over HTTP is asked for.
    """
    endpoint = settings.otel_exporter_otlp_traces_endpoint
    if not endpoint and settings.otel_exporter_otlp_endpoint:
        endpoint = f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"
    exporter = settings.otel_traces_exporter or ("otlp" if endpoint else "none")
    if exporter == "none" or settings.otel_sdk_disabled:
        return None
    protocol = settings.otel_exporter_otlp_traces_protocol or settings.otel_exporter_otlp_protocol
    if exporter == "otlp" and protocol != PROTOCOL:
        raise ConfigurationError(f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol} is wrong: it should be {PROTOCOL}")
    return TracingConfig(
        exporter=exporter,
        service=service,
        instance=settings.worker,
        system="kafka" if settings.uses_kafka else "nats",
        group=settings.names.worker_group if settings.uses_kafka else DURABLE,
        endpoint=endpoint or None,
        headers=_headers(reveal(settings.otel_exporter_otlp_headers)) or None,
    )


def _headers(text: str | None) -> dict[str, str]:
    """``name=value`` pairs with commas between them, values percent-encoded."""
    pairs = (pair.partition("=") for pair in (text or "").split(",") if "=" in pair)
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs}
