"""Progress of one request on standard error: a bar on a terminal, plain lines elsewhere.

Used by lines, submit, app.cli.demo.story; may import its folder alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from app.cli.outcome import say

__all__ = ["ProgressView", "describe", "shown_progress"]

# Without a terminal a line at each change of status or node, and else at steps of this size.
PLAIN_STEP = 0.1


class ProgressView(Protocol):
    """Shows what a request does."""

    def show(self, event: Mapping[str, Any]) -> None:
        """Take one ``prompt.progress`` event."""

    def note(self, line: str) -> None:
        """Say something besides."""


@contextmanager
def shown_progress() -> Iterator[ProgressView]:
    """A view for the time of one request; the bar is gone afterwards, lines stay."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    bar = Progress(
        TextColumn("{task.description}", table_column=Column(min_width=28)),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        yield _Bar(bar)


def describe(event: Mapping[str, Any]) -> str:
    """What a progress event says, without its value: ``running KSampler 5/20``."""
    progress = event.get("progress") or {}
    words = [str(event.get("status", "")), str(progress.get("current_node_class") or "")]
    if progress.get("steps"):
        words.append(f"{progress.get('step') or 0}/{progress['steps']}")
    if (event.get("attempt") or 1) > 1:
        words.append(f"(attempt {event['attempt']})")
    return " ".join(word for word in words if word)


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("waiting", total=1.0)

    def show(self, event: Mapping[str, Any]) -> None:
        value = float((event.get("progress") or {}).get("value") or 0)
        # Names of nodes come from elsewhere: square brackets in them are no markup.
        text = describe(event).replace("[", r"\[")
        self._bar.update(self._task, completed=value, description=text)

    def note(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False)


class _Lines:
    def __init__(self) -> None:
        self._last: tuple[object, ...] = ()
        self._value = 0.0

    def show(self, event: Mapping[str, Any]) -> None:
        progress = event.get("progress") or {}
        value = float(progress.get("value") or 0)
        state = (event.get("attempt"), event.get("status"), progress.get("current_node"))
        small = round(value - self._value, 6) < PLAIN_STEP
        if state == self._last and small and not self._value < value == 1:
            return
        self._last, self._value = state, value
        say(f"{value:4.0%} {describe(event)}")

    def note(self, line: str) -> None:
        say(line)
