"""Prompts through broker and worker, a fixed number of them under way at any time."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import anyio

from bench.mailbox import Mailbox
from tests.support.stack import graph

__all__ = ["through_worker", "trivial"]

_numbers = itertools.count()
Make = Callable[[int], dict[str, Any]]


def trivial(number: int) -> dict[str, Any]:
    """A prompt that ComfyUI has not run before and that costs it next to nothing."""
    return {"prompt": graph(color=number % 16_000_000)}


async def through_worker(
    mailbox: Mailbox, prompts: int, in_flight: int, make: Make = trivial
) -> tuple[float, list[float]]:
    """Prompts a second, and the seconds from publishing each to hearing its terminal event."""
    latencies: list[float] = []

    async def lane(count: int) -> None:
        for _ in range(count):
            number = next(_numbers)
            request_id = f"bench-{number}"
            began = time.perf_counter()
            await mailbox.send(request_id, make(number))
            latencies.append(await mailbox.answer(request_id) - began)

    began = time.perf_counter()
    async with anyio.create_task_group() as lanes:
        for number in range(in_flight):
            lanes.start_soon(lane, prompts // in_flight + (number < prompts % in_flight))
    return prompts / (time.perf_counter() - began), latencies
