"""What is wrong with the broker right now: told once in the log, shown in the health until it is over.

Used by bus, commands, upkeep, brokers.nats.webhooks; may import brokers.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from brokers.base import BrokerError, BrokerRefused
from brokers.nats.link import Link

__all__ = ["Troubles"]

log = structlog.get_logger("comfybus.nats")


class Troubles:
    """Troubles by what they keep us from doing; each begins with one error line and ends with one info line."""

    def __init__(self, link: Link, on_trouble: Callable[[], None]) -> None:
        """Prepare.

        Args:
            link: The connection, whose loss is no trouble of its own.
            on_trouble: Called at each report, the first and every further one.
        """
        self._link = link
        self._on_trouble = on_trouble
        self._found: dict[str, dict[object, BrokerError]] = {}

    def report(self, doing: str, trouble: BrokerError, who: object = None) -> None:
        """Something cannot be done now; while the connection is lost that is known already.

        Args:
            doing: What.
            trouble: Why.
            who: Tells several apart that try the same; it is over when it is over for each.
        """
        if not self._link.is_connected:
            return
        if doing not in self._found:
            log.error("trouble with the broker", doing=doing, reason=str(trouble))
        self._found.setdefault(doing, {})[who] = trouble
        self._on_trouble()

    def over(self, doing: str, who: object = None) -> None:
        """It can be done again, or nobody wants it any more."""
        found = self._found.get(doing, {})
        if found.pop(who, None) is not None and not found:
            del self._found[doing]
            log.info("trouble with the broker is over", doing=doing)

    def over_unless_refused(self, doing: str) -> None:
        """What was missing is there again; a refusal lasts until the thing itself succeeds."""
        if not isinstance(self._found.get(doing, {}).get(None), BrokerRefused):
            self.over(doing)

    @property
    def reason(self) -> str:
        """A sentence about the oldest trouble, or nothing."""
        return next((str(trouble) for found in self._found.values() for trouble in found.values()), "")
