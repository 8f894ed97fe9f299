"""Board and alerts ask for metrics that worker and bridge have."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.unit.deploy.deployment import ROOT, compose

# Of the exporter beside NATS.
FOREIGN = {"jetstream_consumer_num_pending", "jetstream_consumer_num_ack_pending"}


def metric_names() -> set[str]:
    """All that the two programs define, as Prometheus shows them."""
    text = "\n".join(path.read_text() for path in sorted((ROOT / "app").rglob("*.py")))
    counters = re.findall(r'Counter\(\s*"(comfybus_\w+)"', text)
    histograms = re.findall(r'Histogram\(\s*"(comfybus_\w+)"', text)
    gauges = re.findall(r'\.watch\(\s*"(\w+)"', text)
    families = re.findall(r'GaugeMetricFamily\(\s*"(comfybus_\w+)"', text)
    return (
        {f"{name}_total" for name in counters}
        | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
        | {f"comfybus_{name}" for name in gauges}
        | set(families)
    )


def used(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:comfybus|jetstream)_\w+", expression))


def test_the_board_asks_for_what_there_is() -> None:
    """Every panel has a title and a unit, lies beside the others, and shows metrics that exist."""
    board: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/comfybus.json").read_text())
    known = metric_names() | FOREIGN
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert used(target["expr"])
            assert used(target["expr"]) <= known, panel["title"]
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_alerts_ask_for_what_there_is() -> None:
    """Each has a severity and a sentence; codes are those of the contract."""
    from typing import get_args

    from schemas.events import ErrorCode

    rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"][0]["rules"]
    assert rules
    for rule in rules:
        assert used(rule["expr"])
        assert used(rule["expr"]) <= metric_names() | FOREIGN, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        for code in re.findall(r'code="(\w+)"', rule["expr"]):
            assert code in get_args(ErrorCode)


def test_prometheus_and_grafana_find_each_other() -> None:
    """Scraped names are services of docker-compose.yml; the board's source is the provisioned one."""
    services = compose()["services"]
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job["dns_sd_configs"][0] for job in config["scrape_configs"]}
    assert {name for job in jobs.values() for name in job["names"]} <= set(services)
    assert config["rule_files"] == ["alerts.yml"]
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    (one,) = source["datasources"]
    assert one["url"].partition("//")[2].partition(":")[0] in services
    board = (ROOT / "deploy/grafana/dashboards/comfybus.json").read_text()
    assert set(re.findall(r'"uid": "(\w+)"', board)) == {one["uid"], "comfybus"}
    mounted = [mount.split(":")[1] for mount in services["grafana"]["volumes"]]
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/comfybus.yml").read_text())
    assert provider["providers"][0]["options"]["path"] in mounted
