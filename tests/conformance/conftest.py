"""Fixtures of the conformance tests: which server they run against."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from servers import AnyServer, InProcess, InProcessOfItsOwn, RealServer, ServerMaker

from app.comfy.standin import StandinConfig, serve


@pytest.fixture
async def make_server(tmp_path: Path) -> AsyncIterator[ServerMaker]:
    """Return a function that makes the server for a scenario: the one at COMFYUI_URL if set, else a stand-in."""
    async with AsyncExitStack() as stack:

        async def make(scenario: str) -> AnyServer:
            if url := os.environ.get("COMFYUI_URL"):
                return RealServer(url)
            home = tmp_path / uuid.uuid4().hex
            checkpoints = home / "models" / "checkpoints"
            checkpoints.mkdir(parents=True)
            (checkpoints / "dreamshaper_8.safetensors").touch()
            if scenario.startswith(("18_", "21_")):
                program = InProcessOfItsOwn(home)
                await program.restart()
                stack.push_async_callback(program.stop)
                return program
            config = StandinConfig(home=home, previews=scenario.startswith("12_"))
            return InProcess(await stack.enter_async_context(serve(config)))

        yield make
