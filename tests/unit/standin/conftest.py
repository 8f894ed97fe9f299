"""Fixtures of the stand-in's own tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from standin_client import Client

from app.comfy.standin import StandinConfig, serve


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a stand-in that plays ComfyUI 0.3.64."""
    async with serve(StandinConfig(home=tmp_path)) as standin, aiohttp.ClientSession() as session:
        yield Client(standin, session)


@pytest.fixture
async def new_client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of a stand-in that plays a newer ComfyUI."""
    async with serve(StandinConfig(home=tmp_path, version="new")) as standin, aiohttp.ClientSession() as session:
        yield Client(standin, session)
