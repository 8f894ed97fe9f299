"""Results kept from one prompt to the next, so that a node whose inputs did not change need not run again.

Used by prompt_execution; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from app.comfy.standin.catalogue import NODE_CLASSES
from app.comfy.standin.folders import Folders
from app.comfy.standin.links import is_link, links
from app.comfy.standin.node_types import Graph, JsonObject, Node


@dataclass(frozen=True)
class Shown:
    """The ``ui`` lists of a node that ran and the ids it had then."""

    output: JsonObject
    meta: JsonObject


class OutputCache:
    """Outputs, shown results and node objects of the last prompt, found by what made them.

    A result belongs to a signature: class, constants and the signatures upstream, not the node id, so that a graph
    with renamed nodes still finds it. Only what the prompt at hand can use is kept; a different prompt in between
    empties the cache.
    """

    def __init__(self) -> None:
        self._outputs: dict[Hashable, tuple[Any, ...]] = {}
        self._shown: dict[Hashable, Shown] = {}
        self._objects: dict[tuple[str, str], Node] = {}
        self._signatures: dict[str, Hashable] = {}

    def prepare(self, graph: Graph, folders: Folders) -> None:
        """Turn to a new prompt: drop what it cannot use, and note fingerprints in the nodes as ``is_changed``."""
        fingerprints = {node_id: _fingerprint(graph[node_id], folders) for node_id in graph}
        self._signatures = {node_id: _signature(graph, node_id, fingerprints) for node_id in graph}
        wanted = set(self._signatures.values())
        self._outputs = {key: value for key, value in self._outputs.items() if key in wanted}
        self._shown = {key: value for key, value in self._shown.items() if key in wanted}
        alive = {(node_id, node["class_type"]) for node_id, node in graph.items()}
        self._objects = {key: value for key, value in self._objects.items() if key in alive}

    def outputs(self, node_id: str) -> tuple[Any, ...] | None:
        """Return what a node gave, None if it has to run."""
        return self._outputs.get(self._signatures[node_id])

    def shown(self, node_id: str) -> Shown | None:
        """Return what a node showed, None if it showed nothing."""
        return self._shown.get(self._signatures[node_id])

    def keep(self, node_id: str, outputs: tuple[Any, ...]) -> None:
        """Keep what a node gave."""
        self._outputs[self._signatures[node_id]] = outputs

    def keep_shown(self, node_id: str, output: JsonObject) -> None:
        """Keep what a node showed."""
        meta = {"node_id": node_id, "display_node": node_id, "parent_node": None, "real_node_id": node_id}
        self._shown[self._signatures[node_id]] = Shown(output, meta)

    def node_object(self, node_id: str, class_type: str, folders: Folders) -> Node:
        """Return the object of a node, the one of the prompt before if that had the same id and class."""
        key = (node_id, class_type)
        if key not in self._objects:
            self._objects[key] = NODE_CLASSES[class_type](folders)
        return self._objects[key]

    def clear(self) -> None:
        """Forget everything, as POST /free asks for."""
        self._outputs, self._shown, self._objects = {}, {}, {}


def _fingerprint(node: JsonObject, folders: Folders) -> Hashable:
    constants = {name: None if is_link(value) else value for name, value in node["inputs"].items()}
    try:
        value = NODE_CLASSES[node["class_type"]].fingerprint(folders, constants)
    except Exception:  # noqa: BLE001 - a node whose fingerprint fails is simply never taken from the cache
        node["is_changed"] = float("nan")
        return float("nan")
    if value is not False:
        node["is_changed"] = [value]
    return _frozen(value)


def _signature(graph: Graph, node_id: str, fingerprints: dict[str, Hashable]) -> Hashable:
    """Describe a node and all its ancestors; ancestors are numbered in the order in which the inputs name them."""
    order: dict[str, int] = {}
    _number_ancestors(graph, node_id, order)
    if not all(source in graph for source in order):
        return float("nan")  # a link to nowhere, in an output that validation left out: never found again
    return tuple(_own_signature(graph, each, order, fingerprints[each]) for each in (node_id, *order))


def _number_ancestors(graph: Graph, node_id: str, order: dict[str, int]) -> None:
    for _, source, _ in sorted(links(graph, node_id)):
        if source not in order:
            order[source] = len(order)
            if source in graph:
                _number_ancestors(graph, source, order)


def _own_signature(graph: Graph, node_id: str, order: dict[str, int], fingerprint: Hashable) -> Hashable:
    parts: list[Hashable] = [graph[node_id]["class_type"], fingerprint]
    inputs = graph[node_id]["inputs"]
    for name in sorted(inputs):
        value = inputs[name]
        parts.append((name, "link", order[value[0]], value[1]) if is_link(value) else (name, _frozen(value)))
    return tuple(parts)


def _frozen(value: Any) -> Hashable:
    """Turn a JSON value into something that can be a key of a dictionary."""
    if isinstance(value, dict):
        return frozenset((key, _frozen(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    hashable: Hashable = value
    return hashable
