"""The named workflows of WORKFLOW_DIR: found at the start, described, and turned into graphs.

Used by app.cli, app.documents, app.prepare.author, app.worker; may import app.errors, schemas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
from pydantic import BaseModel

from app.errors import WorkflowFailed, WorkflowNotFound
from app.prepare.context import Context, ContextSource
from app.prepare.workflow_code import NotAWorkflow, load_code
from app.prepare.workflow_graph import MAPPING_ENDING, load_graph
from app.prepare.workflow_inputs import Field, check_choices, choices_of, fields_of, read_input
from schemas.base import dump_json, load_json
from schemas.prompt import Graph

__all__ = ["Workflow", "WorkflowInfo", "Workflows", "input_location"]

_SHOWN: Final = 20
_log = structlog.get_logger(__name__)


class Workflow(Protocol):
    """One named workflow, whatever kind of file it is."""

    model: type[BaseModel]
    description: str
    wants_context: bool

    async def generate(self, read: BaseModel, context: Context) -> Any:
        """The graph for a valid input; raises ``WorkflowFailed`` or ``InvalidRequest``."""


@dataclass(frozen=True)
class WorkflowInfo:
    """What a workflow is and takes.

    Attributes:
        name: As requests name it.
        description: The author's words, maybe several lines.
        fields: The table of inputs.
        schema: JSON Schema of ``input``.
    """

    name: str
    description: str
    fields: list[Field]
    schema: dict[str, Any]

    @property
    def summary(self) -> str:
        """The first line of the description."""
        return self.description.partition("\n")[0]


class Workflows:
    """All workflows of one folder, by name: the path without its ending, ``/`` between the parts."""

    def __init__(self, workflows: Mapping[str, Workflow]) -> None:
        self._workflows = dict(workflows)

    @classmethod
    def load(cls, folder: Path) -> Workflows:
        """Find the workflows of a folder and the folders below it. Blocks: it runs the Python files.

        A file that cannot be used is one log line and leaves the others alone. Names that begin with ``_`` or ``.``
        are passed over; where a ``.py`` and a ``.json`` have one name, the ``.py`` is taken.
        """
        found: dict[str, Workflow] = {}
        for path in _files(folder):
            name = path.relative_to(folder).with_suffix("").as_posix()
            if name in found:
                _log.warning("workflow passed over", file=str(path), reason="a .py has the same name")
                continue
            try:
                found[name] = load_code(path) if path.suffix == ".py" else load_graph(path)
            except NotAWorkflow as exc:
                _log.error("workflow passed over", file=str(path), reason=str(exc))
        return cls(found)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._workflows)

    def describe(self, name: str) -> WorkflowInfo:
        """What a workflow is and takes.

        Raises:
            WorkflowNotFound: There is none of this name.
        """
        name, workflow = self._get(name)
        model = workflow.model
        schema = model.model_json_schema()
        if model.model_config.get("extra") != "allow":
            # Unknown fields are refused whatever the author says (see `read_input`).
            schema["additionalProperties"] = False
        return WorkflowInfo(name, workflow.description, fields_of(model), schema)

    def describe_all(self) -> Iterable[WorkflowInfo]:
        """All of them, in the order of the names."""
        return (self.describe(name) for name in self.names())

    async def generate(
        self, name: str, given: Mapping[str, Any], context: ContextSource | None = None, *, seed: int = 0
    ) -> Graph:
        """The graph of a workflow for one input.

        Args:
            name: The workflow; ``-`` and ``_`` are the same in it.
            given: The request's ``input``.
            context: Where to ask about the running ComfyUI, only if this workflow needs it; None skips these checks.
            seed: For workflows whose input gives none (see ``seed_for``).

        Raises:
            WorkflowNotFound: There is none of this name.
            InvalidRequest: The input does not fit; ``location`` is ``input.<field>``.
            WorkflowFailed: Its own code raised, hung, or gave no graph.
            ComfyUnavailable: ComfyUI had to be asked and did not answer.
        """
        name, workflow = self._get(name)
        read = read_input(workflow.model, given)
        known = Context(seed=seed)
        if context is not None and (workflow.wants_context or choices_of(workflow.model)):
            known = await context.get(seed)
            check_choices(read, known)
        return _graph(name, await workflow.generate(read, known))

    def _get(self, name: str) -> tuple[str, Workflow]:
        for candidate in (name, name.replace("-", "_"), name.replace("_", "-")):
            if candidate in self._workflows:
                return candidate, self._workflows[candidate]
        listed = ", ".join(self.names()[:_SHOWN]) or "none; set WORKFLOW_DIR"
        raise WorkflowNotFound(
            f"There is no workflow {name[:100]!r}; this worker has {listed}"
            f"{', …' if len(self._workflows) > _SHOWN else ''}.",
            location="workflow",
        )


def _files(folder: Path) -> Iterator[Path]:
    """Workflow files with those in Python before those in JSON."""
    for ending in (".py", ".json"):
        for path in sorted(folder.rglob(f"*{ending}")):
            parts = path.relative_to(folder).parts
            hidden = any(part.startswith(("_", ".")) for part in parts)
            if path.is_file() and not hidden and not path.name.endswith(MAPPING_ENDING):
                yield path


def _graph(name: str, made: Any) -> Graph:
    """What the code gave, if it is a graph."""
    if not isinstance(made, dict) or not made:
        raise WorkflowFailed(f"The workflow {name} gave no graph; `generate` has to return nodes in API format.")
    for node_id, node in made.items():
        fine = (
            isinstance(node_id, str)
            and isinstance(node, dict)
            and isinstance(node.get("class_type"), str)
            and isinstance(node.get("inputs", {}), dict)
        )
        if not fine:
            raise WorkflowFailed(f"The workflow {name} gave a node {str(node_id)[:100]!r} without class or inputs.")
    try:
        # As it will travel: tuples become lists, and what JSON cannot say is noticed here.
        graph: Graph = load_json(dump_json(made))
    except ValueError as exc:
        raise WorkflowFailed(f"The workflow {name} gave a value that is no JSON: {str(exc)[:200]}.") from exc
    return {node_id: {**node, "inputs": node.get("inputs", {})} for node_id, node in graph.items()}


def input_location(location: str | None, graph: Graph, given: Mapping[str, Any]) -> str | None:
    """Where a fault in a generated graph stands in the request: ``input.image`` for ``prompt.10.inputs.image``.

    The field whose value stands at that place of the graph; the location unchanged if there is no such field.
    """
    node_id, _, name = (location or "").removeprefix("prompt.").partition(".inputs.")
    value = graph.get(node_id, {}).get("inputs", {}).get(name)
    same = (field for field, mine in given.items() if type(mine) is type(value) and mine == value)
    field = next(same, None) if value is not None else None
    return location if field is None else f"input.{field}"
