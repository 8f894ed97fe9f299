"""How long ComfyUI has been executing prompts of this worker.

Used by followed, watch; may import nothing of ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Busy"]


class Busy:
    """Seconds in which at least one prompt of ours ran; rises while one runs, so that an hour's run shows at once.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: set[str] = set()
        self._since = 0.0
        self._before = 0.0

    @property
    def seconds(self) -> float:
        """All of it until now."""
        return self._before + (self._clock() - self._since if self._running else 0.0)

    def begins(self, prompt_id: str) -> None:
        """A prompt runs."""
        if not self._running:
            self._since = self._clock()
        self._running.add(prompt_id)

    def ends(self, prompt_id: str) -> None:
        """A prompt runs no more, or nobody follows it any more; one that never ran changes nothing."""
        if prompt_id in self._running:
            self._running.remove(prompt_id)
            if not self._running:
                self._before += self._clock() - self._since
