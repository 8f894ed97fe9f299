"""docker-compose.yml: by its schema, with every profile whole, and nothing named that is not there."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest

from app.settings import Settings
from tests.unit.deploy.deployment import ROOT, compose, settings_names

OURS = {"standin", "worker-standin", "worker-attached", "comfyui", "bridge"}
PROFILES = {"standin", "attached", "gpu", "bridge", "kafka", "storage", "monitoring"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return compose()


def test_it_fits_the_schema(document: dict[str, Any]) -> None:
    """The one of the Compose specification."""
    pytest.importorskip("check_jsonschema")
    import jsonschema

    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema.validate(document, json.loads(vendored.read_text()))


def test_profiles(document: dict[str, Any]) -> None:
    """Without one only NATS runs; every profile of the head comment exists, and no other."""
    services = document["services"]
    assert [name for name, service in services.items() if not service.get("profiles")] == ["nats"]
    assert {profile for service in services.values() for profile in service.get("profiles", [])} == PROFILES
    head = (ROOT / "docker-compose.yml").read_text().partition("\nname:")[0]
    assert set(re.findall(r"--profile (\w+) up  ", head)) == PROFILES


def test_what_is_named_is_there(document: dict[str, Any]) -> None:
    """Services that are waited for, volumes, mounted folders and Dockerfiles."""
    services, volumes = document["services"], document["volumes"]
    for name, service in services.items():
        for other in service.get("depends_on", {}):
            assert other in services, name
            # Waiting for health needs a check; our own images bring theirs.
            assert "healthcheck" in services[other] or other in OURS, other
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in volumes, f"{name}: {source}"
        if dockerfile := service.get("build", {}).get("dockerfile"):
            assert (ROOT / dockerfile).is_file()


def test_our_own_services_have_few_rights(document: dict[str, Any]) -> None:
    """No capabilities, no new privileges; the slim image's file system is read-only; time for a drain."""
    for name in OURS:
        service = document["services"][name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        if service["image"].startswith("comfybus-worker"):
            assert service["read_only"] is True
            assert service["tmpfs"] == ["/tmp:mode=1777"]
        drain_s = Settings.model_fields["drain_timeout_s"].default
        assert service["stop_grace_period"] == f"{drain_s + 30:g}s"
    assert "read_only" not in document["services"]["comfyui"]


def test_ports_are_this_machines_only(document: dict[str, Any]) -> None:
    """Nothing is offered to the network without somebody deciding so."""
    for name, service in document["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_variables_are_settings(document: dict[str, Any]) -> None:
    """Those of our services, and those of the shell that stand in the file; versions and the tag aside."""
    known = settings_names()
    for name in OURS:
        assert set(document["services"][name].get("environment", {})) <= known, name
    shell = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    assert {name for name in shell if not name.endswith("_VERSION")} - {"COMFYBUS_TAG"} <= known


def test_images_have_versions(document: dict[str, Any]) -> None:
    """An environment variable each, with the version that was looked at as its default."""
    for name, service in document["services"].items():
        image = service.get("image", "")
        assert "latest" not in image or name in OURS, name
        if image and name not in OURS:
            assert re.search(r":\$\{\w+_VERSION:-v?\d[\d.]*\}(-\w+)?$", image), image
