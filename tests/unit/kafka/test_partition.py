"""One partition in memory: what is handed out, what comes back, and what is left of it when it changes hands."""

from __future__ import annotations

from typing import Any

import pytest

from brokers.base import RequestKey, Tries
from brokers.kafka.claims import Answered
from brokers.kafka.library import TopicPartition
from brokers.kafka.partition import AHEAD, Partition, Received, Work
from brokers.kafka.unreadable import stand_in
from brokers.lost import Lost
from brokers.tracker import Finished, Mark, Noted, Tracker

pytestmark = pytest.mark.anyio

SOURCE = TopicPartition("p.prompt.request", 0)


class Held:
    """What a holder has of a delivery."""

    def __init__(self, received: Received) -> None:
        self.offset = received.record.offset
        self.redelivered = received.handed_out
        self.lost = Lost()


def partition(mark: Mark | None = None, *offsets: int) -> Partition:
    """One that was taken over, with these requests read."""
    made = Partition(SOURCE, lambda: None)
    made.restore(mark)
    made.is_open = True
    for offset in offsets:
        made.receive(stand_in(SOURCE, offset))
    return made


def hand_out(given: Partition, now: float = 0.0) -> Any:
    """The next one, or None."""
    offset = given.next_ready(now)
    return given.hand_out(offset, Held) if offset is not None else None  # type: ignore[arg-type]


def commit(given: Partition, *works: Work) -> Mark:
    """As a session commits."""
    for work in works:
        given.submit(work)
    staged = given.tracker.after(work.change for work in works if work.change is not None)
    given.is_committed(works, (), staged.mark(), staged.position)
    return staged.mark()


async def test_requests_are_handed_out_in_order_and_once() -> None:
    """The lowest offset first; one that is read again while it is in memory is passed over."""
    given = partition(None, 0, 1, 2)
    given.receive(stand_in(SOURCE, 1))
    assert [hand_out(given).offset for _ in range(3)] == [0, 1, 2]
    assert hand_out(given) is None


async def test_nothing_is_handed_out_before_a_commit_covers_it() -> None:
    """At first nothing is covered; after a commit so many behind the position it tells of."""
    given = partition(None, 0)
    assert not given.is_covered(0)
    commit(given, Work())
    assert given.is_covered(0)
    assert given.is_covered(AHEAD)
    assert not given.is_covered(AHEAD + 1)


async def test_what_a_predecessor_may_have_handed_out_counts_as_redelivered() -> None:
    """Everything up to what its last commit covered; what lies behind was surely never in anybody's hands."""
    given = partition(Mark(3), *range(3, 3 + AHEAD + 2))
    flags = [hand_out(given).redelivered for _ in range(AHEAD + 2)]
    assert flags == [True] * AHEAD + [False, False]


async def test_a_retry_waits_and_blocks_nobody() -> None:
    """It comes back when its time has come, before fresh ones, and counts as redelivered."""
    given = partition(None, 0, 1, 2)
    hand_out(given)
    given.give_back(0, due=10.0)
    assert given.next_due == 10.0
    assert hand_out(given, 9.9).offset == 1
    again = hand_out(given, 10.0)
    assert (again.offset, again.redelivered) == (0, True)
    assert hand_out(given, 10.0).offset == 2


async def test_what_is_released_is_there_for_anybody() -> None:
    """It shows, until it is handed out again or settled."""
    given = partition(None, 0)
    hand_out(given)
    assert not given.has_released
    given.give_back(0)
    assert given.has_released
    hand_out(given)
    assert not given.has_released


async def test_unfinished_requests_of_before_are_read_again_first() -> None:
    """One by one where they lie, then on from the position; those between are not asked for."""
    before = Tracker(0)
    for offset in range(10):
        before.take(offset)
    before.apply([Noted(2, Tries(attempt=3)), *(Finished(o) for o in (0, 1, 3, 4, 6, 7, 8, 9))])
    given = partition(before.mark())
    assert given.wanted_offset == 2
    given.receive(stand_in(SOURCE, 2))
    assert given.wanted_offset == 5
    given.receive(stand_in(SOURCE, 5))
    assert (given.wanted_offset, given.is_rereading) == (10, False)
    assert [hand_out(given).offset for _ in range(2)] == [2, 5]
    assert given.tracker.unfinished[2] == Tries(attempt=3)


async def test_an_unfinished_request_that_was_deleted_is_given_up() -> None:
    """When the log begins behind it nobody can answer it any more; it holds up nothing."""
    before = Tracker(0)
    for offset in (0, 1):
        before.take(offset)
    given = partition(before.mark())
    given.receive(stand_in(SOURCE, 7))
    assert [work.change for work in given.work] == [Finished(0), Finished(1)]
    assert (given.wanted_offset, hand_out(given).offset) == (8, 7)


async def test_what_comes_back_unchanged_goes_on() -> None:
    """A rebalance that gives the partition back costs nothing: same deliveries, same waiting retries, same work."""
    given = partition(None, 0, 1, 2)
    held = hand_out(given)
    hand_out(given)
    given.give_back(1, due=5.0)
    mark = commit(given, Work())
    work = Work(Finished(0))
    given.submit(work)
    given.is_open = False
    given.restore(mark)
    given.is_open = True
    assert not held.lost.is_set()
    assert given.next_due == 5.0
    assert list(given.work) == [work]
    assert hand_out(given).offset == 2


async def test_what_another_one_settled_meanwhile_is_lost_and_the_rest_goes_on() -> None:
    """By what is committed: a finished one and one somebody else worked on are lost, an untouched one is not."""
    given = partition(None, 0, 1, 2, 3)
    held = [hand_out(given) for _ in range(3)]
    mark = commit(given, Work())
    theirs = Tracker.read(mark)
    given.restore(theirs.after([Finished(0), Noted(1, Tries(attempt=2))]).mark())
    assert [one.lost.is_set() for one in held] == [True, True, False]
    assert given.wanted_offset == 1
    given.receive(stand_in(SOURCE, 1))
    assert hand_out(given).offset == 1
    assert given.tracker.unfinished[1] == Tries(attempt=2)
    assert hand_out(given).offset == 3


async def test_work_whose_end_nobody_heard_ends_as_it_was_committed() -> None:
    """After a broken commit: answered by us, answered by somebody else, noted by us, not committed."""
    given = partition(None, 0, 1, 2, 3)
    held = [hand_out(given) for _ in range(4)]
    mark = commit(given, Work())
    ours, others = Answered(0, ("ours",)), Answered(0, ("others",))
    works = [
        Work(Finished(0), key=RequestKey("a"), answer=ours),
        Work(Finished(1), key=RequestKey("b"), answer=ours),
        Work(Noted(2, Tries(begun=True))),
        Work(Finished(3)),
    ]
    for work in works:
        given.submit(work)
    given.claims.note("a", ours)
    given.claims.note("b", others)
    given.restore(Tracker.read(mark).after([Finished(0), Finished(1), Noted(2, Tries(begun=True))]).mark())
    assert [work.done.is_set() for work in works] == [True, True, False, False]
    assert [work.committed for work in works[:2]] == [True, False]
    assert list(given.work) == works[2:]
    assert [one.lost.is_set() for one in held[2:]] == [False, False]


async def test_a_partition_that_moved_away_takes_everything_with_it() -> None:
    """Holders are told, work ends uncommitted, and what is submitted later too."""
    given = partition(None, 0, 1)
    held = hand_out(given)
    before, after = Work(Finished(0)), Work(Finished(0))
    given.submit(before)
    given.lose()
    given.submit(after)
    assert held.lost.is_set()
    assert [(work.done.is_set(), work.committed) for work in (before, after)] == [(True, False)] * 2
    assert hand_out(given) is None


async def test_a_partition_without_room_is_not_read() -> None:
    """So many unfinished ones fit a commit; after some are settled there is room again."""
    given = partition(None)
    offset = 0
    while given.may_read:
        given.receive(stand_in(SOURCE, offset))
        offset += 1
    assert offset > 100
    commit(given, *(Work(Finished(one)) for one in range(50)))
    assert given.may_read
