"""(b) Whether ComfyUI has work all the time although inputs come and outputs go slowly."""

from __future__ import annotations

import asyncio
import io
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from PIL import Image

from bench.lanes import through_worker
from bench.mailbox import open_mailbox
from bench.place import Place
from bench.table import Table
from tests.support.processes import free_port

PROMPTS = 40
RUN_S = 0.5
MIDDLE = slice(5, -5)


@asynccontextmanager
async def _slow_server(delay_s: float) -> AsyncIterator[str]:
    """Hands out pictures and takes uploads, each only after a while."""

    async def give(request: web.Request) -> web.Response:
        await asyncio.sleep(delay_s)
        picture = io.BytesIO()
        # Each of another color: of equal inputs ComfyUI would take the result from its cache.
        number = int(request.match_info["number"])
        Image.new("RGB", (64, 64), (number % 256, number // 256 % 256, 0)).save(picture, "PNG")
        return web.Response(body=picture.getvalue(), content_type="image/png")

    async def take(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(delay_s)
        return web.Response(status=201)

    application = web.Application()
    application.add_routes([web.get(r"/{number:\d+}.png", give), web.put("/{name:.*}", take)])
    runner = web.AppRunner(application)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


async def measure(place: Place) -> Table:
    """Busy ratio: time executed, by ComfyUI's own account, of the time between the first and the last execution."""
    table = Table(
        f"ComfyUI is kept busy (runs of {RUN_S} s)",
        ["broker", "input and store take, s each", "ComfyUI busy"],
        notes=[
            (
                f"{PROMPTS} prompts, each with an input of its own over HTTP and an upload of its output; MAX_IN_FLIGHT=12, "
                "PREFETCH=1. Busy: the sum of the execution times in ComfyUI's history over the time between the first and "
                "the last of them, without the first and last five prompts."
            )
        ],
    )
    for broker in place.brokers:
        for delay_s in (0.0, 1.0, 2.0):
            async with _slow_server(delay_s) as url:
                table.rows.append([broker, f"{delay_s:g}", f"{await _busy(place, broker, url):.3f}"])
    return table


async def _busy(place: Place, broker: str, url: str) -> float:
    def make(number: int) -> dict[str, Any]:
        graph = {
            "1": {"class_type": "LoadImage", "inputs": {"image": f"{url}/{number}.png"}},
            "2": {"class_type": "SlowProgress", "inputs": {"image": ["1", 0], "steps": 5, "seconds": RUN_S}},
            "9": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": f"busy-{number}"}},
        }
        return {"prompt": graph, "http_upload": {"url_prefix": f"{url}/out-{number}/"}}

    settings = {"MAX_IN_FLIGHT": 12, "PREFETCH": 1, "LOG_LEVEL": "warning", "ALLOWED_PRIVATE_HOSTS": "127.0.0.1"}
    async with place.stack(broker, **settings) as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        async with open_mailbox(stack) as mailbox:
            await through_worker(mailbox, PROMPTS, PROMPTS, make)
        with urllib.request.urlopen(f"{comfy.url}/history") as response:  # noqa: ASYNC210 - after the measurement
            history = json.load(response)
    times = sorted(_times(entry) for entry in history.values())[MIDDLE]
    return sum(end - start for start, end in times) / (times[-1][1] - times[0][0])


def _times(entry: dict[str, Any]) -> tuple[int, int]:
    messages = {name: data["timestamp"] for name, data in entry["status"]["messages"]}
    return messages["execution_start"], messages["execution_success"]
