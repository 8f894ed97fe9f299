"""An end that ComfyUI's history shows is known within 3 s, whatever its websocket does."""

from __future__ import annotations

import zlib
from datetime import datetime
from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.support.stack import Stack, graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(500)]

PROMPTS = 100
WITHIN_S = 3.5
# A machine that stalls delays an answer too; a worker that misses ends does it every time.
ROUNDS = 3


@pytest.mark.parametrize("fault", ["silent", "closed", "deaf"])
async def test_ends_are_known_in_time_without_the_socket(tmp_path: Path, fault: str) -> None:
    """100 of 100 prompts are answered within 3 s of ComfyUI's own end (and the time to store)."""
    async with run_stack(tmp_path, MAX_IN_FLIGHT=64, PREFETCH=63) as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        async with aiohttp.ClientSession() as session:
            response = await session.post(f"{comfy.url}/standin/faults", json={"socket": fault})
            assert response.status == 200, await response.text()
        longest: list[float] = []
        for number in range(ROUNDS):
            late = await lateness(stack, [f"s-{number}-{one}" for one in range(PROMPTS)])
            print(f"{fault}: median {sorted(late)[PROMPTS // 2]:.2f} s, longest {max(late):.2f} s")
            longest.append(max(late))
            if longest[-1] < WITHIN_S:
                break
        assert min(longest) < WITHIN_S, longest


async def lateness(stack: Stack, ids: list[str]) -> list[float]:
    """Seconds from ComfyUI's end of each prompt to its terminal event."""
    for request in ids:
        # A color of its own, or ComfyUI would have the picture already.
        color = zlib.crc32(request.encode()) % 2**24
        await stack.outside.send({"id": request, "prompt": graph(seconds=0.02, steps=2, color=color)})
    with anyio.fail_after(150):
        while not set(ids) <= set(found := await stack.outside.terminals()):
            await anyio.sleep(0.05)
    bodies = [found[request][0].body for request in ids]
    assert {body["type"] for body in bodies} == {"prompt.complete"}
    return [
        datetime.fromisoformat(body["timestamp"]).timestamp() - body["stats"]["comfy_execution"]["end"] / 1000
        for body in bodies
    ]
