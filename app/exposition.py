"""A registry of metrics and the text that Prometheus reads: OpenMetrics, or the older form for who asks for it.

Used by http, metrics, app.bridge.metrics; may import nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

__all__ = ["Exposition", "Labelled"]

Labelled = Mapping[str, float]
"""Value by the one label's value."""

OPENMETRICS = "application/openmetrics-text"


class Exposition:
    """All metrics of one process, those that are counted and those that are read when they are asked for."""

    def __init__(self) -> None:
        # They double the series, and Prometheus finds restarts by itself.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here
        self.registry = CollectorRegistry()

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(f"comfybus_{name}", text, registry=self.registry).set_function(read)

    def watch_each(self, name: str, text: str, label: str, read: Callable[[], Labelled]) -> None:
        """A gauge with one label, read when it is asked for; ``read`` bounds the label."""
        self.registry.register(_Read(GaugeMetricFamily, f"comfybus_{name}", text, label, read))

    def count(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A counter that something else keeps; it never falls. The name is without ``_total``."""
        self.registry.register(_Read(CounterMetricFamily, f"comfybus_{name}", text, "", lambda: {"": read()}))

    def count_each(self, name: str, text: str, label: str, read: Callable[[], Labelled]) -> None:
        """A counter with one label that something else keeps."""
        self.registry.register(_Read(CounterMetricFamily, f"comfybus_{name}", text, label, read))

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics and their content type.

        Args:
            accept: The Accept header: who names ``text/plain`` alone gets Prometheus' older form, others OpenMetrics.
        """
        plain = "text/plain" in accept and OPENMETRICS not in accept
        encode, content_type = choose_encoder(accept if plain or OPENMETRICS in accept else OPENMETRICS)
        return encode(self.registry), content_type


class _Read(Collector):
    """One family of metrics whose values somebody else has."""

    def __init__(
        self,
        family: type[CounterMetricFamily | GaugeMetricFamily],
        name: str,
        text: str,
        label: str,
        read: Callable[[], Labelled],
    ) -> None:
        self._make: Callable[[], CounterMetricFamily | GaugeMetricFamily] = lambda: family(
            name, text, labels=(label,) if label else ()
        )
        self._read = read

    def describe(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Its name alone, so that a second of that name is refused and nothing is read before it is asked for."""
        yield self._make()

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The values as they are now."""
        family = self._make()
        for label, value in self._read().items():
            family.add_metric((label,) if label else (), value)
        yield family
