"""A worker that is asked to end hands back what it has not started, and then what it could not finish."""

from __future__ import annotations

import time
from pathlib import Path

import aiohttp
import anyio
import pytest

from tests.fault.conftest import running, settled
from tests.support.processes import Worker
from tests.support.stack import Stack, graph, run_stack

pytestmark = pytest.mark.anyio


async def test_sigterm_hands_over_within_two_seconds(tmp_path: Path) -> None:
    """SIGTERM in a 30 s prompt with 3 s grace: unstarted prompts start elsewhere within 2 s, no attempt is spent."""
    async with run_stack(tmp_path, DRAIN_TIMEOUT_S=3, MAX_IN_FLIGHT=3) as stack:
        first = stack.worker(await stack.comfy())
        await first.start()
        await stack.outside.send({"id": "d-0", "prompt": graph(seconds=30, steps=300)})
        await running(stack, "d-0")
        for number in (1, 2):
            await stack.outside.send({"id": f"d-{number}", "prompt": graph(color=number)})
        with anyio.fail_after(10):
            while not stack.outside.heard("d-2", "prompt.progress"):
                await anyio.sleep(0.01)
        second = stack.worker(await stack.comfy())
        await second.start()
        asked = time.monotonic()
        assert first.process is not None
        first.process.signal(15)
        await draining(first)
        for number in (1, 2):
            await taken_elsewhere(stack, f"d-{number}", "w1")
        assert time.monotonic() - asked < stack.hand_over_s
        await running_elsewhere(stack, "d-0", "w1")
        assert time.monotonic() - asked < max(3 + 2 + 1, stack.hand_over_s)
        assert await first.process.wait() == 0
        attempts = {event.body["attempt"] for event in stack.outside.heard("d-0", "prompt.progress")}
        assert attempts == {1}
        await stack.outside.command({"type": "prompt.cancel", "id": "d-0"})
        assert (await stack.outside.terminal("d-0", 15)).body["code"] == "cancelled"
        for number in (1, 2):
            event = await stack.outside.terminal(f"d-{number}", 30)
            assert (event.body["worker"], event.body["attempt"]) == ("w1", 1)


async def draining(worker: Worker) -> None:
    """Wait until /ready says that the worker drains."""
    async with aiohttp.ClientSession() as session:
        with anyio.fail_after(2):
            while True:
                async with session.get(f"{worker.url}/ready") as response:
                    if response.status == 503:
                        assert "draining" in await response.text()
                        return
                await anyio.sleep(0.01)


async def taken_elsewhere(stack: Stack, request_id: str, worker: str) -> None:
    """Wait until another worker has said something of this prompt."""
    with anyio.fail_after(30):
        while worker not in {event.body["worker"] for event in stack.outside.heard(request_id)}:
            await anyio.sleep(0.01)


async def running_elsewhere(stack: Stack, request_id: str, worker: str) -> None:
    """Wait until another worker has this prompt running."""
    with anyio.fail_after(15):
        while not [
            event
            for event in stack.outside.heard(request_id, "prompt.progress")
            if event.body["worker"] == worker and event.body["status"] == "running"
        ]:
            await anyio.sleep(0.01)


async def test_a_prompt_that_ends_within_the_grace_is_answered(tmp_path: Path) -> None:
    """SIGTERM while a short prompt runs: it is finished, published and settled, then the worker ends with 0."""
    async with run_stack(tmp_path, DRAIN_TIMEOUT_S=20) as stack:
        comfy = await stack.comfy()
        worker = stack.worker(comfy)
        await worker.start()
        await stack.outside.send({"id": "grace", "prompt": graph(seconds=1.5)})
        await running(stack, "grace")
        assert await worker.stop() == 0
        assert (await stack.outside.terminal("grace", 5)).body["type"] == "prompt.complete"
        verdict = await settled(stack, ["grace"], 10)
        assert (verdict.executions, verdict.doubled) == (1, [])


async def test_an_interrupted_prompt_runs_again_on_the_same_comfyui(tmp_path: Path) -> None:
    """A drain's interrupt is no end: the next worker forgets it and submits again under the same attempt."""
    async with run_stack(tmp_path, DRAIN_TIMEOUT_S=0.5) as stack:
        comfy = await stack.comfy()
        worker = stack.worker(comfy)
        await worker.start()
        await stack.outside.send({"id": "again", "prompt": graph(seconds=2, steps=20)})
        await running(stack, "again", 2)
        assert await worker.stop() == 0
        assert "again" not in await stack.outside.terminals()
        await worker.start()
        event = await stack.outside.terminal("again", 20)
        assert (event.body["type"], event.body["attempt"]) == ("prompt.complete", 1)
        assert list(comfy.executions().values()) == [2]


async def test_the_drain_command_ends_only_the_named_worker(tmp_path: Path) -> None:
    """worker.drain ends the worker it names, with exit code 0; the other goes on; a restarted one is not hit again."""
    async with run_stack(tmp_path) as stack:
        comfy = await stack.comfy()
        first, second = stack.worker(comfy), stack.worker(comfy)
        await first.start()
        await second.start()
        await stack.outside.command({"type": "worker.drain", "worker": "w0"})
        assert first.process is not None
        assert await first.process.wait() == 0
        await stack.outside.send({"id": "other", "prompt": graph()})
        assert (await stack.outside.terminal("other", 10)).body["worker"] == "w1"
        await first.start()
        await stack.outside.send({"id": "again-0", "prompt": graph()})
        await stack.outside.terminal("again-0", 10)
        assert first.process.running
