"""Reads what stands in deploy/, docker-compose.yml and .github/: documents, commands, variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices

from app.settings import Settings

ROOT = Path(__file__).parents[3]
DOCKERFILES = sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))
KUBERNETES = ROOT / "deploy" / "kubernetes"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def compose() -> dict[str, Any]:
    """docker-compose.yml with its anchors resolved."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return found


def manifests(folder: Path = KUBERNETES) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every document of every Kubernetes file."""
    for path in sorted(folder.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document:
                yield path, document


def settings_names() -> set[str]:
    """The variables that the settings read, in upper case."""
    names = set()
    for name, info in Settings.model_fields.items():
        alias = info.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [name]
        names |= {str(choice).upper() for choice in choices}
    return names


@dataclass
class Dockerfile:
    """The last stage of one: what a container of it gets."""

    path: Path
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    user: str = ""
    copies: list[str] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    bases: list[str] = field(default_factory=list)


def read_dockerfile(path: Path) -> Dockerfile:
    """Instructions are one line each when continued lines are joined; exec forms are JSON."""
    found = Dockerfile(path)
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
    for line in re.sub(r"\\\n", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if word == "ENV":
            pairs = re.findall(r'(\w+)=("[^"]*"|\S+)', rest)
            found.environment |= {name: value.strip('"') for name, value in pairs}
        elif word == "ARG":
            name, _, default = rest.partition("=")
            found.arguments[name] = default
        elif word == "FROM":
            found.bases.append(rest)
            found.environment, found.user = {}, ""
        elif word == "USER":
            found.user = rest
        elif word == "ENTRYPOINT":
            found.entrypoint = json.loads(rest)
        elif word == "CMD":
            found.command = json.loads(rest)
        elif word == "HEALTHCHECK":
            found.healthcheck = json.loads(rest.partition("CMD ")[2])
        elif word == "COPY" and "--from" not in rest:
            found.copies += [part for part in rest.split()[:-1] if not part.startswith("--")]
    return found


def containers() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every container of every manifest, patches included."""
    for path, document in manifests():
        spec = document.get("spec", {}).get("template", {}).get("spec", {}) if document["kind"] == "Deployment" else {}
        for container in spec.get("containers", []):
            yield path, container
