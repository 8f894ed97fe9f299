"""How far a prompt is, from the frames of its run.

Used by followed; may import schemas.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from app.comfy.frames import Frame
from schemas.events import Progress

__all__ = ["ProgressMeter"]

# Until the history says so, a prompt whose last node is done is not a success.
_BELOW_SUCCESS: Final = 0.99
# A graph may loop for ever; what is remembered of it may not.
_MOST_VISITS: Final = 10_000


class ProgressMeter:
    """Turns the frames of one prompt into progress; pure.

    ``value`` and ``nodes_done`` never fall, and ``value`` is 1.0 only after ``succeeded()``. Frames may be missing:
    what a lost one would have told is made up for by the next. ``nodes_total`` is the size of the graph, since which
    nodes ComfyUI will need is not known beforehand. Nodes that exist only at run time count for the node they came
    from.

    Attributes:
        node_starts_ms: Node id to when its first ``executing`` frame came, in milliseconds since 1970 by the clock
            given to ``feed``.
        visits: Node ids in the order in which ComfyUI turned to them, with when it did; a node that ComfyUI comes back
            to is there again. The first 10,000.
    """

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self._graph = graph
        self._total = len(graph)
        self._done: set[str] = set()
        self._most_done = 0
        self._value = 0.0
        self._node: str | None = None
        self._steps: tuple[float, float] | None = None
        self.node_starts_ms: dict[str, int] = {}
        self.visits: list[tuple[str, int]] = []

    @property
    def current(self) -> Progress:
        """The progress as it stands."""
        step, steps = self._steps or (None, None)
        return Progress(
            value=self._value,
            nodes_done=self._most_done,
            nodes_total=self._total,
            current_node=self._node,
            current_node_class=_class_of(self._graph.get(self._node or "")),
            step=None if step is None else int(step),
            steps=None if steps is None else int(steps),
        )

    def feed(self, frame: Frame, now_ms: int) -> Progress | None:
        """Take one frame of this prompt.

        Args:
            frame: Any frame; those that say nothing of progress are ignored.
            now_ms: The moment it came, for ``node_starts_ms``.

        Returns:
            The new progress, or None when nothing changed.
        """
        before = (self._value, self._most_done, self._node, self._steps)
        match frame.type:
            case "execution_cached":
                self._add_cached(frame.data.get("nodes"))
            case "executing":
                self._begin(self._place(frame.data), now_ms)
            case "executed" if str(frame.data.get("node")) in self._graph:
                self._done.add(str(frame.data["node"]))
            case "progress":
                self._step(self._place(frame.data), frame.data)
            case "progress_state":
                self._survey(frame.data.get("nodes"))
        self._advance()
        return self.current if before != (self._value, self._most_done, self._node, self._steps) else None

    def succeeded(self) -> Progress:
        """The prompt's last progress: everything is done."""
        self._value, self._most_done = 1.0, self._total
        self._node = self._steps = None
        return self.current

    def class_of(self, node_id: str) -> str | None:
        """The class of a node of the graph; None if it has none."""
        return _class_of(self._graph.get(node_id))

    def _place(self, data: Mapping[str, Any]) -> str | None:
        """The node of the graph a frame speaks of; for one made at run time the node that stands for it."""
        for key in ("node", "display_node"):
            node = data.get(key)
            if isinstance(node, str | int) and str(node) in self._graph:
                return str(node)
        return None

    def _begin(self, node: str | None, now_ms: int) -> None:
        if node is None:
            return  # the end, which may be a failure: it finishes no node
        if node != self._node:
            self._done.update([self._node] if self._node is not None else [])
            self._steps = None
        self._node = node
        self._done.discard(node)
        self.node_starts_ms.setdefault(node, now_ms)
        if len(self.visits) < _MOST_VISITS and (not self.visits or self.visits[-1][0] != node):
            self.visits.append((node, now_ms))

    def _add_cached(self, nodes: Any) -> None:
        if isinstance(nodes, list):
            self._done.update(str(node) for node in nodes if str(node) in self._graph)

    def _step(self, node: str | None, data: Mapping[str, Any]) -> None:
        value, maximum = data.get("value"), data.get("max")
        if isinstance(value, int | float) and isinstance(maximum, int | float):  # noqa: SIM102 - types first
            if math.isfinite(value) and math.isfinite(maximum) and maximum > 0:
                self._steps = (value, maximum)
        if node is not None:
            self._node = node

    def _survey(self, nodes: Any) -> None:
        """A whole account of all nodes; it only ever adds."""
        for node_id, state in nodes.items() if isinstance(nodes, dict) else ():
            if node_id in self._graph and isinstance(state, dict) and state.get("state") == "finished":
                self._done.add(node_id)

    def _advance(self) -> None:
        self._most_done = max(self._most_done, len(self._done))
        part = 0.0
        if self._steps is not None and self._node not in self._done:
            part = min(max(self._steps[0] / self._steps[1], 0.0), 1.0)
        if self._total:
            share = (len(self._done) + part) / self._total
            self._value = max(self._value, min(share, _BELOW_SUCCESS))


def _class_of(node: Any) -> str | None:
    class_type = node.get("class_type") if isinstance(node, dict) else None
    return class_type if isinstance(class_type, str) else None
