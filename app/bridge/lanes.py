"""What waits in one share, by endpoint: which delivery is next, and when. No waiting and no network in here.

Used by app.bridge.app, deliver, dispatch, metrics; may import brokers.

A lane holds the deliveries of one endpoint. Within it those of one prompt form a chain and go out one after the other,
in the order in which they were stored; a delivery that failed holds up its chain, not its lane. Lanes know nothing of
each other.

Memory is bounded per lane: of a long row only the first ``WINDOW`` are held, the rest is read again when they are gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from app.bridge.record import Record, host_of
from brokers.webhooks import Waiting

__all__ = ["WINDOW", "Item", "Lane"]

WINDOW: Final = 1000
# From so many failures in a row on an endpoint counts as down, and its next success as its return.
DOWN_AFTER: Final = 3


@dataclass(slots=True)
class Item:
    """A delivery that waits.

    Attributes:
        id: Of the delivery.
        token: Of its record, as far as we know.
        order: Place in the order of first storing.
        due_s: When the next attempt is due, seconds since 1970.
        created_s: When its event was read, likewise.
        chain: What it is kept in order with.
        attempts: Made so far.
        early_due_s: When it was due before it was called early; an early attempt that fails does not count.
        patient: It may not be called early: the receiver named the time, or it was called early before.
    """

    id: str
    token: int
    order: int
    due_s: float
    created_s: float
    chain: str
    attempts: int = 0
    early_due_s: float | None = None
    patient: bool = False


@dataclass(slots=True)
class Lane:
    """Deliveries of one endpoint.

    Attributes:
        name: Of the lane.
        host: Host and port, for labels.
        concurrency: How many may be under way at once.
        items: All that wait or are under way.
        busy: Those under way.
        hold_until_s: Nothing begins before, seconds since 1970: the receiver asked for it.
        failures: In a row, of different attempts.
        unreachable: The last failure was no answer at all.
        left_out: Token behind which records were not taken in for lack of room; None if all are here.
    """

    name: str
    host: str
    concurrency: int
    items: dict[str, Item] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    hold_until_s: float = 0.0
    failures: int = 0
    unreachable: bool = False
    left_out: int | None = None

    def add(self, waiting: Waiting, record: Record) -> bool:
        """A record was read: take it in, or note that there was no room for it; False when nothing here changed."""
        known = self.items.get(waiting.id)
        if known is not None:
            if waiting.token <= known.token or waiting.id in self.busy:
                return False
            self._note(known, waiting.token, record)
            return True
        if len(self.items) >= WINDOW:
            behind = waiting.token - 1
            self.left_out = behind if self.left_out is None else min(self.left_out, behind)
            return False
        item = Item(waiting.id, waiting.token, record.order or waiting.token, 0, record.created_ms / 1000, record.id)
        if record.prompt is not None:
            item.chain = f"{record.origin}/{record.subscription or ''}/{record.prompt}"
        self._note(item, waiting.token, record)
        self.items[waiting.id] = item
        if record.attempts:
            # Read at the beginning: whether the endpoint is back yet is not known.
            self.failures = max(self.failures, DOWN_AFTER)
        return True

    @staticmethod
    def _note(item: Item, token: int, record: Record) -> None:
        item.token, item.due_s, item.attempts = token, record.due_ms / 1000, record.attempts
        item.early_due_s, item.patient = None, record.asked

    @property
    def wants_refill(self) -> bool:
        """Whether records that were left out should be read now."""
        return self.left_out is not None and len(self.items) <= WINDOW // 2

    @property
    def is_empty(self) -> bool:
        """Whether it can be forgotten."""
        return not self.items and self.left_out is None

    # --- what is next

    def _heads(self) -> list[Item]:
        """The first of each chain, those under way left out with all behind them."""
        heads = dict[str, Item]()
        for item in self.items.values():
            head = heads.get(item.chain)
            if head is None or item.order < head.order:
                heads[item.chain] = item
        return [item for item in heads.values() if item.id not in self.busy]

    def begin_at(self) -> float | None:
        """When the next attempt may begin, seconds since 1970; None while there is nothing to begin."""
        if len(self.busy) >= self.concurrency:
            return None
        first = min((item.due_s for item in self._heads()), default=None)
        return None if first is None else max(first, self.hold_until_s)

    def begin(self, now_s: float) -> Item | None:
        """Take the delivery that has been due for longest, if one may begin now."""
        if len(self.busy) >= self.concurrency or now_s < self.hold_until_s:
            return None
        item = min(self._heads(), key=lambda one: (one.due_s, one.order), default=None)
        if item is None or item.due_s > now_s:
            return None
        self.busy.add(item.id)
        return item

    # --- how it went

    def over(self, item: Item) -> None:
        """It is settled, whichever way."""
        self.busy.discard(item.id)
        self.items.pop(item.id, None)

    def again(self, item: Item, waiting: Waiting, record: Record) -> None:
        """It failed and its record was changed."""
        self.busy.discard(item.id)
        self._note(item, waiting.token, record)

    def again_as_before(self, item: Item) -> None:
        """It failed when it was called early: back to when it was due."""
        self.busy.discard(item.id)
        if item.early_due_s is not None:
            item.due_s, item.early_due_s = item.early_due_s, None

    def answered(self, now_s: float) -> None:
        """The endpoint took a delivery; if it was down, those that wait for another try are due now, once."""
        returned = self.unreachable or self.failures >= DOWN_AFTER
        self.failures, self.unreachable = 0, False
        if not returned:
            return
        for item in self.items.values():
            if item.due_s > now_s and not item.patient and item.id not in self.busy:
                item.early_due_s, item.due_s, item.patient = item.due_s, now_s, True

    def failed(self, *, unreachable: bool, hold_until_s: float = 0.0) -> None:
        """The endpoint did not take a delivery."""
        self.failures += 1
        self.unreachable = unreachable
        self.hold_until_s = max(self.hold_until_s, hold_until_s)

    @property
    def oldest_s(self) -> float | None:
        """When the event of the oldest delivery was read, seconds since 1970."""
        return min((item.created_s for item in self.items.values()), default=None)


def make_lane(name: str, url: str, concurrency: int) -> Lane:
    """An empty lane for an endpoint."""
    return Lane(name, host_of(url), concurrency)
