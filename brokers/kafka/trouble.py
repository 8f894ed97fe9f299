"""What is wrong with the broker right now: told once in the log, shown in the health until it is over.

Used by bus, commands, membership, session, brokers.kafka.webhooks.bus; may import brokers.
"""

from __future__ import annotations

import structlog

from brokers.base import BrokerError
from brokers.kafka.link import Link

__all__ = ["Troubles"]

log = structlog.get_logger("comfybus.kafka")


class Troubles:
    """Troubles by what they keep us from doing; each begins with one error line and ends with one info line."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._found: dict[str, str] = {}

    def report(self, doing: str, trouble: BrokerError | str) -> None:
        """Something cannot be done now; while the connection is lost that is known already."""
        if not self._link.is_connected:
            return
        if doing not in self._found:
            log.error("trouble with the broker", doing=doing, reason=str(trouble))
        self._found[doing] = str(trouble)

    def over(self, doing: str) -> None:
        """It can be done again, or nobody wants it any more."""
        if self._found.pop(doing, None):
            log.info("trouble with the broker is over", doing=doing)

    @property
    def reason(self) -> str:
        """A sentence about the oldest trouble, or nothing."""
        return next(iter(self._found.values()), "")
