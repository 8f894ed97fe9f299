"""Runs ``comfybus`` as a user does: a process of its own, its output read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

WITHIN_S = 60.0


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its standard output as one JSON document."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Commands:
    """Runs ``comfybus`` in a folder, with these settings and no other ones."""

    folder: Path
    env: dict[str, str]

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start a command with pipes; Ctrl-C of the test's terminal does not reach it."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        root = str(Path(__file__).parents[3])
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "app", *arguments],
            cwd=self.folder,
            env={**kept, "PYTHONPATH": root, **self.env, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    async def run(self, *arguments: str, stdin: str = "", **env: str) -> Done:
        """Run a command to its end."""
        return await finished(self.start(*arguments, **env), stdin)


async def finished(process: subprocess.Popen[str], stdin: str = "") -> Done:
    """Wait for a command's end."""
    try:
        out, err = await anyio.to_thread.run_sync(
            lambda: process.communicate(stdin, timeout=WITHIN_S), abandon_on_cancel=True
        )
    except BaseException:
        process.kill()
        raise
    return Done(process.returncode, out, err)


async def interrupted(process: subprocess.Popen[str], number: int = signal.SIGINT) -> Done:
    """End a command by a signal."""
    process.send_signal(number)
    return await finished(process)


async def line_of(pipe: Any) -> str:
    """The next line of a running command."""
    with anyio.fail_after(WITHIN_S):
        return str(await anyio.to_thread.run_sync(pipe.readline, abandon_on_cancel=True))
