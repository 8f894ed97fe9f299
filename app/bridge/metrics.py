"""What the bridge counts, in its own Prometheus registry, by host of the receiver.

Used by app.bridge.app, deliver, feeding, http; may import app.exposition.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.bridge.lanes import Lane
from app.exposition import Exposition

__all__ = ["BridgeMetrics"]

# Hosts come from requests, so their number has to be bounded here: beyond it they are counted together.
MOST_HOSTS: Final = 200
OTHERS: Final = "other"
ATTEMPT_BUCKETS_S: Final = (0.01, 0.05, 0.2, 1, 5, 15, 40)


class BridgeMetrics(Exposition):
    """All metrics of one bridge."""

    def __init__(self) -> None:
        super().__init__()
        registry = self.registry
        self._hosts = set[str]()
        self._delivered = Counter(
            "comfybus_webhook_delivered", "Webhooks that their receiver took.", ("host",), registry=registry
        )
        self._retried = Counter(
            "comfybus_webhook_retried", "Attempts that failed and come again.", ("host",), registry=registry
        )
        self._given_up = Counter(
            "comfybus_webhook_given_up", "Webhooks in the dead letter.", ("host", "code"), registry=registry
        )
        self.events = Counter("comfybus_webhook_events", "Events read.", ("feed",), registry=registry)
        self.attempt_seconds = Histogram(
            "comfybus_webhook_attempt_seconds",
            "Until a receiver answers, or the trouble with it is known.",
            registry=registry,
            buckets=ATTEMPT_BUCKETS_S,
        )

    def delivered(self, host: str) -> None:
        """A receiver took one."""
        self._delivered.labels(host=self._label(host)).inc()

    def retried(self, host: str) -> None:
        """An attempt failed and will be repeated."""
        self._retried.labels(host=self._label(host)).inc()

    def given_up(self, host: str, code: str) -> None:
        """One went to the dead letter."""
        self._given_up.labels(host=self._label(host), code=code).inc()

    def _label(self, host: str) -> str:
        if host not in self._hosts:
            if len(self._hosts) >= MOST_HOSTS:
                return OTHERS
            self._hosts.add(host)
        return host

    def watch_lanes(self, lanes: Callable[[], Iterable[Lane]]) -> None:
        """How many wait, and since when, by host; read when it is asked for."""
        self.registry.register(_Lanes(lanes, self._label))


class _Lanes(Collector):
    """What waits in the shares of this bridge."""

    def __init__(self, lanes: Callable[[], Iterable[Lane]], label: Callable[[str], str]) -> None:
        self._lanes = lanes
        self._label = label

    def collect(self) -> Iterator[GaugeMetricFamily]:
        waiting, oldest = dict[str, int](), dict[str, float]()
        for lane in self._lanes():
            host = self._label(lane.host)
            waiting[host] = waiting.get(host, 0) + len(lane.items)
            if (since := lane.oldest_s) is not None:
                oldest[host] = min(since, oldest.get(host, since))
        counts = GaugeMetricFamily("comfybus_webhook_waiting", "Webhooks that wait.", labels=("host",))
        ages = GaugeMetricFamily("comfybus_webhook_oldest_seconds", "Age of the oldest of them.", labels=("host",))
        now = time.time()
        for host, count in waiting.items():
            counts.add_metric((host,), count)
        for host, since in oldest.items():
            ages.add_metric((host,), max(now - since, 0.0))
        yield counts
        yield ages
