"""The servers that the conformance tests run against: the stand-in in three forms, and a real ComfyUI."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from trace_replay import RECORDED_CHECKPOINT

from app.comfy.standin import Standin

ROOT = Path(__file__).parents[2]


class InProcess:
    """A stand-in that runs in the test's own event loop."""

    patience_s = 10.0
    time_factor = 0.5
    checkpoint = RECORDED_CHECKPOINT

    def __init__(self, standin: Standin) -> None:
        self.url = standin.url
        self.standin = standin

    async def signal(self, name: str) -> None:
        """Refuse: a signal would hit the test itself."""
        raise NotImplementedError(name)

    async def restart(self) -> None:
        """Refuse."""
        raise NotImplementedError


class InProcessOfItsOwn:
    """A stand-in started as users start it, which may die."""

    patience_s = 10.0
    time_factor = 0.5
    checkpoint = RECORDED_CHECKPOINT

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        self.url = ""
        self._options = options
        self._port = "0"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process that was started last."""
        assert self._process is not None
        return self._process

    async def restart(self) -> None:
        """Start the program, at the same port if it ran before, and wait for the line that says it is ready."""
        await self.stop()
        command = ["-m", "app.comfy.standin", "--home", str(self.home), "--port", self._port, *self._options]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            ready = json.loads(await self._process.stdout.readline())
        assert ready["standin"] is True
        assert ready["pid"] == self._process.pid
        self.url = ready["url"]
        self._port = self.url.rsplit(":", 1)[1]

    async def signal(self, name: str) -> None:
        """Send a signal and wait for the end of the process."""
        self.process.send_signal(signal.Signals[name])
        async with asyncio.timeout(10):
            await self.process.wait()

    async def stop(self) -> None:
        """Kill the process if it still runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class RealServer:
    """A real ComfyUI with the lab nodes among its custom nodes, for which nobody else has prompts."""

    patience_s = 120.0
    time_factor = 1.0
    deadly = ("14b_", "18_", "21_")
    """Scenarios that end the server, or its ability to run prompts."""
    bound_to_version = ("04_", "13_", "19_")
    """Scenarios whose answers newer releases give differently."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.checkpoint = ""

    async def signal(self, name: str) -> None:
        """Refuse: a real server is not ours to end."""
        raise NotImplementedError(name)

    async def restart(self) -> None:
        """Refuse."""
        raise NotImplementedError

    async def skip_unless_possible(self, scenario: str, steps: list[dict[str, Any]]) -> None:
        """Skip the test, with the reason, when this server cannot or must not take the scenario."""
        if scenario.startswith(self.deadly):
            pytest.skip("the scenario kills the server")
        if scenario.startswith("14_"):
            pytest.skip("the scenario needs a server that has counted no prompt yet")
        system = (await self.get("/system_stats"))["system"]
        if scenario.startswith(self.bound_to_version) and system["comfyui_version"] != "0.3.64":
            pytest.skip(f"recorded from 0.3.64, this is {system['comfyui_version']}")
        previews = "--preview-method" in system["argv"]
        if scenario.startswith(("11_", "12_")) and previews != scenario.startswith("12_"):
            pytest.skip(f"the server runs {'with' if previews else 'without'} --preview-method")
        unknown = {name for name in _classes(steps) if not await self.get(f"/object_info/{name}")}
        if unknown - {"NoSuchNode"}:
            pytest.skip(f"the server does not know {', '.join(sorted(unknown))}")
        if "KSampler" in _classes(steps):
            checkpoints = await self.get("/models/checkpoints")
            if not checkpoints:
                pytest.skip("the server has no checkpoint")
            self.checkpoint = checkpoints[0]

    async def get(self, path: str) -> Any:
        """Return the JSON answer to a GET."""
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return await answer.json()

    async def run_unrelated_prompt(self) -> None:
        """Run a prompt that leaves nothing for the scenario in the server's cache, and wait for its end."""
        graph = {
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": random.randrange(1 << 24)},
            },
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        }
        async with aiohttp.ClientSession() as session:
            await session.post(f"{self.url}/prompt", json={"prompt": graph})
        deadline = time.monotonic() + self.patience_s
        while (await self.get("/prompt"))["exec_info"]["queue_remaining"]:
            assert time.monotonic() < deadline, "the server is busy with other prompts"
            await asyncio.sleep(0.05)


AnyServer = InProcess | InProcessOfItsOwn | RealServer
ServerMaker = Callable[[str], Awaitable[AnyServer]]


def _classes(steps: list[dict[str, Any]]) -> set[str]:
    return {str(node["class_type"]) for node in _nodes(steps)}


def _nodes(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    prompts = [step["body"].get("prompt") for step in steps if isinstance(step.get("body"), dict)]
    nodes = [node for prompt in prompts if isinstance(prompt, dict) for node in prompt.values()]
    return [node for node in nodes if "class_type" in node and "inputs" in node]
