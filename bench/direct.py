"""Prompts straight to ComfyUI, as a careful client would: submit, wait for the end on the websocket, read history."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from typing import Any

import aiohttp
import anyio

from tests.support.stack import graph

_colors = itertools.count()


async def direct(
    url: str, prompts: int, in_flight: int, nodes: dict[str, Any] | None = None
) -> tuple[float, list[float]]:
    """Prompts a second, and the seconds each took; trivial prompts unless the nodes are given."""
    client = str(uuid.uuid4())
    ended: dict[str, anyio.Event] = {}
    latencies: list[float] = []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws?clientId={client}") as socket:

        async def listen() -> None:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT and '"executing"' in message.data[:40]:
                    data = json.loads(message.data)["data"]
                    if data.get("node") is None and data.get("prompt_id") in ended:
                        ended[data["prompt_id"]].set()

        async def one() -> None:
            prompt_id = str(uuid.uuid4())
            ended[prompt_id] = anyio.Event()
            began = time.perf_counter()
            made = nodes or graph(color=next(_colors), prefix=prompt_id)
            body = {"prompt": made, "client_id": client, "prompt_id": prompt_id}
            async with session.post(f"{url}/prompt", json=body) as response:
                await response.read()
            await ended[prompt_id].wait()
            async with session.get(f"{url}/history/{prompt_id}") as response:
                entry = (await response.json())[prompt_id]
            image = next(iter(entry["outputs"].values()))["images"][0]
            async with session.get(f"{url}/view", params=image) as response:
                await response.read()
            latencies.append(time.perf_counter() - began)

        async def lane(count: int) -> None:
            for _ in range(count):
                await one()

        began = time.perf_counter()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            async with anyio.create_task_group() as lanes:
                for number in range(in_flight):
                    lanes.start_soon(lane, prompts // in_flight + (number < prompts % in_flight))
            took = time.perf_counter() - began
            tasks.cancel_scope.cancel()
    return prompts / took, latencies
