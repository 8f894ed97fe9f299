"""The manifests: by their schemas, with few rights, time to drain, and scaled by names that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings
from brokers.channels import Channel, Names
from brokers.nats.layout import DURABLE
from tests.unit.deploy.deployment import KUBERNETES, containers, manifests, settings_names

OVERLAYS = ["nats", "kafka", "nats-slim"]
VERSION = "1.31"


@pytest.fixture(scope="module", params=OVERLAYS)
def built(request: pytest.FixtureRequest) -> dict[tuple[str, str], dict[str, Any]]:
    """What an overlay comes to, by kind and name."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / request.param)], capture_output=True, text=True, check=True
    )
    assert "deprecated" not in done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    return {(document["kind"], document["metadata"]["name"]): document for document in documents}


def pod(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["spec"]["template"]["spec"]
    return found


def test_overlays_fit_the_schemas(built: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Strictly: an unknown field is a mistake. The scaler's kind is not one of Kubernetes itself."""
    validator = pytest.importorskip("kubernetes_validate")
    for (kind, _), document in built.items():
        if kind != "ScaledObject":
            validator.validate(document, VERSION, strict=True)


def test_plain_files_fit_the_schemas() -> None:
    """Each file that is no patch, kustomization or foreign kind, also where there is no kubectl."""
    validator = pytest.importorskip("kubernetes_validate")
    looked_at = 0
    for path, document in manifests():
        if document["kind"] in ("Kustomization", "Component", "ScaledObject") or path.parent.name == "slim":
            continue
        validator.validate(document, VERSION, strict=True)
        looked_at += 1
    assert looked_at > 10


def test_pods_have_few_rights(built: dict[tuple[str, str], dict[str, Any]]) -> None:
    """No root, no capabilities, no token; a read-only root but for the container that ComfyUI lives in."""
    for (kind, _), document in built.items():
        if kind != "Deployment":
            continue
        spec = pod(document)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            rights = container["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            slim = container["image"].startswith("comfybus-worker")
            assert rights.get("readOnlyRootFilesystem", False) is slim
            if slim:
                assert {"/tmp", "/var/cache/comfybus"} == {mount["mountPath"] for mount in container["volumeMounts"]}


def test_a_pod_has_time_to_drain(built: dict[tuple[str, str], dict[str, Any]]) -> None:
    """The grace is DRAIN_TIMEOUT_S + 30; preStop sends no signal, for a second one would cut the drain short."""
    drain_s = float(built["ConfigMap", "comfybus-settings"]["data"]["DRAIN_TIMEOUT_S"])
    assert drain_s == Settings.model_fields["drain_timeout_s"].default
    for (kind, _), document in built.items():
        if kind == "Deployment":
            assert pod(document)["terminationGracePeriodSeconds"] == drain_s + 30
            for container in pod(document)["containers"]:
                assert container["lifecycle"]["preStop"] == {"exec": {"command": ["sleep", "1"]}}


def test_probes_ask_what_is_served(built: dict[tuple[str, str], dict[str, Any]]) -> None:
    """/health for life, /ready for readiness, on the port that PORT says."""
    for (kind, name), document in built.items():
        if kind != "Deployment":
            continue
        (container,) = pod(document)["containers"]
        assert container["livenessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "http"}
        port = next(one["value"] for one in container["env"] if one["name"] == "PORT")
        assert container["ports"] == [{"name": "http", "containerPort": int(port)}]
        if name == "comfybus-worker":
            assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 3600


def test_variables_are_settings(built: dict[tuple[str, str], dict[str, Any]]) -> None:
    """In containers, in the settings and in the example of secrets."""
    known = settings_names()
    assert set(built["ConfigMap", "comfybus-settings"]["data"]) <= known
    for _, container in containers():
        assert {one["name"] for one in container.get("env", [])} <= known
    secrets = yaml.safe_load((KUBERNETES / "secrets.example.yaml").read_text())
    assert set(secrets["stringData"]) <= known
    assert all("change" in value or "-" in value or "Y2hhbmdl" in value for value in secrets["stringData"].values())


def test_the_settings_make_a_worker(
    built: dict[tuple[str, str], dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With these variables, and no others, the settings can be read; so can the manifest."""
    from app.setup.manifest_file import parse_manifest

    monkeypatch.chdir(tmp_path)
    data = built["ConfigMap", "comfybus-settings"]["data"]
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.names.prefix == data["TOPIC_PREFIX"]
    if ("ConfigMap", "comfybus-manifest") in built:
        parse_manifest(built["ConfigMap", "comfybus-manifest"]["data"]["manifest.yaml"], json_only=False)


def test_the_scaler_counts_what_there_is() -> None:
    """Stream, durable, group and topic are those of the contract; the threshold is what one worker holds."""
    names = Names(Settings.model_fields["topic_prefix"].default)
    scalers = {path.parent.name: document for path, document in manifests() if document["kind"] == "ScaledObject"}
    wanted = {
        "nats": {"stream": names.request_stream, "consumer": DURABLE},
        "kafka": {"topic": names.topic(Channel.REQUEST), "consumerGroup": names.worker_group},
    }
    assert set(scalers) == set(wanted)
    for broker, document in scalers.items():
        (trigger,) = document["spec"]["triggers"]
        assert wanted[broker].items() <= trigger["metadata"].items()
        assert trigger["metadata"]["lagThreshold"] == str(Settings.model_fields["max_in_flight"].default)
        assert document["spec"]["scaleTargetRef"] == {"name": "comfybus-worker"}
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        # Without it an error would count as no lag, and take down the first worker, which creates what is counted.
        assert document["spec"]["fallback"]["replicas"] == 1
    kafka = scalers["kafka"]["spec"]["triggers"][0]["metadata"]
    assert (kafka["offsetResetPolicy"], kafka["allowIdleConsumers"]) == ("earliest", "false")


def test_the_scaler_alone_decides_how_many_workers(built: dict[tuple[str, str], dict[str, Any]]) -> None:
    """A number in the manifest would come back with every apply and end what runs; without a scaler it is one."""
    scaled = ("ScaledObject", "comfybus-worker") in built
    assert built["Deployment", "comfybus-worker"]["spec"].get("replicas") == (None if scaled else 1)


def test_nobody_reaches_in_and_they_reach_only_what_they_need(built: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Ingress for scraping only; egress to names, the broker and public addresses, never to the metadata service."""
    policies = [document["spec"] for (kind, _), document in built.items() if kind == "NetworkPolicy"]
    base = next(spec for spec in policies if "Ingress" in spec["policyTypes"])
    assert [rule["ports"] for rule in base["ingress"]] == [[{"protocol": "TCP", "port": 3000}]]
    (public,) = [rule for rule in base["egress"] if any("ipBlock" in to for to in rule["to"])]
    refused = next(to["ipBlock"]["except"] for to in public["to"] if to["ipBlock"]["cidr"] == "0.0.0.0/0")
    assert {"169.254.0.0/16", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} <= set(refused)
    url = built["ConfigMap", "comfybus-settings"]["data"]["BROKER_URL"]
    port = int(re.search(r":(\d+)", url)[1])  # type: ignore[index]
    reached = {entry["port"] for spec in policies for rule in spec["egress"] for entry in rule["ports"]}
    assert port in reached
