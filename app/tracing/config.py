"""Whether and where to traces go.

Used by prompts, sdk, webhooks, app.settings.tracing; may import nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["TracingConfig"]


@dataclass(frozen=True)
class TracingConfig:
    """Where spans go and who sends them; what is not here the SDK reads from the OTEL_* variables itself.

    Attributes:
        exporter: ``otlp`` over HTTP, or ``console`` for a look at the standard error.
        service: ``service.name``, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says else.
        instance: ``service.instance.id``: the worker's id.
        system: ``messaging.system``: ``nats`` or ``kafka``.
        group: The consumer group of requests.
        endpoint: Full URL for spans; None leaves it to the SDK.
        headers: OTEL_EXPORTER_OTLP_HEADERS.
    """

    exporter: Literal["otlp", "console"]
    service: str
    instance: str
    system: Literal["nats", "kafka"]
    group: str
    endpoint: str | None = None
    headers: dict[str, str] | None = field(default=None, repr=False)
