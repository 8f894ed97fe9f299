"""The row of one endpoint: what is next, in which order, and what a success or a failure changes."""

from __future__ import annotations

import random
from typing import Any

from app.bridge.lanes import WINDOW, Item, Lane, make_lane
from app.bridge.record import Record
from app.bridge.slots import Slots
from brokers.webhooks import Waiting

NOW = 1_000.0


def lane(concurrency: int = 1) -> Lane:
    return make_lane("00", "https://a.example/x", concurrency)


def record(name: str, **fields: Any) -> Record:
    base = {"id": name, "webhook_id": name, "origin": "webhook_v2", "url": "https://a.example/x", "event": "e"}
    return Record.model_validate({**base, "created_ms": 0, "due_ms": 0, **fields})


def add(row: Lane, name: str, token: int, **fields: Any) -> None:
    row.add(Waiting(name, row.name, token, b""), record(name, **fields))


def begun(row: Lane, now: float = NOW) -> list[str]:
    found = []
    while item := row.begin(now):
        found.append(item.id)
    return found


def test_the_longest_due_goes_first_and_no_more_than_allowed() -> None:
    """Deliveries begin in the order in which they became due, as many at once as the endpoint may have."""
    row = lane(2)
    for number, due_ms in enumerate([3000, 1000, 2000]):
        add(row, f"d{number}", number + 1, due_ms=due_ms)
    assert row.begin_at() == 1
    assert begun(row) == ["d1", "d2"]
    assert row.begin_at() is None
    row.over(row.items["d1"])
    assert begun(row) == ["d0"]


def test_nothing_begins_before_it_is_due() -> None:
    """A delivery that is due later is left alone until then."""
    row = lane()
    add(row, "later", 1, due_ms=int(NOW * 1000) + 500)
    assert begun(row) == []
    assert row.begin_at() == NOW + 0.5
    assert begun(row, NOW + 0.5) == ["later"]


def test_one_prompt_stays_in_order_even_after_a_restart() -> None:
    """The first of a prompt holds up the others of it, also when its record was written last."""
    row = lane(9)
    add(row, "second", 5, prompt="p")
    add(row, "other", 6, prompt="q")
    # Its record was changed after the others were stored; its place in the order did not.
    add(row, "first", 9, prompt="p", order=2, due_ms=int(NOW * 1000) + 1000, attempts=1)
    assert begun(row) == ["other"]
    assert begun(row, NOW + 2) == ["first"]
    assert begun(row, NOW + 2) == []
    row.over(row.items["first"])
    assert begun(row, NOW + 2) == ["second"]


def test_prompts_do_not_wait_for_each_other_nor_do_kinds_of_webhook() -> None:
    """Only deliveries of the same prompt for the same asker are a chain."""
    row = lane(9)
    add(row, "a", 1, prompt="p", origin="subscription", subscription="one")
    add(row, "b", 2, prompt="p", origin="subscription", subscription="two")
    add(row, "c", 3, prompt="p", origin="webhook")
    add(row, "d", 4)
    add(row, "e", 5)
    assert len(begun(row)) == 5


def test_a_hold_stops_the_whole_lane() -> None:
    """When the receiver asked for time nothing goes to it before."""
    row = lane(9)
    add(row, "a", 1)
    add(row, "b", 2)
    item = row.begin(NOW)
    assert item is not None
    row.failed(unreachable=False, hold_until_s=NOW + 10)
    assert begun(row) == []
    assert row.begin_at() == NOW + 10
    assert begun(row, NOW + 10) == ["b"]


def fail(row: Lane, name: str, token: int, due_s: float, **fields: Any) -> None:
    item = row.begin(NOW)
    assert item is not None
    assert item.id == name
    changed = record(name, due_ms=int(due_s * 1000), attempts=1, order=1, **fields)
    row.failed(unreachable=True)
    row.again(item, Waiting(name, row.name, token, b""), changed)


def test_a_return_calls_what_waits_once() -> None:
    """After the endpoint was down a success makes all that waits due; an early attempt that fails changes nothing."""
    row = lane()
    add(row, "a", 1)
    add(row, "b", 2)
    fail(row, "a", 11, NOW + 500)
    fail(row, "b", 12, NOW + 900, asked=True)
    add(row, "c", 3)
    success = row.begin(NOW)
    assert success is not None
    row.over(success)
    row.answered(NOW)
    # b's receiver named its time: it is not called early.
    early = row.begin(NOW)
    assert early is not None
    assert (early.id, early.early_due_s) == ("a", NOW + 500)
    row.failed(unreachable=True)
    row.again_as_before(early)
    assert row.begin_at() == NOW + 500
    row.answered(NOW)
    assert row.begin_at() == NOW + 500


def test_single_failures_are_no_outage() -> None:
    """A delivery that the endpoint does not like waits its time, while it takes the others."""
    row = lane()
    add(row, "odd", 1)
    item = row.begin(NOW)
    assert item is not None
    row.failed(unreachable=False)
    row.again(item, Waiting("odd", row.name, 9, b""), record("odd", due_ms=int(NOW * 1000) + 5000, attempts=1))
    row.answered(NOW)
    assert row.begin_at() == NOW + 5


def test_after_a_restart_the_first_success_calls_what_failed_before() -> None:
    """Failures of an earlier process count: what waited for its hour then goes out with the first success now."""
    row = lane()
    add(row, "failed", 1, attempts=4, due_ms=int(NOW * 1000) + 3_600_000)
    add(row, "fresh", 2)
    item = row.begin(NOW)
    assert item is not None
    row.over(item)
    row.answered(NOW)
    assert begun(row) == ["failed"]


def test_a_long_row_is_held_in_part() -> None:
    """Of many deliveries the first thousand are in memory; where the rest begins is known."""
    row = lane()
    for number in range(WINDOW + 50):
        add(row, f"d{number:05d}", number + 1)
    assert len(row.items) == WINDOW
    assert row.left_out == WINDOW
    assert not row.wants_refill
    for number in range(WINDOW // 2):
        row.over(row.items[f"d{number:05d}"])
    assert row.wants_refill
    row.left_out = None
    for number in range(WINDOW, WINDOW + 50):
        add(row, f"d{number:05d}", number + 1)
    assert len(row.items) == WINDOW // 2 + 50
    assert not row.is_empty


def test_any_course_of_events_keeps_order_and_limit() -> None:
    """Whatever succeeds or fails when: each prompt in order, no delivery lost, never too many at once."""
    for seed in range(30):
        chance = random.Random(seed)
        row, now, token = lane(3), NOW, 100
        done = list[str]()
        under_way = list[Item]()
        for number in range(40):
            add(row, f"{number:02d}", number + 1, prompt=f"p{number % 7}")
        while len(done) < 40:
            item = row.begin(now)
            if item is not None:
                under_way.append(item)
                assert len(under_way) <= 3
                continue
            if not under_way:
                begin_at = row.begin_at()
                assert begin_at is not None
                assert begin_at > now
                now = begin_at
                continue
            item = under_way.pop(chance.randrange(len(under_way)))
            if chance.random() < 0.4:
                token += 1
                changed = record(item.id, prompt=item.chain.rpartition("/")[2], order=item.order)
                changed = changed.model_copy(
                    update={"due_ms": int((now + chance.uniform(1, 50)) * 1000), "attempts": 1}
                )
                row.failed(unreachable=chance.random() < 0.5)
                if item.early_due_s is None:
                    row.again(item, Waiting(item.id, row.name, token, b""), changed)
                else:
                    row.again_as_before(item)
            else:
                done.append(item.id)
                row.over(item)
                row.answered(now)
        for prompt in range(7):
            mine = [name for name in done if int(name) % 7 == prompt]
            assert mine == sorted(mine)
        assert row.is_empty


def test_slots_are_kept_for_those_that_work() -> None:
    """Endpoints that fail cannot take the last slots, and who waits is told when one is free."""
    slots = Slots(total=4, for_failing=3)
    assert [slots.take(failing=True) for _ in range(4)] == [True, True, True, False]
    assert slots.take(failing=False)
    assert not slots.take(failing=False)
    told = []
    slots.tell_when_free(lambda: told.append(1))
    slots.give(failing=True)
    slots.give(failing=True)
    assert told == [1]
    assert slots.take(failing=True)
