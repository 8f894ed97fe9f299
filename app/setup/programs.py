"""Runs the programs of the set-up: output streamed to the log, its end kept for the failure, a deadline on each.

Used by most of its folder, app.cli; may import app.comfy, app.errors, app.storage.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import anyio
import structlog

from app.comfy.guarded import Exit, LaunchFailed, guarded
from app.errors import ComfybusError
from app.storage.secrets import MASK, Scrubber

__all__ = ["Programs", "SetupFailed", "step"]

_LINES_KEPT: Final = 60
_LINES_TOLD: Final = 3
_LONGEST_TOLD: Final = 300
# apt-get and pip clean up after themselves when they are asked to end.
_GRACE_S: Final = 10.0

log = structlog.get_logger("comfybus.setup")
_scrubber = Scrubber()


class SetupFailed(ComfybusError):
    """A step of the set-up did not work out; the sentence names the step, the cause and the cure.

    Attributes:
        output: The last lines that the program wrote, if one ran.
    """

    def __init__(self, message: str, output: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.output = tuple(output)


@asynccontextmanager
async def step(name: str, what: str, **facts: object) -> AsyncIterator[None]:
    """Log the begin of a step, and its end with the seconds it took, whatever the end is.

    Args:
        name: Kind of step.
        what: What it is about, in a word or two.
        facts: More for the log.

    Raises:
        SetupFailed: The step raised it, or the disk did not do what it was asked for.
    """
    began_s = time.monotonic()
    log.info("set-up step begins", step=name, what=what, **facts)
    try:
        with _disk_faults():
            yield
    except SetupFailed as exc:
        duration_s = round(time.monotonic() - began_s, 3)
        log.error(
            "set-up step failed", step=name, what=what, duration_s=duration_s, reason=str(exc), output=list(exc.output)
        )
        raise SetupFailed(f"{name} {what}: {exc}", exc.output) from exc
    log.info("set-up step done", step=name, what=what, duration_s=round(time.monotonic() - began_s, 3))


@contextmanager
def _disk_faults() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SetupFailed(f"{exc.filename or 'the disk'}: {exc.strerror or exc}; see rights and room") from exc


class Programs:
    """Starts programs one at a time, found on the PATH of the environment; all end with us, however we end.

    Args:
        environment: All that a program gets to see.
        timeout_s: SETUP_TIMEOUT_S, for each program.
    """

    def __init__(self, environment: Mapping[str, str], timeout_s: float) -> None:
        self._environment = dict(environment)
        self._timeout_s = timeout_s

    def find(self, name: str) -> str | None:
        """The program's path, or None."""
        return shutil.which(name, path=self._environment.get("PATH"))

    def active_environment(self) -> bool:
        """Whether a virtual environment is active, so that Python's installers put packages there."""
        names = ("VIRTUAL_ENV", "CONDA_DEFAULT_ENV", "VIRTUAL_ENV_PROMPT")
        return any(self._environment.get(name) for name in names)

    def own_environment(self) -> bool:
        """Whether the active virtual environment is the one that this program runs in."""
        active = self._environment.get("VIRTUAL_ENV", "")
        return bool(active) and sys.prefix != sys.base_prefix and Path(active).resolve() == Path(sys.prefix).resolve()

    async def run(
        self,
        command: Sequence[str],
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
    ) -> list[str]:
        """Run a program to its end without standard input; returns the last lines of its output.

        Args:
            command: Name on PATH or path, and arguments; no shell.
            cwd: Its working folder.
            environment: Added to what every program gets.
            secrets: Masked in the log and in what is returned.

        Raises:
            SetupFailed: There is no such program, it did not end in time, or it did not end well.
        """
        name = Path(command[0]).name
        path = self.find(command[0])
        if path is None:
            raise SetupFailed(f"{name} is needed and is not on PATH; install it")
        lines: deque[str] = deque(maxlen=_LINES_KEPT)

        def take(line: str) -> None:
            line = _scrubber.text(line)
            for secret in secrets:
                line = line.replace(secret, MASK)
            lines.append(line)
            log.info("program says", program=name, line=line)

        how = await self._to_its_end([path, *command[1:]], cwd, environment or {}, take)
        if how is None:
            raise SetupFailed(f"{name} did not end within {self._timeout_s:g} s (SETUP_TIMEOUT_S)", lines)
        if how.code != 0:
            last = " / ".join(line.strip()[:_LONGEST_TOLD] for line in list(lines)[-_LINES_TOLD:])
            raise SetupFailed(f"{name} {how}: {last or 'it gave no reason'}", lines)
        return list(lines)

    async def _to_its_end(
        self, command: Sequence[str], cwd: Path | None, environment: Mapping[str, str], take: Callable[[str], None]
    ) -> Exit | None:
        try:
            with anyio.move_on_after(self._timeout_s):
                async with guarded(
                    command, cwd=cwd, environment={**self._environment, **environment}, grace_s=_GRACE_S, on_line=take
                ) as child:
                    return await child.exited()
        except LaunchFailed as exc:
            raise SetupFailed(f"{Path(command[0]).name} cannot be started: {exc}") from exc
        return None
