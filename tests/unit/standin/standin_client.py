"""A small client of the stand-in, for its own tests."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from app.comfy.standin import Standin

Json = dict[str, Any]

PATIENCE_S = 10.0


def node(class_type: str, **inputs: Any) -> Json:
    """Return a node of a graph."""
    return {"class_type": class_type, "inputs": inputs}


def empty_image(color: int = 0x102030, width: int = 16, height: int = 8, batch_size: int = 1) -> Json:
    """Return an EmptyImage node."""
    return node("EmptyImage", width=width, height=height, batch_size=batch_size, color=color)


def saved(color: int = 0x102030, prefix: str = "t") -> Json:
    """Return the graph of one saved picture."""
    return {"1": empty_image(color), "2": node("SaveImage", images=["1", 0], filename_prefix=prefix)}


class Client:
    """HTTP access to one stand-in."""

    def __init__(self, standin: Standin, session: aiohttp.ClientSession) -> None:
        self.standin = standin
        self.session = session

    async def get(self, path: str, status: int = 200) -> Any:
        """Return the JSON answer to a GET."""
        async with self.session.get(self.standin.url + path) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json() if answer.content_type == "application/json" else await answer.read()

    async def post(self, path: str, body: Any, status: int = 200) -> Any:
        """Return the JSON answer to a POST, None if it is empty."""
        async with self.session.post(self.standin.url + path, json=body) as answer:
            assert answer.status == status, await answer.text()
            return await answer.json() if answer.content_type == "application/json" else None

    async def queue(self, graph: Json, **more: Any) -> str:
        """Post a prompt and return its id."""
        return str((await self.post("/prompt", {"prompt": graph, **more}))["prompt_id"])

    async def run(self, graph: Json, **more: Any) -> Json:
        """Post a prompt, wait for its end and return its history entry."""
        prompt_id = await self.queue(graph, **more)
        entry: Json = (await self.until(f"/history/{prompt_id}", bool))[prompt_id]
        return entry

    async def until(self, path: str, fits: Any) -> Any:
        """Ask again and again until the answer to a GET fits."""
        deadline = time.monotonic() + PATIENCE_S
        while not fits(answer := await self.get(path)):
            assert time.monotonic() < deadline, f"{path} still answers {answer}"
            await asyncio.sleep(0.005)
        return answer

    async def faults(self, **switches: Any) -> None:
        """Set fault switches."""
        await self.post("/standin/faults", switches)

    async def begun(self, prompt_id: str) -> int:
        """Return how many executions of a prompt began."""
        executions = (await self.get("/standin/stats"))["executions"]
        return int(executions.get(prompt_id, {"begun": 0})["begun"])
