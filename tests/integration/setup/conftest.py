"""Hosts and machines for the set-up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.setup.sources import Machine, Sources, make_machine


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[Sources]:
    """A host of files and repositories."""
    folder = tmp_path / "sources"
    folder.mkdir()
    async with Sources(folder).open() as sources:
        yield sources


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Programs that note their use."""
    return make_machine(tmp_path / "machine")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """ComfyUI's folder."""
    home = tmp_path / "ComfyUI"
    (home / "custom_nodes").mkdir(parents=True)
    (home / "models").mkdir()
    return home
