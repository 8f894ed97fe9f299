"""When ComfyUI is started anew for its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.settings import load_settings
from app.settings.setup import recycling
from app.setup.recycle import Recycling, held_memory_bytes

GIB = 1024**3


@pytest.mark.parametrize(
    ("limit_gb", "held_gb", "up_for_s", "wanted"),
    [
        (0, 500, 1e6, False),
        (10, 10, 1e6, False),
        (10, 10.1, 1e6, True),
        (10, 11, 59, False),
        (10, None, 1e6, False),
    ],
)
def test_the_rule(limit_gb: float, held_gb: float | None, up_for_s: float, wanted: bool) -> None:
    """Above the limit, and not right after a start; off without a limit."""
    held = None if held_gb is None else int(held_gb * GIB)
    reason = Recycling.above_gb(limit_gb).reason(held, up_for_s=up_for_s)
    assert (reason is not None) is wanted
    if reason:
        assert reason.startswith("it holds 10.1 GiB of memory, COMFY_MEMORY_LIMIT_GB is 10")


def test_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting turns it on."""
    assert recycling(load_settings(_env_file=None)).limit_bytes == 0
    monkeypatch.setenv("COMFY_MEMORY_LIMIT_GB", "1.5")
    assert recycling(load_settings(_env_file=None)).limit_bytes == 3 * GIB // 2


def test_memory_of_a_process_and_all_below_it() -> None:
    """What a child of a child holds counts; what it has only mapped from a file does not."""
    hold = "x = bytearray(64 << 20); print('ready', flush=True); input()"
    nest = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    process = subprocess.Popen([sys.executable, "-c", nest], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        held = held_memory_bytes(process.pid)
        assert held is not None
        assert 64 << 20 < held < 200 << 20
        process.stdin.close()
    assert held_memory_bytes(process.pid) is None
