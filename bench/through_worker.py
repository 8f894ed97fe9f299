"""The same prompts through broker and worker."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import anyio

from tests.support.processes import Worker
from tests.support.stack import Stack, graph

_numbers = itertools.count()


async def through_worker(stack: Stack, prompts: int, in_flight: int) -> tuple[float, list[float]]:
    """Prompts a second, and the seconds from publishing each to hearing its terminal event."""
    latencies: list[float] = []
    arrived: dict[str, anyio.Event] = {}
    client = stack.outside.nc

    async def hear(message: object) -> None:
        request = message.subject.rpartition(".")[2]  # type: ignore[attr-defined]
        if request in arrived:
            arrived[request].set()

    subscription = await client.subscribe("comfyui.prompt.complete.*", cb=hear)
    await client.flush()

    async def one() -> None:
        number = next(_numbers)
        request = f"bench-{number}"
        arrived[request] = anyio.Event()
        began = time.perf_counter()
        await stack.outside.send({"id": request, "prompt": graph(color=10_000_000 + number)})
        await arrived[request].wait()
        latencies.append(time.perf_counter() - began)

    async def lane(count: int) -> None:
        for _ in range(count):
            await one()

    began = time.perf_counter()
    async with anyio.create_task_group() as lanes:
        for number in range(in_flight):
            lanes.start_soon(lane, prompts // in_flight + (number < prompts % in_flight))
    took = time.perf_counter() - began
    await subscription.unsubscribe()
    return prompts / took, latencies


def cpu_seconds(worker: Worker) -> float:
    """User and system time the worker process has used so far."""
    assert worker.process is not None
    fields = Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
