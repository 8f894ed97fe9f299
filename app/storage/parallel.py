"""Runs steps side by side, a few at a time; the first failure ends the others and is raised as it is.

Used by azure_blob, s3; may import nothing of ours.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

__all__ = ["in_parallel"]

T = TypeVar("T")


async def in_parallel(steps: Sequence[Callable[[], Awaitable[T]]], at_once: int) -> list[T]:
    """The results of all steps, in their order.

    Raises:
        Exception: What the first failing step raised.
    """
    results: dict[int, T] = {}
    problems: list[Exception] = []
    waiting = iter(enumerate(steps))

    async def work() -> None:
        for index, step in waiting:
            try:
                results[index] = await step()
            except Exception as exc:  # noqa: BLE001 - raised below, outside the group that would wrap it
                problems.append(exc)
                tasks.cancel_scope.cancel()
                return

    async with anyio.create_task_group() as tasks:
        for _ in range(min(at_once, len(steps))):
            tasks.start_soon(work)
    if problems:
        raise problems[0]
    return [results[index] for index in range(len(steps))]
