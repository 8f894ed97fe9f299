"""Where a prompt is in ComfyUI, and whether ComfyUI is there at all.

Used by run, app.worker.perform, app.worker.resume; may import app.errors.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import anyio

from app.comfy.client import ComfyClient
from app.comfy.history import HistoryEntry
from app.comfy.port import refuses_connections
from app.errors import ComfyUnavailable

__all__ = ["LOOK_AGAIN_S", "Ended", "InQueue", "Nowhere", "Where", "Whereabouts"]

# A ComfyUI whose port refuses connections for this long has died, and its queue with it.
REFUSED_FOR_S = 5.0
LOOK_AGAIN_S = 1.0


@dataclass(frozen=True)
class InQueue:
    """ComfyUI has it, waiting or running."""


@dataclass(frozen=True)
class Ended:
    """ComfyUI's history has it."""

    entry: HistoryEntry


@dataclass(frozen=True)
class Nowhere:
    """ComfyUI knows nothing of it."""


Where = InQueue | Ended | Nowhere


class Whereabouts:
    """Looks at one ComfyUI for prompts, and at its port for itself."""

    def __init__(self, client: ComfyClient) -> None:
        self._client = client

    async def find(self, prompt_id: str) -> Where:
        """Where a prompt is, asked in the order in which it moves: queue first, then history.

        Raises:
            ComfyUnavailable: ComfyUI does not answer.
        """
        view = await self._client.queue()
        if prompt_id in view.running or prompt_id in view.pending:
            return InQueue()
        entry = await self._client.history(prompt_id)
        return Ended(entry) if entry else Nowhere()

    async def find_when_up(self, prompt_id: str) -> Where:
        """Look until ComfyUI answers.

        Raises:
            ComfyUnavailable: Its port refuses connections; it is not running.
        """
        refused_since: float | None = None
        while True:
            try:
                return await self.find(prompt_id)
            except ComfyUnavailable:
                refused_since = await self.still_refused(refused_since)
            await anyio.sleep(LOOK_AGAIN_S)

    async def still_refused(self, since: float | None) -> float | None:
        """Since when the port refuses connections; None if it does not. Raises when that lasts."""
        if not await refuses_connections(self._client.base_url):
            return None
        now = time.monotonic()
        if since is not None and now - since >= REFUSED_FOR_S:
            raise ComfyUnavailable(
                "ComfyUI is not running: its port refuses connections; start it, or set CMD so that it is watched over"
            )
        return since if since is not None else now
