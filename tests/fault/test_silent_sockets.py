"""An end that ComfyUI's history shows is known within 3 s, whatever its websocket does."""

from __future__ import annotations

import time
from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.support.stack import graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

PROMPTS = 100


@pytest.mark.parametrize("fault", ["silent", "closed", "deaf"])
async def test_ends_are_known_in_time_without_the_socket(tmp_path: Path, fault: str) -> None:
    """100 of 100 prompts are answered within 3 s of ComfyUI's own end (and the time to store)."""
    async with run_stack(tmp_path, MAX_IN_FLIGHT=64, PREFETCH=63) as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        async with aiohttp.ClientSession() as session:
            response = await session.post(f"{comfy.url}/standin/faults", json={"socket": fault})
            assert response.status == 200, await response.text()
        began: dict[str, float] = {}
        for number in range(PROMPTS):
            await stack.outside.send({"id": f"s-{number}", "prompt": graph(seconds=0.02, steps=2, color=number)})
        late: list[float] = []
        with anyio.fail_after(120):
            while len(late) < PROMPTS:
                for events in (await stack.outside.terminals()).values():
                    body = events[0].body
                    if body["id"] not in began:
                        began[body["id"]] = time.monotonic()
                        assert body["type"] == "prompt.complete"
                        ended = body["stats"]["comfy_execution"]["end"] / 1000
                        published = aware(body["timestamp"])
                        late.append(published - ended)
                await anyio.sleep(0.05)
        print(f"{fault}: median {sorted(late)[PROMPTS // 2]:.2f} s, longest {max(late):.2f} s")
        assert max(late) < 3.5


def aware(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()
