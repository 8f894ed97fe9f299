"""On Salad: tells the node how dear it would be to delete this instance, by the length of ComfyUI's queue.

Used by app.worker.worker; may import nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import aiohttp
import anyio
import structlog

__all__ = ["DELETION_COST_URL", "DeletionCost"]

DELETION_COST_URL: Final = "http://169.254.169.254/v1/deletion-cost"
"""The node's metadata service, which every instance reaches at this address."""

_WITHIN_S: Final = 2.0
_LOOK_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 60.0

log = structlog.get_logger("comfybus.salad")


class DeletionCost:
    """Reports the cost whenever it changes, at most once a second.

    Args:
        depth: The cost: prompts that run or wait in ComfyUI, as last heard; None while that is not known.
        url: Where it is put.
        look_s: Pause between two looks at the depth.

    Attributes:
        failures: Reports that did not work out; each is tried again, after a pause that grows to a minute.
    """

    def __init__(
        self, depth: Callable[[], int | None], *, url: str = DELETION_COST_URL, look_s: float = _LOOK_S
    ) -> None:
        self._depth = depth
        self._url = url
        self._look_s = look_s
        self._told: int | None = None
        self.failures = 0

    async def run(self) -> None:
        """Report until cancelled; never raises anything else."""
        pause_s = self._look_s
        # The metadata service is this machine's own: never behind a proxy.
        async with aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=_WITHIN_S)) as session:
            while True:
                depth = self._depth()
                if depth is not None and depth != self._told:
                    if await self._put(session, depth):
                        self._told, pause_s = depth, self._look_s
                    else:
                        self.failures += 1
                        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
                await anyio.sleep(pause_s)

    async def _put(self, session: aiohttp.ClientSession, depth: int) -> bool:
        try:
            answer = session.put(
                self._url, json={"deletion_cost": depth}, headers={"Metadata": "true"}, allow_redirects=False
            )
            async with answer as response:
                if response.status < 300:
                    return True
                reason = f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            reason = f"{type(exc).__name__}: {exc}"
        if not self.failures:
            log.warning("deletion cost not reported, trying on", url=self._url, reason=reason)
        return False
