"""A world for each test of preparation."""

from __future__ import annotations

from pathlib import Path

import pytest
from prepare_doubles import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Shared folders, and a bound that keeps nothing longer than it is needed."""
    return World(tmp_path, limit_bytes=0)
