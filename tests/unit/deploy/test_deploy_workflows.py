"""GitHub workflows: by their schema, with few rights, and calling what exists."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.deployment import ROOT, WORKFLOWS


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request: pytest.FixtureRequest) -> tuple[Path, dict[Any, Any]]:
    return request.param, yaml.safe_load(request.param.read_text())


def test_they_fit_the_schema(workflow: tuple[Path, dict[Any, Any]]) -> None:
    """GitHub's own."""
    pytest.importorskip("check_jsonschema")
    import jsonschema

    vendored = files("check_jsonschema") / "builtin_schemas" / "vendor" / "github-workflows.json"
    # YAML 1.1 takes `on` for a truth value.
    document = {"on" if key is True else key: value for key, value in workflow[1].items()}
    jsonschema.validate(document, json.loads(vendored.read_text()))


def test_they_may_only_read(workflow: tuple[Path, dict[Any, Any]]) -> None:
    """Writing is granted to single jobs, and every job ends by itself."""
    path, document = workflow
    assert document["permissions"] == {"contents": "read"}
    for name, job in document["jobs"].items():
        assert "timeout-minutes" in job or "uses" in job, name
        writes = [right for right, level in job.get("permissions", {}).items() if level == "write"]
        assert writes == (["contents"] if (path.name, name) == ("release.yml", "release") else [])


def test_what_they_call_is_there(workflow: tuple[Path, dict[Any, Any]]) -> None:
    """Targets of the Makefile, files, other workflows, profiles."""
    text = workflow[0].read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake ([\w-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(r"uses: \./(\S+)", text) + re.findall(r"< (deploy/\S+)", text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"--prefix (\S+)", text):
        assert (ROOT / name / "package-lock.json").is_file()
