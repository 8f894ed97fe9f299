"""What became of one attempt, for whoever keeps the row of deliveries.

Used by deliver, dispatch; may import brokers.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.bridge.record import Record
from app.bridge.verdict import Verdict
from brokers.webhooks import Waiting

__all__ = ["Outcome"]


@dataclass(frozen=True)
class Outcome:
    """An attempt that is over, and stored.

    Attributes:
        verdict: None when there was nothing to attempt: somebody else has settled or changed the delivery.
        waiting: The changed record, if the delivery is tried again; None after an early attempt, which changes nothing.
        record: Likewise.
    """

    verdict: Verdict | None = None
    waiting: Waiting | None = None
    record: Record | None = None
