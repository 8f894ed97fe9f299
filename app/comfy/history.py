"""What ComfyUI's history says of one finished prompt.

Used by client, ends, followed, run, whereabouts, app.worker; may import schemas.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.events import FailedNode

__all__ = ["Failure", "HistoryEntry", "Outcome", "read_history", "timestamp_ms"]

Outcome = Literal["success", "error", "interrupted"]

_OUTCOMES: Final[dict[str, Outcome]] = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}
# CUDA and ROCm say "out of memory", older torch "Allocation on device", torch on a CPU "not enough memory".
_NO_ROOM: Final = re.compile(r"out of memory|Allocation on device|not enough memory", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """Why a prompt failed.

    Attributes:
        message: ComfyUI's text, stripped.
        node: The node at fault; None when ComfyUI names none.
        out_of_memory: The GPU (or the RAM it stands for) had no room; after freeing it another try may succeed.
    """

    message: str
    node: FailedNode | None
    out_of_memory: bool


@dataclass(frozen=True)
class HistoryEntry:
    """One finished prompt.

    Attributes:
        prompt_id: ComfyUI's id of it.
        outcome: How it ended. ComfyUI calls an interrupt an error too; the last status message tells them apart.
        outputs: Node id to what that node listed, in ComfyUI's order; after a failure, what was saved before it.
        graph: The graph as ComfyUI ran it.
        start_ms: When it began, in milliseconds since 1970 by ComfyUI's clock, if it says so.
        end_ms: The same for its end.
        failure: Present exactly when the outcome is ``error``.
    """

    prompt_id: str
    outcome: Outcome
    outputs: dict[str, Any]
    graph: dict[str, Any]
    start_ms: int | None
    end_ms: int | None
    failure: Failure | None


def read_history(prompt_id: str, entry: Mapping[str, Any]) -> HistoryEntry:
    """Read one entry of ``/history``; whatever a version leaves out stays empty."""
    status = entry.get("status")
    status = status if isinstance(status, dict) else {}
    messages = dict(_messages(status.get("messages")))
    last = next((name for name in reversed(messages) if name in _OUTCOMES), None)
    # A version that kept no messages still has the status in words.
    outcome = _OUTCOMES[last] if last else ("error" if status.get("status_str") == "error" else "success")
    outputs = entry.get("outputs")
    return HistoryEntry(
        prompt_id=prompt_id,
        outcome=outcome,
        outputs=outputs if isinstance(outputs, dict) else {},
        graph=_graph(entry.get("prompt")),
        start_ms=timestamp_ms(messages.get("execution_start")),
        end_ms=timestamp_ms(messages.get(last)) if last else None,
        failure=_failure(messages.get("execution_error", {})) if outcome == "error" else None,
    )


def _messages(listed: Any) -> list[tuple[str, dict[str, Any]]]:
    pairs = listed if isinstance(listed, list) else []
    return [
        (pair[0], pair[1] if isinstance(pair[1], dict) else {})
        for pair in pairs
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
    ]


def _graph(queue_item: Any) -> dict[str, Any]:
    if isinstance(queue_item, list) and len(queue_item) > 2 and isinstance(queue_item[2], dict):
        return queue_item[2]
    return {}


def timestamp_ms(message: Mapping[str, Any] | None) -> int | None:
    """ComfyUI's time of a message or frame, in milliseconds since 1970; None if it has none."""
    value = (message or {}).get("timestamp")
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _failure(message: Mapping[str, Any]) -> Failure:
    text = str(message.get("exception_message") or "").strip()
    kind = _text(message.get("exception_type"))
    node = None
    if message.get("node_id") is not None:
        traceback = message.get("traceback")
        node = FailedNode(
            node_id=str(message["node_id"]),
            class_type=_text(message.get("node_type")),
            exception_type=kind,
            traceback=[str(line) for line in traceback] if isinstance(traceback, list) else None,
        )
    no_room = (kind or "").endswith("OutOfMemoryError") or _NO_ROOM.search(text) is not None
    return Failure(text or kind or "ComfyUI gave no reason", node, no_room)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
