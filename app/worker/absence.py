"""A ComfyUI that stays away: what is in hand goes to other workers.

Used by worker; may import nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio
import structlog

__all__ = ["DOWN_FOR_S", "Absence"]

# As long as the broker side keeps a worker in the group that asks for nothing.
DOWN_FOR_S = 60.0
LOOK_EVERY_S = 1.0

log = structlog.get_logger("comfybus.worker")


class Absence:
    """Hands back what waits for ComfyUI when it has been down for a minute.

    For Kafka: as long as a worker holds a request it stays in the group, and nobody else gets the requests of its
    partitions. On NATS requests belong to nobody before they are taken, and those in hand may wait.
    """

    def __init__(self, is_up: Callable[[], bool], hand_back: Callable[[], int]) -> None:
        """Prepare.

        Args:
            is_up: Whether ComfyUI answers.
            hand_back: Hands back what needs ComfyUI; returns how many that were.
        """
        self._is_up = is_up
        self._hand_back = hand_back

    async def run(self) -> None:
        """Look every second, until cancelled."""
        last_up = anyio.current_time()
        while True:
            if self._is_up():
                last_up = anyio.current_time()
            elif anyio.current_time() - last_up >= DOWN_FOR_S and (count := self._hand_back()):
                log.warning("ComfyUI stays down, prompts are handed back", count=count, down_for_s=DOWN_FOR_S)
            await anyio.sleep(LOOK_EVERY_S)
