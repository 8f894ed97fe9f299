"""The one place that knows what happens in ComfyUI: who waits, who runs, who has ended and how.

The websocket is a hint, ``/queue`` and ``/history`` are the truth. Frames give progress and say where to look at once;
every end is read from the history, and a look every second finds it whatever the socket does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import anyio
import structlog
from anyio.abc import TaskGroup

from app.comfy.client import ComfyClient, QueueView
from app.comfy.frames import FRAME_TYPES, Frame
from app.comfy.history import Failure, HistoryEntry
from app.comfy.progress import ProgressMeter
from app.comfy.websocket import FrameSource
from app.errors import ComfyUnavailable
from schemas.events import Progress

__all__ = ["End", "ExecutionThreadDead", "Failed", "Followed", "Gone", "Interrupted", "Succeeded", "Watch"]
