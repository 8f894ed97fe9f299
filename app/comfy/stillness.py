"""The evidence that ComfyUI's execution thread is dead: work waits and nothing runs.

Used by looks; may import nothing of ours.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Stillness"]

_ENOUGH_S: Final = 5.0
# Between two answered looks we know nothing; a gap longer than the usual pause counts only this much.
_GAP_COUNTS_S: Final = 2.0


class Stillness:
    """Adds up for how long answered looks saw the same prompts waiting and nothing running; pure.

    ComfyUI's execution thread can die while HTTP and websocket go on as if nothing were wrong. A prompt may wait a
    moment with nothing running in front of it (models being unloaded), so only 5 s of it count as death. A look that
    was not answered is no evidence for or against: the time around it is left out.
    """

    def __init__(self) -> None:
        self._waiting: frozenset[str] = frozenset()
        self._still_s = 0.0
        self._last_s: float | None = None

    def unanswered(self) -> None:
        """A look got no answer."""
        self._last_s = None

    def answered(self, *, running: bool, pending: frozenset[str], now_s: float) -> bool:
        """Take one answered look.

        Args:
            running: Whether anything ran.
            pending: The ids that waited, anybody's.
            now_s: Monotonic time of the answer.

        Returns:
            Whether the thread is dead.
        """
        # A waiting prompt that is not there any more has run or was deleted; in doubt it ran.
        still = not running and bool(self._waiting) and self._waiting <= pending
        if still and self._last_s is not None:
            self._still_s += min(now_s - self._last_s, _GAP_COUNTS_S)
        elif not still:
            self._still_s = 0.0
        self._waiting = frozenset() if running else pending
        self._last_s = now_s
        return self._still_s >= _ENOUGH_S
