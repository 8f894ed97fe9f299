"""The fleet and its prompts as tables for a terminal.

Used by live; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from app.cli.fleet import state_of
from app.cli.fleet_state import Fleet, InHand, WorkerView

__all__ = ["render"]

COLOURS = {"accepted": "dim", "preparing": "cyan", "queued": "yellow", "running": "green", "storing": "blue"}
BAR_WIDTH = 20
LONGEST_CELL = 60


def render(fleet: Fleet, now: datetime, *, height: int = 0) -> RenderableType:
    """Both tables as they are now.

    Args:
        fleet: What is known.
        now: The present moment.
        height: Lines there are; more prompts than fit are counted below. 0 for as many as it takes.
    """
    views = sorted(fleet.workers.items())
    prompts = [(name, key[0], prompt) for name, view in views for key, prompt in view.prompts.items()]
    prompts.sort(key=lambda row: row[2].first)
    # Titles, heads and rules of both tables take ten lines.
    room = max(3, height - len(views) - 10) if height else len(prompts)
    parts: list[RenderableType] = [_workers(views, now), _prompts(prompts[:room], now)]
    if len(prompts) > room:
        parts.append(Text(f"and {len(prompts) - room} more", style="dim"))
    return Group(*parts)


def _workers(views: list[tuple[str, WorkerView]], now: datetime) -> Table:
    table = Table(title="Workers", title_justify="left", expand=True)
    for head in ("worker", "state", "in hand", "queue", "ComfyUI", "version", "heard"):
        table.add_column(head, no_wrap=True, overflow="ellipsis")
    for name, view in views:
        event = view.event
        comfy = event.get("comfyui") if isinstance(event.get("comfyui"), dict) else {}
        state = state_of(event, now) if event else "up"
        in_hand = len(view.prompts) if not event else event.get("in_flight", "?")
        queue = event.get("queue_remaining")
        table.add_row(
            _text(name),
            Text(state, style=_colour(state)),
            _text(f"{in_hand} of {event.get('capacity', '?')}"),
            _text("-" if queue is None else queue),
            _text(f"{comfy.get('version') or '?'} at {comfy.get('url', '?')}" if comfy else "?"),
            _text(event.get("version", "?")),
            _text(f"{_span(now - view.heard)} ago"),
        )
    if not views:
        table.add_row(Text("none heard of yet", style="dim"), *[""] * 6)
    return table


def _prompts(rows: list[tuple[str, str, InHand]], now: datetime) -> Table:
    table = Table(title="Prompts in hand", title_justify="left", expand=True)
    for head in ("request", "worker", "status", "progress", "node", "try", "since"):
        table.add_column(head, no_wrap=True, overflow="ellipsis")
    for worker, request_id, prompt in rows:
        progress = prompt.event.get("progress")
        progress = progress if isinstance(progress, dict) else {}
        status = str(prompt.event.get("status", "?"))
        attempt = prompt.event.get("attempt", 1)
        table.add_row(
            _text(request_id),
            _text(worker),
            Text(_plain(status), style=COLOURS.get(status, "")),
            _bar(progress),
            _text(_node(progress)),
            _text(attempt),
            _text(_span(now - prompt.first)),
        )
    if not rows:
        table.add_row(Text("none", style="dim"), *[""] * 6)
    return table


def _bar(progress: Mapping[str, Any]) -> RenderableType:
    value = progress.get("value")
    done = min(max(float(value), 0.0), 1.0) if isinstance(value, int | float) else 0.0
    row = Table.grid(padding=(0, 1))
    row.add_row(ProgressBar(total=1.0, completed=done, width=BAR_WIDTH), Text(f"{done:4.0%}"))
    return row


def _node(progress: Mapping[str, Any]) -> str:
    words = [str(progress.get("current_node_class") or "")]
    if progress.get("steps"):
        words.append(f"{progress.get('step') or 0}/{progress['steps']}")
    return " ".join(word for word in words if word) or "-"


def _colour(state: str) -> str:
    if state == "up":
        return "green"
    return "dim" if state == "stopped" else "red"


def _text(value: object) -> Text:
    return Text(_plain(str(value)))


def _plain(text: str) -> str:
    """Names come from elsewhere: no control characters, no length without end, and never markup."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:LONGEST_CELL])


def _span(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes}:{seconds:02d}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d}"
