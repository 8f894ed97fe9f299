"""Board and alerts ask for metrics that worker and bridge have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.promtool import promtool, run_promtool
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
    gauges += re.findall(r'\.watch_each\(\s*"(\w+)"', text)
    counts = re.findall(r'\.count(?:_each)?\(\s*"(\w+)"', text)
    return (
        {f"{name}_total" for name in counters}
        | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
        | {f"comfybus_{name}" for name in gauges}
        | {f"comfybus_{name}_total" for name in counts}
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

    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    for rule in rules:
        assert used(rule["expr"]) <= metric_names() | FOREIGN, rule["expr"]
        assert used(rule["expr"]) or any(name in rule["expr"] for name in recorded)
    alerts = [rule for rule in rules if "alert" in rule]
    assert {"Backlog", "ManyFailures", "WorkerWithoutHeartbeat", "DeadLetters", "DiskAlmostFull"} <= {
        rule["alert"] for rule in alerts
    }
    for rule in alerts:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        for code in re.findall(r'code="(\w+)"', rule["expr"]):
            assert code in get_args(ErrorCode)


def board_schema() -> dict[str, Any]:
    """What Grafana needs of a dashboard to load it and of each panel to draw it."""
    source = {"type": "object", "required": ["type", "uid"]}
    target = {"type": "object", "required": ["expr", "refId", "datasource"], "properties": {"datasource": source}}
    position = {name: {"type": "integer", "minimum": 0} for name in ("x", "y", "w", "h")}
    panel = {
        "type": "object",
        "required": ["id", "type", "title", "gridPos", "datasource", "targets", "fieldConfig", "options"],
        "properties": {
            "id": {"type": "integer", "minimum": 1},
            "type": {"enum": ["stat", "timeseries"]},
            "gridPos": {"type": "object", "required": list(position), "properties": position},
            "targets": {"type": "array", "minItems": 1, "items": target},
            "fieldConfig": {"type": "object", "required": ["defaults", "overrides"]},
        },
    }
    return {
        "type": "object",
        "required": ["uid", "title", "schemaVersion", "panels", "templating", "time", "annotations"],
        "properties": {
            "schemaVersion": {"type": "integer", "minimum": 36},
            "panels": {"type": "array", "minItems": 1, "items": panel},
            "templating": {"type": "object", "required": ["list"]},
        },
    }


def test_the_board_has_the_form_of_one() -> None:
    """Fields and types; variables that panels use are defined, and letters of queries differ."""
    import jsonschema

    board = json.loads((ROOT / "deploy/grafana/dashboards/comfybus.json").read_text())
    jsonschema.validate(board, board_schema())
    defined = {variable["name"] for variable in board["templating"]["list"]}
    for panel in board["panels"]:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
        assert set(re.findall(r"\$(\w+)", json.dumps(panel["targets"]))) <= defined


def test_promtool_takes_rules_and_configuration() -> None:
    """Its syntax check, and its run of the alerts against series of which they shall fire, or not."""
    check_with(promtool())


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_promtool_takes_rules_and_configuration_where_it_has_to_be_built() -> None:
    """The same, with promtool built from its source."""
    check_with(promtool(build=True))


def check_with(program: Path) -> None:
    folder = ROOT / "deploy" / "prometheus"
    for arguments in (
        ("check", "rules", str(folder / "alerts.yml")),
        ("check", "config", str(folder / "prometheus.yml")),
        ("test", "rules", str(folder / "alerts.test.yml")),
    ):
        code, said = run_promtool(program, *arguments)
        assert code == 0, said


def test_every_query_of_the_board_parses() -> None:
    """As a rule, which promtool can check."""
    program = promtool()
    board = json.loads((ROOT / "deploy/grafana/dashboards/comfybus.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$worker", ".*")
            code, said = run_promtool(program, "--experimental", "promql", "format", expression)
            assert code == 0, f"{panel['title']}: {said}"


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
