"""What the fixtures of this folder give, by type."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from app.comfy.client import ComfyClient

Serve = Callable[..., Awaitable[str]]
Connect = Callable[[str], ComfyClient]


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())
