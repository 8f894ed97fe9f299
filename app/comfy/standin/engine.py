"""The parts of one stand-in, put together once and handed to the routes.

Used by most of its folder; may import its folder alone.
"""

from __future__ import annotations

from aiohttp import web

from app.comfy.standin.config import StandinConfig
from app.comfy.standin.execution_log import ExecutionLog
from app.comfy.standin.execution_thread import ExecutionThread
from app.comfy.standin.faults import Faults
from app.comfy.standin.folders import Folders
from app.comfy.standin.interruption import Interruption
from app.comfy.standin.node_types import JsonObject
from app.comfy.standin.prompt_execution import Workplace
from app.comfy.standin.prompt_queue import PromptQueue
from app.comfy.standin.wire import Wire


class Engine:
    """Everything behind the HTTP surface of one stand-in. Made in the event loop that serves it."""

    def __init__(self, config: StandinConfig) -> None:
        self.config = config
        self.folders = Folders(config)
        self.faults = Faults()
        self.wire = Wire(self.faults)
        self.interruption = Interruption()
        self.queue = PromptQueue(self._queue_changed)
        self.log = ExecutionLog(self.folders.home / "executions.jsonl")
        place = Workplace(self.folders, self.wire, self.interruption, config.memory_limit_bytes, config.previews)
        self.thread = ExecutionThread(self.queue, place, self.log, self.faults)
        self.next_number = 0

    def queue_state(self) -> JsonObject:
        """Return the state of the queue as GET /prompt and ``status`` messages show it."""
        return {"exec_info": {"queue_remaining": self.queue.remaining()}}

    def take_number(self, *, front: bool) -> int:
        """Return the next number of the counter, negative for a prompt that wants to go first."""
        number = self.next_number
        self.next_number += 1
        return -number if front else number

    def _queue_changed(self) -> None:
        self.wire.send("status", {"status": self.queue_state()}, None)


ENGINE: web.AppKey[Engine] = web.AppKey("engine", Engine)
"""Where the routes find the engine in their application."""
