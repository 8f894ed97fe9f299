"""Runs one prompt, node by node, and tells its client about it in ComfyUI's order of messages.

Used by engine, execution_thread; may import its folder alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from app.comfy.standin.catalogue import NODE_CLASSES
from app.comfy.standin.execution_order import ExecutionOrder
from app.comfy.standin.failures import described
from app.comfy.standin.file_names import FileNumbers
from app.comfy.standin.folders import Folders
from app.comfy.standin.interruption import Interrupted, Interruption
from app.comfy.standin.links import is_link
from app.comfy.standin.node_types import Graph, JsonObject, Preview
from app.comfy.standin.output_cache import OutputCache
from app.comfy.standin.previews import PreviewFrame
from app.comfy.standin.progress import ProgressBoard
from app.comfy.standin.prompt_queue import QueueItem
from app.comfy.standin.wire import Wire


@dataclass(frozen=True)
class Workplace:
    """What one prompt after the other is run with."""

    folders: Folders
    wire: Wire
    interruption: Interruption
    memory_limit_bytes: int
    previews: bool
    cache: OutputCache = field(default_factory=OutputCache)
    numbers: FileNumbers = field(default_factory=FileNumbers)


class PromptExecution:
    """One run of one prompt in the execution thread; also the workbench of its nodes.

    ``messages`` collects what history will hold. ``succeeded`` tells how it ended.
    """

    def __init__(self, item: QueueItem, place: Workplace) -> None:
        _, self._prompt_id, graph, extra, self._outputs = item
        # Nodes get notes of their own during the run, which the queue and the history must not show.
        self.graph: Graph = {node_id: dict(node) for node_id, node in graph.items()}
        self._extra = extra
        self.folders = place.folders
        self.numbers = place.numbers
        self.memory_limit_bytes = place.memory_limit_bytes
        self.previews = place.previews
        self.messages: list[tuple[str, JsonObject]] = []
        self.succeeded = True
        self._cache = place.cache
        self._interruption = place.interruption
        self._wire = wire = place.wire
        self._executed: list[str] = []
        self._current = ""
        wire.client_id = extra["client_id"] if "client_id" in extra else None  # noqa: SIM401 - it may be a list
        self._board = ProgressBoard(
            self._prompt_id, lambda content: wire.send("progress_state", content, wire.client_id)
        )

    @property
    def extra_pnginfo(self) -> JsonObject | None:
        """What the client wants to stand in saved files; AttributeError if its extra_data was no object."""
        return self._extra.get("extra_pnginfo")

    def run(self) -> None:
        """Run all nodes that the outputs need; never raises for what a node does."""
        self._interruption.forget()
        self._tell("execution_start", {"prompt_id": self._prompt_id})
        self._cache.prepare(self.graph, self.folders)
        kept = [node_id for node_id in self.graph if self._cache.outputs(node_id) is not None]
        self._tell("execution_cached", {"nodes": kept, "prompt_id": self._prompt_id})
        order = ExecutionOrder(self.graph, self._outputs, lambda node_id: self._cache.outputs(node_id) is not None)
        while order:
            node_id = order.next()
            if not self._run_node(node_id):
                self.succeeded = False
                break
            order.done(node_id)
        else:
            self._tell("execution_success", {"prompt_id": self._prompt_id})
        self._wire.last_node_id = None

    def result(self) -> JsonObject:
        """Return outputs, meta and status for the history entry; outputs of nodes before a failure are in."""
        shown = {node_id: self._cache.shown(node_id) for node_id in self.graph}
        return {
            "outputs": {node_id: entry.output for node_id, entry in shown.items() if entry is not None},
            "meta": {node_id: entry.meta for node_id, entry in shown.items() if entry is not None},
            "status": {
                "status_str": "success" if self.succeeded else "error",
                "completed": self.succeeded,
                "messages": self.messages,
            },
        }

    def progress(self, value: int, total: int, preview: Preview | None = None) -> None:
        """Tell how far the running node is, with a picture if there is one."""
        self._interruption.check()
        wire, node_id = self._wire, self._current
        value = min(value, total)
        self._board.update(node_id, value, total)
        frame = None
        if preview is not None:
            names = {"node_id": node_id, "prompt_id": self._prompt_id, **self._board.identity(node_id)}
            frame = PreviewFrame.of(preview, names)
        named = frame is not None and wire.wants_preview_names(wire.client_id)
        # The newer form of a preview goes before the progress message, the older one after it.
        if frame is not None and named:
            wire.send_preview(frame, wire.client_id)
        content = {"value": value, "max": total, "prompt_id": self._prompt_id, "node": node_id}
        wire.send("progress", content, wire.client_id)
        if frame is not None and not named:
            wire.send_preview(frame, wire.client_id)

    def raise_if_interrupted(self) -> None:
        """Raise Interrupted when somebody asked for it."""
        self._interruption.check()

    def sleep(self, seconds: float) -> None:
        """Let time pass without heeding interrupts."""
        self._interruption.sleep(seconds)

    def _run_node(self, node_id: str) -> bool:
        """Run or recall one node; False when the prompt ends with it."""
        self._current = node_id
        class_type = self.graph[node_id]["class_type"]
        if self._cache.outputs(node_id) is not None:
            shown = self._cache.shown(node_id)
            self._tell_executed(node_id, None if shown is None else shown.output)
            self._board.finish(node_id)
            return True
        given: JsonObject = {}
        try:
            self._board.start(node_id)
            given = self._gather(node_id)
            if self._wire.client_id is not None:
                self._wire.last_node_id = node_id
                content = {"node": node_id, "display_node": node_id, "prompt_id": self._prompt_id}
                self._wire.send("executing", content, self._wire.client_id)
            worker = self._cache.node_object(node_id, class_type, self.folders)
            self._interruption.check()
            produced = worker.run(self, given)
        except Interrupted:
            self._tell("execution_interrupted", self._where(node_id), to_all=True)
            return False
        except Exception as failure:  # noqa: BLE001 - whatever a node raises ends its prompt, never the server
            given |= self._hidden(class_type)
            self._tell("execution_error", self._where(node_id) | described(failure, given, list(self.graph)))
            return False
        if produced.ui:
            self._cache.keep_shown(node_id, produced.ui)
            self._tell_executed(node_id, produced.ui)
        self._cache.keep(node_id, produced.outputs)
        self._board.finish(node_id)
        self._executed.append(node_id)
        return True

    def _gather(self, node_id: str) -> JsonObject:
        given: JsonObject = {}
        for name, value in self.graph[node_id]["inputs"].items():
            if is_link(value):
                outputs = self._cache.outputs(value[0])
                given[name] = None if outputs is None else outputs[int(value[1])]
            else:
                given[name] = value
        return given

    def _hidden(self, class_type: str) -> JsonObject:
        """Return what a node class gets without the graph naming it."""
        extra = self._extra.get("extra_pnginfo") if isinstance(self._extra, dict) else None
        values = {"PROMPT": self.graph, "EXTRA_PNGINFO": extra}
        return {name: values[kind] for name, kind in NODE_CLASSES[class_type].hidden.items()}

    def _tell(self, event: str, content: JsonObject, *, to_all: bool = False) -> None:
        content = {**content, "timestamp": int(time.time() * 1000)}
        self.messages.append((event, content))
        if self._wire.client_id is not None or to_all:
            self._wire.send(event, content, self._wire.client_id)

    def _tell_executed(self, node_id: str, output: JsonObject | None) -> None:
        if self._wire.client_id is not None:
            content = {"node": node_id, "display_node": node_id, "output": output, "prompt_id": self._prompt_id}
            self._wire.send("executed", content, self._wire.client_id)

    def _where(self, node_id: str) -> JsonObject:
        return {
            "prompt_id": self._prompt_id,
            "node_id": node_id,
            "node_type": self.graph[node_id]["class_type"],
            "executed": list(self._executed),
        }
