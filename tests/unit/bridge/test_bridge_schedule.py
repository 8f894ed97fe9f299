"""When a delivery is tried again and when it is given up."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest

from app.bridge.schedule import JITTER, STANDARD_S, Schedule, retry_after_s
from app.bridge.verdict import Answer, judge
from app.settings.bridge_checks import schedule

NOW = 1_800_000_000.0


def test_the_standard_schedule() -> None:
    """Ten attempts over a little more than 75 hours, each delay with jitter around it."""
    standard = Schedule()
    assert standard.total == 10
    assert math.isclose(sum(STANDARD_S) / 3600, 75.6, abs_tol=0.1)
    for number, delay in enumerate(STANDARD_S, start=1):
        drawn = [standard.next_delay_s(number) for _ in range(200)]
        assert delay * (1 - JITTER) <= min(drawn) < delay < max(drawn) <= delay * (1 + JITTER)
        # No two alike: what failed together does not come back together.
        assert len(set(drawn)) > 190


def test_more_attempts_than_delays_repeat_the_last_delay() -> None:
    """PROMPT_WEBHOOK_RETRIES is the total; beyond the schedule its last delay serves."""
    longer = Schedule((1.0, 10.0), attempts=5)
    assert longer.total == 5
    assert 9 <= longer.next_delay_s(4) <= 11
    assert Schedule((1.0,), attempts=1).total == 1
    # Never beyond what the queue keeps.
    assert Schedule(attempts=1000).patience_s == 27 * 86400


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 5 ", 5),
        ("0", 0),
        ("999999999999999999999", 86400),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), 0),
        ("Sun, 99 Foo", None),
        ("soon", None),
        ("-5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds and dates are read, at most a day; anything else asks for nothing."""
    assert retry_after_s(value, NOW) == seconds


def decide(
    answer: Answer, attempts: int = 1, age_s: float = 0, table: Schedule | None = None
) -> tuple[str, str, float]:
    verdict = judge(answer, attempts, age_s, table or Schedule(), NOW)
    return verdict.kind, verdict.code, round(verdict.due_s - NOW if verdict.due_s else 0, 1)


def test_what_an_answer_means() -> None:
    """2xx is success, 410 the end of the endpoint, a forbidden address the end of the delivery, all else a failure."""
    for status in (200, 201, 204, 299):
        assert decide(Answer(status))[0] == "delivered"
    for status in (301, 302, 304, 307, 308, 400, 401, 404, 413, 422, 429, 500, 503):
        assert decide(Answer(status))[0] == "retry", status
    assert decide(Answer(410))[:2] == ("gone", "gone")
    assert decide(Answer(trouble="no", forbidden=True))[:2] == ("give_up", "refused")
    assert decide(Answer(trouble="nobody answers"))[0] == "retry"
    assert judge(Answer(trouble="nobody answers"), 1, 0, Schedule(), NOW).unreachable


def test_retry_after_is_never_shortened() -> None:
    """The next attempt comes no earlier than the receiver asked, and 429 and 503 hold up the whole endpoint."""
    late = judge(Answer(429, "600"), 1, 0, Schedule(), NOW)
    assert late.due_s == NOW + 600
    assert late.hold_until_s == NOW + 600
    assert late.asked
    # The schedule asks for more than the receiver.
    assert judge(Answer(503, "1"), 3, 0, Schedule(), NOW).due_s >= NOW + 1800 * 0.9
    assert judge(Answer(500, "600"), 1, 0, Schedule(), NOW).hold_until_s == 0
    assert judge(Answer(500), 1, 0, Schedule(), NOW).hold_until_s == 0


def test_the_end_of_the_schedule() -> None:
    """The last attempt ends in the dead letter, and so does any that fails when the delivery is far too old."""
    assert decide(Answer(500), attempts=9)[0] == "retry"
    assert decide(Answer(500), attempts=10)[:2] == ("give_up", "exhausted")
    assert decide(Answer(500), attempts=2, table=Schedule(attempts=2))[0] == "give_up"
    assert decide(Answer(500), attempts=2, age_s=Schedule().patience_s - 1)[0] == "retry"
    assert decide(Answer(500), attempts=2, age_s=Schedule().patience_s + 1)[:2] == ("give_up", "exhausted")
    assert decide(Answer(200), attempts=10, age_s=10**9)[0] == "delivered"


def test_the_setting_of_the_schedule() -> None:
    """Delays are read with units; what is none is named."""
    assert schedule("5s, 5m,2h , 1d,0.5") == (5.0, 300.0, 7200.0, 86400.0, 0.5)
    assert schedule("") == ()
    for wrong in ("5x", "-1s", "8d", "s", "1e3"):
        with pytest.raises(ValueError, match="is no delay"):
            schedule(wrong)
