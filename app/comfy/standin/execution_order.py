"""Decides which node of a graph runs next: outputs as early as possible, as ComfyUI does for the eye's sake.

Used by prompt_execution; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import Callable

from app.comfy.standin.catalogue import NODE_CLASSES
from app.comfy.standin.links import links
from app.comfy.standin.node_types import Graph


class ExecutionOrder:
    """The nodes still to run for a set of outputs, and what each waits for.

    Nodes upstream whose results are kept already are left out; an output is always in, so that its ``executed``
    message can be sent anew.
    """

    def __init__(self, graph: Graph, outputs: list[str], is_kept: Callable[[str], bool]) -> None:
        """Collect all nodes that the outputs need, walking each output's inputs from the last to the first."""
        self._graph = graph
        self._waiting_for: dict[str, set[str]] = {}
        self._blocks: dict[str, list[str]] = {}
        for output in outputs:
            self._add(output, is_kept)

    def __bool__(self) -> bool:
        return bool(self._waiting_for)

    def next(self) -> str:
        """Return the node to run now: an output if one is ready, else a node one or two steps before an output."""
        ready = [node_id for node_id, sources in self._waiting_for.items() if not sources]
        for node_id in ready:
            if self._is_output(node_id):
                return node_id
        for node_id in ready:
            if any(self._is_output(follower) for follower in self._blocks[node_id]):
                return node_id
        for node_id in ready:
            for follower in self._blocks[node_id]:
                if any(self._is_output(second) for second in self._blocks[follower]):
                    return node_id
        return ready[0]

    def done(self, node_id: str) -> None:
        """Take a node that ran off the list and release those that waited for it."""
        del self._waiting_for[node_id]
        for follower in self._blocks.pop(node_id):
            self._waiting_for[follower].discard(node_id)

    def _add(self, output: str, is_kept: Callable[[str], bool]) -> None:
        stack = [output]
        found: list[tuple[str, str]] = []
        while stack:
            node_id = stack.pop()
            if node_id in self._waiting_for:
                continue
            self._waiting_for[node_id] = set()
            self._blocks[node_id] = []
            for _, source, _ in links(self._graph, node_id):
                if not is_kept(source):
                    stack.append(source)
                    found.append((source, node_id))
        for source, follower in found:
            if follower not in self._blocks[source]:
                self._blocks[source].append(follower)
                self._waiting_for[follower].add(source)

    def _is_output(self, node_id: str) -> bool:
        return NODE_CLASSES[self._graph[node_id]["class_type"]].output_node
