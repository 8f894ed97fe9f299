"""With CMD the worker launches ComfyUI and watches over it; prompts survive its deaths."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.support.processes import StandIn, Worker, free_port
from tests.support.stack import Stack, graph, run_stack

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]


def supervised(stack: Stack, tmp_path: Path, *, code: int | None = None, **env: object) -> tuple[StandIn, Worker]:
    """A worker that launches its own stand-in; with ``code`` that is what its CMD ends with, however it ends."""
    comfy = StandIn(tmp_path / "own", free_port())
    command = f"{sys.executable} -m app.comfy.standin --port {comfy.port} --home {comfy.home}"
    if code is not None:
        command = f'sh -c "{command}; exit {code}"'
    settings = {"COMFYUI_URL": comfy.url, "COMFY_HOME": comfy.home, "CMD": command, **env}
    comfy.home.mkdir()
    return comfy, stack.worker(comfy, **settings)


async def executing_pid(comfy: StandIn) -> int:
    """The pid of the launched ComfyUI, by its command line."""
    wanted = f"--port\0{comfy.port}\0".encode()
    for entry in Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if wanted in arguments and b"app.comfy.standin" in arguments and b"CMD" not in arguments:
            children = (entry / "task" / entry.name / "children").read_text().split()
            if not children:
                return int(entry.name)
    raise AssertionError("no ComfyUI was launched")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGKILL, None, id="killed"),
        pytest.param(signal.SIGTERM, None, id="ended", marks=pytest.mark.full),
        pytest.param(signal.SIGKILL, 0, id="exit 0"),
        pytest.param(signal.SIGKILL, 1, id="exit 1", marks=pytest.mark.full),
    ],
)
async def test_a_comfyui_that_dies_is_started_again_and_the_prompt_runs(
    tmp_path: Path, number: int, code: int | None
) -> None:
    """In mid-prompt, by a signal or with any exit code: another ComfyUI is up by itself and no request is lost."""
    async with run_stack(tmp_path) as stack:
        comfy, worker = supervised(stack, tmp_path, code=code)
        await worker.start()
        await stack.outside.send({"id": "life-1", "prompt": graph(seconds=3, steps=30)})
        with anyio.fail_after(20):
            while not [e for e in stack.outside.heard("life-1") if e.body.get("status") == "running"]:
                await anyio.sleep(0.02)
        os.kill(await executing_pid(comfy), number)
        body = (await stack.outside.terminal("life-1", 60)).body
        assert (body["type"], body["attempt"]) == ("prompt.complete", 2)


async def test_a_dead_execution_thread_is_healed_by_a_restart(tmp_path: Path) -> None:
    """ComfyUI answers but runs nothing: noticed, restarted, and the prompt completes."""
    async with run_stack(tmp_path) as stack:
        comfy, worker = supervised(stack, tmp_path)
        await worker.start()
        async with aiohttp.ClientSession() as session:
            await session.post(f"{comfy.url}/standin/faults", json={"execution_thread": "dead"})
        await stack.outside.send({"id": "dead-1", "prompt": graph()})
        assert (await stack.outside.terminal("dead-1", 60)).body["type"] == "prompt.complete"


async def test_a_node_that_ignores_interrupts_times_out_and_the_next_prompt_runs(tmp_path: Path) -> None:
    """A hung node ends as timeout; ComfyUI is restarted and serves the next prompt."""
    async with run_stack(tmp_path) as stack:
        _, worker = supervised(stack, tmp_path)
        await worker.start()
        stubborn = graph()
        stubborn["5"] = {"class_type": "StubbornSleep", "inputs": {"image": ["1", 0], "seconds": 600}}
        stubborn["9"]["inputs"]["images"] = ["5", 0]
        await stack.outside.send({"id": "hung-1", "prompt": stubborn, "timeout_s": 1})
        await stack.outside.send({"id": "hung-2", "prompt": graph()})
        assert (await stack.outside.terminal("hung-1", 40)).body["code"] == "timeout"
        assert (await stack.outside.terminal("hung-2", 60)).body["type"] == "prompt.complete"


@pytest.mark.parametrize(
    "guard", [pytest.param(False, id="worker"), pytest.param(True, id="worker and guard", marks=pytest.mark.full)]
)
async def test_nothing_is_left_behind_a_killed_worker(tmp_path: Path, guard: bool) -> None:
    """kill -9 of the worker frees ComfyUI's port; the next worker starts a new one there and finishes the prompt."""
    async with run_stack(tmp_path, NATS_ACK_WAIT_S=2) as stack:
        comfy, worker = supervised(stack, tmp_path)
        await worker.start()
        await stack.outside.send({"id": "left-1", "prompt": graph(seconds=2, steps=20)})
        with anyio.fail_after(20):
            while not [e for e in stack.outside.heard("left-1") if e.body.get("status") == "running"]:
                await anyio.sleep(0.02)
        pid = await executing_pid(comfy)
        if guard:
            # The process between: it is what ends ComfyUI when the worker is gone.
            os.kill(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
        await worker.kill()
        with anyio.fail_after(20):
            while Path(f"/proc/{pid}").exists():
                await anyio.sleep(0.05)
        await worker.start()
        assert (await stack.outside.terminal("left-1", 60)).body["type"] == "prompt.complete"
        assert await worker.stop() == 0
