"""ComfyUI's output in pieces of bytes, made into lines that are fit for a log.

Used by guarded; may import nothing of ours.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["OutputLines"]

LONGEST_LINE_BYTES: Final = 4096
# Colours and cursor movements; then every other control character but the tab.
_SEQUENCES: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?")
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


class OutputLines:
    """Cuts a stream into lines, in bounded memory.

    A line is what a terminal would show at its end: what a carriage return overwrites (the steps of a progress bar) is
    left out, and so are colours and control characters. After 4 KiB the rest of a line is counted, not kept. Empty
    lines are dropped.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._cut_bytes = 0
        self._overwrite = False

    def feed(self, chunk: bytes) -> list[str]:
        """Take the next bytes; returns the lines they complete."""
        lines = []
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._append(piece)
            lines += self.flush()
        self._append(rest)
        return lines

    def flush(self) -> list[str]:
        """The line begun, as if it had ended: one line or none."""
        text = _CONTROLS.sub("", _SEQUENCES.sub("", self._line.decode(errors="replace"))).rstrip()
        if self._cut_bytes:
            text += f" … ({self._cut_bytes} bytes more)"
        self._clear()
        return [text] if text else []

    def _append(self, piece: bytes) -> None:
        for number, part in enumerate(piece.split(b"\r")):
            # A carriage return overwrites only when something follows it: `\r\n` is a plain end.
            self._overwrite = self._overwrite or number > 0
            if not part:
                continue
            if self._overwrite:
                self._clear()
            room = LONGEST_LINE_BYTES - len(self._line)
            self._line += part[:room]
            self._cut_bytes += len(part[room:])

    def _clear(self) -> None:
        self._line.clear()
        self._cut_bytes = 0
        self._overwrite = False
