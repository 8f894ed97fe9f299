"""The stand-in ComfyUI, which really runs graphs, under supervision: the faults that only the worker's side can see."""

from __future__ import annotations

import shlex
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
import anyio
import pytest
from supervised import Stage, alive, up

from app.comfy.client import ComfyClient
from app.comfy.ends import ExecutionThreadDead, Succeeded
from app.comfy.process import Supervisor
from app.comfy.watch import Watch
from app.errors import ComfyUnavailable

pytestmark = pytest.mark.anyio


def graph(class_type: str, **inputs: object) -> dict[str, object]:
    """A picture that goes through one node."""
    return {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": class_type, "inputs": {"image": ["1", 0], **inputs}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "supervised"}},
    }


@asynccontextmanager
async def standin(stage: Stage) -> AsyncIterator[Supervisor]:
    """A supervised stand-in."""
    home = stage.folder / "comfyui"
    words = [sys.executable, "-m", "app.comfy.standin", "--port", str(stage.port), "--home", str(home)]
    async with stage.running(stage.config(command=shlex.join(words))) as supervisor:
        await up(supervisor)
        yield supervisor


async def test_a_node_that_kills_comfyui(stage: Stage) -> None:
    """A node that ends the process in the middle of a prompt: noticed as an exit, and up again by itself."""
    async with standin(stage) as supervisor, aiohttp.ClientSession() as session:
        client = ComfyClient(stage.url, session)
        with suppress(ComfyUnavailable):  # it may die before it has answered
            await client.submit(graph("HardCrash"), prompt_id=str(uuid.uuid4()), client_id=None)
        await up(supervisor, start=2)
        assert await client.alive()
    assert len(stage.exits) == 1


async def test_a_dead_execution_thread(stage: Stage) -> None:
    """It answers and runs nothing any more: the watch sees it, a requested restart heals it."""
    async with standin(stage) as supervisor, aiohttp.ClientSession() as session:
        client = ComfyClient(stage.url, session)
        watch = Watch(client)
        async with session.post(f"{stage.url}/standin/faults", json={"execution_thread": "dead"}) as answer:
            assert answer.status == 200
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch.run)
            prompt_id, seen = str(uuid.uuid4()), supervisor.starts
            picture = graph("SlowProgress", steps=1, seconds=0.01)
            with watch.follow(prompt_id, picture) as followed, anyio.fail_after(30):
                await client.submit(picture, prompt_id=prompt_id, client_id=None)
                followed.submitted(None)
                assert await followed.wait() == ExecutionThreadDead()
            assert supervisor.up
            await supervisor.restart("its execution thread is dead", seen_start=seen)
            await up(supervisor, start=2)
            with watch.follow(prompt_id, picture) as followed, anyio.fail_after(30):
                await client.submit(picture, prompt_id=prompt_id, client_id=None)
                followed.submitted(None)
                assert isinstance(await followed.wait(), Succeeded)
            tasks.cancel_scope.cancel()
        pid = supervisor.pid
    assert pid is not None
    assert not alive(pid)
