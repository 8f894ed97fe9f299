"""The live table: what is taken in hand, what is let go of, and how it looks."""

from __future__ import annotations

import io
import os
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

from rich.console import Console

from app.cli.fleet_state import MOST_IN_HAND, MOST_WORKERS, Fleet
from app.cli.live_table import render
from schemas.base import timestamp

PICTURE = Path(__file__).parents[3] / "docs" / "workers.svg"
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def sign(worker: str, kind: str = "heartbeat", *, ago_s: float = 0, **fields: Any) -> dict[str, Any]:
    return {
        "type": f"worker.{kind}",
        "timestamp": timestamp(NOW - timedelta(seconds=ago_s)),
        "worker": worker,
        "version": "0.1.0",
        "comfyui": {"version": "0.3.64", "url": "http://127.0.0.1:8188", "up": True},
        "capacity": 4,
        "in_flight": 0,
        "queue_remaining": 0,
        **fields,
    }


def progress(worker: str, request: str, status: str = "running", *, ago_s: float = 0, **fields: Any) -> dict[str, Any]:
    return {
        "type": "prompt.progress",
        "timestamp": timestamp(NOW - timedelta(seconds=ago_s)),
        "worker": worker,
        "id": request,
        "attempt": 1,
        "status": status,
        "progress": {"value": 0.5, "nodes_done": 1, "nodes_total": 2},
        **fields,
    }


def fleet_of(*events: dict[str, Any]) -> Fleet:
    fleet = Fleet()
    for event in events:
        fleet.take(event, NOW)
    return fleet


def in_hand(fleet: Fleet, worker: str) -> list[str]:
    return [request for request, _ in fleet.workers[worker].prompts]


def drawn(fleet: Fleet, **options: Any) -> str:
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(render(fleet, NOW, **options))
    return console.export_text()


def test_prompts_are_in_hand_from_their_first_progress_until_a_heartbeat_counts_fewer() -> None:
    """Those that store go first, then those that were silent longest."""
    fleet = fleet_of(
        sign("w", ago_s=20),
        progress("w", "old", ago_s=15),
        progress("w", "done", "storing", ago_s=12),
        progress("w", "new", ago_s=11),
    )
    assert in_hand(fleet, "w") == ["old", "done", "new"]
    fleet.take(sign("w", in_flight=2, ago_s=10), NOW)
    assert in_hand(fleet, "w") == ["old", "new"]
    fleet.take(sign("w", in_flight=1, ago_s=0), NOW)
    assert in_hand(fleet, "w") == ["new"]


def test_a_count_that_is_older_than_the_progress_takes_nothing_away() -> None:
    """Channels are not ordered among each other."""
    fleet = fleet_of(progress("w", "young", ago_s=1), sign("w", in_flight=0, ago_s=2))
    assert in_hand(fleet, "w") == ["young"]


def test_a_worker_never_has_more_in_hand_than_its_slots() -> None:
    """However many prompts pass between two heartbeats."""
    fleet = fleet_of(sign("w", ago_s=9), *[progress("w", f"p{n}", "storing", ago_s=8 - n / 100) for n in range(500)])
    assert in_hand(fleet, "w") == ["p496", "p497", "p498", "p499"]
    unknown = fleet_of(*[progress("?", f"p{n}") for n in range(2 * MOST_IN_HAND)])
    assert len(in_hand(unknown, "?")) == MOST_IN_HAND


def test_a_prompt_is_in_one_hand_and_starts_anew_with_an_attempt() -> None:
    """Handed back by one worker it is another's."""
    fleet = fleet_of(progress("a", "p", ago_s=60), progress("b", "p", ago_s=5))
    assert (in_hand(fleet, "a"), in_hand(fleet, "b")) == ([], ["p"])
    fleet.take(progress("b", "p", attempt=2), NOW)
    assert next(iter(fleet.workers["b"].prompts.values())).first == NOW
    fleet.take(progress("b", "p", replay=1), NOW)
    assert in_hand(fleet, "b") == ["p", "p"]


def test_a_worker_that_stops_or_starts_has_nothing_in_hand() -> None:
    """And leaves the table after a while."""
    for kind in ("stopped", "started"):
        assert in_hand(fleet_of(progress("w", "p"), sign("w", kind)), "w") == []
    fleet = fleet_of(sign("w", "stopped"), sign("v"))
    fleet.forget(NOW + timedelta(minutes=2))
    assert list(fleet.workers) == ["v"]
    fleet.forget(NOW + timedelta(minutes=11))
    assert not fleet.workers


def test_events_of_any_shape_change_nothing_or_what_they_can() -> None:
    """Whoever may publish may publish anything."""
    for event in (
        {},
        {"type": "prompt.progress", "worker": "w"},
        {"type": "prompt.progress", "worker": 7, "id": "p"},
        {"type": "prompt.complete", "worker": "w", "id": "p"},
    ):
        assert not fleet_of(event).workers
    odd = fleet_of(
        {"type": "worker.heartbeat", "worker": "w", "comfyui": "?", "capacity": "x", "timestamp": 3},
        {"type": "prompt.progress", "worker": "w", "id": "[bold]\x1b[31m" + "x" * 500, "progress": {"value": "nan"}},
    )
    text = drawn(odd)
    assert "\x1b" not in text
    assert "[bold]" in text
    crowd = fleet_of(*[sign(f"w{n}") for n in range(MOST_WORKERS + 5)])
    assert len(crowd.workers) == MOST_WORKERS


def test_more_prompts_than_lines_are_counted() -> None:
    """A small terminal shows the oldest."""
    fleet = fleet_of(sign("w", capacity=64), *[progress("w", f"p{n:02d}", ago_s=100 - n) for n in range(40)])
    text = drawn(fleet, height=20)
    assert "p00" in text
    assert "and 31 more" in text
    assert "p39" not in text


def sample() -> Fleet:
    """Three workers at work."""
    return fleet_of(
        sign("gpu-a", ago_s=3, in_flight=3, queue_remaining=2),
        sign("gpu-b", ago_s=7, in_flight=1, queue_remaining=1),
        sign("gpu-c", ago_s=2, comfyui={"version": None, "url": "http://10.0.0.7:8188", "up": False}),
        progress(
            "gpu-a",
            "cat-on-a-roof",
            ago_s=41,
        ),
        progress(
            "gpu-a",
            "cat-on-a-roof",
            ago_s=1,
            progress={
                "value": 0.62,
                "nodes_done": 4,
                "nodes_total": 7,
                "current_node": "3",
                "current_node_class": "KSampler",
                "step": 12,
                "steps": 20,
            },
        ),
        progress("gpu-a", "poster-17", "queued", ago_s=12, progress={"value": 0, "nodes_done": 0, "nodes_total": 9}),
        progress("gpu-a", "poster-18", "preparing", ago_s=4, progress={"value": 0, "nodes_done": 0, "nodes_total": 9}),
        progress("gpu-b", "film-3", "storing", ago_s=95, attempt=2, progress={"value": 1, "nodes_done": 30}),
    )


def test_the_picture_in_the_documents_is_what_is_drawn() -> None:
    """REWRITE_PICTURE=1 draws it anew."""
    console = Console(width=118, file=io.StringIO(), record=True, force_terminal=True, color_system="truecolor")
    console.print(render(sample(), NOW))
    svg = console.export_svg(title="comfybus workers --watch", unique_id="comfybus", clear=False)
    if os.environ.get("REWRITE_PICTURE"):
        PICTURE.write_text(svg)
    # How it is drawn may change with the library; what it says may not.
    stored = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", PICTURE.read_text()))
    words = set(unescape(stored).replace("\N{NO-BREAK SPACE}", " ").split())
    assert {word for word in console.export_text().split() if word.isascii()} <= words
