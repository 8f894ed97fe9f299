"""How a worker is, told from its last sign of life."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from app.cli.fleet import state_of

NOW = datetime(2026, 1, 1, 0, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"timestamp": "2026-01-01T00:00:55.000Z", "comfyui": {"up": True}}, "up"),
        ({"timestamp": "2026-01-01T00:00:55.000Z", "comfyui": {"up": False}}, "up, ComfyUI down"),
        ({"timestamp": "2026-01-01T00:00:15.000Z", "comfyui": {"up": True}}, "silent for 45 s"),
        ({"timestamp": "2026-01-01T00:00:55.000Z", "type": "worker.stopped"}, "stopped"),
        ({"timestamp": "yesterday"}, "unknown"),
        ({"timestamp": "2026-01-01T00:00:55"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_the_state_of_a_worker(event: dict[str, Any], expected: str) -> None:
    """Three missed heartbeats are silence; what cannot be read is said to be unknown."""
    assert state_of({"type": "worker.heartbeat", **event}, NOW) == expected
