"""One deployment for the commands to work on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.cli.command_line import Commands
from tests.support.stack import Stack, run_stack


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A broker, a ComfyUI and a worker attached to it."""
    async with run_stack(tmp_path_factory.mktemp("stack"), MAX_ATTEMPTS=2) as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        yield stack


@pytest.fixture
def commands(stack: Stack, tmp_path: Path) -> Commands:
    """Commands against the deployment, in an empty folder."""
    comfy = stack.comfys[0]
    env = {
        **stack.env,
        "BROKER_URL": stack.broker.url,
        "COMFYUI_URL": comfy.url,
        "COMFY_HOME": str(comfy.home),
    }
    return Commands(tmp_path, env)


@pytest.fixture
def lonely(tmp_path: Path) -> Commands:
    """Commands where nothing answers."""
    return Commands(tmp_path, {"BROKER_URL": "nats://127.0.0.1:1", "COMFYUI_URL": "http://127.0.0.1:1"})
