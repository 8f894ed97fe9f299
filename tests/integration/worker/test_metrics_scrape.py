"""A scrape of the real worker and the real bridge: what the board and the alerts ask for is there, and is true."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import anyio
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_metrics

from tests.support.kafka_stack import run_kafka_stack
from tests.support.processes import Process, free_port, launch, wait_http
from tests.support.promtool import promtool, run_promtool
from tests.support.stack import Stack, graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[3]
OPEN = "application/openmetrics-text;version=1.0.0"
PLAIN = "text/plain;version=0.0.4"
# Every label there is. None of them takes its values from ids or URLs; those of class_type and host are capped.
LABELS = {
    *("outcome", "code", "stage", "le", "class_type", "event", "backend", "result", "folder", "to"),
    *("host", "feed"),
}


@dataclass
class Scraped:
    """A deployment that has answered a few prompts."""

    stack: Stack
    bridge: str

    async def text(self, url: str, accept: str = OPEN) -> tuple[str, str]:
        headers = {"Accept": accept}
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics", headers=headers) as response:
            assert response.status == 200
            return await response.text(), response.headers["Content-Type"]

    @property
    def worker(self) -> str:
        return self.stack.workers[0].url

    async def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name whose labels are these, and perhaps others."""
        text, _ = await self.text(self.worker)
        samples = [sample for family in open_metrics(text) for sample in family.samples if sample.name == name]
        assert samples, name
        return sum(one.value for one in samples if labels.items() <= one.labels.items())


@pytest.fixture(scope="module", params=["nats", "kafka"])
async def scraped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scraped]:
    """Three prompts complete, one fails; a bridge besides."""
    folder = tmp_path_factory.mktemp("scraped")
    async with (run_kafka_stack if request.param == "kafka" else run_stack)(folder) as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        bridge: Process | None = None
        port = free_port()
        try:
            env = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": str(port), "BROKER_URL": stack.broker.url}
            bridge = launch([sys.executable, "-m", "app", "bridge"], folder / "bridge.log", {**stack.env, **env})
            for number in range(2):
                await stack.outside.send({"id": f"quick-{number}", "prompt": graph(color=number)})
            await stack.outside.send({"id": "slow", "prompt": graph(seconds=0.8, color=3)})
            await stack.outside.send({"id": "wrong", "prompt": {"1": {"class_type": "NoSuchNode", "inputs": {}}}})
            await stack.outside.send({"id": "slow", "prompt": graph(color=4)})
            for sent in ("quick-0", "quick-1", "slow", "wrong"):
                await stack.outside.terminal(sent)
            await wait_http(f"http://127.0.0.1:{port}/ready", bridge)
            found = Scraped(stack, f"http://127.0.0.1:{port}")
            with anyio.fail_after(30):
                # Counted once the events are out, and once the surroundings were looked at.
                while await found.value("comfybus_stage_seconds_count", stage="total") < 4 or not await disks(found):
                    await anyio.sleep(0.1)
            yield found
        finally:
            if bridge is not None:
                await bridge.kill()


async def disks(found: Scraped) -> bool:
    text, _ = await found.text(found.worker)
    return 'comfybus_disk_free_bytes{folder="output"}' in text


async def test_prompts_stages_nodes_and_attempts_are_counted(scraped: Scraped) -> None:
    """Outcome and code, each stage, the class of each node, and how long ComfyUI was at work."""
    assert await scraped.value("comfybus_prompts_total", outcome="complete", code="") == 3
    assert await scraped.value("comfybus_prompts_total", outcome="failed", code="invalid_prompt") == 1
    assert await scraped.value("comfybus_prompts_total", outcome="failed", code="timeout") == 0
    assert await scraped.value("comfybus_attempts_total") >= 3
    for stage in ("queue", "claim", "prepare", "publish", "total"):
        assert await scraped.value("comfybus_stage_seconds_count", stage=stage) == 4, stage
    for stage in ("comfyui_queue", "run", "collect", "store"):
        assert await scraped.value("comfybus_stage_seconds_count", stage=stage) >= 3, stage
    assert await scraped.value("comfybus_stage_seconds_sum", stage="run") >= 0.7
    assert await scraped.value("comfybus_node_seconds_count", class_type="SlowProgress") == 1
    assert await scraped.value("comfybus_node_seconds_sum", class_type="SlowProgress") >= 0.7
    assert 0.7 <= await scraped.value("comfybus_comfyui_busy_seconds_total") < 60
    assert await scraped.value("comfybus_outputs_total") == 3


async def test_the_state_of_worker_broker_comfyui_and_disks_is_shown(scraped: Scraped) -> None:
    """Gauges, and counters that others keep."""
    assert await scraped.value("comfybus_comfyui_up") == 1
    assert await scraped.value("comfybus_broker_ok") == 1
    assert await scraped.value("comfybus_capacity") == 4
    assert await scraped.value("comfybus_in_flight") == 0
    assert await scraped.value("comfybus_backlog_oldest_seconds") == 0
    assert await scraped.value("comfybus_heartbeat_timestamp_seconds") > 1_700_000_000
    assert await scraped.value("comfybus_reconnects_total", to="broker") == 0
    assert await scraped.value("comfybus_lease_extensions_total") >= 0
    free = await scraped.value("comfybus_disk_free_bytes", folder="scratch")
    assert 0 < free <= await scraped.value("comfybus_disk_size_bytes", folder="scratch")
    assert await scraped.value("comfybus_disk_size_bytes", folder="output") > 0


async def test_board_and_alerts_ask_for_what_a_scrape_shows(scraped: Scraped) -> None:
    """Every name that stands in a panel or a rule, and every label of a selector."""
    names, labels = set[str](), set[str]()
    for url in (scraped.worker, scraped.bridge):
        text, _ = await scraped.text(url)
        for family in open_metrics(text):
            names |= {sample.name for sample in family.samples} | {f"{family.name}{suffix(family.type)}"}
            labels |= {label for sample in family.samples for label in sample.labels}
    board = json.loads((ROOT / "deploy/grafana/dashboards/comfybus.json").read_text())
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [rule["expr"] for group in groups for rule in group["rules"]]
    used = {name for expression in asked for name in re.findall(r"\bcomfybus_\w+", expression)}
    assert len(used) > 20
    assert used <= names, used - names
    assert labels <= LABELS, labels - LABELS


def suffix(kind: str) -> str:
    """A labelled counter without a child shows its family alone."""
    return "_total" if kind == "counter" else ""


async def test_both_forms_are_served(scraped: Scraped) -> None:
    """OpenMetrics unless the older text alone is asked for; the same values in both."""
    for url in (scraped.worker, scraped.bridge):
        text, kind = await scraped.text(url)
        assert kind.startswith("application/openmetrics-text; version=1.0.0")
        assert text.endswith("# EOF\n")
        older, kind = await scraped.text(url, PLAIN)
        assert kind.startswith("text/plain; version=0.0.4")
        new = {sample.name for family in open_metrics(text) for sample in family.samples}
        old = {sample.name for family in plain_metrics(older) for sample in family.samples}
        assert new == old
        assert not any(name.endswith("_created") for name in new)


async def test_promtool_finds_nothing_to_complain_of(scraped: Scraped) -> None:
    """Names, units, help texts and types."""
    program = promtool()
    for url in (scraped.worker, scraped.bridge):
        older, _ = await scraped.text(url, PLAIN)
        code, said = run_promtool(program, "check", "metrics", stdin=older.encode())
        assert code == 0, said


async def test_secrets_ids_and_urls_are_in_no_metric(scraped: Scraped) -> None:
    """Labels hold what was known before the first request."""
    text, _ = await scraped.text(scraped.worker)
    for word in ("quick-0", 'slow"', "http://", "nats://", "NoSuchNode"):
        assert word not in text
