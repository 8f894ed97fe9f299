"""The tracker of offsets: nothing unfinished is ever lost, whatever is finished in which order and whenever it dies."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field

import pytest

from brokers.base import Tries
from brokers.tracker import METADATA_LIMIT_BYTES, Finished, Mark, Noted, Tracker

FAULTS = [None, "ComfyUI was down", "ü" * 500, "comfyui_unavailable: " + "x" * 480]


@dataclass
class Partition:
    """A partition, its committed mark, and the truth about every offset to hold the tracker to."""

    rng: random.Random
    committed: Mark = field(default_factory=lambda: Mark(0))
    settled: set[int] = field(default_factory=set)
    records: dict[int, Tries] = field(default_factory=dict)
    end: int = 0

    def __post_init__(self) -> None:
        self.tracker = Tracker.read(self.committed)

    def take(self) -> None:
        gap = self.rng.choice([0, 0, 0, 1, 5])
        self.end += gap
        self.tracker.take(self.end)
        self.end += 1

    def commit(self) -> None:
        """One transaction that finishes or notes some of what is in hand."""
        in_hand = list(self.tracker.unfinished)
        chosen = self.rng.sample(in_hand, min(len(in_hand), self.rng.choice([0, 1, 1, 2, 4])))
        changes: list[Finished | Noted] = []
        for offset in chosen:
            if self.rng.random() < 0.6:
                changes.append(Finished(offset))
            else:
                tries = Tries(
                    attempt=self.rng.randint(1, 9),
                    begun=self.rng.random() < 0.5,
                    started_ms=self.rng.choice([None, 1_763_816_921_123]),
                    failures=self.rng.randint(0, 3),
                    stopped=self.rng.choice([None, "cancelled", "timeout", "drained"]),
                    fault=self.rng.choice(FAULTS),
                )
                changes.append(Noted(offset, tries))
        mark = self.tracker.after(changes).mark()
        if self.rng.random() < 0.1:
            return  # the transaction is aborted: nothing of it counts
        self.committed = mark
        self.tracker.apply(changes)
        for change in changes:
            if isinstance(change, Finished):
                self.settled.add(change.offset)
            else:
                self.records[change.offset] = change.tries

    def crash(self) -> None:
        self.tracker = Tracker.read(self.committed)
        self.end = self.tracker.position


@pytest.mark.parametrize("seed", range(40))
def test_nothing_unfinished_is_lost_and_nothing_finished_returns(seed: int) -> None:
    """Through takes, commits in any order and crashes: unfinished offsets return with their record, others never."""
    world = Partition(random.Random(seed))
    for _ in range(400):
        step = world.rng.random()
        if step < 0.5 and len(world.tracker.unfinished) < 20:
            world.take()
        elif step < 0.97:
            world.commit()
        else:
            world.crash()
            unfinished = world.tracker.unfinished
            assert not set(unfinished) & world.settled
            for offset in world.settled:
                assert world.tracker.is_finished(offset)
            for offset, tries in unfinished.items():
                wanted = world.records.get(offset, Tries())
                assert tries.model_copy(update={"fault": None}) == wanted.model_copy(update={"fault": None})
                assert (wanted.fault or "").startswith(tries.fault or "")
        assert len(world.committed.metadata) <= METADATA_LIMIT_BYTES
        assert world.committed.offset <= world.tracker.low


def test_a_commit_is_read_back_as_it_was() -> None:
    """Position, unfinished offsets and their records survive, the order of offsets too."""
    tracker = Tracker(5)
    for offset in (5, 6, 9, 10):
        tracker.take(offset)
    tries = Tries(attempt=3, begun=True, started_ms=5, failures=1, stopped="timeout", fault="it was slow")
    tracker.apply([Finished(6), Noted(9, tries)])
    mark = tracker.mark()
    again = Tracker.read(mark)
    assert mark.offset == 5
    assert again.position == 11
    assert list(again.unfinished.items()) == [(5, Tries()), (9, tries), (10, Tries())]
    assert [again.is_finished(offset) for offset in range(4, 12)] == [
        True,
        False,
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_the_low_mark_follows_the_first_unfinished_one() -> None:
    """It stays at a long prompt however many behind it are finished, and then jumps to the end, without metadata."""
    tracker = Tracker(0)
    for offset in range(100_000):
        tracker.take(offset)
        if offset:
            tracker.apply([Finished(offset)])
    assert tracker.mark() == Mark(0, '{"v":1,"n":100000,"u":[0]}')
    tracker.apply([Finished(0)])
    assert tracker.mark() == Mark(100_000, "")


@pytest.mark.parametrize(
    "metadata", ["", "anything", "{}", "[]", "null", '{"v":2,"n":1,"u":[]}', "z:!!", "z:AAAA", '{"v":1}']
)
def test_metadata_of_somebody_else_means_a_plain_offset(metadata: str) -> None:
    """An offset that an operator set is where it goes on."""
    tracker = Tracker.read(Mark(42, metadata))
    assert (tracker.position, tracker.low, dict(tracker.unfinished)) == (42, 42, {})


def test_an_offset_is_taken_once() -> None:
    """Taking one again, or one behind, is a fault of ours."""
    tracker = Tracker(3)
    tracker.take(7)
    for offset in (7, 6, 2):
        with pytest.raises(ValueError, match="taken before"):
            tracker.take(offset)


def test_a_change_of_a_finished_offset_changes_nothing() -> None:
    """A record that comes late does not bring a request back."""
    tracker = Tracker(0)
    tracker.take(0)
    tracker.apply([Finished(0)])
    tracker.apply([Noted(0, Tries(attempt=2)), Finished(0)])
    assert dict(tracker.unfinished) == {}


def test_a_copy_with_changes_leaves_the_original_alone() -> None:
    """What is not committed does not count."""
    tracker = Tracker(0)
    tracker.take(0)
    assert tracker.after([Finished(0)]).low == 1
    assert tracker.low == 0


@pytest.mark.parametrize("fault", FAULTS)
def test_room_ends_before_the_metadata_is_too_long(fault: str | None) -> None:
    """Taken as long as there is room, all records may grow and still fit; faults give way first."""
    rng = random.Random(3)
    tracker, offset = Tracker(0), 0
    while tracker.has_room:
        tracker.take(offset)
        offset += rng.randint(1, 1000)
    assert len(tracker.unfinished) > 90
    for offset in list(tracker.unfinished):
        began = 1_763_816_921_123 + rng.randint(0, 10**9)
        own = f"{rng.random()} {fault}" if fault else None
        tries = Tries(attempt=rng.randint(1, 5), begun=True, started_ms=began, failures=1, stopped="drained", fault=own)
        tracker.apply([Noted(offset, tries)])
    assert len(tracker.mark().metadata) <= METADATA_LIMIT_BYTES
    assert list(Tracker.read(tracker.mark()).unfinished) == list(tracker.unfinished)


def test_records_that_fit_are_kept_whole() -> None:
    """Sixty waiting retries with a sentence each keep it."""
    tracker = Tracker(0)
    for offset in range(60):
        tracker.take(offset)
        tracker.apply([Noted(offset, Tries(attempt=2, fault="comfyui_unavailable: ComfyUI does not answer"))])
    again = Tracker.read(tracker.mark())
    assert {tries.fault for tries in again.unfinished.values()} == {"comfyui_unavailable: ComfyUI does not answer"}


def test_metadata_is_readable_until_it_is_long() -> None:
    """An operator can read what a group's offsets say of a few requests; of many it is compressed."""
    few, many = Tracker(0), Tracker(0)
    for tracker, count in ((few, 3), (many, 60)):
        for offset in range(count):
            tracker.take(offset)
            tracker.apply([Noted(offset, Tries(attempt=2, begun=True, started_ms=1_763_816_921_123 + offset))])
    assert json.loads(few.mark().metadata)["n"] == 3
    assert few.mark().metadata.isascii()
    assert not many.mark().metadata.startswith("{")
    assert Tracker.read(many.mark()).unfinished == many.unfinished
