"""Stand-ins for the tests of following prompts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from comfyui import Comfy, Program


@pytest.fixture(scope="session")
def shared_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Program]]:
    """One stand-in of each version asked for, for all tests that leave it alive."""
    programs: dict[str, Program] = {}

    def of(version: str) -> Program:
        if version not in programs:
            programs[version] = Program(tmp_path_factory.mktemp("comfyui"), version)
            programs[version].start()
        return programs[version]

    yield of
    for program in programs.values():
        program.kill()


@asynccontextmanager
async def _cleaned(program: Program) -> AsyncIterator[Comfy]:
    async with aiohttp.ClientSession() as session:
        comfy = Comfy(program.url, session, program.home)
        yield comfy
        async with session.delete(f"{comfy.url}/standin/faults") as answer:
            assert answer.status == 200
        await comfy.post("/queue", {"clear": True})
        await comfy.post("/interrupt", {})


@pytest.fixture
async def comfy(shared_programs: Callable[[str], Program]) -> AsyncIterator[Comfy]:
    """Our side of ComfyUI 0.3.64, with no faults and nothing waiting in its queue."""
    async with _cleaned(shared_programs("0.3.64")) as comfy:
        yield comfy


@pytest.fixture(params=["0.3.64", "new"])
async def any_comfy(request: pytest.FixtureRequest, shared_programs: Callable[[str], Program]) -> AsyncIterator[Comfy]:
    """The same for each version, where they differ."""
    async with _cleaned(shared_programs(request.param)) as comfy:
        yield comfy


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """A stand-in of the test's own, which it may kill."""
    program = Program(tmp_path / "comfyui", "0.3.64")
    program.start()
    yield program
    program.kill()


@pytest.fixture
async def mortal(program: Program) -> AsyncIterator[Comfy]:
    """Our side of that one."""
    async with aiohttp.ClientSession() as session:
        yield Comfy(program.url, session, program.home)
