"""Cancels heard on the control channel: of prompts in hand and of those still to come.

Used by control, pipeline, worker; may import brokers.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime, timedelta

from brokers.base import RequestKey

__all__ = ["Cancels"]

KEPT = timedelta(hours=24)


class Cancels:
    """Remembers for 24 hours which ids were cancelled and when.

    A cancel may come before its request and then holds. It does not hit a replay published after it.
    """

    def __init__(self) -> None:
        self._at: OrderedDict[str, datetime] = OrderedDict()

    def add(self, request_id: str, at: datetime) -> None:
        """Note a cancel and forget those that are too old."""
        self._at[request_id] = max(at, self._at.pop(request_id, at))
        oldest = datetime.now(UTC) - KEPT
        while self._at and next(iter(self._at.values())) < oldest:
            self._at.popitem(last=False)

    def hits(self, key: RequestKey, published_at: datetime) -> bool:
        """Whether this request was cancelled."""
        at = self._at.get(key.id)
        if at is None or at < datetime.now(UTC) - KEPT:
            return False
        return key.replay == 0 or published_at < at
