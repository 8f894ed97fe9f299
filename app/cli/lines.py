"""Events and letters as one line each, for people.

Used by most of its folder, app.cli.demo; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.cli.progress import describe

__all__ = ["event_line", "failure_line", "table"]


def event_line(event: Mapping[str, Any]) -> str:
    """Time, type, request and what matters of it; control characters of foreign texts are taken out."""
    clock = str(event.get("timestamp", ""))[11:23]
    words = [clock, f"{event.get('type', '?'):<24}", str(event.get("id") or event.get("worker") or "-"), _what(event)]
    return _printable(" ".join(word for word in words if word))


def failure_line(event: Mapping[str, Any]) -> str:
    """What a ``prompt.failed`` says: the code, the place, the sentence, and whether another try may succeed."""
    location = f" at {event['location']}" if event.get("location") else ""
    again = " (a replay may succeed)" if event.get("retryable") else ""
    return _printable(f"{event.get('code', 'failed')}{location}: {event.get('error', '')}{again}")


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns as wide as their longest entry."""
    rows = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)] if rows else []
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _what(event: Mapping[str, Any]) -> str:
    kind = str(event.get("type", ""))
    tell = _TELLERS.get(kind) or _TELLERS.get(kind.partition(".")[0])
    return tell(event) if tell else ""


def _progress(event: Mapping[str, Any]) -> str:
    value = float((event.get("progress") or {}).get("value") or 0)
    return f"{value:4.0%} {describe(event)}"


def _complete(event: Mapping[str, Any]) -> str:
    total_ms = (event.get("stats") or {}).get("total_time") or 0
    return f"{len(event.get('images') or [])} file(s) in {total_ms / 1000:.1f} s"


def _storage(event: Mapping[str, Any]) -> str:
    data = event.get("data") or {}
    return " ".join(str(part) for part in (data.get("url"), data.get("error")) if part)


def _models(event: Mapping[str, Any]) -> str:
    return f"{sum(len(names) for names in (event.get('models') or {}).values())} models"


def _worker(event: Mapping[str, Any]) -> str:
    state = "up" if (event.get("comfyui") or {}).get("up") else "down"
    return f"ComfyUI is {state}, {event.get('in_flight', 0)} of {event.get('capacity', '?')} in hand"


_TELLERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "prompt.progress": _progress,
    "prompt.complete": _complete,
    "prompt.failed": failure_line,
    "storage": _storage,
    "worker.models": _models,
    "worker": _worker,
}


def _printable(text: str) -> str:
    """One line that a terminal shows and does not obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
