"""Tries one step again while what stopped it may pass, with growing delays.

Used by carrier, huggingface, nats_object; may import its folder alone.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import structlog

from app.storage.config import Timings
from app.storage.faults import Fault

__all__ = ["retrying"]

T = TypeVar("T")

# Against a source that always gives a little and then breaks.
MOST_TRIES = 100

log = structlog.get_logger("comfybus.storage")


async def retrying(
    step: Callable[[], Awaitable[T]], timings: Timings, *, where: str, moved: Callable[[], bool] = lambda: False
) -> T:
    """Do a step until it works, its fault will not pass, or ``timings.tries`` tries in a row brought nothing.

    Args:
        step: Safe to be done twice.
        timings: How often and how long.
        where: For the log, without secrets.
        moved: Whether the last try brought bytes that the next one can build on; such a try does not count.

    Raises:
        Fault: The last one.
    """
    in_vain = 0
    for _ in range(MOST_TRIES):
        try:
            return await step()
        except Fault as exc:
            in_vain = 1 if moved() else in_vain + 1
            if not exc.passing or in_vain >= timings.tries:
                raise
            fault = exc
        delay_s = timings.first_delay_s * 2 ** (in_vain - 1) * random.uniform(0.5, 1.0)
        delay_s = min(max(delay_s, fault.retry_after_s or 0), timings.longest_delay_s)
        log.info("transfer tried again", where=where, reason=fault.reason, delay_s=round(delay_s, 2))
        await anyio.sleep(delay_s)
    raise fault
