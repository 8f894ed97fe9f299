"""Events as lines for people, and progress as plain lines."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest

from app.cli.lines import event_line, failure_line, table
from app.cli.progress import describe, shown_progress

STATE = {"comfyui": {"up": True}, "in_flight": 1, "capacity": 4}
AT = "2026-01-01T00:00:00.123Z"


def progress(value: float, status: str = "running", node: str | None = None, **more: Any) -> dict[str, Any]:
    """Make a progress event."""
    inner = {"value": value, "current_node": node, "current_node_class": node and "KSampler", **more}
    return {"type": "prompt.progress", "timestamp": AT, "id": "r-1", "attempt": 1, "status": status, "progress": inner}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            progress(0.25, node="3", step=5, steps=20),
            "00:00:00.123 prompt.progress          r-1  25% running KSampler 5/20",
        ),
        (
            {"type": "prompt.complete", "timestamp": AT, "id": "r-1", "images": ["a"], "stats": {"total_time": 1500}},
            "00:00:00.123 prompt.complete          r-1 1 file(s) in 1.5 s",
        ),
        (
            {"type": "prompt.failed", "timestamp": AT, "id": "r-1", "code": "timeout", "error": "too long"},
            "00:00:00.123 prompt.failed            r-1 timeout: too long",
        ),
        (
            {"type": "storage.file_deleted", "timestamp": AT, "id": None, "worker": "w", "data": {"url": "u"}},
            "00:00:00.123 storage.file_deleted     w u",
        ),
        (
            {"type": "worker.started", "timestamp": AT, "worker": "w", **STATE},
            "00:00:00.123 worker.started           w ComfyUI is up, 1 of 4 in hand",
        ),
        (
            {"type": "worker.models", "timestamp": AT, "worker": "w", "models": {"a": ["x", "y"], "b": []}},
            "00:00:00.123 worker.models            w 2 models",
        ),
        ({"type": "comfy.status", "timestamp": AT, "worker": "w"}, "00:00:00.123 comfy.status             w"),
        ({}, "?                        -"),
    ],
)
def test_an_event_is_one_line(event: dict[str, Any], expected: str) -> None:
    """Time, type, who and what; missing fields are no trouble."""
    assert event_line(event) == expected


def test_a_line_cannot_command_the_terminal() -> None:
    """Line breaks and escape sequences of foreign texts are spaces."""
    event = {"type": "prompt.failed", "timestamp": AT, "id": "r", "code": "internal", "error": "a\nb\x1b[2Jc\u202ed"}
    assert event_line(event).isprintable()
    assert "\x1b" not in table([["\x1b[31m", "x"]])[0]


def test_a_failure_names_code_place_and_hope() -> None:
    """The place stands there when there is one, a replay is mentioned when it may help."""
    event = {"code": "upload_failed", "location": "s3", "error": "the bucket is gone", "retryable": True}
    assert failure_line(event) == "upload_failed at s3: the bucket is gone (a replay may succeed)"


def test_a_table_has_columns() -> None:
    """Each column is as wide as its longest entry; nothing gives nothing."""
    assert table([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "ccc  d"]
    assert table([]) == []


def test_a_later_attempt_is_mentioned() -> None:
    """Who looks at a bar that falls back learns why."""
    assert describe({**progress(0), "attempt": 2}) == "running (attempt 2)"


def test_without_a_terminal_progress_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A line at each change of status or node, else one for every tenth, and the last one always."""
    with shown_progress() as view:
        view.show(progress(0, "accepted"))
        view.show(progress(0, "running"))
        for hundredth in range(100):
            view.show(progress(hundredth / 100, node="3"))
        view.show(progress(1, node="3"))
        view.show(progress(1, node="3"))
        view.note("a word")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["  0% accepted", "  0% running"]
    assert lines[-2:] == ["100% running KSampler", "a word"]
    assert len(lines) <= 15
    assert all(line.startswith(f"{value:3d}%") for line, value in zip(lines[2:12], range(0, 100, 10), strict=True))


def test_on_a_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar shows value and node; brackets in a node's name are no markup."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with shown_progress() as view:
        event = progress(0.5, node="3", step=5, steps=20)
        event["progress"]["current_node_class"] = "Odd[/bold]Node"
        view.show(event)
        view.note("a [word]")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    assert "a [word]" in text
    assert "running Odd[/bold]Node 5/20" in text
    assert "50%" in text
