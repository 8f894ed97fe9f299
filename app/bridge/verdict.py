"""What an attempt means for its delivery: decided here, done elsewhere.

Used by deliver, outcome, post, app.tracing.webhooks; may import its folder alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from app.bridge.schedule import Schedule, retry_after_s

__all__ = ["Answer", "Verdict", "judge"]

GONE: Final = 410
# The receiver limits its callers: nothing else is sent to it before the time it names (RFC 6585, RFC 9110).
_LIMITING: Final = frozenset({429, 503})


@dataclass(frozen=True)
class Answer:
    """What came of one request.

    Attributes:
        status: HTTP status; None when no answer came.
        retry_after: The header of this name.
        trouble: Why no answer came, as a sentence.
        forbidden: The address may not be reached; trying again does not help.
        excerpt: The beginning of the answer's body, for the log.
        took_s: Until the answer began or the trouble was known.
    """

    status: int | None = None
    retry_after: str | None = None
    trouble: str = ""
    forbidden: bool = False
    excerpt: str = ""
    took_s: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What to do with the delivery.

    Attributes:
        kind: ``delivered``; ``retry``: again at ``due_s``; ``give_up``; ``gone``: and stop the endpoint.
        reason: A sentence, where it was not delivered.
        due_s: When the next attempt is due, seconds since 1970.
        hold_until_s: Nothing goes to this endpoint before; 0 for no such wish.
        asked: The receiver named the time.
        unreachable: There was no answer at all.
        code: Of the dead letter.
    """

    kind: Literal["delivered", "retry", "give_up", "gone"]
    reason: str = ""
    due_s: float = 0.0
    hold_until_s: float = 0.0
    asked: bool = False
    unreachable: bool = False
    code: str = ""


def judge(answer: Answer, attempts: int, age_s: float, schedule: Schedule, now_s: float) -> Verdict:
    """Decide on one attempt.

    Every answer but 2xx is a failure, redirects too: a receiver answers 4xx also for what passes, such as a deployment
    or a secret that was just exchanged.

    Args:
        answer: What came.
        attempts: Made so far, this one included.
        age_s: Of the delivery.
        schedule: When to try again.
        now_s: Seconds since 1970.
    """
    if answer.status is not None and 200 <= answer.status < 300:
        return Verdict("delivered")
    if answer.forbidden:
        return Verdict("give_up", answer.trouble, code="refused")
    if answer.status == GONE:
        return Verdict("gone", "the receiver answers 410: it wants no more webhooks at this URL", code="gone")
    reason = _reason(answer)
    if attempts >= schedule.total or age_s > schedule.patience_s:
        return Verdict("give_up", f"{reason}; given up after {attempts} attempts", code="exhausted")
    asked_s = retry_after_s(answer.retry_after, now_s)
    due_s = now_s + schedule.next_delay_s(attempts, asked_s)
    hold = now_s + asked_s if asked_s and answer.status in _LIMITING else 0.0
    return Verdict("retry", reason, due_s, hold_until_s=hold, asked=bool(asked_s), unreachable=answer.status is None)


def _reason(answer: Answer) -> str:
    if answer.status is None:
        return answer.trouble
    if 300 <= answer.status < 400:
        return f"the receiver answers {answer.status}: redirects are not followed, give its final URL"
    return f"the receiver answers {answer.status}"
