"""The progress of the running prompt, node by node, as ``progress_state`` messages tell it.

Used by prompt_execution; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.comfy.standin.node_types import JsonObject


class ProgressBoard:
    """Value, maximum and state of every node that has started, in the order of starting.

    ``announce`` is called with the message's data after each change. Every message repeats all nodes, so that the
    bytes of one prompt grow with the square of its nodes, as in ComfyUI.
    """

    def __init__(self, prompt_id: str, announce: Callable[[JsonObject], None]) -> None:
        self.prompt_id = prompt_id
        self._announce = announce
        self._nodes: dict[str, JsonObject] = {}

    def start(self, node_id: str) -> None:
        """Show a node as running."""
        self._set(node_id, 0.0, 1.0, "running")

    def update(self, node_id: str, value: float, maximum: float) -> None:
        """Show how far a running node is."""
        self._set(node_id, value, maximum, "running")

    def finish(self, node_id: str) -> None:
        """Show a node as finished; one that never started, because its result was kept, appears as 1 of 1."""
        maximum = self._nodes.get(node_id, {"max": 1})["max"]
        self._set(node_id, maximum, maximum, "finished")

    def _set(self, node_id: str, value: float, maximum: float, state: str) -> None:
        self._nodes[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node_id,
            "prompt_id": self.prompt_id,
            **self.identity(node_id),
        }
        self._announce({"prompt_id": self.prompt_id, "nodes": self._nodes})

    @staticmethod
    def identity(node_id: str) -> dict[str, Any]:
        """Return the further names of a node, which differ from its id only in graphs that expand themselves."""
        return {"display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id}
