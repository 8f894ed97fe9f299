"""Counts what really ran, so that tests can tell one execution of a prompt from two.

Used by engine, execution_thread; may import its folder alone.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import IO

from app.comfy.standin.node_types import JsonObject


class ExecutionLog:
    """Executions begun and ended per prompt id, and a file with one line for each that began.

    The file is appended to, never rewritten: its lines survive the death of the process and a restart in the same
    home. A line holds ``prompt_id``, ``time`` (seconds since 1970), ``client`` and ``number``.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._begun: dict[str, int] = {}
        self._ended: dict[str, int] = {}

    def begin(self, prompt_id: str, number: float, client_id: str | None) -> None:
        """Count and write down that the work on a prompt begins now."""
        line = {"prompt_id": prompt_id, "time": time.time(), "client": client_id, "number": number}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._begun[prompt_id] = self._begun.get(prompt_id, 0) + 1

    def end(self, prompt_id: str) -> None:
        """Count that the work on a prompt is over, well or badly."""
        self._ended[prompt_id] = self._ended.get(prompt_id, 0) + 1

    def counts(self) -> JsonObject:
        """Return ``executions`` (prompt id to begun and ended) and ``total``, since the start of this process."""
        begun = dict(self._begun)
        return {
            "executions": {key: {"begun": count, "ended": self._ended.get(key, 0)} for key, count in begun.items()},
            "total": {"begun": sum(begun.values()), "ended": sum(list(self._ended.values()))},
        }

    def close(self) -> None:
        """Close the file."""
        self._file.close()
