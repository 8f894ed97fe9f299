"""The fleet and its prompts in hand, as worker and progress events tell of them. Pure but for the moments given to it.

Used by live, live_table; may import nothing of ours.

Nothing is known here of terminal events: that a prompt is in hand no more is told by its worker, which never has more
in hand than its capacity, and says at every heartbeat how many it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

__all__ = ["Fleet", "InHand", "WorkerView"]

# A worker that is gone for good is no use in a table for long.
FORGET_STOPPED = timedelta(seconds=60)
FORGET_SILENT = timedelta(minutes=10)
# Of workers that never said how many slots they have.
MOST_IN_HAND = 1000
MOST_WORKERS = 1000


@dataclass
class InHand:
    """One prompt.

    Attributes:
        event: Its latest progress event.
        first: When it was first heard of by this worker.
        last: When it was last heard of.
    """

    event: Mapping[str, Any]
    first: datetime
    last: datetime

    @property
    def storing(self) -> bool:
        """It has run; the next that is heard of it would be its answer."""
        return self.event.get("status") == "storing"


@dataclass
class WorkerView:
    """One worker.

    Attributes:
        event: Its last sign of life; empty while only progress of it was heard.
        heard: When that was, or its last progress.
        prompts: What it has in hand, by request id and replay, in the order in which it began.
    """

    event: Mapping[str, Any]
    heard: datetime
    prompts: dict[tuple[str, int], InHand] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        """It said farewell."""
        return self.event.get("type") == "worker.stopped"

    @property
    def capacity(self) -> int | None:
        """Its slots."""
        found = self.event.get("capacity")
        return found if isinstance(found, int) else None

    def keep(self, count: int) -> None:
        """No more than so many prompts are in hand: the ones that end first are those that store, then the silent."""
        ending = sorted(self.prompts, key=lambda key: (not self.prompts[key].storing, self.prompts[key].last))
        for key in ending[: max(0, len(self.prompts) - count)]:
            del self.prompts[key]


class Fleet:
    """All workers that were heard of."""

    def __init__(self) -> None:
        self.workers: dict[str, WorkerView] = {}

    def take(self, event: Mapping[str, Any], now: datetime) -> None:
        """Take one event in; others than of workers and progress change nothing.

        Args:
            event: As decoded JSON, from whoever may write to the channel.
            now: When it came.
        """
        kind, name = event.get("type"), event.get("worker")
        if not isinstance(name, str) or (name not in self.workers and len(self.workers) >= MOST_WORKERS):
            return
        if kind in ("worker.started", "worker.heartbeat", "worker.stopped"):
            self._sign(name, event, now)
        elif kind == "prompt.progress" and isinstance(event.get("id"), str):
            self._progress(name, event, now)

    def forget(self, now: datetime) -> None:
        """Leave out workers that have been gone for long."""
        for name, view in list(self.workers.items()):
            if now - view.heard > (FORGET_STOPPED if view.stopped else FORGET_SILENT):
                del self.workers[name]

    def _sign(self, name: str, event: Mapping[str, Any], now: datetime) -> None:
        view = self.workers.setdefault(name, WorkerView(event, now))
        view.event, view.heard = event, _moment(event, now)
        in_flight = event.get("in_flight")
        # Its count and its progress go different ways: what was heard of just now may be younger than the count.
        young = sum(prompt.last > view.heard for prompt in view.prompts.values())
        if event["type"] != "worker.heartbeat":
            view.prompts.clear()
        elif isinstance(in_flight, int):
            view.keep(in_flight + young)

    def _progress(self, name: str, event: Mapping[str, Any], now: datetime) -> None:
        view = self.workers.setdefault(name, WorkerView({}, now))
        replay = event.get("replay")
        key = (str(event["id"]), replay if isinstance(replay, int) else 0)
        for other in self.workers.values():
            # Handed back by one, taken by another.
            if other is not view:
                other.prompts.pop(key, None)
        at = _moment(event, now)
        known = view.prompts.get(key)
        if known is None or known.event.get("attempt") != event.get("attempt"):
            view.prompts.pop(key, None)
            view.prompts[key] = InHand(event, at, at)
        else:
            known.event, known.last = event, at
        view.heard = max(view.heard, at)
        view.keep(view.capacity or MOST_IN_HAND)


def _moment(event: Mapping[str, Any], now: datetime) -> datetime:
    """When it was said, but never later than it came: clocks differ."""
    try:
        said = datetime.fromisoformat(str(event.get("timestamp")))
        return min(said, now)
    except (TypeError, ValueError):
        return now
