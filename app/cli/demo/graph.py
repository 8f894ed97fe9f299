"""The shipped workflow and photograph, made ready for one ComfyUI.

Used by story; may import app.cli, app.comfy, workflows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import workflows
from app.cli.outcome import CommandFailed
from app.comfy.client import ComfyClient

__all__ = ["PHOTOGRAPH", "prepare_graph"]

_FOLDER = Path(workflows.__file__).parent / "demo"
PHOTOGRAPH = _FOLDER / "coffee.jpg"
_GRAPH = _FOLDER / "image_to_image.json"
# Takes its time and says how far it is; the stand-in has it, a ComfyUI seldom.
_SLOW = "SlowProgress"
_SLOW_INPUTS = {"steps": 12, "seconds": 1.5}


async def prepare_graph(client: ComfyClient) -> dict[str, Any]:
    """Put the photograph into ComfyUI's input folder and return the graph that uses it.

    Raises:
        CommandFailed: This ComfyUI lacks a node that the graph needs.
        ComfyUnavailable: It does not answer.
    """
    graph: dict[str, Any] = json.loads(_GRAPH.read_text(encoding="utf-8"))
    known = await client.object_info()
    if lacking := sorted({node["class_type"] for node in graph.values()} - set(known)):
        raise CommandFailed(f"the ComfyUI at {client.base_url} has no node {lacking[0]}; use one of 0.3.64 or newer")
    name = await client.upload(PHOTOGRAPH, subfolder="comfybus-demo", filename=PHOTOGRAPH.name, overwrite=True)
    graph["1"]["inputs"]["image"] = name
    return _slowed(graph) if _SLOW in known else graph


def _slowed(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Send the last picture through the slow node, so that there is progress to see."""
    saving = {**graph["4"], "inputs": {**graph["4"]["inputs"], "images": ["5", 0]}}
    slow = {"class_type": _SLOW, "inputs": {"image": graph["4"]["inputs"]["images"], **_SLOW_INPUTS}}
    return {**{node_id: node for node_id, node in graph.items() if node_id != "4"}, "5": slow, "4": saving}
