"""When an execution thread counts as dead."""

from __future__ import annotations

from app.comfy.stillness import Stillness

_A = frozenset({"a"})


def test_five_seconds_of_waiting_with_nothing_running_are_enough() -> None:
    """The verdict comes with the look that completes 5 s, not before."""
    stillness = Stillness()
    verdicts = [stillness.answered(running=False, pending=_A, now_s=100.0 + second) for second in range(7)]
    assert verdicts == [False] * 5 + [True, True]


def test_a_look_that_sees_something_running_starts_anew() -> None:
    """One sign of life clears what was gathered."""
    stillness = Stillness()
    for second in range(5):
        assert not stillness.answered(running=False, pending=_A, now_s=second)
    assert not stillness.answered(running=True, pending=_A, now_s=5)
    assert not any(stillness.answered(running=False, pending=_A, now_s=second) for second in range(6, 11))
    assert stillness.answered(running=False, pending=_A, now_s=11)


def test_a_queue_that_moves_between_looks_is_alive() -> None:
    """Prompts too short to be seen running still leave the queue."""
    stillness = Stillness()
    for second in range(30):
        pending = frozenset(str(number) for number in range(second, 50))
        assert not stillness.answered(running=False, pending=pending, now_s=second)


def test_prompts_that_come_in_do_not_hide_a_dead_thread() -> None:
    """A queue that only grows is still."""
    stillness = Stillness()
    verdicts = [
        stillness.answered(running=False, pending=frozenset(str(n) for n in range(second + 1)), now_s=second)
        for second in range(6)
    ]
    assert verdicts[-1]


def test_time_without_answers_does_not_count() -> None:
    """A minute of silence between two looks proves nothing."""
    stillness = Stillness()
    assert not stillness.answered(running=False, pending=_A, now_s=0)
    stillness.unanswered()
    assert not stillness.answered(running=False, pending=_A, now_s=60)
    assert not stillness.answered(running=False, pending=_A, now_s=61)


def test_a_long_gap_counts_only_in_part() -> None:
    """Looks may be rare while nothing is followed; the time between them is mostly unknown."""
    stillness = Stillness()
    assert not stillness.answered(running=False, pending=_A, now_s=0)
    assert not stillness.answered(running=False, pending=_A, now_s=1000)
    assert not stillness.answered(running=False, pending=_A, now_s=2000)


def test_an_empty_queue_is_not_still() -> None:
    """Nothing to do is no sign of death."""
    stillness = Stillness()
    assert not any(stillness.answered(running=False, pending=frozenset(), now_s=second) for second in range(20))
