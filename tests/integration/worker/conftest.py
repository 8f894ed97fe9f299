"""One deployment for the whole folder: a broker, a stand-in ComfyUI that shares its folders, one worker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.stack import Stack, run_stack


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A broker, a ComfyUI and a worker attached to it."""
    async with run_stack(tmp_path_factory.mktemp("stack"), MAX_ATTEMPTS=2) as stack:
        comfy = await stack.comfy()
        await stack.worker(comfy).start()
        yield stack
