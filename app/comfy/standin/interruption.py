"""The wish to stop the running prompt: one flag, set by the API, looked at between steps of work.

Used by engine, prompt_execution; may import nothing of ours.
"""

from __future__ import annotations

import threading


class Interrupted(Exception):
    """Raised in the execution thread where the running prompt stops."""


class Interruption:
    """A flag shared by the API and the execution thread. It does not know for which prompt it was meant."""

    def __init__(self) -> None:
        self._wanted = threading.Event()
        self._stopping = threading.Event()

    def ask(self) -> None:
        """Ask that whatever runs stops at its next step; without effect when nothing runs."""
        self._wanted.set()

    def forget(self) -> None:
        """Drop the wish, as at the start of every prompt."""
        self._wanted.clear()

    def check(self) -> None:
        """Raise Interrupted, once, if somebody asked, or if the server stops."""
        if self._wanted.is_set() or self._stopping.is_set():
            self._wanted.clear()
            raise Interrupted

    def stop_server(self) -> None:
        """Cut every sleep short and interrupt whatever runs, for good."""
        self._stopping.set()

    def sleep(self, seconds: float) -> None:
        """Sleep; only the stop of the server wakes the sleeper early."""
        self._stopping.wait(seconds)
