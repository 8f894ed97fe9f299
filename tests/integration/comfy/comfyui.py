"""A stand-in ComfyUI as a program of its own, graphs for it, and our side of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import randrange
from typing import Any

import aiohttp
import anyio

from app.comfy.client import ComfyClient
from app.comfy.ends import End
from app.comfy.followed import Followed
from app.comfy.frames import Frame
from app.comfy.watch import Watch
from schemas.events import Progress

Graph = dict[str, Any]
ROOT = Path(__file__).parents[3]


class Program:
    """The stand-in's process; it can be killed and started again at the same address."""

    def __init__(self, home: Path, version: str) -> None:
        self.home = home
        self.version = version
        self.url = ""
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it is ready."""
        command = [sys.executable, "-m", "app.comfy.standin", "--home", str(self.home), "--port", str(self._port)]
        self._process = subprocess.Popen([*command, "--version", self.version], cwd=ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = json.loads(self._process.stdout.readline())["url"]
        self._port = int(self.url.rsplit(":", 1)[1])

    def kill(self) -> None:
        """End it without a farewell."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class Comfy:
    """Our side of one ComfyUI, and a second client beside it that plays everybody else."""

    def __init__(self, url: str, session: aiohttp.ClientSession, home: Path) -> None:
        self.url = url
        self.session = session
        self.home = home
        self.client = ComfyClient(url, session)

    @asynccontextmanager
    async def watching(
        self, system_events: frozenset[str] = frozenset(), on_system_event: Callable[[Frame], None] | None = None
    ) -> AsyncIterator[Watch]:
        """A watch that runs, connected."""
        watch = Watch(self.client, system_events=system_events, on_system_event=on_system_event)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)
            await until(lambda: watch.client_id is not None and watch.version is not None)
            yield watch
            tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def submitted(
        self, watch: Watch, graph: Graph, on_progress: Callable[[Progress], None] | None = None
    ) -> AsyncIterator[Followed]:
        """A prompt that ComfyUI has taken."""
        prompt_id = str(uuid.uuid4())
        with watch.follow(prompt_id, graph, on_progress) as followed:
            client_id = watch.client_id
            await self.client.submit(graph, prompt_id=prompt_id, client_id=client_id)
            followed.submitted(client_id)
            yield followed

    async def run(self, watch: Watch, graph: Graph) -> End:
        """Submit and follow to the end."""
        async with self.submitted(watch, graph) as followed:
            return await ended(followed)

    async def faults(self, **wishes: Any) -> None:
        """Switch faults of the stand-in."""
        async with self.session.post(f"{self.url}/standin/faults", json=wishes) as answer:
            assert answer.status == 200, await answer.text()

    async def stats(self) -> dict[str, Any]:
        """The stand-in's counts."""
        async with self.session.get(f"{self.url}/standin/stats") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def post(self, path: str, document: Any) -> None:
        """Do what somebody else may do."""
        async with self.session.post(self.url + path, json=document) as answer:
            assert answer.status == 200

    async def until_running(self, prompt_id: str) -> None:
        """Wait until the queue shows the prompt running."""
        with anyio.fail_after(10):
            while prompt_id not in (await self.client.queue()).running:
                await anyio.sleep(0.01)

    async def shown_at(self, prompt_id: str) -> float:
        """When the history shows the prompt, in monotonic seconds, asked every 20 ms past our own client."""
        with anyio.fail_after(30):
            while True:
                async with self.session.get(f"{self.url}/history/{prompt_id}") as answer:
                    if await answer.json():
                        return time.monotonic()
                await anyio.sleep(0.02)


async def ended(followed: Followed, within_s: float = 30) -> End:
    """The end of a prompt."""
    with anyio.fail_after(within_s):
        return await followed.wait()


async def until(met: Callable[[], bool], within_s: float = 15) -> None:
    """Wait for something that nobody announces."""
    with anyio.fail_after(within_s):
        while not met():
            await anyio.sleep(0.01)


def slow(seconds: float, steps: int = 10) -> Graph:
    """A graph that runs so long, with progress, and saves a picture nobody has made before."""
    return _graph("SlowProgress", steps=steps, seconds=seconds)


def stubborn(seconds: float) -> Graph:
    """A graph that runs so long and heeds no interrupt."""
    return _graph("StubbornSleep", seconds=seconds)


def failing() -> Graph:
    """A graph whose second node raises."""
    return _graph("FailingNode")


def _graph(class_type: str, **inputs: Any) -> Graph:
    picture = {"width": 64, "height": 64, "batch_size": 1, "color": randrange(1 << 24)}
    return {
        "1": {"class_type": "EmptyImage", "inputs": picture},
        "2": {"class_type": class_type, "inputs": {"image": ["1", 0], **inputs}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "watched"}},
    }
