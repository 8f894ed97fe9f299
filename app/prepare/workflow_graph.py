"""Workflows that are plain graphs in API format, with inputs named by node titles or by a small mapping beside them.

Used by workflows; may import schemas.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, create_model
from pydantic import Field as ModelField

from app.prepare.context import Context
from app.prepare.workflow_code import NotAWorkflow
from schemas.prompt import Graph

__all__ = ["MAPPING_ENDING", "GraphWorkflow", "load_graph"]

MAPPING_ENDING: Final = ".inputs.json"
"""The mapping for ``x.json`` is ``x.inputs.json``."""

_TITLE: Final = re.compile(r"\s*inputs?\s*:\s*(.+)", re.IGNORECASE | re.DOTALL)
_TYPES: Final = {bool: bool, int: int, float: float, str: str}


@dataclass(frozen=True)
class _Slot:
    """Where an input goes."""

    node_id: str
    field: str


class _GraphInput(BaseModel):
    """The base of all inputs of graphs: unknown names are errors, 1 is no text and "1" no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


class GraphWorkflow:
    """One graph. An input that the request leaves out keeps the graph's own value.

    Attributes:
        model: The inputs as a pydantic model, made from the values they have in the graph.
        description: Empty; a graph has none.
        wants_context: Never.
    """

    wants_context = False

    def __init__(self, graph: Graph, slots: Mapping[str, _Slot], notes: Mapping[str, Mapping[str, Any]]) -> None:
        self._graph = graph
        self._slots = slots
        fields: dict[str, Any] = {}
        for name, slot in slots.items():
            default = graph[slot.node_id]["inputs"][slot.field]
            fields[name] = (_type_of(default), _model_field(default, notes.get(name, {})))
        self.model: type[BaseModel] = create_model("Input", __base__=_GraphInput, **fields)
        self.description = ""

    async def generate(self, read: BaseModel, context: Context) -> Graph:  # noqa: ARG002 - as all workflows
        """The graph with the inputs in their places."""
        graph = copy.deepcopy(self._graph)
        for name, slot in self._slots.items():
            graph[slot.node_id]["inputs"][slot.field] = getattr(read, name)
        return graph


def load_graph(path: Path) -> GraphWorkflow:
    """Read a graph and its inputs. Blocks.

    Inputs come from titles (``_meta.title``) such as ``input: prompt=text``, ``inputs: width, height`` (name and field
    are the same) or ``input: prompt`` (the node has one value that is no link), or from the mapping.

    Raises:
        NotAWorkflow: It is no graph in API format, or an input names nothing.
    """
    graph = _json(path)
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise NotAWorkflow("it is a graph of ComfyUI's editor; export it by `Export (API)`")
    if not _is_graph(graph):
        raise NotAWorkflow("it is no graph in API format")
    mapping_file = path.with_name(path.name.removesuffix(".json") + MAPPING_ENDING)
    mapping = _json(mapping_file) if mapping_file.exists() else {}
    if not isinstance(mapping, dict):
        raise NotAWorkflow(f"{mapping_file.name} is no JSON object")
    notes = {name: note if isinstance(note, dict) else {"to": note} for name, note in mapping.items()}
    slots = dict(_titled(graph))
    slots |= {name: _slot(name, note.get("to"), graph) for name, note in notes.items()}
    for name in slots:
        if not name.isidentifier() or name.startswith(("_", "model_")):
            raise NotAWorkflow(f"the input {name[:100]!r} needs a name of letters, digits and `_`")
    try:
        return GraphWorkflow(graph, slots, notes)
    except (TypeError, ValueError, NameError) as exc:
        raise NotAWorkflow(f"its inputs cannot be used: {exc}") from exc


def _titled(graph: Graph) -> Iterator[tuple[str, _Slot]]:
    seen: set[str] = set()
    for node_id, node in graph.items():
        meta = node.get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        found = _TITLE.fullmatch(title) if isinstance(title, str) else None
        for part in found.group(1).split(",") if found else ():
            name, _, field = (piece.strip() for piece in part.partition("="))
            if name in seen:
                raise NotAWorkflow(f"two titles name the input {name[:100]!r}")
            seen.add(name)
            yield name, _Slot(node_id, field or _only_field(name, node_id, node["inputs"]))


def _only_field(name: str, node_id: str, inputs: Mapping[str, Any]) -> str:
    values = [field for field, value in inputs.items() if type(value) in _TYPES]
    if name in values:
        return name
    if len(values) != 1:
        raise NotAWorkflow(
            f"the title of node {node_id} names the input {name[:100]!r} and the node has {len(values)} values; "
            f"write `input: {name[:100]}=field`"
        )
    return values[0]


def _slot(name: str, to: Any, graph: Graph) -> _Slot:
    """The place that a mapping's ``"node.field"`` means."""
    node_id, dot, field = to.rpartition(".") if isinstance(to, str) else ("", "", "")
    if not dot or node_id not in graph or field not in graph[node_id]["inputs"]:
        raise NotAWorkflow(
            f"the mapping sends {name[:100]!r} to {str(to)[:100]!r}, which is no `node.field` of the graph"
        )
    return _Slot(node_id, field)


def _type_of(default: Any) -> Any:
    if type(default) not in _TYPES:
        raise NotAWorkflow("an input stands for a link or a list; only texts, numbers and switches can be inputs")
    return _TYPES[type(default)]


def _model_field(default: Any, note: Mapping[str, Any]) -> Any:
    """The field with what the mapping says of it: description, required, minimum, maximum, enum."""
    extra = {"enum": note["enum"]} if "enum" in note else None
    return ModelField(
        default=... if note.get("required") is True else default,
        description=note.get("description"),
        ge=note.get("minimum"),
        le=note.get("maximum"),
        json_schema_extra=extra,
    )


def _is_graph(graph: Any) -> bool:
    return (
        isinstance(graph, dict)
        and bool(graph)
        and all(
            isinstance(node, dict) and isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)
            for node in graph.values()
        )
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as exc:
        raise NotAWorkflow(f"{path.name} cannot be read as JSON: {str(exc)[:200]}") from exc
