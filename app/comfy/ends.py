"""The ways in which a prompt ends in ComfyUI, and the error that a failed node leads to.

Used by followed, line, looks, run, app.worker; may import app.errors, schemas.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.comfy.history import Failure, HistoryEntry
from app.errors import ExecutionFailed, OutOfMemory
from schemas.events import FailedNode

__all__ = ["End", "ExecutionThreadDead", "Failed", "Gone", "Interrupted", "Succeeded", "end_of", "failure"]


@dataclass(frozen=True)
class Succeeded:
    """It ran to its end; the entry lists its outputs."""

    entry: HistoryEntry


@dataclass(frozen=True)
class Failed:
    """A node raised; the entry lists what was saved before."""

    entry: HistoryEntry
    failure: Failure

    @property
    def node(self) -> FailedNode | None:
        """The node at fault, if ComfyUI names one."""
        return self.failure.node

    @property
    def message(self) -> str:
        """ComfyUI's text."""
        return self.failure.message

    @property
    def out_of_memory(self) -> bool:
        """Whether memory was short; after freeing it another try may succeed."""
        return self.failure.out_of_memory


@dataclass(frozen=True)
class Interrupted:
    """Somebody interrupted it, we or another; the entry lists what was saved before."""

    entry: HistoryEntry


@dataclass(frozen=True)
class Gone:
    """ComfyUI has it neither in its queue nor in its history: deleted, history cleared, or ComfyUI started anew."""


@dataclass(frozen=True)
class ExecutionThreadDead:
    """It waits while nothing runs: ComfyUI answers but will never run anything again. Only a restart helps."""


End = Succeeded | Failed | Interrupted | Gone | ExecutionThreadDead


def end_of(entry: HistoryEntry) -> End:
    """The end that a history entry tells of."""
    if entry.failure is not None:
        return Failed(entry, entry.failure)
    return Interrupted(entry) if entry.outcome == "interrupted" else Succeeded(entry)


def failure(end: Failed) -> ExecutionFailed:
    """The error that a failed node leads to."""
    node = end.node
    where = f"node {node.node_id} ({node.class_type})" if node else "a node"
    kind = f"{node.exception_type}: " if node and node.exception_type else ""
    error: ExecutionFailed
    if end.out_of_memory:
        cure = "ask for less (size, batch) or use a larger GPU"
        error = OutOfMemory(f"{where} ran out of GPU memory: {end.message}; {cure}", node=node)
    else:
        location = f"prompt.{node.node_id}" if node else None
        error = ExecutionFailed(f"{where} failed: {kind}{end.message}", node=node, location=location)
    error.saved = end.entry.outputs
    return error
