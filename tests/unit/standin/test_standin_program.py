"""The stand-in as a program of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from standin_client import empty_image, node, saved

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
Program = tuple[asyncio.subprocess.Process, dict[str, Any]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Program]]]:
    """Return a function that starts the program with options and waits for its line; all are killed at the end."""
    async with AsyncExitStack() as stack:

        async def begin(*options: str) -> Program:
            command = ["-m", "app.comfy.standin", "--home", str(tmp_path), *options]
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
            )
            stack.push_async_callback(_end, process)
            assert process.stdout is not None
            async with asyncio.timeout(20):
                return process, json.loads(await process.stdout.readline())

        yield begin


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def _post(url: str, graph: dict[str, Any]) -> str:
    async with aiohttp.ClientSession() as session, session.post(f"{url}/prompt", json={"prompt": graph}) as answer:
        return str((await answer.json())["prompt_id"])


async def _until(true: Callable[[], bool]) -> None:
    """Wait in a thread until something on the disk is so."""

    def look() -> None:
        deadline = time.monotonic() + 10
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    await asyncio.to_thread(look)


async def _until_in(file: Path, text: str) -> None:
    await _until(lambda: file.exists() and text in file.read_text(encoding="utf-8"))


async def test_it_says_where_it_is(start: Callable[..., Awaitable[Program]]) -> None:
    """One line of JSON has the address and the process id."""
    process, ready = await start()
    assert ready["standin"] is True
    assert ready["pid"] == process.pid
    async with aiohttp.ClientSession() as session, session.get(f"{ready['url']}/system_stats") as answer:
        assert (await answer.json())["system"]["standin"] is True


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
async def test_a_signal_ends_it_at_once(name: str, start: Callable[..., Awaitable[Program]]) -> None:
    """Even in the middle of a long prompt the process is gone within a second."""
    process, ready = await start()
    await _post(
        ready["url"],
        {
            "1": empty_image(),
            "2": node("StubbornSleep", image=["1", 0], seconds=60.0),
            "3": node("PreviewAny", source=["2", 0]),
        },
    )
    process.send_signal(signal.Signals[name])
    async with asyncio.timeout(1):
        assert await process.wait() == 128 + signal.Signals[name]


async def test_the_folders_can_be_elsewhere(start: Callable[..., Awaitable[Program]], tmp_path: Path) -> None:
    """Input and output are used as given, temp is a folder below the one given."""
    places = {name: tmp_path / "elsewhere" / name for name in ("input", "output", "temp")}
    _, ready = await start(*(f"--{name}-directory={place}" for name, place in places.items()))
    graph = saved() | {"3": node("PreviewImage", images=["1", 0])}
    prompt_id = await _post(ready["url"], graph)
    await _until_in(tmp_path / "executions.jsonl", prompt_id)
    await _until(lambda: bool(list((places["temp"] / "temp").glob("*.png"))))
    assert (places["output"] / "t_00001_.png").exists()
    assert places["input"].is_dir()


async def test_executions_are_counted_over_a_kill(start: Callable[..., Awaitable[Program]], tmp_path: Path) -> None:
    """The file of executions keeps its lines when the process is killed and another one starts in the same home."""
    seen = []
    for _ in range(2):
        process, ready = await start()
        seen.append(await _post(ready["url"], saved()))
        await _until_in(tmp_path / "executions.jsonl", seen[-1])
        process.kill()
        await process.wait()
    lines = (tmp_path / "executions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prompt_id"] for line in lines] == seen
