"""One input partition as this worker has it: what was received, what is in hand, and what waits to be committed.

Used by bus, delivery, holdings, session; may import brokers.

It survives rebalances: while nobody knows whose the partition will be nothing can be committed, and what is in hand
goes on. When it comes back, what is committed by then decides what of it is still ours; when it is gone, all is lost.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import structlog

from brokers.base import RequestKey, Tries
from brokers.kafka.claims import Answered, Claims
from brokers.kafka.library import ConsumerRecord, TopicPartition
from brokers.kafka.writer import Outgoing
from brokers.tracker import Change, Finished, Mark, Noted, Tracker

if TYPE_CHECKING:
    from brokers.kafka.delivery import KafkaDelivery

__all__ = ["AHEAD", "Partition", "Received", "Work"]

# A commit covers so many requests behind the last one it tells of: they may be handed out before the next commit, and
# a successor takes them for handed out. More would make it look for runs that never were.
AHEAD = 16

log = structlog.get_logger("comfybus.kafka")


@dataclass
class Received:
    """A request in memory.

    Attributes:
        record: As it came.
        handed_out: It was handed out before, or may have been by somebody else.
    """

    record: ConsumerRecord
    handed_out: bool


@dataclass(eq=False)
class Work:
    """Something to commit; whoever waits for it looks at ``committed`` when it is ``done``.

    Attributes:
        change: What of the tracker changes.
        records: What is written in the same transaction.
        key: Whose terminal event is among them; it is left out when the key has one by then.
        answer: What that event is known by.
        committed: It is committed, its event with it; False when it was lost or somebody else answered before.
    """

    change: Change | None = None
    records: Sequence[Outgoing] = ()
    key: RequestKey | None = None
    answer: Answered | None = None
    done: anyio.Event = field(default_factory=anyio.Event)
    committed: bool = False

    def end(self, *, committed: bool) -> None:
        """Tell whoever waits."""
        self.committed = committed
        self.done.set()


class Partition:
    """What is known of one partition. A request in memory is ready, waits for its time, or is held."""

    def __init__(self, source: TopicPartition, on_change: Callable[[], None]) -> None:
        """Begin with nothing.

        Args:
            source: Topic and number.
            on_change: Called when there may be something to hand out.
        """
        self.source = source
        self.tracker = Tracker()
        self.claims = Claims()
        self.held: dict[int, KafkaDelivery] = {}
        self.is_open = False
        self.is_lost = False
        self.committed: Mark | None = None
        self.work: deque[Work] = deque()
        self.work_waits = anyio.Event()
        self._on_change = on_change
        self._memory: dict[int, Received] = {}
        self._ready: list[int] = []
        self._waiting: list[tuple[float, int]] = []
        self._released: set[int] = set()
        self._unread: deque[int] = deque()
        self._covered = 0
        self._maybe_before = 0

    # --- reading

    @property
    def is_rereading(self) -> bool:
        """Unfinished requests of before are being read again, one by one."""
        return bool(self._unread)

    @property
    def wanted_offset(self) -> int:
        """What to read next."""
        return self._unread[0] if self._unread else self.tracker.position

    @property
    def may_read(self) -> bool:
        """Whether another request would find room in the next commit's metadata."""
        return self.is_rereading or self.tracker.has_room

    def receive(self, record: ConsumerRecord) -> None:
        """A request was read; what was read before is passed over."""
        offset = record.offset
        while self._unread and self._unread[0] < offset:
            self._vanished(self._unread.popleft())
        if self._unread and self._unread[0] == offset:
            self._unread.popleft()
        elif offset >= self.tracker.position:
            self.tracker.take(offset)
        else:
            return
        self._memory[offset] = Received(record, handed_out=offset < self._maybe_before)
        heapq.heappush(self._ready, offset)
        self._on_change()

    def _vanished(self, offset: int) -> None:
        log.error("a request was deleted before it was answered", source=str(self.source), offset=offset)
        self.submit(Work(Finished(offset)))

    # --- handing out

    def next_ready(self, now: float) -> int | None:
        """The offset to hand out next; those whose time has come count as ready."""
        while self._waiting and self._waiting[0][0] <= now:
            heapq.heappush(self._ready, heapq.heappop(self._waiting)[1])
        while self._ready and self._ready[0] not in self._memory:
            heapq.heappop(self._ready)
        return self._ready[0] if self._ready and self.is_open else None

    @property
    def oldest_ready_ms(self) -> int | None:
        """When the request that is handed out next was published, milliseconds since 1970."""
        received = self._memory.get(self._ready[0]) if self._ready else None
        return received.record.timestamp if received else None

    @property
    def next_due(self) -> float | None:
        """When the next retry's time comes, on anyio's clock."""
        return self._waiting[0][0] if self._waiting and self.is_open else None

    def is_covered(self, offset: int) -> bool:
        """Whether a commit tells a successor that this offset may have been handed out."""
        return offset < self._covered

    def hand_out(self, offset: int, make: Callable[[Received], KafkaDelivery]) -> KafkaDelivery:
        """Give the request at the head of the ready ones to a holder."""
        heapq.heappop(self._ready)
        self._released.discard(offset)
        received = self._memory[offset]
        delivery = make(received)
        received.handed_out = True
        self.held[offset] = delivery
        return delivery

    def give_back(self, offset: int, due: float | None = None) -> None:
        """The holder has done with it for now: it is ready again, at once or when its time comes."""
        if self.held.pop(offset, None) is None or offset not in self._memory:
            return
        if due is None:
            heapq.heappush(self._ready, offset)
            self._released.add(offset)
        else:
            heapq.heappush(self._waiting, (due, offset))
        self._on_change()

    @property
    def has_released(self) -> bool:
        """Something was handed back, for anybody to take."""
        return bool(self._released)

    # --- committing

    def submit(self, work: Work) -> None:
        """Commit this soon; at once lost when the partition is."""
        if self.is_lost:
            work.end(committed=False)
            return
        self.work.append(work)
        self.work_waits.set()

    def is_committed(self, works: Sequence[Work], late: Sequence[Work], mark: Mark, position: int) -> None:
        """A transaction with these works is committed; the late ones without their event."""
        self.tracker.apply(work.change for work in works if work.change is not None)
        self.committed = mark
        self._covered = position + AHEAD
        for work in works:
            if isinstance(work.change, Finished):
                self._forget(work.change.offset)
            self.work.remove(work)
            work.end(committed=work not in late)
        self._on_change()

    def _forget(self, offset: int) -> None:
        """Settled, or another's by now."""
        self._memory.pop(offset, None)
        self._released.discard(offset)
        self.held.pop(offset, None)
        self.claims.drop(offset)

    # --- changing hands

    def restore(self, mark: Mark | None) -> None:
        """It is ours from here on: go on from what is committed, with what of our own is still unfinished there."""
        if self.committed is not None and mark == self.committed:
            return
        fresh = Tracker.read(mark or Mark(0))
        for offset in sorted(self._memory):
            if self._is_still_ours(fresh, offset):
                if offset >= fresh.position:
                    fresh.take(offset)
            elif (delivery := self.held.get(offset)) is not None:
                self._forget(offset)
                delivery.lost.set()
            else:
                self._forget(offset)
        self.tracker = fresh
        self.committed = mark
        if mark is not None:
            self._maybe_before = self._covered = Tracker.read(mark).position + AHEAD
        self._unread = deque(offset for offset in fresh.unfinished if offset not in self._memory)
        self._end_work_that_was_done()

    def _is_still_ours(self, fresh: Tracker, offset: int) -> bool:
        """Unfinished, and nobody else has worked on it: its record is as we left it or were about to leave it."""
        if offset >= fresh.position:
            return True
        if fresh.is_finished(offset):
            return False
        ours = [self.tracker.unfinished.get(offset, Tries())]
        ours += [
            work.change.tries for work in self.work if isinstance(work.change, Noted) and work.change.offset == offset
        ]
        return fresh.unfinished[offset] in ours

    def _end_work_that_was_done(self) -> None:
        """Of what we could not say whether it was committed, some was: by us, or by somebody else."""
        still = deque[Work]()
        for work in self.work:
            if work.change is None or not self.tracker.is_finished(work.change.offset):
                still.append(work)
                continue
            known = self.claims.find(work.key) if work.key is not None else None
            work.end(committed=work.answer is None or known == work.answer)
        self.work = still

    def lose(self) -> None:
        """It is another's: nothing of it can be committed here any more."""
        self.is_open, self.is_lost = False, True
        for delivery in list(self.held.values()):
            delivery.lost.set()
        self.held.clear()
        self._released.clear()
        self._memory.clear()
        while self.work:
            self.work.popleft().end(committed=False)
