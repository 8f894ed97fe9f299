"""Stands between Comfybus and ComfyUI, so that ComfyUI never outlives it: ``python -I -S guard.py GRACE_S COMMAND…``.

Run by guarded as a process of its own; may import nothing of ours.

A program of its own, of the standard library alone. It starts COMMAND in a session of its own and ends it, with
everything it ever started, when standard input ends: by SIGTERM, and by SIGKILL after GRACE_S seconds. Standard input
is a pipe whose other end only the worker holds, and the kernel closes that end however the worker ends, so nothing has
to run in a worker that was killed with SIGKILL.

PR_SET_PDEATHSIG alone would not do. It reaches the direct child only, not what that has started. It comes when the
*thread* ends that made the child. It is one signal, so either a SIGTERM that can be ignored or a SIGKILL without a
chance to end in order. A program with more rights than its caller drops it. It is Linux only. Here it is the second
line: if the guard itself is killed, the kernel kills COMMAND.

The guard adopts the orphans below it (PR_SET_CHILD_SUBREAPER), so that a process that left the group, or whose parent
has ended, is still found and ended. Without Linux the process group is what can be reached.

Standard output carries one line of JSON for each of ``{"started": pid}`` or ``{"failed": sentence}``, then
``{"ended": code}`` (negative: a signal), then ``{"left": [pid…]}`` with what even SIGKILL did not end, as a rule
nothing. Standard error becomes COMMAND's standard output and error.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

__all__ = ["KILL_WITHIN_S", "below", "parents"]

# A process in an uninterruptible call, to a GPU's driver for one, dies only when that returns.
KILL_WITHIN_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.05
_MOST_NAMED: Final = 20
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_STANDARD_INPUT: Final = 0
_OUTPUT: Final = 2
_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Guard:
    """Runs one command and ends all of it."""

    def __init__(self, command: list[str], grace_s: float) -> None:
        self._command = command
        self._grace_s = grace_s
        self._leader = 0
        self._leader_ended = False
        self._wakes, self._waker = os.pipe()
        os.set_blocking(self._wakes, False)
        os.set_blocking(self._waker, False)

    def run(self) -> int:
        """Run the command to its end or to ours; returns the exit code for this process."""
        prctl = _prctl()
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._take_signals()
        if not self._start(prctl):
            return 1
        asked = False
        while not (asked or self._leader_ended):
            asked = self._wait(None)
            self._reap()
        _tell({"left": self._end_all()})
        return 0

    def _take_signals(self) -> None:
        # Handlers, not SIG_IGN, which the command would inherit. What arrives is a byte in the pipe, so no signal
        # can slip through between a look and the wait after it.
        for number in (signal.SIGCHLD, *_END_SIGNALS):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def _start(self, prctl: Callable[[int, int], None]) -> bool:
        guard = os.getpid()

        def die_with_the_guard() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:
                os._exit(1)

        try:
            child = subprocess.Popen(  # noqa: S603 - the operator's own command
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=_OUTPUT,
                stderr=_OUTPUT,
                start_new_session=True,
                preexec_fn=die_with_the_guard,  # noqa: PLW1509 - there is one thread here
            )
        except (OSError, ValueError, subprocess.SubprocessError) as exc:
            _tell({"failed": getattr(exc, "strerror", None) or str(exc)})
            return False
        child.returncode = 0  # it is waited for here, with everybody else
        self._leader = child.pid
        _tell({"started": child.pid})
        return True

    def _wait(self, seconds: float | None) -> bool:
        """Wait for a signal, or for the end of standard input too if there is no limit; returns whether to end."""
        sources = [self._wakes] if seconds is not None else [self._wakes, _STANDARD_INPUT]
        ready, _, _ = select.select(sources, [], [], seconds)
        asked = False
        if self._wakes in ready:
            with suppress(BlockingIOError):
                asked = any(number in _END_SIGNALS for number in os.read(self._wakes, 4096))
        if _STANDARD_INPUT in ready:
            try:
                asked = asked or not os.read(_STANDARD_INPUT, 4096)
            except OSError:
                asked = True
        return asked

    def _reap(self) -> bool:
        """Take note of all that has ended; returns whether nobody is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                # Every descendant has an ancestor among our children, for we adopt the orphans.
                return not self._group_exists()
            if pid == 0:
                return False
            if pid == self._leader:
                self._leader_ended = True
                _tell({"ended": os.waitstatus_to_exitcode(status)})

    def _end_all(self) -> list[int]:
        """End all that is left; returns what even SIGKILL did not end."""
        if self._reap():
            return []
        self._signal_all(signal.SIGTERM)
        if self._nobody_left_within(self._grace_s):
            return []
        deadline = time.monotonic() + KILL_WITHIN_S
        while time.monotonic() < deadline:
            # Again and again: what forks while it is looked for is found the next time.
            self._signal_all(signal.SIGKILL)
            if self._nobody_left_within(_LOOK_EVERY_S):
                return []
        return sorted(below(parents(), os.getpid()))[:_MOST_NAMED]

    def _nobody_left_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not self._reap():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._wait(min(left_s, _LOOK_EVERY_S))
        return True

    def _signal_all(self, number: int) -> None:
        """Send a signal once to everybody: to the group as one, then to those who left it."""
        family = parents()
        outside = [pid for pid in below(family, os.getpid()) if family[pid][1] != self._leader]
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader, number)
        for pid in outside:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _group_exists(self) -> bool:
        try:
            os.killpg(self._leader, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def parents() -> dict[int, tuple[int, int]]:
    """Every process's parent and process group, by process id; empty where there is no /proc."""
    family = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            # The name in parentheses may contain anything.
            _state, parent, group = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            family[int(path.parent.name)] = (int(parent), int(group))
    return family


def below(family: Mapping[int, tuple[int, int]], ancestor: int) -> set[int]:
    """All descendants of a process."""
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in family.items():
        children.setdefault(parent, []).append(pid)
    found: set[int] = set()
    waiting = [ancestor]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            if pid not in found:
                found.add(pid)
                waiting.append(pid)
    return found


def _prctl() -> Callable[[int, int], None]:
    """The kernel's prctl; does nothing where there is none."""
    try:
        import ctypes  # noqa: PLC0415 - a Python without it still guards the group

        call = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError, TypeError):
        return lambda _option, _value: None
    return lambda option, value: call(option, value, 0, 0, 0)


def _tell(report: Mapping[str, Any]) -> None:
    with suppress(OSError):
        os.write(1, json.dumps(report).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(Guard(sys.argv[2:], float(sys.argv[1])).run())
