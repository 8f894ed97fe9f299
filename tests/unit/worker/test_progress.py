"""Progress: numbered, never falling, limited in rate; statuses and the last value always come through."""

from __future__ import annotations

from app.worker.progress import ProgressLimit
from schemas.events import Progress


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def at(value: float) -> Progress:
    return Progress(value=value, nodes_done=0, nodes_total=3)


def test_a_value_within_the_pause_waits_and_the_latest_wins() -> None:
    """Ten a second: one goes out at once, the next after 100 ms, with what came last."""
    clock = Clock()
    limit = ProgressLimit(10, clock)
    assert limit.change("running") == (0, "running", at(0).model_copy(update={"nodes_total": 0}))
    assert limit.value(at(0.1)) is None
    clock.now += 0.05
    assert limit.value(at(0.2)) is None
    assert limit.waits
    clock.now += 0.06
    assert limit.due() == (1, "running", at(0.2))
    assert not limit.waits
    assert limit.due() is None


def test_a_change_of_status_is_never_held_back_and_takes_the_last_value_along() -> None:
    """Even right after another message."""
    limit = ProgressLimit(10, Clock())
    limit.change("running")
    limit.value(at(1.0))
    assert limit.change("storing") == (1, "storing", at(1.0))


def test_values_never_fall() -> None:
    """What is behind is lifted to what was already shown."""
    clock = Clock()
    limit = ProgressLimit(10, clock)
    limit.change("running")
    clock.now += 1
    assert limit.value(at(0.6)) is not None
    clock.now += 1
    item = limit.value(at(0.3))
    assert item is not None
    assert item[2].value == 0.6


def test_no_second_has_more_than_the_rate() -> None:
    """A thousand values in ten seconds: at most ten in any second, numbered without gaps."""
    clock = Clock()
    limit = ProgressLimit(10, clock)
    limit.change("running")
    sent: list[tuple[float, int]] = []
    for step in range(1000):
        clock.now += 0.01
        if (item := limit.value(at(step / 1000))) is not None:
            sent.append((clock.now, item[0]))
    assert [number for _, number in sent] == list(range(1, len(sent) + 1))
    assert 95 <= len(sent) <= 101
    for moment, _ in sent:
        assert sum(1 for other, _ in sent if moment <= other < moment + 0.999) <= 10


def test_nothing_goes_out_before_the_first_status() -> None:
    """A value alone says nothing."""
    limit = ProgressLimit(10, Clock())
    assert limit.value(at(0.5)) is None
    assert limit.change("accepted") == (0, "accepted", at(0.5))
