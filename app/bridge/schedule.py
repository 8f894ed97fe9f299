"""When a delivery is tried again, and when it is given up.

Used by config, deliver, verdict, app.settings.bridge; may import nothing of ours.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["LONGEST_PATIENCE_S", "STANDARD_S", "Schedule", "retry_after_s"]

# The example schedule of the Standard Webhooks specification, section "Deliverability and reliability": after the
# immediate first attempt 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h; together a little over 75 hours.
STANDARD_S: Final = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
# Each delay is drawn from this part of itself around it, so that what failed together does not come back together.
JITTER: Final = 0.1
# Attempts wait for their turn too, at an endpoint that is slow to fail: beyond this much of the schedule the next
# failure is the last.
PATIENCE: Final = 1.5
PATIENCE_AT_LEAST_S: Final = 3600.0
# With one more delay, which is a week at the longest, less than a queue keeps its deliveries.
LONGEST_PATIENCE_S: Final = 27 * 86400.0
# A receiver that asks for more time than this is asked again all the same.
LONGEST_RETRY_AFTER_S: Final = 86400.0


@dataclass(frozen=True)
class Schedule:
    """Delays between attempts and their number.

    Attributes:
        delays_s: Before the second, third … attempt; the last one serves for all that follow.
        attempts: How many in all, the first included; None for as many as the delays allow.
    """

    delays_s: tuple[float, ...] = STANDARD_S
    attempts: int | None = None

    @property
    def total(self) -> int:
        """Attempts in all."""
        return self.attempts or len(self.delays_s) + 1

    @property
    def patience_s(self) -> float:
        """The age from which on a failed delivery is given up, whatever the number of its attempts."""
        span = sum(self._delay(number) for number in range(1, self.total))
        return min(max(span * PATIENCE, span + PATIENCE_AT_LEAST_S), LONGEST_PATIENCE_S)

    def next_delay_s(self, attempts: int, asked_s: float | None = None) -> float:
        """Seconds until the next attempt, with jitter.

        Args:
            attempts: Made so far, at least one.
            asked_s: What the receiver asked for by Retry-After; never shortened, at most a day.
        """
        delay = self._delay(attempts) * random.uniform(1 - JITTER, 1 + JITTER)
        return max(delay, min(asked_s or 0, LONGEST_RETRY_AFTER_S))

    def _delay(self, attempts: int) -> float:
        return self.delays_s[min(attempts, len(self.delays_s)) - 1] if self.delays_s else 0.0


def retry_after_s(value: str | None, now_s: float) -> float | None:
    """Seconds that a Retry-After header asks for: a number of them, or a date; None when it says nothing usable.

    Args:
        value: The header.
        now_s: Seconds since 1970.
    """
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:12]), LONGEST_RETRY_AFTER_S))
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max(aware.timestamp() - now_s, 0.0), LONGEST_RETRY_AFTER_S)
