"""The one thread that takes prompts from the queue and runs them, one after the other.

Used by engine; may import its folder alone.
"""

from __future__ import annotations

import logging
import threading

from app.comfy.standin.execution_log import ExecutionLog
from app.comfy.standin.faults import Faults
from app.comfy.standin.prompt_execution import PromptExecution, Workplace
from app.comfy.standin.prompt_queue import PromptQueue, QueueItem

_log = logging.getLogger(__name__)
_STALL_LOOK_S = 0.02


class ExecutionThread:
    """Runs prompts until it is stopped, or killed by a queue that cannot be ordered or by a fault switch.

    When the thread is dead, everything else of the server goes on: prompts are taken and never run, as in ComfyUI.
    """

    def __init__(
        self,
        queue: PromptQueue,
        place: Workplace,
        log: ExecutionLog,
        faults: Faults,
    ) -> None:
        self._queue = queue
        self._place = place
        self._log = log
        self._faults = faults
        self._stopping = threading.Event()
        self._clear_cache = threading.Event()
        self._thread = threading.Thread(target=self._work, name="standin-execution", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether prompts are still run."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to run prompts."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, interrupting whatever runs; blocks until it is gone, a few milliseconds."""
        self._stopping.set()
        self._place.interruption.stop_server()
        self._queue.wake(close=True)
        self._thread.join(timeout=10)

    def forget_results(self) -> None:
        """Empty the cache of node results before the next prompt, as POST /free {"free_memory": true} asks."""
        self._clear_cache.set()
        self._queue.wake()

    def _work(self) -> None:
        try:
            while not self._stopping.is_set() and self._faults.execution_thread != "dead":
                if self._faults.execution_thread == "stalled":
                    self._stopping.wait(_STALL_LOOK_S)
                    continue
                item = self._queue.get()
                if item is not None:
                    self._run(item)
                if self._clear_cache.is_set():
                    self._clear_cache.clear()
                    self._place.cache.clear()
        except Exception:  # noqa: BLE001 - the thread ends with it, the server does not
            # Known causes, as in ComfyUI: two waiting prompts with the same number and prompt_id, which the heap
            # cannot compare, a prompt whose extra_data is null, and a node without inputs beside a good output.
            _log.exception("the execution thread is dead")

    def _run(self, item: QueueItem) -> None:
        prompt_id = item[1]
        self._place.interruption.sleep(self._faults.start_lag_s)
        client_id = item[3].get("client_id") if isinstance(item[3], dict) else None
        self._log.begin(prompt_id, item[0], client_id)
        execution = PromptExecution(item, self._place)
        execution.run()
        self._place.interruption.sleep(self._faults.history_lag_s)
        self._log.end(prompt_id)
        self._queue.done(execution.result())
        if self._place.wire.client_id is not None:
            self._place.wire.send("executing", {"node": None, "prompt_id": prompt_id}, self._place.wire.client_id)
