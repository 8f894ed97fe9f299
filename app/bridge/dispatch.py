"""Works on one share of the queue: reads what waits, begins attempts when they are due, notes how they went.

Used by app.bridge.app; may import brokers.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Final, Protocol

import anyio
import structlog
from anyio.abc import TaskGroup

from app.bridge.lanes import Item, Lane, make_lane
from app.bridge.outcome import Outcome
from app.bridge.record import Record
from app.bridge.slots import Slots
from brokers.webhooks import Share, Waiting

__all__ = ["Attempts", "Dispatcher"]

# The clock may be set: never sleep longer without a look at it.
LONGEST_SLEEP_S: Final = 30.0
# How soon a share that we may have lost is looked at again.
UNSURE_SLEEP_S: Final = 0.2

log = structlog.get_logger("comfybus.bridge")


class Attempts(Protocol):
    """Makes one attempt and stores what it means."""

    async def attempt(self, share: Share, lane: Lane, item: Item) -> Outcome:
        """Deliver, then settle, defer or give up, confirmed by the broker; raises nothing."""


class Dispatcher:
    """The lanes of one share, alive while the share is ours."""

    def __init__(
        self,
        share: Share,
        attempts: Attempts,
        slots: Slots,
        *,
        concurrency: Callable[[Record], int],
    ) -> None:
        """Prepare.

        Args:
            share: What to work on.
            attempts: Does the deliveries.
            slots: Room for attempts, shared with all other shares.
            concurrency: How many deliveries may go to the endpoint of a record at once.
        """
        self._share = share
        self._attempts = attempts
        self._slots = slots
        self._concurrency = concurrency
        self._lanes: dict[str, Lane] = {}
        self._agenda: list[tuple[float, int, str]] = []
        self._entered: dict[str, float] = {}
        self._count = itertools.count()
        self._changed = anyio.Event()
        self._under_way = 0
        self._refilling: set[str] = set()

    def lanes(self) -> Iterator[Lane]:
        """All lanes in which something waits."""
        yield from self._lanes.values()

    async def run(self) -> None:
        """Work until the share is wanted back and nothing is under way, or until cancelled."""
        loaded = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, loaded)
            tasks.start_soon(self._tell_of_leave)
            # What was written last comes last, also where it is the first of its prompt: so all of it first.
            while not loaded.is_set() and not self._share.leave.is_set():
                await self._until_changed(LONGEST_SLEEP_S)
            while not self._share.leave.is_set():
                pause_s = self._begin_all(tasks) if self._share.is_ours else UNSURE_SLEEP_S
                await self._until_changed(pause_s)
            while self._under_way:
                await self._until_changed(LONGEST_SLEEP_S)
            tasks.cancel_scope.cancel()

    async def _until_changed(self, longest_s: float) -> None:
        with anyio.move_on_after(longest_s):
            await self._changed.wait()
        if self._changed.is_set():
            self._changed = anyio.Event()

    async def _tell_of_leave(self) -> None:
        await self._share.leave.wait()
        self._changed.set()

    # --- reading

    async def _read(self, loaded: anyio.Event) -> None:
        async with aclosing(self._share.read()) as records:
            async for waiting in records:
                if waiting is None:
                    loaded.set()
                    self._changed.set()
                else:
                    self._take_in(waiting)

    def _take_in(self, waiting: Waiting) -> None:
        record = Record.decode(waiting.record)
        if record is None:
            log.warning("record of a webhook cannot be read; it is left alone", delivery=waiting.id)
            return
        lane = self._lanes.get(waiting.lane)
        if lane is None:
            lane = make_lane(waiting.lane, record.url, self._concurrency(record))
            self._lanes[waiting.lane] = lane
        if lane.add(waiting, record):
            self._enter(lane)

    async def _refill(self, lane: Lane) -> None:
        after, lane.left_out = lane.left_out or 0, None
        try:
            async for waiting in self._share.read_lane(lane.name, after):
                self._take_in(waiting)
                if lane.left_out is not None:
                    break
        finally:
            self._refilling.discard(lane.name)
            self._forget_if_empty(lane)

    # --- beginning

    def _enter(self, lane: Lane) -> None:
        """Put a lane on the agenda for when something may begin in it."""
        begin_at = lane.begin_at()
        if begin_at is not None and self._entered.get(lane.name, float("inf")) > begin_at:
            self._entered[lane.name] = begin_at
            heapq.heappush(self._agenda, (begin_at, next(self._count), lane.name))
            self._changed.set()

    def _begin_all(self, tasks: TaskGroup) -> float:
        """Begin whatever is due; returns how long nothing more will be."""
        now = time.time()
        while self._agenda and self._agenda[0][0] <= now:
            begin_at, _, name = heapq.heappop(self._agenda)
            if self._entered.get(name) != begin_at:
                continue
            del self._entered[name]
            lane = self._lanes.get(name)
            if lane is not None:
                self._begin(lane, now, tasks)
        return min(self._agenda[0][0] - now, LONGEST_SLEEP_S) if self._agenda else LONGEST_SLEEP_S

    def _begin(self, lane: Lane, now: float, tasks: TaskGroup) -> None:
        while lane.begin_at() is not None:
            failing = lane.failures > 0
            if not self._slots.take(failing=failing):
                self._slots.tell_when_free(self._changed_with(lane))
                return
            item = lane.begin(now)
            if item is None:
                self._slots.give(failing=failing)
                break
            self._under_way += 1
            tasks.start_soon(self._attempt, lane, item, failing, tasks)
        self._enter(lane)

    def _changed_with(self, lane: Lane) -> Callable[[], None]:
        return lambda: self._enter(lane)

    # --- how it went

    async def _attempt(self, lane: Lane, item: Item, failing: bool, tasks: TaskGroup) -> None:
        try:
            outcome = await self._attempts.attempt(self._share, lane, item)
            self._note(lane, item, outcome)
        finally:
            self._under_way -= 1
            self._slots.give(failing=failing)
        if lane.wants_refill and lane.name not in self._refilling:
            self._refilling.add(lane.name)
            tasks.start_soon(self._refill, lane)
        self._forget_if_empty(lane)
        self._enter(lane)
        self._changed.set()

    def _note(self, lane: Lane, item: Item, outcome: Outcome) -> None:
        verdict = outcome.verdict
        if verdict is None:
            lane.over(item)
            return
        if verdict.kind == "delivered":
            lane.over(item)
            lane.answered(time.time())
            return
        if verdict.code not in ("unknown_subscription", "body_missing", "refused"):
            lane.failed(unreachable=verdict.unreachable, hold_until_s=verdict.hold_until_s)
        if verdict.kind != "retry":
            lane.over(item)
        elif outcome.waiting is not None and outcome.record is not None:
            lane.again(item, outcome.waiting, outcome.record)
        else:
            lane.again_as_before(item)

    def _forget_if_empty(self, lane: Lane) -> None:
        if lane.is_empty and lane.name not in self._refilling:
            self._lanes.pop(lane.name, None)
            self._entered.pop(lane.name, None)
