"""Runs what blocks (the disk, an SDK that signs) in threads, few at a time.

Used by most of its folder; may import its folder alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from app.storage.faults import disk_fault

__all__ = ["check_cancelled", "disk", "in_thread"]

P = ParamSpec("P")
T = TypeVar("T")

# Of all transfers together; more threads make neither a disk nor a signature faster.
_THREADS: Final = 8
_limiter: Final = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("comfybus_storage_threads")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in a thread; a cancelled caller waits for its end: a long one calls ``check_cancelled``."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=limiter)


async def disk(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function that works on the disk in a thread.

    Raises:
        Fault: The disk does not do it.
    """
    try:
        return await in_thread(function, *args, **kwargs)
    except OSError as exc:
        raise disk_fault(exc) from exc


def check_cancelled() -> None:
    """Within a function of ``in_thread``: end it here if its caller was cancelled. Does nothing elsewhere."""
    # Outside such a thread there is nobody to be cancelled.
    with suppress(RuntimeError):
        anyio.from_thread.check_cancelled()
