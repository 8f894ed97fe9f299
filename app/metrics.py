"""What a worker counts, in its own Prometheus registry. No label is without bound: ids and URLs are none."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

__all__ = ["Metrics"]

STAGE_BUCKETS_S = (0.005, 0.02, 0.1, 0.5, 2, 5, 15, 60, 300, 1800)


class Metrics:
    """All metrics of one worker."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.prompts = Counter("comfybus_prompts", "Prompts answered.", ("outcome", "code"), registry=registry)
        self.retries = Counter("comfybus_retries", "Tries that failed and come back.", registry=registry)
        self.duplicates = Counter("comfybus_duplicates", "Requests settled without a run.", registry=registry)
        self.adopted = Counter("comfybus_adopted", "Runs taken over from an earlier delivery.", registry=registry)
        self.handed_back = Counter("comfybus_handed_back", "Requests handed back to the broker.", registry=registry)
        self.outputs = Counter("comfybus_outputs", "Outputs delivered.", registry=registry)
        self.transfers = Counter(
            "comfybus_transfers", "Transfers of files, and hits of the cache.", ("event", "backend"), registry=registry
        )
        self.transfer_bytes = Counter(
            "comfybus_transfer_bytes", "Bytes of finished transfers.", ("event", "backend"), registry=registry
        )
        self.stage_seconds = Histogram(
            "comfybus_stage_seconds",
            "Time a prompt spends in a stage.",
            ("stage",),
            registry=registry,
            buckets=STAGE_BUCKETS_S,
        )

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(f"comfybus_{name}", text, registry=self._registry).set_function(read)

    def exposition(self) -> bytes:
        """All metrics in OpenMetrics text form."""
        text: bytes = generate_latest(self._registry)  # type: ignore[no-untyped-call]  # the library has no types here
        return text
