"""The text of the metrics, and the settings of traces."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from app.errors import ConfigurationError
from app.exposition import Exposition
from app.settings import Settings
from app.settings.tracing import tracing_config


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/openmetrics-text"),
        ("*/*", "application/openmetrics-text"),
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", "application/openmetrics-text"),
        ("text/plain;version=0.0.4", "text/plain"),
        ("text/plain", "text/plain"),
        ("text/html", "application/openmetrics-text"),
    ],
)
def test_who_asks_for_the_older_text_alone_gets_it(accept: str, kind: str) -> None:
    """OpenMetrics for everybody else."""
    metrics = Exposition()
    metrics.count("things", "Things.", lambda: 3)
    body, content_type = metrics.exposition(accept)
    assert content_type.startswith(kind)
    assert b"comfybus_things_total 3.0" in body
    assert body.endswith(b"# EOF\n") == (kind != "text/plain")


def test_what_others_keep_is_read_when_it_is_asked_for() -> None:
    """With one label or none."""
    values = {"broker": 1.0}
    metrics = Exposition()
    metrics.watch("level", "Level.", lambda: 7)
    metrics.watch_each("levels", "Levels.", "to", lambda: values)
    metrics.count_each("reconnects", "Again.", "to", lambda: values)
    values["comfyui"] = 2.0
    families = {one.name: one for one in text_string_to_metric_families(metrics.exposition()[0].decode())}
    assert families["comfybus_level"].samples[0].value == 7
    for name, kind in (("comfybus_levels", "gauge"), ("comfybus_reconnects", "counter")):
        assert families[name].type == kind
        assert [(one.labels, one.value) for one in families[name].samples] == [
            ({"to": "broker"}, 1),
            ({"to": "comfyui"}, 2),
        ]


def test_a_name_is_taken_once() -> None:
    """Two parts that mean the same metric are a fault."""
    metrics = Exposition()
    metrics.count("things", "Things.", lambda: 0)
    with pytest.raises(ValueError, match="things"):
        metrics.count("things", "Things.", lambda: 0)


def config(**values: Any) -> Any:
    return tracing_config(Settings(_env_file=None, **values), "comfybus-worker")  # type: ignore[call-arg]


def test_traces_are_off_until_they_are_asked_for() -> None:
    """By an endpoint or an exporter; the switch goes before both."""
    assert config() is None
    assert config(otel_exporter_otlp_endpoint="http://c:4318", otel_sdk_disabled=True) is None
    assert config(otel_exporter_otlp_endpoint="http://c:4318", otel_traces_exporter="none") is None
    assert config(otel_traces_exporter="otlp").endpoint is None
    assert config(otel_traces_exporter="console").exporter == "console"


def test_the_endpoint_is_the_base_or_the_whole() -> None:
    """As the specification has it."""
    assert config(otel_exporter_otlp_endpoint="http://c:4318/").endpoint == "http://c:4318/v1/traces"
    whole = config(otel_exporter_otlp_endpoint="http://c:1", otel_exporter_otlp_traces_endpoint="http://c:2/in")
    assert whole.endpoint == "http://c:2/in"


def test_headers_are_read_and_not_shown() -> None:
    """They hold tokens."""
    found = config(otel_traces_exporter="otlp", otel_exporter_otlp_headers="Authorization=Bearer%20s3cr3t, x=1")
    assert found.headers == {"authorization": "Bearer s3cr3t", "x": "1"}
    assert "s3cr3t" not in repr(found)


def test_another_protocol_is_refused() -> None:
    """One sentence with the variable, its value and the cure; but only where traces are on."""
    assert config(otel_exporter_otlp_protocol="grpc") is None
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_PROTOCOL=grpc is wrong: it should be http/prot"):
        config(otel_exporter_otlp_protocol="grpc", otel_traces_exporter="otlp")


def test_without_the_packages_the_start_says_what_to_install() -> None:
    """A worker without the extra."""
    script = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import anyio\n"
        "from app.tracing.config import TracingConfig\n"
        "from app.tracing.sdk import open_tracer\n"
        "async def main():\n"
        "    async with open_tracer(TracingConfig('otlp', 's', 'w', 'nats', 'worker')): pass\n"
        "try: anyio.run(main)\n"
        "except Exception as exc: print(type(exc).__name__, exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("ConfigurationError"), done.stderr
    assert "pip install 'comfybus[otel]'" in done.stdout
