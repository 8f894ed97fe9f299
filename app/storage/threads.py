"""Runs what blocks (the disk, an SDK that signs) in threads, few at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from app.storage.faults import disk_fault

__all__ = ["disk", "in_thread"]

P = ParamSpec("P")
T = TypeVar("T")

# Of all transfers together; more threads make neither a disk nor a signature faster.
_THREADS: Final = 8
_limiter: Final = anyio.lowlevel.RunVar[anyio.CapacityLimiter]("comfybus_storage_threads")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function in a thread; a cancelled caller waits for its end, so it has to be short."""
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
