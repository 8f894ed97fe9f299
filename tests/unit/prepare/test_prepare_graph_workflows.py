"""Workflows that are plain graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.errors import InvalidRequest
from app.prepare.workflows import Workflows

pytestmark = pytest.mark.anyio


def graph(**titles: str) -> dict[str, Any]:
    """Text to image, with these titles (``n6`` is node 6)."""
    nodes: dict[str, Any] = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 1, "cfg": 8.0, "tiled": False, "model": ["4", 0]}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    }
    for name, title in titles.items():
        nodes[name[1:]]["_meta"] = {"title": title}
    return nodes


def load(tmp_path: Path, nodes: Any, mapping: Any = None) -> Workflows:
    """A WORKFLOW_DIR with one graph."""
    (tmp_path / "w.json").write_text(json.dumps(nodes))
    if mapping is not None:
        (tmp_path / "w.inputs.json").write_text(json.dumps(mapping))
    return Workflows.load(tmp_path)


async def test_inputs_by_titles(tmp_path: Path) -> None:
    """Titles name the inputs; what the request leaves out keeps the graph's value, and the graph stays as it is."""
    workflows = load(tmp_path, graph(n3="input: seed", n5="Inputs: width, height", n6="input: prompt"))
    made = await workflows.generate("w", {"prompt": "a dog", "width": 768})
    assert made["6"]["inputs"]["text"] == "a dog"
    assert made["5"]["inputs"] == {"width": 768, "height": 512, "batch_size": 1}
    assert (await workflows.generate("w", {}))["6"]["inputs"]["text"] == "a cat"
    assert [field.name for field in workflows.describe("w").fields] == ["seed", "width", "height", "prompt"]
    assert [field.type for field in workflows.describe("w").fields] == ["integer", "integer", "integer", "string"]


async def test_titles_with_fields(tmp_path: Path) -> None:
    """A title may say which field an input is."""
    workflows = load(tmp_path, graph(n3="input: guidance=cfg, fast=tiled"))
    made = await workflows.generate("w", {"guidance": 3.5, "fast": True})
    assert made["3"]["inputs"] == {"seed": 1, "cfg": 3.5, "tiled": True, "model": ["4", 0]}


async def test_inputs_by_mapping(tmp_path: Path) -> None:
    """A mapping beside the graph names inputs, describes and limits them."""
    mapping = {
        "prompt": {"to": "6.text", "description": "What it shows", "required": True},
        "width": {"to": "5.width", "minimum": 64, "maximum": 1024},
        "seed": "3.seed",
    }
    workflows = load(tmp_path, graph(), mapping)
    made = await workflows.generate("w", {"prompt": "a dog", "width": 64, "seed": 2**63})
    assert made["5"]["inputs"]["width"] == 64
    assert made["3"]["inputs"]["seed"] == 2**63
    assert workflows.describe("w").fields[0].required
    for given, location in (({}, "prompt"), ({"prompt": "x", "width": 2048}, "width"), ({"prompt": 5}, "prompt")):
        with pytest.raises(InvalidRequest) as caught:
            await workflows.generate("w", given)
        assert caught.value.location == f"input.{location}"


@pytest.mark.parametrize(("given", "field"), [({"seed": "1"}, "seed"), ({"seed": 1.5}, "seed"), ({"x": 1}, "x")])
async def test_types_of_the_graph(tmp_path: Path, given: dict[str, Any], field: str) -> None:
    """The value in the graph says what type an input has; unknown names are errors."""
    workflows = load(tmp_path, graph(n3="input: seed"))
    with pytest.raises(InvalidRequest) as caught:
        await workflows.generate("w", given)
    assert caught.value.location == f"input.{field}"


@pytest.mark.parametrize(
    ("nodes", "mapping"),
    [
        ([], None),
        ({}, None),
        ({"nodes": [], "links": []}, None),
        ({"1": {"inputs": {}}}, None),
        (graph(n3="input: x"), None),
        (graph(n5="input: width", n3="input: width=seed"), None),
        (graph(n3="input: model"), None),
        (graph(n6="input: two words"), None),
        (graph(), {"prompt": "9.text"}),
        (graph(), {"prompt": "6.nothing"}),
        (graph(), {"prompt": "6.clip"}),
        (graph(), {"prompt": 5}),
        (graph(), []),
        (graph(), {"a-b": "6.text"}),
        (graph(), {"_x": "6.text"}),
    ],
)
def test_unusable_graphs(tmp_path: Path, nodes: Any, mapping: Any) -> None:
    """What names nothing, or is no graph in API format, is one log line."""
    with structlog.testing.capture_logs() as logs:
        assert load(tmp_path, nodes, mapping).names() == []
    assert [Path(line["file"]).name for line in logs] == ["w.json"]
