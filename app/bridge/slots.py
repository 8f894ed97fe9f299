"""Room for attempts over all endpoints, with a part that those which fail cannot take from the others.

Used by app.bridge.app, dispatch; may import nothing of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Slots"]

SLOTS: Final = 256
# Endpoints that hang hold their slots for the whole deadline.
FOR_FAILING: Final = 192


class Slots:
    """Counts attempts under way; nobody waits in here."""

    def __init__(self, total: int = SLOTS, for_failing: int = FOR_FAILING) -> None:
        self._total = total
        self._for_failing = for_failing
        self._taken = 0
        self._failing = 0
        self._waiting: list[Callable[[], None]] = []

    def take(self, *, failing: bool) -> bool:
        """Take a slot if there is one.

        Args:
            failing: The last attempt at the endpoint failed.
        """
        if self._taken >= self._total or (failing and self._failing >= self._for_failing):
            return False
        self._taken += 1
        self._failing += failing
        return True

    def give(self, *, failing: bool) -> None:
        """Give a slot back, and tell all who wait for one."""
        self._taken -= 1
        self._failing -= failing
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def tell_when_free(self, call: Callable[[], None]) -> None:
        """Call once when a slot is given back."""
        self._waiting.append(call)
