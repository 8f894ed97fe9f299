"""Progress of one prompt: numbered, never falling, limited in rate, its last value kept. Pure but for a clock.

Used by job; may import schemas.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from schemas.events import Progress, Status

__all__ = ["ProgressLimit"]

WINDOW_S = 1.0


class ProgressLimit:
    """Decides which progress is published now; the caller publishes what it is given, in order.

    A change of status always goes out at once and takes the latest value with it. A value goes out only while fewer
    than ``rate`` messages went out within the last second; else it waits for ``due``, where a later one replaces it.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        """Limit to ``rate`` messages a second by a monotonic clock in seconds."""
        self._rate = rate
        self._clock = clock
        self._sent: deque[float] = deque(maxlen=max(1, int(rate)))
        self._waiting: Progress | None = None
        self._sequence = -1
        self._status: Status | None = None
        self._last = Progress(value=0.0, nodes_done=0, nodes_total=0)

    @property
    def announced(self) -> Status | None:
        """The status last announced."""
        return self._status

    def change(self, status: Status) -> tuple[int, Status, Progress]:
        """A new status: always published, with the latest value; what was said of downloads is over with them."""
        if self._waiting is not None:
            self._last, self._waiting = self._waiting, None
        if self._status == "preparing":
            last = self._last
            self._last = Progress(value=last.value, nodes_done=last.nodes_done, nodes_total=last.nodes_total)
        self._status = status
        return self._send(status, self._last)

    def value(self, progress: Progress, *, publish: bool = True) -> tuple[int, Status, Progress] | None:
        """A new value: published now, or kept until ``due`` or the next change of status."""
        if progress.value < max(self._last.value, self._waiting.value if self._waiting else 0.0):
            progress = progress.model_copy(update={"value": max(self._last.value, progress.value)})
        self._waiting = progress
        return self.due() if publish else None

    def due(self) -> tuple[int, Status, Progress] | None:
        """The value that waits, if the rate allows it by now."""
        if self._waiting is None or self._status is None or not self._allowed():
            return None
        self._last, self._waiting = self._waiting, None
        return self._send(self._status, self._last)

    @property
    def waits(self) -> bool:
        """A value has yet to be published."""
        return self._waiting is not None

    def _allowed(self) -> bool:
        now = self._clock()
        if self._sent and now - self._sent[-1] < WINDOW_S / self._rate:
            return False
        full = len(self._sent) == self._sent.maxlen
        return not full or now - self._sent[0] >= WINDOW_S

    def _send(self, status: Status, progress: Progress) -> tuple[int, Status, Progress]:
        self._sequence += 1
        self._sent.append(self._clock())
        return self._sequence, status, progress
