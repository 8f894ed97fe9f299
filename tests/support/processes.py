"""Real processes for tests: started on loopback, known by pid, ended by pid, their output kept for the failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

READY_WITHIN_S = 100.0
END_WITHIN_S = 60.0
PORTS = (12_000, 32_000)


@dataclass
class Process:
    """One child process with its log."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def signal(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        await self.wait()

    async def terminate(self) -> int:
        """SIGTERM, then the exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait()

    async def wait(self, within_s: float = END_WITHIN_S) -> int:
        return await anyio.to_thread.run_sync(self.popen.wait, within_s, abandon_on_cancel=True)

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def launch(args: list[str], log: Path, env: dict[str, str] | None = None) -> Process:
    """Start a child whose output goes to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        popen = subprocess.Popen(args, stdout=out, stderr=out, env=env, start_new_session=True)
    return Process(popen, log)


def free_port() -> int:
    """A port that was free a moment ago, for servers that must come back at the same address.

    Below the range that systems give to outgoing connections: one of those would take it while its server is dead.
    """
    import random
    import socket

    while True:
        try:
            with socket.create_server(("127.0.0.1", random.SystemRandom().randrange(*PORTS))) as server:
                return int(server.getsockname()[1])
        except OSError:
            continue


@dataclass
class StandIn:
    """A stand-in ComfyUI in a process of its own, at an address that survives a restart."""

    home: Path
    port: int
    version: str = "0.3.64"
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        args = [sys.executable, "-m", "app.comfy.standin", "--port", str(self.port), "--home", str(self.home)]
        self.process = launch([*args, "--version", self.version], self.home.with_suffix(".log"))
        await wait_http(f"{self.url}/queue", self.process)

    async def kill(self) -> None:
        assert self.process is not None
        await self.process.kill()

    def executions(self) -> dict[str, int]:
        """How often the execution of each prompt id began, over all lives of this ComfyUI."""
        path = self.home / "executions.jsonl"
        counts: dict[str, int] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            prompt = json.loads(line)["prompt_id"]
            counts[prompt] = counts.get(prompt, 0) + 1
        return counts


async def wait_http(url: str, process: Process, status: int = 200, within_s: float = READY_WITHIN_S) -> None:
    """Wait until an address answers with this status while the process lives."""
    import aiohttp

    seen: Any = None
    async with aiohttp.ClientSession() as session:
        with anyio.move_on_after(within_s):
            while process.running:
                try:
                    async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
                        seen = f"{response.status} {(await response.text())[:200]}"
                        if response.status == status:
                            return
                except (aiohttp.ClientError, TimeoutError) as exc:
                    seen = repr(exc)
                await anyio.sleep(0.05)
    raise AssertionError(f"{url} did not answer {status} (last: {seen}); log:\n{process.tail()}")


@dataclass
class Worker:
    """The real worker in a process of its own."""

    name: str
    folder: Path
    env: dict[str, str]
    http_port: int = field(default_factory=free_port)
    process: Process | None = None
    started_at: float = 0.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def launch(self) -> None:
        """Start it without waiting until it is ready."""
        clean = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "PYTHONPATH")}
        env = {
            **clean,
            "WORKER_ID": self.name,
            "HOST": "127.0.0.1",
            "PORT": str(self.http_port),
            "LOG_FORMAT": "json",
            **self.env,
        }
        self.started_at = time.monotonic()
        self.process = launch([sys.executable, "-m", "app", "worker"], self.folder / f"{self.name}.log", env)

    async def start(self) -> None:
        self.launch()
        await self.ready()

    async def ready(self) -> None:
        assert self.process is not None
        await wait_http(f"{self.url}/ready", self.process)

    async def kill(self) -> None:
        assert self.process is not None
        await self.process.kill()

    async def stop(self) -> int:
        assert self.process is not None
        return await self.process.terminate()
