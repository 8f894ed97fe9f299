"""A supervised ComfyUI for the tests: what is launched, our side of it, and what became of its processes."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio

from app.comfy.client import ComfyClient
from app.comfy.process import ProcessConfig, Supervisor

PLAYED = Path(__file__).with_name("played_comfyui.py")
# Patient enough for a busy machine, quick enough for a test.
QUICK: dict[str, Any] = {
    "check_interval_s": 0.05,
    "check_max_tries": 400,
    "stop_grace_s": 3.0,
    "first_pause_s": 0.05,
    "longest_pause_s": 0.4,
}


class Stage:
    """A port and a folder where ComfyUI is played."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.exits: list[str] = []
        self.began = 0
        self.when_up: Callable[[], Any] = lambda: None

    def command(self, *steps: str) -> str:
        """CMD for a life of these steps."""
        words = [sys.executable, "-I", "-S", str(PLAYED), str(self.port), str(self.folder), *steps]
        return shlex.join(words)

    def config(self, *steps: str, **wishes: Any) -> ProcessConfig:
        """A config that launches this life; in ours an environment without secrets."""
        given = {"command": self.command(*steps), "environment": dict(os.environ), **QUICK, **wishes}
        return ProcessConfig(url=self.url, **given)

    @asynccontextmanager
    async def running(self, config: ProcessConfig) -> AsyncIterator[Supervisor]:
        """A supervisor that runs until the block ends, cancelled then."""
        async with self.supervisor(config) as supervisor, anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.run)
            yield supervisor
            tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def supervisor(self, config: ProcessConfig) -> AsyncIterator[Supervisor]:
        """A supervisor that asks with our own client and whose hooks are heard here."""
        async with aiohttp.ClientSession() as session:
            yield Supervisor(
                config, ComfyClient(self.url, session).alive, on_start=self._on_start, on_exit=self.exits.append
            )

    def _on_start(self) -> None:
        self.began += 1
        self.when_up()

    @property
    def launches(self) -> list[tuple[float, int]]:
        """Monotonic second and process id of each launch so far."""
        return [(float(line.split()[0]), int(line.split()[1])) for line in self._lines("launches")]

    def pids(self, kind: str | None = None) -> list[int]:
        """Process ids of all that was ever started here, or of one kind."""
        found = [line.split() for line in self._lines("pids")]
        return [int(pid) for name, pid in found if kind in (None, name)]

    @staticmethod
    def family(pid: int | None) -> tuple[Path, Path]:
        """The folders in /proc of a process and of its parent, the guard."""
        leader = Path(f"/proc/{pid}")
        return leader, Path("/proc", (leader / "stat").read_text().rpartition(")")[2].split()[1])

    def _lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def other_program(self, *steps: str, folder: Path) -> subprocess.Popen[bytes]:
        """A program that lives so at the same port and is nobody's child but the test's."""
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-I", "-S", str(PLAYED), str(self.port), str(folder), *steps]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    def worker_like(self, *steps: str) -> subprocess.Popen[bytes]:
        """A process that supervises such a life and can be killed; it says ``up`` on standard output."""
        program = Path(__file__).with_name("worker_like.py")
        command = [sys.executable, str(program), self.url, self.command(*steps)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process of the test's own, if it still is there, and clean up after it."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(pid: int) -> bool:
    """Whether a process is there and more than an entry nobody has read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until(met: Callable[[], bool], within_s: float = 30) -> None:
    """Wait for something that nobody announces."""
    with anyio.fail_after(within_s):
        while not met():
            await anyio.sleep(0.01)


async def up(supervisor: Supervisor, start: int = 1, within_s: float = 30) -> None:
    """Wait until so many starts were made and the last one is up."""
    await until(lambda: supervisor.up and supervisor.starts >= start, within_s)
