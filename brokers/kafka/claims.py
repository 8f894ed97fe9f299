"""Who may answer: the ids in hand and the ids answered, within one partition. Pure.

Used by answered, delivery, partition; may import brokers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from brokers.base import RequestKey

__all__ = ["REMEMBERED", "Answered", "Claims", "fingerprint_of"]

# So many answered ids are remembered per partition, the latest; some 5 MB when full.
REMEMBERED = 20_000
# By these an event that is stored is known as the one we sent.
_FINGERPRINT = ("id", "source", "time")


@dataclass(frozen=True)
class Answered:
    """The terminal event of an id: its replay, and what it is known by."""

    replay: int
    fingerprint: tuple[str, ...] = ()


def fingerprint_of(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """What a terminal event is known by, from its CloudEvents attributes."""
    return tuple(attributes.get(name, "") for name in _FINGERPRINT)


class Claims:
    """First come, first served: the first offset to claim an id keeps it until it is settled."""

    def __init__(self) -> None:
        self._holders: dict[RequestKey, int] = {}
        self._answered: OrderedDict[str, Answered] = OrderedDict()

    def claim(self, key: RequestKey, offset: int) -> bool:
        """Whether the request at this offset is the one to answer the key."""
        if self.find(key) is not None:
            return False
        return self._holders.setdefault(key, offset) == offset

    def find(self, key: RequestKey) -> Answered | None:
        """The terminal event of this replay of the id or of a later one."""
        known = self._answered.get(key.id)
        return known if known is not None and known.replay >= key.replay else None

    def note(self, request_id: str, answered: Answered) -> None:
        """An id was answered."""
        known = self._answered.pop(request_id, None)
        self._answered[request_id] = known if known is not None and known.replay > answered.replay else answered
        while len(self._answered) > REMEMBERED:
            self._answered.popitem(last=False)

    def drop(self, offset: int) -> None:
        """The request at this offset is settled or no longer ours."""
        for key in [key for key, holder in self._holders.items() if holder == offset]:
            del self._holders[key]
