"""A stage for each test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from supervised import Stage, alive


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A port and a folder of the test's own; nothing that was started there is left behind, whatever failed."""
    stage = Stage(tmp_path)
    yield stage
    left = [pid for pid in stage.pids() if alive(pid)]
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, "the test left processes"
