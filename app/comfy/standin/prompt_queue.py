"""Prompts that wait, the one that runs, and the history of those that ended: all in memory.

Used by engine, execution_thread, jobs, prompt_execution; may import its folder alone.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import Any

from app.comfy.standin.node_types import Graph, JsonObject

QueueItem = tuple[float, str, Graph, JsonObject, list[str]]
"""Number, prompt id, graph, extra data and outputs to run. Ordered as tuples: lower numbers run first."""

_LONGEST_HISTORY = 10000
_SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")


class PromptQueue:
    """A heap of waiting prompts, shared between the API and the execution thread, and the history.

    The items themselves are compared, so that two waiting prompts with the same number AND the same prompt id make
    the heap compare their graphs: TypeError for whoever pushed or pulled, as in ComfyUI. ``changed`` is called
    under the lock whenever ``remaining`` may have changed.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.RLock()
        self._filled = threading.Condition(self._lock)
        self._waiting: list[QueueItem] = []
        self._running: QueueItem | None = None
        self._history: dict[str, JsonObject] = {}
        self._woken = False
        self._closed = False
        self.keeps_history = True

    def put(self, item: QueueItem) -> None:
        """Add a prompt; TypeError when number and id equal those of a waiting one, which is then in nevertheless."""
        with self._lock:
            heapq.heappush(self._waiting, item)
            self._changed()
            self._filled.notify()

    def get(self) -> QueueItem | None:
        """Wait for a prompt and mark it as running. None, once, after every ``wake``, and always once closed."""
        with self._lock:
            while not (self._waiting or self._woken or self._closed):
                self._filled.wait()
            if self._woken or self._closed:
                self._woken = False
                return None
            item = heapq.heappop(self._waiting)
            self._running = item
            self._changed()
            return item

    def wake(self, *, close: bool = False) -> None:
        """Let ``get`` return None, now or when it is called next; with ``close`` for ever."""
        with self._lock:
            self._woken = True
            self._closed = self._closed or close
            self._filled.notify_all()

    def done(self, result: JsonObject) -> None:
        """End the running prompt with ``outputs``, ``meta`` and ``status`` for its history entry."""
        with self._lock:
            item, self._running = self._running, None
            if item is not None and self.keeps_history:
                while len(self._history) > _LONGEST_HISTORY:
                    del self._history[next(iter(self._history))]
                shown = [*item[:3], _without_secrets(item[3]), item[4]]
                self._history[item[1]] = {
                    "prompt": shown,
                    "outputs": result["outputs"],
                    "status": result["status"],
                    "meta": result["meta"],
                }
            self._changed()

    def remaining(self) -> int:
        """Return how many prompts wait or run."""
        with self._lock:
            return len(self._waiting) + (self._running is not None)

    def running(self) -> list[QueueItem]:
        """Return the running prompt, if any, as a list."""
        with self._lock:
            return [] if self._running is None else [self._running]

    def waiting(self) -> list[QueueItem]:
        """Return the waiting prompts in the heap's order, which is not the order of running."""
        with self._lock:
            return list(self._waiting)

    def clear(self) -> None:
        """Drop every waiting prompt."""
        with self._lock:
            self._waiting = []
            self._changed()

    def delete(self, prompt_id: str) -> bool:
        """Drop the first waiting prompt with this id; tell whether there was one."""
        with self._lock:
            for index, item in enumerate(self._waiting):
                if item[1] == prompt_id:
                    if len(self._waiting) == 1:
                        self.clear()  # announces once more than the general case, as ComfyUI does
                    else:
                        self._waiting.pop(index)
                        heapq.heapify(self._waiting)
                    self._changed()
                    return True
            return False

    def history(self, max_items: int | None = None, offset: int = -1) -> dict[str, JsonObject]:
        """Return history entries, oldest first; a negative offset takes the last ``max_items`` of them."""
        with self._lock:
            ids = list(self._history)
            if offset < 0:
                offset = len(ids) - max_items if max_items is not None else 0
            chosen = ids[max(offset, 0) :]
            if max_items is not None:
                chosen = chosen[: max(max_items, 1)]
            return {prompt_id: self._history[prompt_id] for prompt_id in chosen}

    def history_of(self, prompt_id: str) -> dict[str, Any]:
        """Return one entry under its id, or an empty dictionary."""
        with self._lock:
            entry = self._history.get(prompt_id)
            return {} if entry is None else {prompt_id: entry}

    def clear_history(self) -> None:
        """Forget every ended prompt."""
        with self._lock:
            self._history = {}

    def delete_history(self, prompt_id: str) -> None:
        """Forget one ended prompt, if it is known."""
        with self._lock:
            self._history.pop(prompt_id, None)

    def while_running(self, prompt_id: str, action: Callable[[], None]) -> bool:
        """Call ``action`` if this prompt is the running one, with no chance that it ends in between."""
        with self._lock:
            if self._running is None or self._running[1] != prompt_id:
                return False
            action()
            return True


def _without_secrets(extra: Any) -> Any:
    """Return extra data without keys of paid services; what is no object stays as it is."""
    return {key: value for key, value in extra.items() if key not in _SECRETS} if isinstance(extra, dict) else extra
