"""What is counted: by host, and by a bounded number of them."""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from app.bridge.lanes import Item, make_lane
from app.bridge.metrics import MOST_HOSTS, BridgeMetrics


def samples(metrics: BridgeMetrics) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(metrics.exposition()[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[sample.labels.get("host", "")] = sample.value
    return found


def test_delivered_retried_and_the_oldest_by_host() -> None:
    """Counters and gauges carry host and port; what waits is read when it is asked for."""
    metrics = BridgeMetrics()
    lane = make_lane("0", "https://u:p@a.example:8443/x?token=secret", 1)
    lane.items["d"] = Item("d", 1, 1, 0, 0, "c")
    metrics.watch_lanes(lambda: [lane])
    metrics.delivered("b.example")
    metrics.retried("b.example")
    metrics.given_up("b.example", "exhausted")
    found = samples(metrics)
    assert found["comfybus_webhook_delivered_total"] == {"b.example": 1}
    assert found["comfybus_webhook_retried_total"] == {"b.example": 1}
    assert found["comfybus_webhook_given_up_total"] == {"b.example": 1}
    assert found["comfybus_webhook_waiting"] == {"a.example:8443": 1}
    assert found["comfybus_webhook_oldest_seconds"]["a.example:8443"] > 10**9
    assert b"secret" not in metrics.exposition()[0]


def test_hosts_are_bounded() -> None:
    """Requests name the hosts, so beyond a number of them the rest is counted together."""
    metrics = BridgeMetrics()
    for number in range(MOST_HOSTS + 50):
        metrics.delivered(f"h{number}.example")
    found = samples(metrics)["comfybus_webhook_delivered_total"]
    assert len(found) == MOST_HOSTS + 1
    assert found["other"] == 50
