"""ComfyUI as a child of ours, behind its guard: started, listened to, and ended with everything it has started.

Used by process, app.setup.programs; may import app.errors.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import structlog
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from app.comfy import guard
from app.comfy.output_lines import OutputLines
from app.errors import ComfybusError

__all__ = ["Exit", "Guarded", "LaunchFailed", "guarded"]

_LAUNCH_WITHIN_S: Final = 30.0
# Beyond the guard's own deadlines.
_MARGIN_S: Final = 3.0
_LAST_WORDS_S: Final = 1.0
_CLOSE_WITHIN_S: Final = 3.0
_REPORT_BYTES: Final = 4096
_READ_BYTES: Final = 65536

_log = structlog.get_logger("comfybus.process")


class LaunchFailed(ComfybusError):
    """The program could not be started at all."""


@dataclass(frozen=True)
class Exit:
    """How a program ended.

    Attributes:
        code: Exit code, negative for the number of a signal; None if its guard was killed, which kills it too.
    """

    code: int | None

    def __str__(self) -> str:
        if self.code is None:
            return "was killed together with its guard process"
        if self.code >= 0:
            return f"ended with exit code {self.code}"
        try:
            return f"was ended by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"was ended by signal {-self.code}"


class Guarded:
    """A program that runs behind its guard. Made by ``guarded``.

    Attributes:
        pid: Process id of the program itself, which is also its process group and session.
        guard_pid: Process id of its guard: ancestor of all that the program starts.
    """

    def __init__(self, process: Process, output: int, grace_s: float, on_line: Callable[[str], None]) -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the guard needs its two pipes")
        self.pid = 0
        self.guard_pid = process.pid
        self._process = process
        self._hold = process.stdin
        self._output = output
        self._reports = BufferedByteReceiveStream(process.stdout)
        self._grace_s = grace_s
        self._on_line = on_line
        self._lines = OutputLines()
        self._exit: Exit | None = None
        self._over = False

    async def exited(self) -> Exit:
        """Pass its output on until the program itself has ended; what it has started may still be there."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._pass_on_output)
            await self._hear(lambda: self._exit is not None)
            tasks.cancel_scope.cancel()
        return self._exit or Exit(None)

    async def begin(self) -> None:
        """Wait until it runs.

        Raises:
            LaunchFailed: It does not; the sentence says why.
        """
        report: Mapping[str, Any] | None = None
        with anyio.move_on_after(_LAUNCH_WITHIN_S):
            report = await self._report()
        if report is not None and "started" in report:
            self.pid = int(report["started"])
            return
        self._over = report is not None
        raise LaunchFailed(str(report["failed"]) if report else "its guard process did not start")

    async def end(self) -> None:
        """End it and all that it has started: SIGTERM, after the grace SIGKILL. Takes the grace and about 10 s at most.

        To be called in a shielded scope.
        """
        with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._hold.aclose()
        with anyio.move_on_after(self._grace_s + guard.KILL_WITHIN_S + _MARGIN_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pass_on_output)
                await self._hear(lambda: self._over)
                self._end_past_the_guard()
                tasks.cancel_scope.deadline = anyio.current_time() + _LAST_WORDS_S
        self._end_past_the_guard()
        for line in self._lines.flush():
            self._on_line(line)
        with anyio.move_on_after(_CLOSE_WITHIN_S):
            await self._process.aclose()

    def _end_past_the_guard(self) -> None:
        """If the guard was killed or is stuck: its end makes the kernel kill the program; the group is left to us."""
        if self._over:
            return
        self._over = True
        _log.warning("guard process did not do its work", guard_pid=self.guard_pid, pid=self.pid)
        with suppress(ProcessLookupError):
            self._process.kill()
        if self.pid:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    async def _hear(self, enough: Callable[[], bool]) -> None:
        """Read the guard's reports until there are enough or there will be no more."""
        while not enough() and (report := await self._report()) is not None:
            if "ended" in report:
                self._exit = Exit(int(report["ended"]))
            elif "left" in report:
                self._over = True
                if report["left"]:
                    _log.error("processes of ComfyUI survive SIGKILL; they end with the call they hang in", **report)

    async def _report(self) -> Mapping[str, Any] | None:
        """The guard's next report; None if there will be no more."""
        try:
            line = await self._reports.receive_until(b"\n", _REPORT_BYTES)
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.DelimiterNotFound, anyio.BrokenResourceError):
            return None
        report: Mapping[str, Any] = json.loads(line)
        return report

    async def _pass_on_output(self) -> None:
        while True:
            await anyio.wait_readable(self._output)
            chunk = os.read(self._output, _READ_BYTES)
            if not chunk:
                return
            for line in self._lines.feed(chunk):
                self._on_line(line)


@asynccontextmanager
async def guarded(
    command: Sequence[str],
    *,
    cwd: Path | None,
    environment: Mapping[str, str],
    grace_s: float,
    on_line: Callable[[str], None],
) -> AsyncIterator[Guarded]:
    """Run a program behind a guard until the block ends, then end it with all that it has started.

    It and its children end with us even if we are killed with SIGKILL. Standard input is empty.

    Args:
        command: Program and arguments; no shell.
        cwd: Its working folder; ours if None.
        environment: All of its environment.
        grace_s: Seconds between SIGTERM and SIGKILL.
        on_line: Called with each line of its output; must return at once. Runs only while ``exited`` or the end of
            the block is waited for: a program whose output nobody takes stops when the pipe is full.

    Raises:
        LaunchFailed: It could not be started.
    """
    # Not a pipe of the process object: what a killed guard leaves may hold it open, and must not hold us up.
    output, writer = os.pipe()
    try:
        os.set_blocking(output, False)
        try:
            process = await _open(command, cwd, environment, grace_s, writer)
        finally:
            os.close(writer)
        child = Guarded(process, output, grace_s, on_line)
        try:
            await child.begin()
            yield child
        finally:
            with anyio.CancelScope(shield=True):
                await child.end()
    finally:
        os.close(output)


async def _open(
    command: Sequence[str], cwd: Path | None, environment: Mapping[str, str], grace_s: float, output: int
) -> Process:
    process: Process | None = None
    # A cancellation in between would leave a guard that nobody holds.
    with anyio.move_on_after(_LAUNCH_WITHIN_S, shield=True):
        try:
            process = await anyio.open_process(
                [sys.executable, "-I", "-S", str(Path(guard.__file__)), str(grace_s), *command],
                stderr=output,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:
            reason = f"{exc.strerror}: {exc.filename}" if isinstance(exc, OSError) and exc.filename else str(exc)
            raise LaunchFailed(reason) from exc
    if process is None:
        raise LaunchFailed("its guard process did not start")
    return process
