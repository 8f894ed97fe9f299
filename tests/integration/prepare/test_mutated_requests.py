"""Graphs made by chance through a whole worker: typed answers, nothing outside, nothing left behind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.mutations import mutated, png, zipped
from tests.support.stack import Stack, graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

CODES = {"invalid_request", "invalid_prompt", "input_unavailable", "execution_error"}
GIVEN = {"good.png": png(), "bad.png": b"<html></html>", "frames.zip": zipped({"a.png": png()}), "m.safetensors": b"w"}


async def host() -> tuple[web.AppRunner, str]:
    """A host of good and bad files on a free port."""

    async def give(request: web.Request) -> web.Response:
        body = GIVEN.get(request.match_info["name"])
        return web.Response(status=404) if body is None else web.Response(body=body)

    app = web.Application()
    app.router.add_get("/{name:.*}", give)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


def files(*roots: Path) -> Iterator[Path]:
    for root in roots:
        yield from (path for path in root.rglob("*") if path.is_file())


async def send_and_hear(stack: Stack, count: int, seed: int, url: str) -> Counter[str]:
    """Send graphs and wait for the answer to each; what the answers were."""
    chance = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for number in range(count):
        prompt: Any = mutated(chance, url)
        await stack.outside.send({"id": f"mutated-{number}", "prompt": prompt})
    for number in range(count):
        body = (await stack.outside.terminal(f"mutated-{number}", 300)).body
        outcomes[body.get("code", "complete")] += 1
        if body["type"] == "prompt.failed":
            assert body["code"] in CODES, body
            assert body["error"].rstrip(), body
    return outcomes


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "remote"])
@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.full)])
async def test_mutated_graphs(tmp_path: Path, count: int, shared: bool) -> None:
    """One typed answer each; the same worker process runs the next prompt; files only where they may be."""
    runner, url = await host()
    around = tmp_path / "around"
    around.mkdir()
    try:
        async with run_stack(around, ALLOWED_PRIVATE_HOSTS="127.0.0.1", CACHE_DIR=tmp_path / "cache") as stack:
            comfy = await stack.comfy()
            worker = stack.worker(comfy, shared=shared, INPUT_CACHE_GB=0, TMPDIR=tmp_path / "scratch")
            (tmp_path / "scratch").mkdir()
            await worker.start()
            assert worker.process is not None
            pid, before = worker.process.pid, set(files(comfy.home))
            outcomes = await send_and_hear(stack, count, 7 + shared, url)
            assert {"invalid_request", "invalid_prompt", "input_unavailable"} <= set(outcomes)
            await stack.outside.send({"id": "good", "prompt": graph()})
            assert (await stack.outside.terminal("good", 60)).body["type"] == "prompt.complete"
            assert worker.process.pid == pid
            # Delivered outputs are removed after the event is out, at the latest when it ends.
            assert await worker.stop() == 0
            made = set(files(comfy.home)) - before
            # Nothing of a request survives it: no output, no prepared input beyond the bound of zero, no scratch file.
            left = {path.relative_to(comfy.home).as_posix() for path in made}
            # ComfyUI has no call to remove what was uploaded to it or what it wrote.
            kept = ("models/", "temp/") if shared else ("models/", "temp/", "input/comfybus/", "output/good_")
            assert {name for name in left if not name.startswith(kept)} <= {"executions.jsonl"}
            assert all((comfy.home / name).read_bytes() == b"w" for name in left if name.startswith("models/"))
            assert list(files(tmp_path / "scratch")) == []
            assert {path.name for path in tmp_path.iterdir()} == {"around", "cache", "scratch"}
    finally:
        await runner.cleanup()
