"""Which large models a graph loads: when they change from one prompt to the next, ComfyUI has to swap them. Pure.

Used by app.worker.measure; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from app.prepare.nodes import NODES, Model

__all__ = ["main_models"]

# What is patched onto them, or small, costs little to change.
_LARGE: Final = frozenset({"checkpoints", "diffusion_models", "unet_gguf"})
_LOADERS: Final[Mapping[str, tuple[str, ...]]] = {
    class_type: fields
    for class_type, row in NODES.items()
    if (fields := tuple(name for name, use in row.items() if isinstance(use, Model) and use.folder in _LARGE))
}


def main_models(graph: Mapping[str, Any]) -> frozenset[str]:
    """Names of the checkpoints and diffusion models that known loaders of the graph name."""
    found = set()
    for node in graph.values():
        for field in _LOADERS.get(str(node.get("class_type")), ()) if isinstance(node, dict) else ():
            name = node.get("inputs", {}).get(field)
            if isinstance(name, str):
                found.add(name)
    return frozenset(found)
