"""Where a measurement runs: which brokers, and the stand-in or a real ComfyUI."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.kafka_server import why_not
from tests.support.kafka_stack import run_kafka_stack
from tests.support.processes import StandIn
from tests.support.stack import Stack, run_stack

__all__ = ["Place"]


class _Real(StandIn):
    """A ComfyUI that is there already, by COMFYUI_URL and COMFY_HOME."""

    @property
    def url(self) -> str:
        return os.environ["COMFYUI_URL"].rstrip("/")


@dataclass
class Place:
    """The brokers to measure on, NATS and Kafka where it can be started, and how much to measure."""

    prompts: int = 100
    rounds: int = 5
    brokers: list[str] = field(default_factory=lambda: ["NATS"] if why_not() else ["NATS", "Kafka"])

    @property
    def comfyui(self) -> str:
        """What runs the prompts."""
        return f"ComfyUI at {os.environ['COMFYUI_URL']}" if "COMFYUI_URL" in os.environ else "the stand-in ComfyUI"

    @asynccontextmanager
    async def stack(self, broker: str, **env: Any) -> AsyncIterator[Stack]:
        """A deployment of its own."""
        with tempfile.TemporaryDirectory() as folder:
            run = run_kafka_stack if broker == "Kafka" else run_stack
            async with run(Path(folder), **env) as stack:
                yield stack

    async def comfy(self, stack: Stack) -> StandIn:
        """The real ComfyUI if there is one, else a stand-in of the stack."""
        if "COMFYUI_URL" in os.environ:
            return _Real(Path(os.environ["COMFY_HOME"]), 0)
        return await stack.comfy()
