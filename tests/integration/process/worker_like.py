"""A worker of which only the supervision is there: ``worker_like.py URL CMD`` says ``up`` when ComfyUI is."""

from __future__ import annotations

import os
import sys

import aiohttp
import anyio

from app.comfy.client import ComfyClient
from app.comfy.process import ProcessConfig, Supervisor


async def main(url: str, command: str) -> None:
    """Supervise until killed."""
    config = ProcessConfig(command, url, dict(os.environ), check_interval_s=0.05, check_max_tries=400, stop_grace_s=1.0)
    async with aiohttp.ClientSession() as session, anyio.create_task_group() as tasks:
        supervisor = Supervisor(config, ComfyClient(url, session).alive)
        tasks.start_soon(supervisor.run)
        while not supervisor.up:
            await anyio.sleep(0.01)
        os.write(1, b"up\n")


anyio.run(main, *sys.argv[1:])
