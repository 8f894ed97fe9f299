"""Child processes that end with their block, whatever happens in it.

Used by story; may import app.cli.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

import app
from app.cli.outcome import CommandFailed

__all__ = ["Child", "clean_environment", "run_child"]

STOP_WITHIN_S = 8.0
LOOK_EVERY_S = 0.02
# What a program needs to find itself, its libraries and a place for temporary files.
KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True)
class Child:
    """A running child; what it says is in its two files."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path
    log: Path

    async def first_line(self, within_s: float) -> str:
        """The first line of its standard output.

        Raises:
            CommandFailed: It ended or said nothing in time; the sentence carries its last words.
        """
        with anyio.move_on_after(within_s):
            while True:
                line, newline, _ = (await anyio.Path(self.output).read_text(errors="replace")).partition("\n")
                if newline:
                    return line
                self.check()
                await anyio.sleep(LOOK_EVERY_S)
        raise CommandFailed(f"the {self.name} did not start within {within_s:g} s{self._last_words()}")

    async def watch(self) -> None:
        """Wait for its end, which nobody has asked for.

        Raises:
            CommandFailed: It ended.
        """
        while True:
            self.check()
            await anyio.sleep(0.2)

    def check(self) -> None:
        """See whether it lives.

        Raises:
            CommandFailed: It ended.
        """
        if (code := self.process.poll()) is not None:
            raise CommandFailed(f"the {self.name} ended with exit code {code}{self._last_words()}")

    def _last_words(self) -> str:
        said = self.log.read_text(errors="replace").strip().rpartition("\n")[2]
        return f": {said[:500]}" if said else ""


def clean_environment(**settings: str) -> dict[str, str]:
    """Settings for a child of this program, and nothing of ours: the demonstration is the same everywhere."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": str(Path(app.__file__).parents[1]), "PYTHONUNBUFFERED": "1", **settings}


@asynccontextmanager
async def run_child(
    name: str, module: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[Child]:
    """Run ``python -m module…`` in an empty folder until the block ends, then end it: SIGTERM, 8 s, SIGKILL.

    Its working folder keeps it from reading a ``.env`` that is meant for another. It has a session of its own, so
    that Ctrl-C in the terminal reaches us alone and children end in the order of the blocks.
    """
    home = folder / name.replace(" ", "-")
    home.mkdir(parents=True)
    output, log = home / "stdout", home / "stderr"
    process = await anyio.to_thread.run_sync(_start, module, home, output, log, environment)
    try:
        yield Child(name, process, output, log)
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process)


def _start(
    module: Sequence[str], home: Path, output: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with output.open("wb") as stdout, log.open("wb") as stderr:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", *module],
            cwd=home,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )


async def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        await anyio.to_thread.run_sync(process.wait, STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        await anyio.to_thread.run_sync(process.wait)
