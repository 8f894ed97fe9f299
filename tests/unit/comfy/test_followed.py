"""One followed prompt by itself."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from app.comfy.ends import Gone, Interrupted, Succeeded, end_of
from app.comfy.followed import Followed
from app.comfy.frames import Frame
from app.comfy.history import HistoryEntry
from schemas.events import Progress

pytestmark = pytest.mark.anyio


class _Prompt(Followed):
    """A followed prompt that keeps what it told."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []
        super().__init__("p", {"1": {"class_type": "X"}}, self.seen.append, lambda: None, lambda _: None)


def _frame(kind: str, **data: Any) -> Frame:
    return Frame(kind, "p", {"prompt_id": "p", **data}, b"")


def _entry(outcome: Any, start_ms: int | None = 5) -> HistoryEntry:
    return HistoryEntry("p", outcome, {}, {}, start_ms, 9, None)


@pytest.mark.parametrize("timestamp", [None, "soon", float("nan"), float("inf"), []])
def test_a_start_without_a_usable_time_is_a_start_now(timestamp: Any) -> None:
    """An odd timestamp does not hide that the prompt runs."""
    prompt = _Prompt()
    prompt.hear(_frame("execution_start", timestamp=timestamp))
    assert prompt.started.is_set()
    assert prompt.started_ms is not None
    assert prompt.started_ms > 1_700_000_000_000


def test_the_first_note_of_the_start_counts() -> None:
    """A frame that comes after the look does not start the clock anew."""
    prompt = _Prompt()
    prompt.begin(1000)
    prompt.hear(_frame("execution_start", timestamp=2000))
    assert prompt.started_ms == 1000
    assert len(prompt.seen) == 1


async def test_the_first_end_counts_and_wakes_everybody() -> None:
    """Whoever waits for the start or the end gets it; later news changes nothing."""
    prompt = _Prompt()
    ends = []

    async def wait() -> None:
        ends.append(await prompt.wait())

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            tasks.start_soon(wait)
            tasks.start_soon(prompt.started.wait)
            assert prompt.finish(Gone())
    assert not prompt.finish(Succeeded(_entry("success")))
    prompt.hear(_frame("execution_start", timestamp=2000))
    prompt.hear(_frame("executing", node="1"))
    assert ends == [Gone(), Gone()]
    assert prompt.started_ms is None
    assert prompt.seen == []


def test_an_end_from_the_history_brings_the_start() -> None:
    """A prompt nobody heard of still knows when it began, and a success is whole."""
    prompt = _Prompt()
    prompt.finish(end_of(_entry("success")))
    assert prompt.started_ms == 5
    assert [progress.value for progress in prompt.seen] == [1.0]


def test_an_interrupt_leaves_the_progress_as_it_was() -> None:
    """Only a success is complete."""
    prompt = _Prompt()
    prompt.begin(1)
    assert end_of(_entry("interrupted")) == Interrupted(_entry("interrupted"))
    prompt.finish(end_of(_entry("interrupted")))
    assert prompt.progress.value == 0.0
